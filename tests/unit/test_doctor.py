"""What `interpeer doctor` says of what it has found outside, and what it advises."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address

import pytest

from interpeer import Address, Config, Identity
from interpeer._address import Endpoint
from interpeer._cli.commands import doctor
from interpeer._cli.errors import Misuse
from interpeer._cli.outside import STUN_PORT, Outside, _places, _verify, findings, parse_server
from interpeer._interfaces import Interface, InterfaceAddress
from interpeer._lan import links
from interpeer._nat import NatReport

SEEN = (Endpoint("203.0.113.5", 4000),)
NOTHING = {
    "protocols": [], "gateways": [], "external": None, "double_nat": None, "mappings": [], "is_verified": [], "ignored": 0,
    "reasons": [],
}  # fmt: skip
GATEWAY = {**NOTHING, "gateways": ["192.168.1.1"]}
SILENT = {**GATEWAY, "reasons": ["IPv4: pcp at 192.168.1.1: no answer", "IPv4: upnp at 192.168.1.1: it has no uplink"]}
MAPPING, MAPPING_IPV6 = "pcp 203.0.113.5:4000 -> 4000", "pcp [2001:db8::5]:4000 -> 4000"
MAPPED = {**GATEWAY, "mappings": [MAPPING], "is_verified": [None]}
LYING = "IPv4: pcp at 192.168.1.1: the gateway grants it, but nothing comes through"
FORGETFUL = "mappings are forgotten soon: nodes of a network adapt to it; without network= set keep_alive_s in Config below that"


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
        (NatReport(), "ok", "nobody was asked", "--bootstrap"),
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
    assert bool(one.advice) == (works is not True) and all(problem in one.text for problem in problems)
    assert ("--bootstrap" in one.advice) == (works is None and not problems)


@pytest.mark.parametrize(
    ("found", "status", "text"),
    [
        (NOTHING, "ok", "no gateway"),
        ({}, "ok", "no gateway"),
        (GATEWAY, "warning", "192.168.1.1 maps no ports"),
        (SILENT, "warning", "maps no ports (IPv4: pcp at 192.168.1.1: no answer; IPv4: upnp at 192.168.1.1: it has no uplink)"),
        ({**MAPPED, "is_verified": [True]}, "ok", f"works, tried from outside: {MAPPING}"),
        ({**MAPPED, "double_nat": True}, "warning", "leads nowhere"),
        ({**MAPPED, "is_verified": [False]}, "warning", f"granted, but nothing comes through: {MAPPING}"),
        ({**MAPPED, "is_verified": [False], "reasons": [LYING]}, "warning", LYING),
    ],
)
def test_port_mapping_is_told_with_advice(found, status, text):
    one = outside(port_mapping=found)["port_mapping"]
    assert one.status == status and text in one.text and bool(one.advice) == (status == "warning")


def test_a_mapping_that_nobody_has_tried_is_not_said_to_work():
    one = outside(port_mapping=MAPPED)["port_mapping"]
    assert (one.status, one.text) == ("ok", f"granted, not tried from outside: {MAPPING}") and "--bootstrap" in one.advice
    assert one.facts["is_verified"] == [None]


@pytest.mark.parametrize(
    ("verdicts", "status", "text"),
    [
        ([True, None], "ok", f"works, tried from outside: {MAPPING}; granted, not tried from outside: {MAPPING_IPV6}"),
        ([True, False], "warning", f"granted, but nothing comes through: {MAPPING_IPV6}; works, tried from outside: {MAPPING}"),
    ],
)
def test_each_mapping_is_told_by_what_became_of_it(verdicts, status, text):
    found = {**MAPPED, "mappings": [MAPPING, MAPPING_IPV6], "is_verified": verdicts}
    one = outside(port_mapping=found)["port_mapping"]
    assert (one.status, one.text) == (status, text)


@pytest.mark.parametrize(
    ("found", "is_needed"),
    [(report("none", "none"), False), (report("none"), True), (report("endpoint-independent", "none"), True), (None, True)],
)
def test_without_a_nat_no_mapping_is_needed(found, is_needed):
    one = outside(found, port_mapping=SILENT)["port_mapping"]
    assert (one.status, bool(one.advice)) == (("warning", True) if is_needed else ("ok", False))
    assert is_needed or one.text == "none needed: there is no NAT"


def test_without_a_nat_by_ipv6_alone_a_gateway_of_ipv4_is_still_asked_for_more():
    here = {**SILENT, "gateways": ["192.168.1.1"]}
    assert outside(None, ipv6=report("none", "none"), port_mapping=here)["port_mapping"].status == "warning"
    assert (
        outside(None, ipv6=report("none", "none"), port_mapping={**here, "gateways": ["fe80::1"]})["port_mapping"].status == "ok"
    )


class Mapper:
    """What a mapper says, one report after the other, and how often it was told to doubt."""

    def __init__(self, *said):
        self.said = list(said)
        self.doubts = 0

    def report(self):
        return self.said.pop(0) if len(self.said) > 1 else self.said[0]

    def doubt(self):
        self.doubts += 1

    def verify(self):
        return asyncio.run(_verify(self.report(), self.report, self.doubt))


@pytest.fixture
def _brief(monkeypatch):
    monkeypatch.setattr("interpeer._cli.outside.GATEWAY_LOOK_S", 0.0001)
    monkeypatch.setattr("interpeer._cli.outside.VERIFY_S", 0.0020)


@pytest.mark.usefixtures("_brief")
def test_doctor_waits_until_a_mapping_was_tried_also_when_it_is_made_anew_in_between():
    anew = {**GATEWAY, "reasons": ["the gateway granted it, but nothing came through: it was made anew"]}
    verdict = {**MAPPED, "is_verified": [False]}
    mapper = Mapper(MAPPED, MAPPED, anew, anew, MAPPED, verdict)
    assert mapper.verify() == verdict and mapper.doubts == 1


@pytest.mark.usefixtures("_brief")
def test_doctor_does_not_wait_for_ever_for_a_mapping_to_be_tried():
    mapper = Mapper(MAPPED)
    assert mapper.verify() == MAPPED and mapper.doubts == 2, "of 20 looks every tenth"


@pytest.mark.parametrize("found", [GATEWAY, {}, {**MAPPED, "double_nat": True}, {**MAPPED, "is_verified": [True]}])
def test_what_cannot_be_tried_or_was_is_not_waited_for(found):
    mapper = Mapper(found)
    assert mapper.verify() == found and mapper.doubts == 0


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
    one = outside(report("none", "none", lifetime_s=s - 1))["nat"]
    assert (one.status, one.advice) == ("warning", FORGETFUL)


def test_a_short_lifetime_does_not_hide_what_else_is_wrong():
    alone = outside(report("address-dependent"))["nat"]
    one = outside(report("address-dependent", lifetime_s=5.0))["nat"]
    assert (one.status, one.advice) == ("warning", f"{alone.advice}; {FORGETFUL}")


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


LINKS = (Interface("eth0", 2, (InterfaceAddress(IPv4Address("192.168.1.5"), 24),)), Interface("lo", 1, is_loopback=True))


@pytest.mark.parametrize(
    ("is_on", "found", "refused", "has_mdns", "status", "text", "advice"),
    [
        (True, LINKS, (), True, "ok", "neighbours are looked for on eth0, by UDP port 28457 and mDNS", ""),
        (True, LINKS, (6,), True, "ok", "neighbours are looked for on eth0, by UDP port 28457 and mDNS", ""),
        (True, LINKS, (), False, "ok", "neighbours are looked for on eth0, by UDP port 28457", "interpeer[lan]"),
        (True, LINKS, (4, 6), True, "warning", "UDP port 28457 cannot be used: it is taken", "end the program"),
        (True, LINKS[1:], (), True, "ok", "no interface leads to neighbours", ""),
        (False, LINKS, (4, 6), False, "ok", "neighbours are not looked for (--no-lan)", ""),
    ],
)
def test_the_local_network_is_told_with_advice(monkeypatch, is_on, found, refused, has_mdns, status, text, advice):
    def try_port(version):
        if version in refused:
            raise OSError(98, "it is taken")

    monkeypatch.setattr(doctor, "interfaces", lambda: found)
    monkeypatch.setattr(doctor, "try_port", try_port)
    monkeypatch.setattr(doctor, "find_spec", lambda _: object() if has_mdns else None)
    one = doctor._lan(is_on=is_on)
    assert (one.status, one.text) == (status, text) and advice in one.advice and bool(one.advice) == bool(advice)
    assert one.facts["has_port"] is (len(refused) < 2) and one.facts["has_mdns"] is has_mdns


def test_a_port_that_another_program_has_for_itself_cannot_be_had(monkeypatch):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        monkeypatch.setattr(links, "PORT", other.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            links.try_port(4)
    links.try_port(4)
