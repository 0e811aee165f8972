"""Port mapping, below the state machine: routing tables, kinds of addresses, and the door to the codec."""

from __future__ import annotations

import socket
import struct
import sys

import pytest

from interpeer._core import portmap
from interpeer._portmap import Gateway, gateway
from interpeer._portmap.answers import Kind, Wish, is_public, is_usable
from interpeer._portmap.dialects import Pcp
from tests.models import portmap as model

PORT = 4433
HEAD = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT\n"


def packed(host: str) -> str:
    """Write an address as /proc/net/route has it."""
    return f"{int.from_bytes(socket.inet_aton(host), sys.byteorder):08X}"


def route(host: str, *, metric: int = 0, flags: int = 3, destination: str = "0.0.0.0", mask: str = "0.0.0.0") -> str:
    return f"eth0\t{packed(destination)}\t{packed(host)}\t{flags:04X}\t0\t0\t{metric}\t{packed(mask)}\t0\t0\t0\n"


# --- the gateway ---


def test_default_route_with_the_lowest_metric_leads_to_the_gateway():
    others = route("10.0.0.1", destination="10.0.0.0", mask="255.0.0.0") + route("0.0.0.0", flags=1)
    text = HEAD + others + route("192.168.1.2", metric=600) + route("192.168.1.1", metric=100) + route("192.168.1.3", flags=0x202)
    assert gateway.parse_routes(text) == "192.168.1.1"
    assert gateway.parse_routes(HEAD + others) is None
    assert gateway.parse_routes("") is None and gateway.parse_routes(HEAD + "eth0 0 0\n") is None


def test_next_hop_of_the_link_is_given_with_its_interface():
    none, link = "0" * 32, "fe80" + "0" * 27 + "1"

    def line(hop: str, metric: int, flags: int = 3, prefix: str = "00") -> str:
        return f"{none} {prefix} {none} 00 {hop} {metric:08x} 00000001 00000000 {flags:08x} wlan0\n"

    reject = line(none, 0xFFFFFFFF, flags=0x200200)
    assert gateway.parse_routes_ipv6(reject + line(link, 1024)) == "fe80::1%wlan0"
    assert gateway.parse_routes_ipv6(line(link, 1024) + line("2a00" + "0" * 27 + "1", 512)) == "2a00::1"
    assert gateway.parse_routes_ipv6(reject + line(link, 1, prefix="08")) is None


def test_what_the_route_command_says_is_read():
    text = "   route to: default\ndestination: default\n       mask: default\n    gateway: 192.168.1.1\n  interface: en0\n"
    assert gateway.parse_route_command(text, 4) == "192.168.1.1"
    assert gateway.parse_route_command(text, 6) is None
    assert gateway.parse_route_command("    gateway: fe80::1%en0\n", 6) == "fe80::1%en0"
    assert gateway.parse_route_command("    gateway: link#12\n", 4) is None
    assert gateway.parse_route_command("route: writing to routing socket: not in table\n", 4) is None


def test_windows_row_of_the_best_route_is_read():
    head = struct.pack("<QI", 0, 7) + bytes(32)
    assert gateway.parse_best_route(head + struct.pack("<HH4s20x", 2, 0, bytes([192, 168, 1, 1])) + bytes(32)) == "192.168.1.1"
    assert gateway.parse_best_route(head + struct.pack("<HH24x", 2, 0) + bytes(32)) is None
    family, link = socket.AF_INET6, socket.inet_pton(socket.AF_INET6, "fe80::1")
    assert gateway.parse_best_route(head + struct.pack("<HHI16sI", family, 0, 0, link, 0) + bytes(32)) == "fe80::1%7"


def test_gateway_of_the_link_is_known_however_its_scope_is_written():
    found = Gateway("fe80::1%eth0", "2a00::10")
    assert found.version == 6 and all(found.is_at((host, 5351, 0, 2)) for host in ("fe80::1", "fe80::1%eth0", "fe80::1%2"))
    assert not found.is_at(("fe80::2%eth0", 5351, 0, 2))


def test_environment_names_the_gateway(monkeypatch):
    monkeypatch.setenv(gateway.VARIABLE, "127.0.0.1, ::1")
    assert gateway.find(4) == Gateway("127.0.0.1", "127.0.0.1")
    monkeypatch.setenv(gateway.VARIABLE, "none")
    assert gateway.find(4) is None and gateway.find(6) is None


def test_system_without_ipv6_has_no_gateway_of_it(monkeypatch):
    def refuse(*args: object) -> None:
        raise OSError(97, "Address family not supported by protocol")

    monkeypatch.setenv("INTERPEER_GATEWAY", "fe80::1%eth0")
    monkeypatch.setattr(gateway.socket, "socket", refuse)
    assert gateway.find(6) is None


def test_routing_table_of_this_machine_can_be_asked(monkeypatch):
    monkeypatch.delenv(gateway.VARIABLE, raising=False)
    for version in (4, 6):
        found = gateway.find(version)
        assert found is None or found.version == version


@pytest.mark.parametrize(
    ("host", "usable", "public"),
    [
        ("20.0.0.1", True, True),
        ("2a00::1", True, True),
        ("192.168.1.1", True, False),
        ("100.64.0.1", True, False),
        ("100.127.255.255", True, False),
        ("100.128.0.1", True, True),
        ("fd00::1", True, False),
        ("0.0.0.0", False, False),
        ("169.254.0.1", False, False),
        ("::1", False, False),
        ("ff02::1", False, False),
    ],
)
def test_addresses_are_told_apart(host, usable, public):
    assert (is_usable(host), is_public(host)) == (usable, public)


# --- the codec's door ---


def test_requests_of_the_wrong_size_are_errors():
    with pytest.raises(ValueError, match="an address has 16 bytes, not 4"):
        portmap.pcp_announce(bytes(4))
    with pytest.raises(ValueError, match="a nonce has 12 bytes, not 11"):
        portmap.pcp_map(bytes(11), bytes(16), 17, 1, 1, bytes(16), 1)
    with pytest.raises(OverflowError):
        portmap.natpmp_map(65536, 0, 0)


def test_pinhole_of_ipv6_is_asked_for_by_its_own_address():
    dialect = Pcp("2a00::10")
    wish = Wish(PORT, PORT, None, 7200, bytes(range(12)))
    (data,) = dialect.requests(wish)
    request = model.read_pcp_request(data)
    assert (request.client, request.external_host) == ("2a00::10", "::")
    answer = dialect.parse(model.pcp_answer(request, "2a00::10", PORT))
    assert answer and (answer.kind, answer.host, answer.port) == (Kind.GRANTED, "2a00::10", PORT)
    answer = dialect.parse(model.pcp_answer(request, "20.0.0.1", PORT))
    assert answer and answer.kind is Kind.REFUSED
