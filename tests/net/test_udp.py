"""The udp layer on real sockets: what arrives, what is counted, and that no failure of one message harms the others."""

import os
import socket
import sys

import pytest

from interpeer._core.udp import WORDS
from interpeer._core.udpsocket import UdpSocket

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="uses options of Linux")
HOSTS = ["127.0.0.1", "::1"]
IP_RECVERR, IPV6_RECVERR, IP_RECVTTL = 11, 25, 12
SO_NO_CHECK, UDP_NO_CHECK6_TX, UDP_NO_CHECK6_RX, SO_TIMESTAMPNS = 11, 101, 102, 35


def has_ipv6() -> bool:
    try:
        UdpSocket("::1").close()
    except OSError:
        return False
    return True


@pytest.fixture(params=HOSTS)
def host(request):
    if request.param == "::1" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    return request.param


@pytest.fixture
def sockets():
    """Open sockets that are closed when the test is over."""
    opened = []

    def open_one(*args, **options):
        opened.append(UdpSocket(*args, **options))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


def numbered(count: int, size: int) -> list[bytes]:
    return [i.to_bytes(4, "big") * (size // 4) for i in range(count)]


def receive(receiver: UdpSocket, packets: int) -> list[tuple]:
    """Wait for so many packets; return the messages that brought them."""
    messages: list[tuple] = []
    while sum(len(cut(m)) for m in messages) < packets:
        assert receiver.wait(), f"only {messages!r:.200} came of {packets} packets"
        messages += receiver.receive()
    return messages


def cut(message: tuple) -> list[bytes]:
    """Return the packets of a message."""
    data, segment = message[0], message[2]
    return [data[i : i + segment] for i in range(0, len(data), segment)] if data else [b""]


def packets_of(messages: list[tuple]) -> list[bytes]:
    return [packet for message in messages for packet in cut(message)]


def option(of: UdpSocket, level: int, name: int, value: int) -> None:
    with socket.socket(fileno=os.dup(of.fileno())) as same:
        same.setsockopt(level, name, value)


def refuse_gso(of: UdpSocket, is_on: bool) -> None:
    """Make the kernel refuse super-datagrams of this socket: it cuts none whose checksum is switched off."""
    if ":" in of.address[0]:
        option(of, socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, is_on)
    else:
        option(of, socket.SOL_SOCKET, SO_NO_CHECK, is_on)


def closed_address(sockets, host: str) -> tuple:
    closed = sockets(host)
    address = closed.address
    closed.close()
    return address


# ------------------------------------------------------------------------------------------------------ data


def test_messages_arrive_with_their_data_and_addresses(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    assert sender.send([(b"one", receiver.address), (b"two", receiver.address)]) == 0
    messages = receive(receiver, 2)
    assert [m[0] for m in messages] == [b"one", b"two"]
    assert {m[1] for m in messages} == {sender.address}
    assert receiver.receive() == []
    assert sender.counters()["sent_packets"] == receiver.counters()["received_packets"] == 2
    assert sender.counters()["sent_bytes"] == receiver.counters()["received_bytes"] == 6


@pytest.mark.row("P7")
@pytest.mark.parametrize("last", [1, 7, 1199, 1200])
def test_super_datagram_arrives_as_its_segments_and_an_odd_last_one(sockets, host, last):
    sender, receiver = sockets(host), sockets(host)
    sent = [*numbered(20, 1200), b"z" * last]
    sender.send([(b"".join(sent), receiver.address, 1200)])
    messages = receive(receiver, 21)
    assert packets_of(messages) == sent
    assert sender.counters()["sent_packets"] == receiver.counters()["received_packets"] == 21
    if "gso" in sender.can:
        assert sender.counters()["sent_messages"] == 1
    if {"gso", "gro"} <= sender.can & receiver.can:
        assert len(messages) == 1 and messages[0][2] == 1200


@pytest.mark.parametrize("size", [24, 1200, *(pytest.param(n, marks=linux_only) for n in (20_000, 32_756, 40_000))])
def test_entry_larger_than_one_message_is_sent_in_several(sockets, host, size):
    sender, receiver = sockets(host), sockets(host)
    sent = numbered(240_000 // size if size > 24 else 500, size)
    sender.send([(b"".join(sent), receiver.address, size)])
    assert packets_of(receive(receiver, len(sent))) == sent
    if "gso" in sender.can:
        assert sender.counters()["sent_messages"] == -(-len(sent) // min(64, 65_507 // size))
        assert sender.counters()["gso_refused"] == 0


@pytest.mark.row("P7")
def test_empty_datagram_arrives_between_others(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    sender.send([(b"before", receiver.address), (b"", receiver.address), (b"after", receiver.address)])
    assert [(m[0], m[2]) for m in receive(receiver, 3)] == [(b"before", 6), (b"", 0), (b"after", 5)]
    assert receiver.counters()["received_packets"] == 3


@linux_only
@pytest.mark.row("P7")
def test_largest_datagram_arrives_and_a_larger_one_is_counted(sockets):
    sender, receiver = sockets(), sockets()
    largest = numbered(1, 65_504)[0] + b"end"
    sender.send([(largest + b"!", receiver.address), (largest, receiver.address), (b"after", receiver.address)])
    assert [m[0] for m in receive(receiver, 2)] == [largest, b"after"]
    assert sender.counters()["too_big"] == 1


def test_more_messages_than_slots_come_in_several_batches(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    sent = numbered(60, 100)
    sender.send([(data, receiver.address) for data in sent])
    assert receiver.wait()
    first = receiver.receive()
    assert len(first) == 16
    assert packets_of(first + receive(receiver, 44)) == sent


def test_many_destinations_are_served_by_one_batch(sockets, host):
    sender, receivers = sockets(host), [sockets(host) for _ in range(20)]
    sender.send([(str(i).encode(), receivers[i].address) for i in range(20)])
    assert [receive(receivers[i], 1)[0][0] for i in range(20)] == [str(i).encode() for i in range(20)]


def test_batch_without_room_is_refused_whole(sockets):
    sender = sockets()
    with pytest.raises(ValueError, match="at most 64 messages"):
        sender.send([(b"", sender.address)] * 65)
    with pytest.raises(ValueError, match="262144 bytes"):
        sender.send([(bytes(60_000), sender.address)] * 5)
    with pytest.raises(ValueError, match="262144 bytes"):  # although it has fewer items
        sender.send([(memoryview(bytes(400_000)).cast("Q"), sender.address)])
    with pytest.raises(ValueError, match="nowhere"):
        sender.send([(b"good", sender.address), (b"bad", ("nowhere", 1))])
    assert sender.flush() == sender.counters()["sent_calls"] == 0


# ------------------------------------------------------------------------------------------- marks and sources


def test_ecn_marks_are_carried_one_by_one(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    sender.send([(bytes([mark]), receiver.address, 0, mark) for mark in (0, 1, 2, 3, 0)])
    assert [(m[0][0], m[3]) for m in receive(receiver, 5)] == [(0, 0), (1, 1), (2, 2), (3, 3), (0, 0)]


@linux_only
@pytest.mark.parametrize("disable", ["", "ttl", "mmsg", "mmsg,ttl", "recvmsg"])
def test_time_to_live_is_one_datagrams_own_and_never_anothers(sockets, host, disable):
    sender = sockets(host, disable=disable)
    is_ipv6 = ":" in host
    level, told, hops = (
        (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, socket.IPV6_UNICAST_HOPS)
        if is_ipv6
        else (socket.IPPROTO_IP, IP_RECVTTL, socket.IP_TTL)
    )
    with socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind((host, 0))
        receiver.settimeout(10)
        receiver.setsockopt(level, told, 1)
        at = receiver.getsockname()[:2]
        plain = receiver.getsockopt(level, hops)
        wanted = [0, 5, 0, 0, 255, 1, 0]
        sender.send([(b"%d" % i, at, 0, 0, None, 0, ttl) for i, ttl in enumerate(wanted)])
        came = [receiver.recvmsg(100, 100) for _ in wanted]
    lives = [int.from_bytes(ancillary[0][2], sys.byteorder) for _, ancillary, _, _ in came]
    assert [data for data, *_ in came] == [b"%d" % i for i in range(len(wanted))]
    assert lives == [ttl or plain for ttl in wanted]
    assert sender.counters()["without_ttl"] == (0 if "ttl" in sender.can else 3)
    assert ("ttl" in sender.can) == (disable in ("", "mmsg"))


def test_ecn_mark_of_a_super_datagram_is_on_all_its_segments(sockets, host):
    sender, receiver = sockets(host), sockets(host, disable="gro")
    sender.send([(bytes(5000), receiver.address, 1000, 2)])
    assert [m[3] for m in receive(receiver, 5)] == [2] * 5


@linux_only
def test_local_address_is_told_and_an_answer_leaves_from_it(sockets):
    client, server = sockets("127.0.0.1"), sockets("0.0.0.0")
    client.send([(b"to 5", ("127.0.0.5", server.address[1]))])
    request = receive(server, 1)[0]
    assert request[4] == "127.0.0.5" and request[5] == socket.if_nametoindex("lo")
    server.send([(b"from 5", request[1], 0, 0, request[4])])
    assert receive(client, 1)[0][1] == ("127.0.0.5", server.address[1])


def test_local_address_of_a_wildcard_socket_is_told(sockets, host):
    client, server = sockets(host), sockets("::" if ":" in host else "0.0.0.0")
    client.send([(b"x", (host, server.address[1]))])
    request = receive(server, 1)[0]
    assert request[4] == host and request[5] > 0
    server.send([(b"y", request[1], 0, 0, request[4], request[5])])
    assert receive(client, 1)[0][1] == (host, server.address[1])


# -------------------------------------------------------------------------------------------------- failures


@pytest.mark.row("M3", "N12")
def test_failing_entries_are_counted_and_the_others_arrive(sockets):
    sender, receiver = sockets(), sockets()
    port = receiver.address[1]
    sender.send(
        [
            (b"first", receiver.address),
            (bytes(65_508), receiver.address),
            (b"second", receiver.address),
            (b"no broadcast", ("255.255.255.255", port)),
            (b"wrong family", ("::1", port)),
            (b"no port", ("127.0.0.1", 0)),
            (b"third", receiver.address),
            (b"fourth", receiver.address, 0, 0, "192.0.2.1"),  # not our address: it leaves from another
        ]
    )
    assert [m[0] for m in receive(receiver, 4)] == [b"first", b"second", b"third", b"fourth"]
    counters = sender.counters()
    assert (counters["too_big"], counters["forbidden"], counters["unreachable"], counters["source_gone"]) == (1, 1, 1, 1)
    assert counters["other_errors"] == 1
    assert sender.last_error != 0


@pytest.mark.row("N12")
def test_ipv4_mapped_address_is_not_for_an_ipv6_socket(sockets):
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    sender, receiver = sockets("::1"), sockets("::1")
    sender.send([(b"mapped", ("::ffff:127.0.0.1", receiver.address[1])), (b"after", receiver.address)])
    assert receive(receiver, 1)[0][0] == b"after"
    assert sender.counters()["unreachable"] == 1


@pytest.mark.row("N12")
def test_ipv6_socket_leaves_ipv4_to_another(sockets):
    if not has_ipv6():
        pytest.skip("this machine has no IPv6")
    port = sockets("::").address[1]
    assert sockets("0.0.0.0", port).address == ("0.0.0.0", port)


@pytest.mark.row("N12")
def test_closed_port_is_no_failure(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    closed = closed_address(sockets, host)
    for _ in range(3):
        sender.send([(b"nobody", closed), (b"somebody", receiver.address)])
    assert [m[0] for m in receive(receiver, 3)] == [b"somebody"] * 3
    assert sender.receive() == []


@linux_only
@pytest.mark.row("N12")
def test_refusal_told_for_an_earlier_datagram_costs_no_later_one(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    level, name = (socket.IPPROTO_IPV6, IPV6_RECVERR) if ":" in host else (socket.IPPROTO_IP, IP_RECVERR)
    option(sender, level, name, 1)  # now the kernel tells what ICMP brought
    closed = closed_address(sockets, host)
    for _ in range(3):
        sender.send([(b"nobody", closed)])
        sender.send([(b"somebody", receiver.address)])
    assert [m[0] for m in receive(receiver, 3)] == [b"somebody"] * 3
    assert sender.counters()["late_errors"] >= 3
    sender.send([(b"nobody", closed)])
    assert sender.receive() == []
    receiver.send([(b"answer", sender.address)])
    assert receive(sender, 1)[0][0] == b"answer"


@linux_only
@pytest.mark.row("M3")
def test_datagrams_lost_to_a_full_receive_buffer_are_counted(sockets):
    sender, receiver = sockets(disable="gso"), sockets()
    option(receiver, socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for _ in range(4):
        assert sender.send([(bytes(1000), receiver.address)] * 50) == 0
    lost = 200
    while messages := receiver.receive():
        lost -= len(messages)
    assert lost > 0 and receiver.counters()["overflowed"] == 0
    sender.send([(b"next", receiver.address)])  # the kernel tells with the next datagram it could keep
    assert receive(receiver, 1)[0][0] == b"next"
    assert receiver.counters()["overflowed"] == lost


@linux_only
@pytest.mark.row("P7")
def test_message_whose_control_data_are_cut_is_dropped_alone(sockets):
    sender, receiver = sockets(), sockets()
    option(receiver, socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)  # with the time and the TTL, only the segment size has no more room
    option(receiver, socket.IPPROTO_IP, IP_RECVTTL, 1)
    together = (bytes(2400), receiver.address, 1200)
    sender.send([together, (b"one", receiver.address), together, (b"two", receiver.address), (b"three", receiver.address)])
    assert [m[0] for m in receive(receiver, 3)] == [b"one", b"two", b"three"]
    assert receiver.counters()["cut"] == 2
    sender.send([(str(i).encode(), receiver.address) for i in range(16)])
    assert [m[0] for m in receive(receiver, 16)] == [str(i).encode() for i in range(16)]


@pytest.mark.row("M3")
def test_failure_to_open_says_what_and_why(sockets):
    taken = sockets()
    with pytest.raises(OSError, match=f"127.0.0.1 port {taken.address[1]}.*in use"):
        UdpSocket(*taken.address)
    with pytest.raises(OSError, match="192.0.2.1"):
        UdpSocket("192.0.2.1")
    with pytest.raises(ValueError, match="localhost"):
        UdpSocket("localhost")


@linux_only
@pytest.mark.row("M3")
def test_no_descriptors_left_is_an_error_that_passes(sockets):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            UdpSocket()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert sockets().fileno() >= 0


# ------------------------------------------------------------------------------------------------- fallbacks

COUNTED_BY_BOTH = {"mmsg": "without_mmsg", "bigbuf": "small_buffers", "recvmsg": "without_control"}
COUNTED_BY_SENDER = COUNTED_BY_BOTH | {"gso": "without_gso", "ecn": "without_ecn", "pktinfo": "without_pktinfo"}
COUNTED_BY_RECEIVER = COUNTED_BY_BOTH | {"gro": "without_gro"}


@pytest.mark.parametrize("words", [*WORDS, "gso,gro,mmsg", ",".join(WORDS)])
def test_disabled_ability_is_replaced_and_its_replacement_counted(sockets, host, words):
    sender, receiver = sockets(host, disable=words), sockets(host, disable=words)
    disabled = set(words.split(","))
    assert not sender.can & disabled and not receiver.can & disabled
    sent = [*numbered(20, 1200), b"tail"]
    assert sender.send([(b"".join(sent), receiver.address, 1200, 2, host), (b"single", receiver.address)]) == 0
    messages = receive(receiver, 22)
    assert packets_of(messages) == [*sent, b"single"]
    assert {m[1] for m in messages} == {sender.address}
    assert {m[3] for m in messages[:1]} == {2 if "ecn" in sender.can & receiver.can else 0}
    assert messages[0][4] == (host if "pktinfo" in receiver.can else "::")
    for of, names in ((sender, COUNTED_BY_SENDER), (receiver, COUNTED_BY_RECEIVER)):
        uses = {word: of.counters()[names[word]] for word in disabled & names.keys()}
        assert all(uses.values()), uses


@linux_only
def test_nothing_falls_back_where_everything_is_offered(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    sender.send([(bytes(24_000), receiver.address, 1200, 2, host)])
    receive(receiver, 20)
    used = {name for counters in (sender.counters(), receiver.counters()) for name, count in counters.items() if count}
    assert not {name for name in used if name.startswith(("without", "gso_refused"))}


@linux_only
@pytest.mark.row("M3")
def test_refused_super_datagram_leaves_at_once_in_segments(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    sent = [*numbered(30, 1200), b"odd"]
    refuse_gso(sender, True)
    if ":" in host:
        option(receiver, socket.IPPROTO_UDP, UDP_NO_CHECK6_RX, 1)
    sender.send([(b"".join(sent), receiver.address, 1200), (b"next", receiver.address)])
    assert packets_of(receive(receiver, 32)) == [*sent, b"next"]
    assert sender.counters()["gso_refused"] == 1
    assert sender.counters()["without_gso"] == 30


@linux_only
def test_refusal_of_super_datagrams_is_remembered_for_its_destination_alone(sockets):
    sender, receiver, other = sockets("0.0.0.0"), sockets("127.0.0.1"), sockets("127.0.0.2")
    big = (bytes(12_000), receiver.address, 1200)
    refuse_gso(sender, True)
    sender.send([big])
    refuse_gso(sender, False)
    sender.send([big, (bytes(12_000), other.address, 1200)])
    receive(receiver, 20)
    receive(other, 10)
    assert sender.counters()["gso_refused"] == 1
    assert sender.counters()["sent_messages"] == 10 + 10 + 1


@linux_only
def test_oldest_refusal_is_forgotten_first(sockets):
    sender, receivers = sockets("0.0.0.0"), [sockets(f"127.0.0.{i}") for i in range(1, 18)]
    refuse_gso(sender, True)
    for receiver in receivers:
        sender.send([(bytes(2400), receiver.address, 1200)])
    refuse_gso(sender, False)
    before = sender.counters()["sent_messages"]
    sender.send([(bytes(2400), receiver.address, 1200) for receiver in receivers])
    assert sender.counters()["gso_refused"] == 17
    assert sender.counters()["sent_messages"] - before == 1 + 2 * 16


@pytest.mark.row("N12")
def test_what_should_leave_from_an_address_that_is_gone_leaves_from_another(sockets, host):
    sender, receiver = sockets(host), sockets(host)
    foreign = "2001:db8::1" if ":" in host else "192.0.2.1"
    sender.send([(b"moved", receiver.address, 0, 0, foreign), (b"after", receiver.address)])
    assert [m[0] for m in receive(receiver, 2)] == [b"moved", b"after"]
    assert (sender.counters()["source_gone"], sender.counters()["unreachable"]) == (1, 0)


@linux_only
def test_entry_that_fails_whole_and_in_segments_is_not_held_against_gso(sockets):
    sender, receiver = sockets(), sockets()
    refuse_gso(sender, True)
    sender.send([(bytes(6000), receiver.address, 1200, 0, "192.0.2.1"), (b"after", receiver.address)])
    assert [m[0] for m in receive(receiver, 6)] == [bytes(1200)] * 5 + [b"after"]
    assert (sender.counters()["source_gone"], sender.counters()["unreachable"]) == (1, 0)
    assert sender.counters()["gso_refused"] == 1  # of the second message, whose source is the system's choice


# --------------------------------------------------------------------------------------------------- lifetime


def test_adopted_socket_works_and_stays_its_owners(sockets, host):
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as owner:
        owner.bind((host, 0))
        owner.setblocking(False)
        adopted, peer = sockets(fd=owner.fileno(), disable="gro"), sockets(host)
        assert adopted.address == owner.getsockname()[:2]
        adopted.send([(bytes(3000), peer.address, 1000)])
        assert len(packets_of(receive(peer, 3))) == 3
        peer.send([(b"back", adopted.address)])
        assert receive(adopted, 1)[0][0] == b"back"
        adopted.close()
        assert owner.getsockname()[0] == host


@linux_only
def test_connected_socket_told_of_a_refusal_goes_on(sockets):
    closed = closed_address(sockets, "127.0.0.1")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.connect(closed)
        owner.setblocking(False)
        adopted = sockets(fd=owner.fileno())
        adopted.send([(b"nobody", closed)])
        assert adopted.receive() == []
        adopted.send([(b"nobody", closed), (b"nobody", closed), (b"nobody", closed)])
        assert adopted.receive() == []
        assert adopted.counters()["late_errors"] >= 2


def test_what_is_no_udp_socket_is_not_adopted():
    with pytest.raises(OSError, match="file descriptor -1"):
        UdpSocket(fd=-1)
    if hasattr(socket, "AF_UNIX"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other, pytest.raises(OSError, match="not supported"):
            UdpSocket(fd=other.fileno())


def test_descriptor_neither_blocks_nor_is_inherited(sockets):
    one = sockets()
    assert not os.get_inheritable(one.fileno())
    assert not os.get_blocking(one.fileno())


def test_closed_socket_says_so_and_closing_again_is_harmless(sockets):
    one = sockets()
    one.close()
    one.close()
    assert one.fileno() == -1
    for use in (one.receive, one.flush, lambda: one.address, lambda: one.send([]), one.wait):
        with pytest.raises(ValueError, match="closed"):
            use()


def test_descriptor_that_went_away_is_an_error(sockets):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as owner:
        owner.bind(("127.0.0.1", 0))
        address = owner.getsockname()
        adopted = sockets(fd=owner.fileno())
    with pytest.raises(OSError, match="[Bb]ad file descriptor|not a socket"):
        adopted.receive()
    with pytest.raises(OSError, match="[Bb]ad file descriptor|not a socket"):
        adopted.send([(b"x", address)])
