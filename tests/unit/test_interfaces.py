"""Network interfaces: how they are read, which of their addresses are told, and what counts as a change."""

import asyncio
import ctypes
import ipaddress
import socket
import struct
import sys

import pytest

from interpeer import Endpoint, _host, _interfaces
from interpeer._interfaces import Change, Interface, InterfaceAddress, _getifaddrs, _netlink, _watcher, change
from interpeer._interfaces._candidates import host_candidates
from interpeer.testing import SimNet, run

ON_LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="rtnetlink is Linux's")


def address(text: str, **flags: bool) -> InterfaceAddress:
    ip, _, bits = text.partition("/")
    parsed = ipaddress.ip_address(ip)
    return InterfaceAddress(parsed, int(bits or parsed.max_prefixlen), **flags)


def interface(name: str, *addresses: str | InterfaceAddress, **more: bool) -> Interface:
    index = sum(name.encode())
    return Interface(name, index, tuple(address(a) if isinstance(a, str) else a for a in addresses), **more)


LOOPBACK = interface("lo", "127.0.0.1/8", "::1/128", is_loopback=True)
BOTH = [("::", 5), ("0.0.0.0", 5)]


def hosts(*interfaces: Interface, bound=BOTH, **more: bool) -> list[str]:
    return [endpoint.host for endpoint in host_candidates(bound, interfaces, **more)]


# --- which addresses are told ---


def test_loopback_is_told_only_where_there_is_nothing_else():
    assert hosts(LOOPBACK) == ["::1", "127.0.0.1"]
    assert hosts(LOOPBACK, interface("eth0", "192.0.2.7/24")) == ["192.0.2.7"]


def test_address_that_is_bound_by_name_is_told_as_it_is():
    assert host_candidates([("127.0.0.1", 9)], [interface("eth0", "192.0.2.7/24")]) == [Endpoint("127.0.0.1", 9)]


def test_way_out_comes_first_and_own_bridges_last():
    bridge = interface("br-1", "172.17.0.1/16", is_virtual=True)
    cable, radio = interface("eth0", "10.0.0.1/8"), interface("wlan0", "192.168.0.9/24", default_ipv4=True)
    assert hosts(bridge, cable, radio) == ["192.168.0.9", "10.0.0.1", "172.17.0.1"]
    assert hosts(interface("br0", "10.0.0.2/8", is_virtual=True, default_ipv4=True), cable) == ["10.0.0.2", "10.0.0.1"]


def test_temporary_addresses_come_first_and_deprecated_and_tentative_ones_are_left_out():
    lasting, passing = address("2001:db8::1/64"), address("2001:db8::2/64", is_temporary=True)
    old, new = address("2001:db8::3/64", is_deprecated=True), address("2001:db8::4/64", is_tentative=True)
    assert hosts(interface("eth0", lasting, old, passing, new)) == ["2001:db8::2", "2001:db8::1"]


def test_link_local_ipv6_is_told_with_its_scope_and_only_on_the_lan():
    eth0 = interface("eth0", "fe80::1/64")
    assert hosts(eth0) == ["::1", "127.0.0.1"]
    assert hosts(eth0, with_link_local=True) == [f"fe80::1%{eth0.index}"]


def test_link_local_ipv4_comes_after_all_that_reaches_further():
    assert hosts(interface("eth0", "169.254.1.1/16", default_ipv4=True), interface("eth1", "10.0.0.1/8")) == [
        "10.0.0.1",
        "169.254.1.1",
    ]


def test_interface_that_is_down_has_no_addresses():
    assert hosts(interface("eth0", "10.0.0.1/8", is_up=False)) == ["::1", "127.0.0.1"]


def test_family_without_a_socket_is_not_told():
    assert hosts(interface("eth0", "10.0.0.1/8", "2001:db8::1/64"), bound=[("0.0.0.0", 5)]) == ["10.0.0.1"]


def test_no_more_are_told_than_an_address_holds():
    many = interface("eth0", *(f"10.0.{i}.1/24" for i in range(40)))
    assert len(hosts(many)) == 16


# --- what counts as a change ---


def test_nothing_has_changed():
    assert not change([LOOPBACK], (LOOPBACK,))


def test_difference_names_what_has_come_and_gone():
    before = interface("eth0", "10.0.0.1/8", "10.0.0.2/8", default_ipv4=True)
    after = interface("eth0", "10.0.0.2/8", "10.0.0.3/8", default_ipv4=True)
    assert change([before], (after,)) == Change((after,), come=("10.0.0.3",), gone=("10.0.0.1",))


def test_cable_that_is_pulled_takes_the_addresses_with_it():
    before = interface("eth0", "10.0.0.1/8")
    assert change([before], (interface("eth0", "10.0.0.1/8", is_up=False),)).gone == ("10.0.0.1",)


@pytest.mark.parametrize(
    "more", [{"default_ipv4": True}, {"default_ipv4": True, "gateways": (ipaddress.ip_address("10.0.0.9"),)}]
)
def test_other_way_out_is_a_change(more):
    elsewhere = interface("eth1", "10.1.0.1/8", default_ipv4=True)
    before = [interface("eth0", "10.0.0.1/8"), elsewhere]
    assert change(before, (interface("eth0", "10.0.0.1/8", **more), interface("eth1", "10.1.0.1/8"))).is_rerouted


def test_neighbours_are_told_by_the_prefix():
    eth0 = interface("eth0", "10.0.0.1/8", "fe80::1/64")
    assert eth0.is_on_link(ipaddress.ip_address("10.9.9.9")) and eth0.is_on_link(ipaddress.ip_address("fe80::2"))
    assert not eth0.is_on_link(ipaddress.ip_address("11.0.0.1")) and not eth0.is_on_link(ipaddress.ip_address("2001:db8::1"))


# --- netlink ---


def message(kind: int, body: bytes, size: int | None = None) -> bytes:
    return struct.pack("=IHHII", len(body) + 16 if size is None else size, kind, 0, 1, 0) + body + bytes(-len(body) % 4)


@pytest.mark.parametrize("size", [0, 15, 21, 0xFFFFFFFF])
def test_message_of_a_wrong_size_ends_the_reading(size):
    data = message(20, b"good") + message(20, b"bad!", size)
    assert [body for _, _, _, body in _netlink.messages(data)] == [b"good"]


@pytest.mark.parametrize("size", [0, 3, 9, 0xFFFF])
def test_attribute_of_a_wrong_size_is_left_out(size):
    data = struct.pack("=HH4s", 8, 1, b"good") + struct.pack("=HH4s", size, 2, b"bad!")
    assert _netlink.attributes(data, 0) == {1: b"good"}


def test_fixed_parts_that_are_cut_are_nothing():
    for parse in (_netlink._parse_link, _netlink._parse_address, _netlink._parse_route):
        assert [parse(bytes(n)) for n in range(32)] == [None] * 32


@pytest.mark.parametrize(("flags", "is_temporary", "is_deprecated", "is_tentative"), [
    (0x00, False, False, False), (0x01, True, False, False), (0x20, False, True, False), (0x40, False, False, True),
    (0x48, False, False, True), (0x44, False, False, False),
])  # fmt: skip
def test_flags_of_an_address(flags, is_temporary, is_deprecated, is_tentative):
    ip = ipaddress.ip_address("2001:db8::7")
    body = struct.pack("=BBBBI", socket.AF_INET6, 64, 0, 0, 3) + struct.pack("=HH16s", 20, 1, ip.packed)
    index, found = _netlink._parse_address(body + struct.pack("=HHI", 8, 8, flags))
    assert (index, found) == (3, InterfaceAddress(ip, 64, None, is_temporary, is_deprecated, is_tentative))


def test_prefix_longer_than_an_address_is_nothing():
    body = struct.pack("=BBBBI", socket.AF_INET, 33, 0, 0, 3) + struct.pack("=HH4s", 8, 2, bytes(4))
    assert _netlink._parse_address(body) is None


# --- the systems' ways of telling ---


def told(found: tuple[Interface, ...]) -> dict[str, set[tuple[str, int]]]:
    return {i.name: {(str(a.ip), a.prefix_bits) for a in i.addresses} for i in found if i.addresses}


@ON_LINUX
def test_netlink_and_the_c_library_tell_the_same(monkeypatch):
    by_netlink = _interfaces.interfaces()
    monkeypatch.setenv("INTERPEER_DISABLE", "netlink")
    by_library = _interfaces.interfaces()
    assert told(by_netlink) == told(by_library)
    assert told(by_netlink)["lo"] >= {("127.0.0.1", 8)}
    for left, right in zip(by_netlink, by_library, strict=True):
        assert (left.index, left.is_up, left.is_loopback, left.is_multicast, left.default_ipv4) == (
            right.index, right.is_up, right.is_loopback, right.is_multicast, right.default_ipv4
        )  # fmt: skip


def test_without_either_the_loopback_is_known_and_nobody_is_a_neighbour(monkeypatch):
    monkeypatch.setenv("INTERPEER_DISABLE", "netlink,getifaddrs")
    found = _interfaces.interfaces()
    assert found[0].is_loopback and "127.0.0.1" in found[0].hosts
    assert not any(i.is_on_link(ipaddress.ip_address("192.0.2.254")) for i in found)
    assert _interfaces.host_candidates([("0.0.0.0", 5)])


def test_system_without_a_library_of_the_process_has_its_addresses_all_the_same(monkeypatch):
    def windows_library(name: str | None, **options: bool) -> None:
        raise TypeError("argument of type 'NoneType' is not iterable")

    monkeypatch.setenv("INTERPEER_DISABLE", "netlink")
    monkeypatch.setattr(_getifaddrs.ctypes, "CDLL", windows_library)
    assert _interfaces.interfaces()[0].is_loopback


def test_list_that_goes_round_in_a_circle_is_left():
    entry = _getifaddrs._Entry(name=b"round0", flags=1)
    entry.next = ctypes.pointer(entry)
    (found,) = _getifaddrs.walk(ctypes.pointer(entry))
    assert found.name == "round0" and not found.is_up and found.addresses == ()


@pytest.mark.parametrize(("raw", "expected"), [
    (b"\x10\x02\0\0\xc0\0\2\1" + bytes(8), "192.0.2.1"),
    (b"\x1c\x1e" + bytes(6) + ipaddress.ip_address("fe80:4::7").packed + bytes(4), "fe80::7"),
    (b"\x07\x02\xff\xff\xff\xff\xff", None), (b"\x02\x02", None), (b"", None), (b"\x14\x12" + bytes(18), None),
])  # fmt: skip
def test_addresses_of_the_bsds_begin_with_their_length_and_hide_the_scope(monkeypatch, raw, expected):
    monkeypatch.setattr(_getifaddrs, "IS_BSD", True)
    monkeypatch.setattr(socket, "AF_INET6", 0x1E)  # macOS's number
    buffer = ctypes.create_string_buffer(raw, max(2, len(raw)))
    found = _getifaddrs._ip(_getifaddrs._read(ctypes.addressof(buffer)) if raw else b"")
    assert (str(found) if found else None) == expected


# --- watching ---


def watching(changes, read, **more) -> _watcher.Watcher:
    return _watcher.Watcher(asyncio.get_running_loop(), changes.append, read, **more)


def test_polling_finds_a_change_and_a_system_that_fails_for_a_while_is_asked_again(monkeypatch):
    monkeypatch.setattr(_watcher, "TICK_S", 0.001)
    answers = [(LOOPBACK,), OSError("not now"), (LOOPBACK,), (LOOPBACK, interface("eth0", "10.0.0.1/8"))]

    def read():
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return answer

    async def main():
        changed = asyncio.Event()
        seen = []
        watcher = watching(seen, read, use_netlink=False)
        watcher._on_change = lambda change: (seen.append(change), changed.set())
        watcher.start()
        assert not watcher.is_told
        await changed.wait()
        watcher.close()
        return seen

    (seen,) = asyncio.run(main())
    assert seen.come == ("10.0.0.1",)


@pytest.mark.parametrize(("has_boottime", "slept_s", "is_resumed"), [
    (True, 2.0, True), (True, 0.5, False), (False, 60.0, True), (False, 5.1, False),
])  # fmt: skip
def test_sleep_is_told_by_the_clocks(monkeypatch, has_boottime, slept_s, is_resumed):
    async def main():
        seen = []
        watcher = watching(seen, lambda: (LOOPBACK,), use_netlink=False)
        monkeypatch.setattr(_watcher, "_HAS_BOOTTIME", has_boottime)
        monkeypatch.setattr(_watcher, "_slept_s", lambda: 100.0)
        watcher.start()
        monkeypatch.setattr(_watcher, "_slept_s", lambda: 100.0 + slept_s)
        watcher._tick()
        watcher._tick()
        watcher.close()
        return seen

    assert [seen.is_resumed for seen in asyncio.run(main())] == [True] * is_resumed


def test_simulated_host_tells_of_moving_and_of_its_interface():
    async def main():
        net, seen = SimNet(), []
        host = net.host("alice", "10.0.0.1")
        with _host.on(host):
            assert [i.hosts for i in _interfaces.interfaces()] == [("10.0.0.1",)]
            watcher = _interfaces.watch(asyncio.get_running_loop(), seen.append)
            watcher.start()
            assert watcher.is_told
            host.move("10.0.0.2")
            await asyncio.sleep(1)
            for is_up in (False, True):
                host.set_interface("eth0", is_up=is_up)
                await asyncio.sleep(1)
            watcher.close()
            host.move("10.0.0.3")
            await asyncio.sleep(1)
        return [(change.come, change.gone) for change in seen]

    assert run(main()) == [(("10.0.0.2",), ("10.0.0.1",)), ((), ("10.0.0.2",)), (("10.0.0.2",), ())]
