"""What `interpeer doctor` says of what it has found outside, and what it advises."""

from __future__ import annotations

import pytest

from interpeer import Address, Config, Identity
from interpeer._address import Endpoint
from interpeer._cli.errors import Misuse
from interpeer._cli.outside import STUN_PORT, Outside, _places, findings, parse_server
from interpeer._nat import NatReport

SEEN = (Endpoint("203.0.113.5", 4000),)
NOTHING = {"protocols": [], "gateways": [], "external": None, "double_nat": None, "mappings": [], "ignored": 0, "reasons": []}
GATEWAY = {**NOTHING, "gateways": ["192.168.1.1"]}
MAPPED = {**GATEWAY, "mappings": ["pcp 203.0.113.5:4000 -> 4000"]}


def outside(ipv4=None, *, ipv6=None, port_mapping=NOTHING, mtu=1500, problems=()):
    return {one.name: one for one in findings(Outside(ipv4, ipv6, port_mapping, mtu, problems))}


def report(mapping, filtering="address-and-port-dependent", **more):
    return NatReport(mapping=mapping, filtering=filtering, udp=True, reflexive=SEEN, **more)


@pytest.mark.parametrize(
    ("found", "status", "text", "advice"),
    [
        (report("none", "none"), "ok", "no NAT; seen at 203.0.113.5:4000", ""),
        (report("none"), "ok", "no NAT, but a firewall", "forwarded port"),
        (report("endpoint-independent", "endpoint-independent", hairpin=True), "ok", "hairpins", ""),
        (report("endpoint-independent", hairpin=False), "ok", "does not hairpin", "with the help of one that both know"),
        (report("address-dependent"), "warning", "mapping: address-dependent", "every peer sees another port"),
        (report("address-and-port-dependent"), "warning", "mapping: address-and-port-dependent", "IPv6"),
        (report("unknown", notes=("one observer",)), "ok", "(one observer)", "name more"),
        (report("endpoint-independent", lifetime_s=28.0), "ok", "live at least 28 s", "both know"),
        (report("endpoint-independent", lifetime_s=5.0), "warning", "live at least 5 s", "keep_alive_s"),
        (NatReport(udp=False), "warning", "nothing came back", "see udp"),
        (NatReport(), "ok", "--bootstrap", ""),
    ],
)
def test_nat_is_told_with_advice(found, status, text, advice):
    one = outside(found)["nat"]
    assert one.status == status and text in one.text and advice in one.advice and bool(one.advice) == bool(advice)
    assert one.facts["mapping"] == found.mapping and one.facts["lifetime_s"] == found.lifetime_s


def test_ipv6_stands_in_where_nobody_was_asked_by_ipv4():
    assert outside(None, ipv6=report("none", "none"))["nat"].facts["mapping"] == "none"


@pytest.mark.parametrize(
    ("ipv4", "ipv6", "problems", "status", "works"),
    [
        (None, None, (), "ok", None),
        (None, None, ("somebody: is not there",), "warning", None),
        (report("none"), None, (), "ok", True),
        (NatReport(udp=False), report("none"), (), "ok", True),
        (NatReport(udp=False), None, ("more",), "warning", False),
    ],
)
def test_udp_is_told_with_advice(ipv4, ipv6, problems, status, works):
    one = outside(ipv4, ipv6=ipv6, problems=problems)["udp"]
    assert (one.status, one.facts["works"]) == (status, works)
    assert bool(one.advice) == (status == "warning") and all(problem in one.text for problem in problems)


@pytest.mark.parametrize(
    ("found", "status", "text"),
    [
        (NOTHING, "ok", "no gateway"),
        ({}, "ok", "no gateway"),
        (GATEWAY, "warning", "192.168.1.1 maps no ports"),
        (MAPPED, "ok", "pcp 203.0.113.5:4000"),
        ({**MAPPED, "double_nat": True}, "warning", "leads nowhere"),
    ],
)
def test_port_mapping_is_told_with_advice(found, status, text):
    one = outside(port_mapping=found)["port_mapping"]
    assert one.status == status and text in one.text and bool(one.advice) == (status == "warning")


@pytest.mark.parametrize(("mtu", "status"), [(None, "ok"), (1500, "ok"), (1280, "ok"), (1279, "warning")])
def test_mtu_is_told_with_advice(mtu, status):
    one = outside(mtu=mtu)["mtu"]
    assert (one.status, one.facts["bytes"]) == (status, mtu) and bool(one.advice) == (status == "warning")


def test_peers_are_asked_where_they_say_that_they_are():
    peer = Identity.from_seed(bytes(32)).id
    near, far = Endpoint("192.168.1.2", 1), Endpoint("203.0.114.1", 2)
    here, far_ipv6 = Endpoint("127.0.0.1", 3), Endpoint("2a00::1", 4)
    tunnel = Endpoint("203.0.114.1", 443, "tls")
    everywhere = str(Address.of(peer, [near, far, here, far_ipv6, tunnel]))
    assert _places([everywhere, str(peer)]) == [far.to_core(), far_ipv6.to_core()]
    assert _places([str(Address.of(peer, [near, here]))]) == [near.to_core()]


def test_a_lifetime_is_short_if_keep_alives_come_too_late():
    s = Config().keep_alive_s
    assert outside(report("none", "none", lifetime_s=s))["nat"].status == "ok"
    assert outside(report("none", "none", lifetime_s=s - 1))["nat"].status == "warning"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stun.example.org", ("stun.example.org", STUN_PORT)),
        ("stun.example.org:1234", ("stun.example.org", 1234)),
        ("192.0.2.1", ("192.0.2.1", STUN_PORT)),
        ("[2001:db8::1]:7", ("2001:db8::1", 7)),
        ("[2001:db8::1]", ("2001:db8::1", STUN_PORT)),
        ("2001:db8::1", ("2001:db8::1", STUN_PORT)),
    ],
)
def test_a_server_is_a_host_with_or_without_a_port(text, expected):
    assert parse_server(text) == expected


@pytest.mark.parametrize("text", ["", "a b", "host:0", "host:65536", "host:port", "me@host", "a:b:c:d"])
def test_what_is_no_server_is_refused(text):
    with pytest.raises(Misuse, match="--stun takes"):
        parse_server(text)
