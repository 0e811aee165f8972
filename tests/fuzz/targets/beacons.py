"""Beacons of the local network, with seals that are right and wrong, from near and far; and rtnetlink's answers."""

import ipaddress

from interpeer import Identity
from interpeer._interfaces import Interface, InterfaceAddress, _netlink
from interpeer._lan import LanDiscovery
from interpeer._lan.beacon import BEACON_BYTES, network_key, parse_beacon
from interpeer._lan.links import Source
from interpeer._sodium import pysodium
from tests.fuzz.source import Source as Bytes

KEY, HEAD, NODE = network_key("ours"), b"L\x01", Identity.from_seed(bytes(32)).id
ETH0 = Interface("eth0", 2, (InterfaceAddress(ipaddress.ip_address("10.0.0.1"), 8),))


class Clock:
    """Stand in for the loop, of which only the time is asked."""

    now_s = 1.0

    def time(self) -> float:
        return self.now_s


class Links:
    """Count what is answered."""

    def __init__(self) -> None:
        self.answered_bytes = 0
        self.failed = 0

    def answer(self, data: bytes, to: Source) -> None:
        self.answered_bytes += len(data)


def feed(data: bytes) -> None:
    source = Bytes(data)
    {0: hear, 1: read_netlink}[source.byte(2)](source)


def hear(source: Bytes) -> None:
    """Hear datagrams and records; nobody is answered more than he said, and nobody far away is found."""
    found, heard_bytes = {}, 0
    lan = LanDiscovery(NODE, "ours", [("0.0.0.0", 41), ("::", 61)], found.__setitem__)
    links, clock = Links(), Clock()
    lan._loop, lan._links, lan._interfaces = clock, links, (ETH0,)
    while source:
        kind, place = source.byte(4), source.byte(4)
        clock.now_s += source.byte() / 64
        body = source.take(64).ljust(64, b"\0") if kind else source.piece()
        nonce = body[:24].ljust(24, b"\0")
        sealed = pysodium().crypto_aead_xchacha20poly1305_ietf_encrypt(body, HEAD, nonce, KEY)
        message = HEAD + nonce + sealed if kind else body
        if kind == 3:
            lan._on_record(message, ("10.0.0.7", "192.0.2.1", "fe80::1"))
        else:
            lan._on_datagram(message, Source(("10.0.0.9", "192.0.2.9")[place & 1], 9, (None, 255, 254)[place % 3]))
        heard_bytes += len(message)
        beacon = parse_beacon(message, KEY)
        assert beacon is None or len(message) == BEACON_BYTES
        assert links.answered_bytes <= heard_bytes
    assert len(lan.neighbours) == len(found) <= 256
    assert all(place.port for places in found.values() for place in places)


def read_netlink(source: Bytes) -> None:
    """Read messages as if the kernel had lost its mind."""
    data = source.rest()
    for _, _, _, body in _netlink.messages(data):
        assert len(body) <= len(data) - 16
        for parse in (_netlink._parse_link, _netlink._parse_address, _netlink._parse_route):
            parse(body)
        assert all(len(value) <= len(body) for value in _netlink.attributes(body, 0).values())
