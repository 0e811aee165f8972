"""Chapter 23 of the specification: NAT behaviour, discovered against every kind of NAT in simulated time."""

from __future__ import annotations

import pytest

from interpeer._nat import Server, discover
from interpeer._nat._judge import PORTS
from interpeer.testing import run
from tests.models.nat import AD, APD, EI, INSIDE, OUTSIDE, OUTSIDE_6, Nat, Net, PeerProber
from tests.models.stun import endpoint

HOSTS = ("20.0.1.1", "20.0.2.1", "20.0.3.1")


def look(nat, *, hosts=HOSTS, other=None, prober=True, says=None, own=(), servers=(), **options):
    """Discover a NAT with so many peers, of which the first may have another address, and the last may lie."""

    async def main():
        net = Net(nat)
        found = [
            Server(net.add_server(host, other=other if i == 0 else None, says=says if i == len(hosts) - 1 else None), peer=host)
            for i, host in enumerate(hosts)
        ]
        helper = PeerProber(net) if prober is True else prober(net) if prober else None
        report = await discover(net, [*found, *servers], prober=helper, own=own, **options)
        assert not net.sockets and not net.expected, "something is left open"
        return report

    return run(main(), seed=1)


@pytest.mark.spec("NB-2", "NB-3")
@pytest.mark.parametrize("filtering", [EI, AD, APD])
@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_peers_tell_apart_every_mapping_and_filtering(mapping, filtering):
    report = look(Nat(mapping, filtering), other=("20.0.4.1", 3479))
    assert (report.mapping, report.filtering, report.udp) == (mapping, filtering, True)
    assert {one.host for one in report.reflexive} == {OUTSIDE}


@pytest.mark.parametrize("filtering", [EI, AD, APD])
@pytest.mark.parametrize("mapping", [EI, AD, APD])
def test_one_server_with_two_addresses_is_enough(mapping, filtering):
    report = look(Nat(mapping, filtering), hosts=HOSTS[:1], other=("20.0.4.1", 3479), prober=False)
    assert (report.mapping, report.filtering) == (mapping, filtering)


@pytest.mark.spec("NB-3")
@pytest.mark.parametrize("filtering", [EI, AD, APD])
def test_peers_alone_tell_apart_every_filtering(filtering):
    assert look(Nat(EI, filtering)).filtering == filtering


@pytest.mark.parametrize(("filtering", "expected"), [(EI, "none"), (APD, APD)])
def test_a_host_without_a_nat_may_have_a_firewall(filtering, expected):
    own = [endpoint(INSIDE, 51_001)]
    report = look(Nat("none", filtering), own=own)
    assert (report.mapping, report.filtering) == ("none", expected)
    assert [str(one) for one in report.reflexive] == [f"{INSIDE}:51001"]


def test_nothing_is_concluded_from_one_observer():
    report = look(Nat(EI, APD), hosts=HOSTS[:1])
    assert (report.mapping, report.hairpin) == ("unknown", None)
    assert any("two observers" in note for note in report.notes)


@pytest.mark.spec("NB-4")
def test_two_observers_in_one_prefix_are_one():
    report = look(Nat(EI, APD), hosts=("20.0.1.1", "20.0.1.2"))
    assert report.mapping == "unknown"


@pytest.mark.spec("NB-4")
@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("lie", [("20.0.9.9", 4444), ("6.6.6.6", 666)], ids=["another port", "another host"])
def test_one_liar_among_three_does_not_decide(mapping, lie):
    report = look(Nat(mapping, APD, ports="random"), other=("20.0.4.1", 3479), says=lambda mapped: endpoint(*lie))
    assert report.mapping == mapping and report.is_disputed
    assert {one.host for one in report.reflexive} == {OUTSIDE}
    assert endpoint(*lie) not in {one.to_core() for one in report.reflexive} or mapping != EI
    assert report.port_step is None and report.port_block is None


@pytest.mark.row("N4")
@pytest.mark.spec("NB-10")
@pytest.mark.parametrize(
    "other", [("192.168.1.1", 80), ("127.0.0.1", 22), (HOSTS[0], 53), ("20.0.7.7", 3478), ("224.0.0.251", 5353)],
    ids=["in our network", "this machine", "the same address", "the same port", "a group"],
)  # fmt: skip
def test_a_server_that_names_somebody_else_as_itself_is_not_believed(other):
    async def main():
        net = Net(Nat(EI, APD))
        server = net.add_server(HOSTS[0], other=other)
        await discover(net, [Server(server)])
        return {remote for _, remote in net.sent}

    assert run(main(), seed=1) == {endpoint(HOSTS[0], 3478)}


def test_nobody_answers_where_udp_is_blocked():
    async def main():
        net = Net(lose=lambda data: True)
        servers = [Server(net.add_server(host)) for host in HOSTS]
        report = await discover(net, servers)
        assert net.loop.time() < 10
        return report

    report = run(main(), seed=1)
    assert (report.udp, report.mapping, report.reflexive) == (False, "unknown", ())


@pytest.mark.spec("NB-1")
def test_who_can_help_is_not_left_out_for_being_named_twice():
    async def main():
        net = Net(Nat(EI, EI))
        servers = [Server(net.add_server(host), peer=host) for host in HOSTS]
        return await discover(net, [*servers, *(Server(one.endpoint) for one in servers)], prober=PeerProber(net))

    assert run(main(), seed=1).filtering == EI


def test_nobody_is_asked():
    async def main():
        return await discover(Net(), [])

    assert run(main(), seed=1).udp is None


# --- filtering ---


@pytest.mark.spec("NB-5")
@pytest.mark.parametrize("how", ["lies", "refuses", "from_primary"])
def test_a_peer_that_sends_nothing_opens_nothing(how):
    report = look(Nat(EI, EI), prober=lambda net: PeerProber(net, **{how: True}))
    expected = "unknown" if how == "refuses" else APD
    assert report.filtering == expected


def test_without_helpers_filtering_is_unknown():
    report = look(Nat(EI, EI), prober=False)
    assert report.filtering == "unknown" and any("filtering is not known" in note for note in report.notes)


@pytest.mark.spec("NB-6")
def test_a_server_whose_other_address_is_dead_proves_nothing():
    async def main():
        net = Net(Nat(EI, EI))
        first = net.add_server(HOSTS[0], other=("20.0.4.1", 3479))
        del net.servers[endpoint("20.0.4.1", 3479)]
        servers = [Server(first), Server(net.add_server(HOSTS[1]))]
        return await discover(net, servers)

    assert run(main(), seed=1).filtering == "unknown"


# --- ports ---


@pytest.mark.spec("NB-7")
@pytest.mark.parametrize(
    ("mapping", "ports", "preserves", "step"),
    [(EI, "same", True, None), *((m, step, False, step) for m in (EI, APD) for step in (1, 2, -1)), (APD, "random", False, None)],
)
def test_ports_are_preserved_sequential_or_random(mapping, ports, preserves, step):
    report = look(Nat(mapping, APD, ports=ports))
    assert (report.preserves_port, report.port_step, report.port_block) == (preserves, step, None)


@pytest.mark.spec("NB-7")
@pytest.mark.parametrize("mapping", [EI, APD])
@pytest.mark.parametrize("low", [1024, 20_480, 65_024])
def test_a_block_of_ports_is_found(mapping, low):
    report = look(Nat(mapping, APD, ports=(low, low + 511)))
    assert report.port_block is not None and report.port_step is None
    found_low, found_high = report.port_block
    assert found_high - found_low < 2048 and found_low <= low + 200 and found_high >= low + 311
    assert 1024 <= found_low < found_high <= 65_535 and 8 * (found_high - found_low) < PORTS


# --- hairpinning, lifetime ---


@pytest.mark.spec("NB-8")
@pytest.mark.parametrize("filtering", [EI, AD, APD])
@pytest.mark.parametrize("hairpin", [False, True])
def test_hairpinning_is_seen(hairpin, filtering):
    assert look(Nat(EI, filtering, hairpin=hairpin)).hairpin is hairpin


@pytest.mark.row("N4")
@pytest.mark.spec("NB-8")
def test_a_server_does_not_choose_whom_we_send_to():
    async def main():
        net = Net(Nat(EI, APD))
        victim = endpoint("6.6.6.6", 53)
        servers = [Server(net.add_server(host, says=lambda mapped: victim)) for host in HOSTS[:1]]
        report = await discover(net, servers)
        assert {remote for _, remote in net.sent} == {servers[0].endpoint}
        return report

    assert run(main(), seed=1).hairpin is None


@pytest.mark.spec("NB-9")
@pytest.mark.parametrize("lifetime_s", [20.0, 30.0, 65.0, 120.0])
def test_the_lifetime_is_found_within_its_budget(lifetime_s):
    report = look(Nat(EI, APD, lifetime_s=lifetime_s), lifetime_budget_s=300)
    assert report.lifetime_s is not None and lifetime_s / 1.3 <= report.lifetime_s <= lifetime_s


@pytest.mark.spec("NB-9")
def test_a_lifetime_beyond_the_budget_is_a_lower_bound():
    report = look(Nat(EI, APD, lifetime_s=300), lifetime_budget_s=40)
    assert report.lifetime_s == pytest.approx(40) and "mappings live longer than was tried" in report.notes


@pytest.mark.parametrize(("lifetime_s", "budget_s"), [(3.0, 60), (60.0, 0), (60.0, 4)])
def test_no_lifetime_is_made_up(lifetime_s, budget_s):
    assert look(Nat(EI, APD, lifetime_s=lifetime_s), lifetime_budget_s=budget_s).lifetime_s is None


def test_too_few_sockets_are_no_error():
    async def main():
        net = Net(Nat(EI, APD))
        net.most_sockets = 1
        servers = [Server(net.add_server(host)) for host in HOSTS]
        return await discover(net, servers, lifetime_budget_s=60)

    report = run(main(), seed=1)
    assert (report.mapping, report.lifetime_s, report.hairpin, report.filtering) == (EI, None, None, "unknown")
    assert any(note.startswith("no more sockets: ") and "None" not in note for note in report.notes)


def test_ipv6_alone_is_discovered():
    async def main():
        net = Net(Nat(EI, EI))
        servers = [Server(net.add_server(f"2001:db{i}::1")) for i in range(1, 4)]
        return await discover(net, servers)

    report = run(main(), seed=1)
    assert report.mapping == EI and {one.host for one in report.reflexive} == {OUTSIDE_6}


def test_loss_delays_and_does_not_mislead():
    async def main():
        count = 0

        def lose(data):
            nonlocal count
            count += 1
            return count % 3 == 0

        net = Net(Nat(APD, APD, ports="random"), lose=lose)
        servers = [Server(net.add_server(host, other=("20.0.4.1", 3479) if host == HOSTS[0] else None)) for host in HOSTS]
        return await discover(net, servers)

    assert run(main(), seed=1).mapping == APD
