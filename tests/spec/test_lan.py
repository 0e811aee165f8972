"""Chapter 27 of the specification: neighbours on the local network, and moving to another one. One chapter, one file."""

import asyncio
import hashlib
import ipaddress
import itertools
import struct
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import pytest
import zeroconf.asyncio
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from interpeer import Endpoint, Identity, PeerId
from interpeer._core import path_handle
from interpeer._interfaces import Change, Interface, InterfaceAddress
from interpeer._interfaces._candidates import host_candidates
from interpeer._lan import LanDiscovery, discovery
from interpeer._lan.links import Source
from interpeer._lan.mdns import SERVICE, Mdns, NameTaken
from interpeer.testing import SimNet, run
from tests.spec import reference as ref
from tests.spec.paths import accepted, calling, challenge_in, paths
from tests.spec.peer import ELSEWHERE, MS, SECOND

HELLO, ANSWER, RECORD = 1, 2, 3
NODE, PEER = (Identity.from_seed(bytes([i]) * 32).id for i in (1, 2))
RUN = b"peer's 8"
NEAR = Source("10.0.0.9", 999, None)


def subkey(key: bytes, nonce: bytes) -> bytes:
    """Return HChaCha20 (draft-irtf-cfrg-xchacha, 2.2), which `cryptography` does not offer."""
    state = list(struct.unpack("<16I", b"expand 32-byte k" + key + nonce))

    def rotate(value: int, bits: int) -> int:
        return (value << bits | value >> 32 - bits) & 0xFFFFFFFF

    def quarter(a: int, b: int, c: int, d: int) -> None:
        for bits_d, bits_b in ((16, 12), (8, 7)):
            state[a] = (state[a] + state[b]) & 0xFFFFFFFF
            state[d] = rotate(state[d] ^ state[a], bits_d)
            state[c] = (state[c] + state[d]) & 0xFFFFFFFF
            state[b] = rotate(state[b] ^ state[c], bits_b)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *state[:4], *state[12:])


class Writer:
    """Write and read beacons of a network as the chapter says, with another library."""

    def __init__(self, network: str = "ours") -> None:
        self.key = hashlib.blake2b(network.encode(), digest_size=32, person=b"interpeer lan").digest()
        self.count = 0

    def write(self, kind: int = HELLO, peer: bytes | PeerId = PEER, ports=(4000, 6000), *, run=RUN, echo=bytes(8), head=b"L\1"):
        self.count += 1
        nonce = self.count.to_bytes(24, "little")
        body = struct.pack("!B32sHH8s8s11s", kind, bytes(peer), *ports, run, echo, b"ignored....")
        sealed = ChaCha20Poly1305(subkey(self.key, nonce[:16])).encrypt(bytes(4) + nonce[16:], body, head)
        return head + nonce + sealed

    def read(self, data: bytes) -> tuple[Any, ...]:
        assert len(data) == 106 and data[:2] == b"L\1"
        nonce = data[2:26]
        body = ChaCha20Poly1305(subkey(self.key, nonce[:16])).decrypt(bytes(4) + nonce[16:], data[26:], data[:2])
        return struct.unpack("!B32sHH8s8s11x", body)


class FakeLinks:
    """Take what a node says; there is nobody else."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_datagram: Callable[..., None]) -> None:
        self.hear = on_datagram
        self.loop = loop
        self.said: list[tuple[float, bytes]] = []
        self.answered: list[tuple[bytes, Source]] = []
        self.failed = 0

    async def open(self, interfaces: Any) -> None:
        self.interfaces = interfaces

    def use(self, interfaces: Any) -> None:
        self.interfaces = interfaces

    def say(self, data: bytes) -> None:
        self.said.append((self.loop.time(), data))

    def answer(self, data: bytes, to: Source) -> None:
        self.answered.append((data, to))

    def close(self) -> None:
        self.said.clear()


ETH0 = Interface("eth0", 2, (InterfaceAddress(ipaddress.ip_address("10.0.0.1"), 8),
                             InterfaceAddress(ipaddress.ip_address("fe80::1"), 64)))  # fmt: skip


class Here:
    """A node in whose ear the tests speak."""

    def __init__(self) -> None:
        self.found: dict[PeerId, tuple[Endpoint, ...]] = {}
        self.lan = LanDiscovery(NODE, "ours", [("::", 61), ("0.0.0.0", 41)], self.found.__setitem__)

    @property
    def links(self) -> Any:
        return self.lan._links

    def hear(self, data: bytes, source: Source = NEAR) -> None:
        self.links.hear(data, source)

    def answers(self) -> int:
        return len(self.links.answered)


def listening(test: Callable[[Here, Writer], Coroutine[Any, Any, None]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test beside a node that listens, in simulated time."""
    monkeypatch.setattr(discovery, "Links", FakeLinks)
    monkeypatch.setattr(discovery, "interfaces", lambda: (ETH0,))

    async def main() -> None:
        here = Here()
        await here.lan.start()
        await test(here, Writer())
        await here.lan.close()

    run(main(), seed=1)


# --- beacons ---


@pytest.mark.spec("LN-3")
def test_node_of_no_network_does_not_look_for_neighbours():
    with pytest.raises(ValueError, match="a network has a name"):
        LanDiscovery(NODE, "", [("0.0.0.0", 41)], print)

    async def main():
        async with SimNet().host().node() as node:
            return node._reach

    assert run(main(), seed=1) is None


def test_beacon_says_what_the_chapter_says(monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(0.5)
        ((_, data),) = here.links.said
        kind, peer, port_ipv4, port_ipv6, _, echo = writer.read(data)
        assert (kind, peer, port_ipv4, port_ipv6, echo) == (HELLO, bytes(NODE), 41, 61, bytes(8))
        here.hear(writer.write())
        assert here.found == {PEER: (Endpoint("10.0.0.9", 4000),)}

    listening(test, monkeypatch)


@pytest.mark.spec("LN-6")
def test_no_nonce_is_used_twice(monkeypatch):
    async def test(here, writer):
        for i in range(50):
            here.hear(writer.write(), Source("10.0.0.9", i + 1, None))
            await asyncio.sleep(1)
        sent = [data for _, data in here.links.said] + [data for data, _ in here.links.answered]
        assert len(sent) > 50 and len({data[2:26] for data in sent}) == len({data[2:10] for data in sent}) == len(sent)

    listening(test, monkeypatch)


@pytest.mark.spec("LN-7")
@pytest.mark.parametrize("make", [
    lambda writer: writer.write() + b"\0", lambda writer: writer.write()[:-1], lambda writer: b"",
    lambda writer: writer.write(head=b"M\1"), lambda writer: writer.write(head=b"L\2"), lambda writer: Writer("theirs").write(),
    lambda writer: writer.write(0), lambda writer: writer.write(4), lambda writer: writer.write(ports=(0, 0)),
    lambda writer: writer.write(peer=bytes(32)),
])  # fmt: skip
def test_what_is_no_beacon_of_the_network_is_dropped(make, monkeypatch):
    async def test(here, writer):
        here.hear(make(writer))
        assert not here.found and not here.answers() and not here.lan.neighbours
        here.hear(writer.write())
        assert here.found

    listening(test, monkeypatch)


@pytest.mark.spec("LN-8")
def test_node_does_not_find_itself(monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(0.5)
        ((_, own),) = here.links.said
        here.hear(own)
        here.hear(writer.write(peer=NODE))
        here.hear(writer.write(run=writer.read(own)[4]))
        assert not here.found and not here.answers()

    listening(test, monkeypatch)


# --- saying hello ---


@pytest.mark.spec("LN-10")
def test_hellos_come_in_a_burst_and_then_once_a_minute_or_so(monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(3500)
        times = [when for when, _ in here.links.said]
        gaps = [b - a for a, b in itertools.pairwise(times)]
        assert times[0] < 2 and all(gap <= 75.001 for gap in gaps)
        for gap, middle in zip(gaps, (1, 2, 4, 8, 16, 32, *[60] * len(gaps)), strict=False):
            assert 0.749 * middle <= gap <= 1.251 * middle
        assert len({round(gap, 3) for gap in gaps[6:]}) > 20  # nobody speaks in step with another

    listening(test, monkeypatch)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="others take any address for the group's interface")
def test_hellos_go_on_when_an_address_is_gone_at_the_moment_of_saying(monkeypatch):
    ghost = Interface("gone0", 999_999, (InterfaceAddress(ipaddress.ip_address("203.0.113.7"), 24),))
    monkeypatch.setattr(discovery, "interfaces", lambda: (ghost,))

    async def main():
        lan = LanDiscovery(NODE, "ours", [("0.0.0.0", 41)], print, with_mdns=False)
        await lan.start()
        lan._say()
        assert lan.counters()["failed"] == lan.counters()["said"] == 1 and lan._due is not None
        await lan.close()

    asyncio.run(main())


def test_links_where_nothing_can_be_said_to_all_are_noted(monkeypatch):
    silent = Interface("any", 0, (InterfaceAddress(ipaddress.ip_address("10.0.0.1"), 32),), is_multicast=False)
    monkeypatch.setattr(discovery, "Links", FakeLinks)

    async def notes(*found: Interface) -> tuple[str, ...]:
        monkeypatch.setattr(discovery, "interfaces", lambda: found)
        here = Here()
        await here.lan.start()
        await here.lan.close()
        return here.lan.notes

    async def main() -> None:
        assert await notes(silent) == ("beacons: the system tells of no interface with multicast or broadcast",)
        assert await notes(silent, ETH0) == ()

    run(main(), seed=1)


@pytest.mark.spec("LN-11", "LN-28")
def test_hello_is_said_again_when_the_interfaces_change_but_not_twice_in_a_second(monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(600)
        before = len(here.links.said)
        for _ in range(10):
            here.lan.on_change(Change((ETH0,), is_resumed=True))
            await asyncio.sleep(0.01)
        assert len(here.links.said) == before + 1
        await asyncio.sleep(4)
        times = [when for when, _ in here.links.said[before:]]
        assert len(times) >= 3 and all(b - a >= 0.74 for a, b in itertools.pairwise(times))

    listening(test, monkeypatch)


# --- hearing ---


@pytest.mark.spec("LN-12", "LN-29")
@pytest.mark.parametrize(("source", "is_heard"), [
    (Source("10.0.0.9", 9, 255), True), (Source("192.0.2.1", 9, 255), True), (Source("10.0.0.9", 9, 254), False),
    (Source("10.0.0.9", 9, 0), False), (Source("10.255.0.9", 9, None), True), (Source("192.0.2.1", 9, None), False),
    (Source("fe80::9%2", 9, None), True), (Source("2001:db8::1", 9, None), False),
])  # fmt: skip
def test_only_who_is_on_the_link_is_heard(source, is_heard, monkeypatch):
    async def test(here, writer):
        here.hear(writer.write(), source)
        assert bool(here.found) == bool(here.answers()) == is_heard

    listening(test, monkeypatch)


@pytest.mark.spec("LN-13")
def test_hello_is_answered_to_where_it_came_from(monkeypatch):
    async def test(here, writer):
        hello = writer.write()
        here.hear(hello)
        ((data, to),) = here.links.answered
        kind, peer, *ports, _, echo = writer.read(data)
        assert (kind, peer, ports, echo, to) == (ANSWER, bytes(NODE), [41, 61], hello[2:10], NEAR)
        assert len(data) == len(hello)

    listening(test, monkeypatch)


@pytest.mark.spec("LN-14")
def test_answers_are_few(monkeypatch):
    async def test(here, writer):
        for _ in range(5):
            here.hear(writer.write())
        assert here.answers() == 1
        await asyncio.sleep(1)
        here.hear(writer.write())
        assert here.answers() == 2
        for i in range(200):
            here.hear(writer.write(), Source("10.0.0.9", 1000 + i, None))
        assert here.answers() <= 33
        await asyncio.sleep(1)
        for i in range(50):
            here.hear(writer.write(), Source("10.0.0.9", 2000 + i, None))
        assert 33 < here.answers() <= 65

    listening(test, monkeypatch)


@pytest.mark.spec("LN-15")
def test_only_answers_that_were_asked_for_are_taken(monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(20)
        echoes = [data[2:10] for _, data in here.links.said]
        for kind, echo in ((ANSWER, bytes(8)), (ANSWER, echoes[0]), (RECORD, bytes(8)), (RECORD, echoes[-1])):
            here.hear(writer.write(kind, echo=echo))
        assert len(echoes) > 4 and not here.found
        here.hear(writer.write(ANSWER, echo=echoes[-4]))
        assert here.found and not here.answers()

    listening(test, monkeypatch)


@pytest.mark.spec("LN-16")
def test_flood_is_not_even_opened(monkeypatch):
    async def test(here, writer):
        stranger = Writer("theirs").write()
        for _ in range(1000):
            here.hear(stranger)
        counters = here.lan.counters()
        assert counters["dropped_foreign"] == 256 and counters["dropped_rate"] == 744
        here.hear(writer.write())
        assert not here.found
        await asyncio.sleep(1)
        here.hear(writer.write())
        assert here.found

    listening(test, monkeypatch)


def test_neighbour_has_an_endpoint_of_each_family(monkeypatch):
    async def test(here, writer):
        here.hear(writer.write())
        here.hear(writer.write(), Source("fe80::9%2", 999, 255))
        assert here.found[PEER] == (Endpoint("fe80::9%2", 6000), Endpoint("10.0.0.9", 4000))
        here.hear(writer.write(peer=Identity.from_seed(bytes(32)).id, ports=(0, 6000)))
        assert len(here.found) == 1  # it listens for another family than it speaks

    listening(test, monkeypatch)


# --- knowing neighbours ---


def somebody(i: int) -> PeerId:
    return Identity.from_seed(i.to_bytes(32, "big")).id


@pytest.mark.spec("LN-18")
def test_table_of_neighbours_is_small_and_those_in_it_stay(monkeypatch):
    async def test(here, writer):
        here.hear(writer.write())
        for i in range(300):
            here.hear(writer.write(peer=somebody(i)), Source(f"10.1.{i}.1" if i < 256 else f"10.2.{i - 256}.1", 9, None))
            await asyncio.sleep(0.01)
        known = here.lan.neighbours
        assert len(known) == 256 and known[0].peer_id == PEER and known[-1].peer_id == somebody(254)

    listening(test, monkeypatch)


@pytest.mark.spec("LN-18")
def test_neighbour_has_few_endpoints_and_an_address_few_neighbours(monkeypatch):
    async def test(here, writer):
        for i in range(20):
            here.hear(writer.write(), Source(f"10.0.1.{i}", 9, None))
        (one,) = here.lan.neighbours
        assert [endpoint.host for endpoint in one.endpoints] == [f"10.0.1.{i}" for i in range(19, 11, -1)]
        for i in range(20):
            here.hear(writer.write(peer=somebody(i)))
        assert len(here.lan.neighbours) == 1 + 16

    listening(test, monkeypatch)


@pytest.mark.spec("LN-19")
def test_who_says_nothing_is_forgotten(monkeypatch):
    async def test(here, writer):
        here.hear(writer.write())
        await asyncio.sleep(150)
        here.hear(writer.write(), Source("10.0.0.10", 9, None))
        await asyncio.sleep(49)
        assert len(here.lan.neighbours[0].endpoints) == 2
        await asyncio.sleep(2)
        assert [str(endpoint) for endpoint in here.lan.neighbours[0].endpoints] == ["10.0.0.10:4000"]
        await asyncio.sleep(150)
        assert here.lan.neighbours == ()

    listening(test, monkeypatch)


# --- mDNS ---


@pytest.mark.spec("LN-20")
def test_record_tells_strangers_nothing_and_has_other_names_in_each_run(monkeypatch):
    made: list[tuple[str, bytes]] = []

    class FakeMdns:
        def __init__(self, name: str, beacon: bytes, port: int, on_record: Any) -> None:
            made.append((name, beacon))

        async def open(self, interfaces: Any) -> None:
            pass

        async def close(self) -> None:
            pass

    monkeypatch.setattr(discovery, "Mdns", FakeMdns)
    monkeypatch.setattr(discovery, "interfaces", lambda: (ETH0,))

    async def main():
        for _ in range(2):
            lan = LanDiscovery(NODE, "our network", [("0.0.0.0", 41)], print, with_beacons=False)
            await lan.start()
            await lan.close()

    asyncio.run(main())
    (first, beacon), (second, _) = made
    assert first != second and Writer("our network").read(beacon)[:2] == (RECORD, bytes(NODE))
    info = Mdns(first, beacon, 41, print)._record((ETH0,))
    assert (info.type, info.name, info.server) == (SERVICE, f"{first}.{SERVICE}", f"{first}.local.")
    assert info.properties == {b"b": beacon}
    told = f"{info.name} {info.server} {info.text!r}"
    assert str(NODE) not in told and bytes(NODE) not in info.text and "our network" not in told


@pytest.mark.spec("LN-21")
def test_addresses_of_others_in_a_record_are_ignored(monkeypatch):
    async def test(here, writer):
        here.lan._on_record(writer.write(RECORD), ("192.0.2.1", "2001:db8::1", "fe80::9", "127.0.0.1"))
        assert not here.found
        here.lan._on_record(writer.write(RECORD), ("192.0.2.1", "10.0.0.9", "fe80::9%2"))
        assert set(here.found[PEER]) == {Endpoint("10.0.0.9", 4000), Endpoint("fe80::9%2", 6000)}

    listening(test, monkeypatch)


@pytest.mark.spec("LN-22")
@pytest.mark.parametrize("kind", [HELLO, ANSWER])
def test_record_that_is_another_beacon_is_ignored(kind, monkeypatch):
    async def test(here, writer):
        await asyncio.sleep(0.5)
        here.lan._on_record(writer.write(kind, echo=here.links.said[0][1][2:10]), ("10.0.0.9",))
        assert not here.found and not here.answers()

    listening(test, monkeypatch)


class Failing:
    """Be an mDNS that fails as it is told."""

    failures: ClassVar[list[Exception]] = []
    made: ClassVar[list[str]] = []

    def __init__(self, name: str, beacon: bytes, port: int, on_record: Any) -> None:
        self.made.append(name)

    async def open(self, interfaces: Any) -> None:
        if self.failures:
            raise self.failures.pop(0)

    async def use(self, interfaces: Any) -> None:
        await self.open(interfaces)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("failures", "notes", "tries"),
    [
        ([RuntimeError("no adapter found for index 7")], ("mDNS: no adapter found for index 7",), 1),
        ([NameTaken("taken")], (), 2),
        ([NameTaken("taken"), NameTaken("taken")], ("mDNS: taken",), 2),
    ],
    ids=["gone", "once", "always"],
)
def test_mdns_that_fails_is_noted_and_hellos_go_out(failures, notes, tries, monkeypatch):
    monkeypatch.setattr(discovery, "Links", FakeLinks)
    monkeypatch.setattr(discovery, "Mdns", Failing)
    monkeypatch.setattr(discovery, "interfaces", lambda: (ETH0,))
    monkeypatch.setattr(Failing, "failures", failures)
    monkeypatch.setattr(Failing, "made", [])

    async def main():
        here = Here()
        await here.lan.start()
        assert here.lan.notes == notes and len(set(Failing.made)) == tries
        assert here.links.said or here.lan._due is not None
        Failing.failures.append(RuntimeError("and again"))
        here.lan.on_change(Change((ETH0,), is_resumed=True))
        await here.lan._changing
        assert here.lan.notes == (*notes, "mDNS: and again")
        await here.lan.close()

    asyncio.run(main())


def test_mdns_that_could_not_be_opened_leaves_nothing_and_is_opened_on_the_next_change(monkeypatch):
    opened: list[Any] = []

    class FakeZeroconf:
        def __init__(self, **options: Any) -> None:
            self.zeroconf = self
            opened.append(self)

        async def async_wait_for_start(self) -> None:
            pass

        async def async_register_service(self, info: Any) -> None:
            raise zeroconf.NonUniqueNameException

        async def async_unregister_all_services(self) -> None:
            pass

        async def async_close(self) -> None:
            opened.remove(self)

    monkeypatch.setattr(zeroconf.asyncio, "AsyncZeroconf", FakeZeroconf)

    async def main():
        mdns = Mdns("name", b"beacon", 41, print)
        for begin in (mdns.open, mdns.use, mdns.use):
            with pytest.raises(NameTaken):
                await begin((ETH0,))
            assert not opened

    asyncio.run(main())


class Slow:
    """Be a zeroconf that takes its time to take its records back."""

    def __init__(self) -> None:
        self.is_closed = False
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    async def async_unregister_all_services(self) -> None:
        self.begun.set()
        await self.go_on.wait()

    async def async_close(self) -> None:
        self.is_closed = True


def test_mdns_whose_closing_is_cancelled_is_closed():
    async def main():
        mdns = Mdns("name", b"beacon", 41, print)
        mdns._zeroconf = slow = Slow()
        closing = asyncio.ensure_future(mdns.close())
        await slow.begun.wait()
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled() and slow.is_closed

    asyncio.run(main())


def test_discovery_whose_closing_is_cancelled_closes_mdns(monkeypatch):
    monkeypatch.setattr(discovery, "interfaces", lambda: (ETH0,))

    async def main():
        here = Here()
        here.lan._mdns = mdns = Mdns("name", b"beacon", 41, print)
        mdns._zeroconf = slow = Slow()
        slow.go_on.set()
        here.lan._changing = asyncio.ensure_future(asyncio.Event().wait())
        closing = asyncio.ensure_future(here.lan.close())
        await asyncio.sleep(0)  # it waits for the change to be followed
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled() and slow.is_closed

    asyncio.run(main())


def test_records_that_come_all_at_once_are_all_looked_at_and_only_so_many_wait(monkeypatch):
    looked, running, most = [], 0, 0
    go_on = asyncio.Event()

    async def look_up(self, zeroconf, service_type, name):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await go_on.wait()
        looked.append(name)
        running -= 1

    monkeypatch.setattr(Mdns, "_look_up", look_up)

    async def main():
        browsed = Mdns("ours", b"beacon", 41, print)
        names = [f"{i}.{SERVICE}" for i in range(16 + 256 + 5)]
        for name in names:
            browsed._on_service(None, SERVICE, name, zeroconf.ServiceStateChange.Added)
        browsed._on_service(None, SERVICE, names[20], zeroconf.ServiceStateChange.Removed)
        await asyncio.sleep(0)  # the first have begun
        go_on.set()
        while browsed._lookups:
            await asyncio.wait(browsed._lookups)
        assert most == 16 and looked == names[:20] + names[21 : 16 + 256]

    asyncio.run(main())


# --- own addresses ---


@pytest.mark.spec("LN-23", "LN-30")
def test_addresses_that_cannot_work_are_not_told():
    def address(host: str, **flags: bool) -> InterfaceAddress:
        return InterfaceAddress(ipaddress.ip_address(host), 64 if ":" in host else 24, **flags)

    loopback = Interface("lo", 1, (address("127.0.0.1"), address("::1")), is_loopback=True)
    kept, old, new = address("2001:db8::1"), address("2001:db8::2", is_deprecated=True), address("2001:db8::3", is_tentative=True)
    eth0 = Interface("eth0", 2, (kept, old, new, address("fe80::1")))
    down = Interface("eth1", 3, (address("10.0.0.1"),), is_up=False)
    told = host_candidates([("::", 5), ("0.0.0.0", 5)], [loopback, eth0, down])
    assert told == [Endpoint("2001:db8::1", 5)]
    assert host_candidates([("0.0.0.0", 5)], [loopback, down]) == [Endpoint("127.0.0.1", 5)]


@pytest.mark.spec("LN-24")
def test_addresses_that_are_told_follow_the_machine():
    async def main():
        host = SimNet().host("alice", "192.0.2.1")
        async with host.node() as node:
            before = [endpoint.host for endpoint in node.address.endpoints]
            host.move("192.0.2.2")
            await asyncio.sleep(1)
            return before, [endpoint.host for endpoint in node.address.endpoints]

    assert run(main(), seed=1) == (["192.0.2.1"], ["192.0.2.2"])


# --- moving ---


@pytest.mark.spec("LN-25")
def test_every_path_that_is_proven_speaks_at_once_whatever_the_window_says():
    peer = accepted(calling())
    stream = peer.handle.open_stream()
    stream.write(bytes(2_000_000))
    peer.node.say()
    full = paths(peer)
    assert full[0]["bytes_in_flight"] + 1200 > full[0]["window_bytes"]
    peer.handle.nudge()
    said = peer.node.say()
    assert {path for path in (0, 2) if paths(peer)[path]["packets_sent"] > full[path]["packets_sent"]} == {0, 2}
    assert [frame.kind for frame in peer.frames(said)].count(ref.PING) == 2


@pytest.mark.spec("LN-26")
def test_address_that_is_gone_is_not_sent_from():
    peer, local, other = calling(), Endpoint("192.0.2.7", 1).to_core()[0], Endpoint("192.0.2.8", 1).to_core()[0]
    assert path_handle.open_path(peer.handle, ELSEWHERE, local) == (path_handle.OPENED, 1)
    peer.handle.nudge(other)
    assert paths(peer)[1]["local"] == local
    peer.handle.nudge(other + local)
    assert paths(peer)[1]["local"] == bytes(16)


@pytest.mark.spec("LN-27")
def test_probe_time_outs_are_counted_anew():
    peer = calling()
    stream = peer.handle.open_stream()
    stream.write(b"into the void")
    peer.node.wait(20 * SECOND)
    assert paths(peer)[0]["pto_count"] > 4
    peer.handle.nudge()
    assert paths(peer)[0]["pto_count"] == 0
    peer.node.say()
    assert peer.node.wait(2000 * MS)  # the next comes soon, and not only after two seconds as the last ones


def data_in(peer, said):
    return [frame.data for frame in peer.frames(said)]


@pytest.mark.spec("LN-31")
def test_peer_that_is_back_is_probed_at_once():
    peer = calling()
    stream = peer.handle.open_stream()
    stream.write(b"while you were out")
    peer.node.wait(20 * SECOND)
    assert paths(peer)[0]["pto_count"] > 4
    peer.send(ref.ping())
    assert b"while you were out" in data_in(peer, peer.node.say())
    assert paths(peer)[0]["pto_count"] == 0


@pytest.mark.spec("LN-32")
def test_peer_that_is_elsewhere_is_probed_as_soon_as_that_is_proved():
    peer = calling()
    stream = peer.handle.open_stream()
    stream.write(b"gone astray")
    assert b"gone astray" in data_in(peer, peer.node.say())
    peer.send(ref.ping(), bytes(1000), source=ELSEWHERE)
    asked = challenge_in(peer, [sent for sent in peer.node.say() if sent.to == ELSEWHERE])
    peer.send(ref.path_response(asked), source=ELSEWHERE)
    assert b"gone astray" in data_in(peer, peer.node.say())


def test_addresses_of_another_size_are_refused():
    with pytest.raises(ValueError, match="16 bytes each"):
        accepted(calling()).handle.nudge(bytes(15))


def test_closed_connection_says_nothing_when_it_is_nudged():
    peer = calling()
    peer.handle.close(0, b"")
    peer.node.say()
    peer.handle.nudge(bytes(16))
    assert not peer.node.say()
