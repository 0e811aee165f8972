"""The link between real processes does what it is told, each way for itself, and what comes through it is what was sent."""

import contextlib
import errno
import itertools
import socket
import struct
import sys
import time

import pytest

from interpeer.testing import Link

if not sys.platform.startswith("linux"):
    pytest.skip("the link is made of Linux's timers and batches", allow_module_level=True)

from interpeer.testing.natlab._wire import compiler
from tests.net.udplink import UdpLink

if compiler() is None:
    pytest.skip("the link is written in C, and there is no compiler", allow_module_level=True)

UDP_SEGMENT = 103
PATIENCE_S = 30
HOSTS = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def open_socket(family=socket.AF_INET):
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.settimeout(PATIENCE_S)
    sock.bind((HOSTS[family], 0))
    return sock


class Probe:
    """A link, a socket that dials it and a socket that is its target."""

    def __init__(self, stack, up=None, down=None, *, family=socket.AF_INET, **options):
        self.near, self.far = stack.enter_context(open_socket(family)), stack.enter_context(open_socket(family))
        self.link = stack.enter_context(UdpLink(self.far.getsockname()[:2], up, down, **options))
        self.address = self.link.host, self.link.port

    def send(self, *messages):
        for message in messages:
            self.near.sendto(message, self.address)

    def settle(self, packets, side="up"):
        """Wait until so many packets have come to the link and none of them is on its way; return its counters."""
        while True:
            stats = self.link.stats()
            if stats[side]["packets"] >= packets and not stats["held"]:
                return stats[side]

    def received(self):
        """Return what waits at the target."""
        self.far.setblocking(False)
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self.far.recv(65536))
        self.far.settimeout(PATIENCE_S)
        return found


@pytest.fixture
def probe():
    with contextlib.ExitStack() as stack:
        yield lambda *links, **options: Probe(stack, *links, **options)


@pytest.mark.parametrize("family", HOSTS)
def test_packets_go_there_and_answers_come_back(probe, family):
    try:
        p = probe(family=family)
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            pytest.skip("this machine has no such loopback")
        raise
    p.send(b"one", b"", b"three")
    for expected in (b"one", b"", b"three"):
        data, source = p.far.recvfrom(100)
        assert data == expected
        assert source[1] != p.near.getsockname()[1]
        p.far.sendto(data + b"!", source)
        assert p.near.recvfrom(100)[0] == expected + b"!"
    stats = p.link.stats()
    headers = 28 if family == socket.AF_INET else 48
    assert stats["up"]["bytes"] == stats["up"]["delivered_bytes"] == 8 + 3 * headers
    assert stats["down"]["delivered_packets"] == 3
    assert stats["flows"] == 1


def test_sources_are_kept_apart(probe):
    p = probe()
    with open_socket() as other:
        p.send(b"near")
        other.sendto(b"other", p.address)
        for _ in range(2):
            data, source = p.far.recvfrom(100)
            p.far.sendto(data, source)
        assert p.near.recv(100) == b"near"
        assert other.recv(100) == b"other"
    assert p.link.stats()["flows"] == 2


def test_several_targets_share_the_two_directions(probe):
    with open_socket() as other:
        p = probe(Link(rate_bit_per_s=1e5, queue_packets=5), also=[other.getsockname()])
        p.send(b"first")
        p.near.sendto(b"second", (p.link.host, p.link.ports[1]))
        assert p.far.recv(100) == b"first"
        data, source = other.recvfrom(100)
        assert data == b"second"
        other.sendto(b"answer", source)
        assert p.near.recvfrom(100) == (b"answer", (p.link.host, p.link.ports[1]))
        assert p.link.stats()["up"]["packets"] == 2


def test_packets_may_be_lost_by_their_number(probe):
    p = probe()
    p.link.drop("up", 2, 3)
    p.send(b"1", b"2", b"3", b"4")
    assert p.settle(4)["lost"] == 2
    assert p.received() == [b"1", b"4"]


def test_nothing_arrives_before_its_delay_and_each_way_has_its_own(probe):
    p = probe(Link(delay_s=0.05), Link(delay_s=0.02))
    start = time.monotonic()
    p.send(b"there")
    _data, source = p.far.recvfrom(100)
    there = time.monotonic()
    p.far.sendto(b"back", source)
    p.near.recv(100)
    assert there - start >= 0.05
    assert time.monotonic() - there >= 0.02


def test_the_share_that_is_said_is_lost_and_the_seed_decides_which(probe):
    def arrived(seed):
        p = probe(Link(loss=0.2), seed=seed)
        p.send(*(number.to_bytes(2, "big") for number in range(200)))
        stats = p.settle(200)
        found = p.received()
        assert stats["lost"] == 200 - len(found) == pytest.approx(40, abs=25)
        return found

    assert arrived(1) == arrived(1) != arrived(2)


def test_runs_of_losses_end_at_their_limit(probe):
    p = probe(Link(loss=0.8, loss_run_limit=3))
    p.send(*(number.to_bytes(2, "big") for number in range(200)))
    p.settle(200)
    numbers = [int.from_bytes(data, "big") for data in p.received()]
    assert max(after - before for before, after in itertools.pairwise(numbers)) == 4


def test_a_queue_that_is_full_drops_the_last_ones(probe):
    p = probe(Link(rate_bit_per_s=1e3, queue_packets=5))  # ten seconds each: all of them come while the first is on its way
    p.send(*[bytes(1222)] * 20)
    while (stats := p.link.stats())["up"]["packets"] < 20:
        pass
    assert stats["up"]["queue_full"] == 14
    assert stats["held"] == 6
    assert stats["up"]["max_queue_bytes"] == 5 * 1250


def test_a_policer_drops_at_once(probe):
    p = probe(Link(policer_bit_per_s=1000, policer_burst_bytes=5000))
    p.send(*[bytes(972)] * 20)
    assert p.settle(20)["policed"] == 15


def test_packets_behind_the_mark_are_marked_and_other_marks_are_kept(probe):
    p = probe(Link(rate_bit_per_s=3e4, ecn_mark_bytes=1500))
    p.far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)

    def ecn():
        _data, ancillary, *_ = p.far.recvmsg(2000, 100)
        return ancillary[0][2][0]

    for mark in (0, 1, 2, 3):
        p.near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, mark)
        p.send(b"quiet")
        assert ecn() == mark
    p.near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
    p.send(*[bytes(1000)] * 5)
    assert [ecn() for _ in range(5)] == [2, 2, 2, 3, 3]
    assert p.settle(9)["marked"] == 2


def test_segments_of_one_call_are_taken_apart(probe):
    p = probe(Link(delay_s=0.001))
    try:
        p.near.setsockopt(socket.SOL_UDP if hasattr(socket, "SOL_UDP") else 17, UDP_SEGMENT, 1000)
    except OSError:
        pytest.skip("this kernel cannot segment UDP")
    data = b"".join(struct.pack("!H", number) * 500 for number in range(5)) + b"end"
    p.send(data)
    assert p.settle(6)["delivered_packets"] == 6
    assert b"".join(p.received()) == data
    assert p.link.stats()["up"]["bytes"] == len(data) + 6 * 28


def test_late_packets_are_overtaken_and_jitter_overtakes_nobody(probe):
    p = probe(Link(reorder=0.1, reorder_s=0.2))
    p.send(*(number.to_bytes(2, "big") for number in range(200)))
    stats = p.settle(200)
    numbers = [int.from_bytes(data, "big") for data in p.received()]
    assert sorted(numbers) == list(range(200)) != numbers
    assert stats["late"] > 5
    p.link.set(Link(jitter_s=0.01))
    p.send(*(number.to_bytes(2, "big") for number in range(200)))
    p.settle(400)
    assert [int.from_bytes(data, "big") for data in p.received()] == list(range(200))


def test_duplicates_and_flipped_bits(probe):
    p = probe(Link(duplicate=1.0))
    p.send(b"twice")
    p.settle(1)
    assert p.received() == [b"twice"] * 2
    p.link.set(duplicate=0, corrupt=1.0)
    p.send(bytes(100))
    stats = p.settle(2)
    (data,) = p.received()
    assert 1 <= int.from_bytes(data, "big").bit_count() <= 3
    assert stats["corrupted"] == 1


def test_too_large_down_and_bleached(probe):
    p = probe(Link(mtu_bytes=1028))
    p.send(bytes(1000), bytes(1001))
    assert p.settle(2)["too_large"] == 1
    p.link.set(is_up=False, side="up")
    p.send(b"dark")
    assert p.settle(3)["down"] == 1
    p.link.set(is_up=True, bleaches_ecn=True)
    p.received()
    p.near.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 2)
    p.far.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    p.send(b"light")
    assert p.far.recvmsg(2000, 100)[1][0][2][0] == 0


@pytest.mark.parametrize("is_address", [False, True])
def test_after_a_rebinding_packets_come_from_elsewhere_and_the_old_place_is_silent(probe, is_address):
    p = probe()
    p.send(b"before")
    _data, before = p.far.recvfrom(100)
    p.link.rebind(address=is_address)
    while not p.link.stats()["rebinds"]:
        pass
    p.far.sendto(b"lost", before)
    p.send(b"after")
    data, after = p.far.recvfrom(100)
    assert data == b"after"
    assert after[1] != before[1]
    assert (after[0] != before[0]) == is_address
    p.far.sendto(b"answer", after)
    assert p.near.recv(100) == b"answer"
    assert p.link.stats()["down"]["packets"] == 1


def test_plans_are_carried_out_again_and_again_until_they_are_forgotten(probe):
    p = probe()
    p.send(b"hello")
    p.link.rebind(after_s=0.001, every_s=0.005)
    while p.link.stats()["rebinds"] < 5:
        pass
    p.link.clear()
    p.link.schedule([(0.001, {"is_up": False})])
    packets = 1
    while not p.link.stats()["up"]["down"]:
        p.send(b"is it dark?")
        packets += 1
    assert p.settle(packets)["packets"] == packets
    assert p.link.stats()["rebinds"] >= 5


def test_what_the_link_cannot_do_is_refused(probe):
    with pytest.raises(ValueError, match="no CoDel"):
        probe(Link(codel_target_s=0.005))
    p = probe()
    with pytest.raises(ValueError, match="no such setting"):
        p.link._ask("set up speed=3")
    with pytest.raises(ValueError, match="no such command"):
        p.link._ask("fly")
    with pytest.raises(TypeError):
        p.link.set(speed=3)


def test_more_than_a_source_has_sent_before_it_was_proven_is_noticed(probe):
    p = probe()
    p.send(b"\x41" + bytes(99))
    _data, source = p.far.recvfrom(200)
    p.far.sendto(bytes(100), source)
    p.near.recv(200)
    assert p.link.stats()["unproven_excess_bytes"] == 0
    p.far.sendto(bytes(7), source)
    p.near.recv(200)
    assert p.link.stats()["unproven_excess_bytes"] == 7
    p.send(b"\x80")
    p.far.recv(200)
    p.far.sendto(bytes(1000), source)
    p.near.recv(2000)
    assert p.link.stats()["unproven_excess_bytes"] == 7
