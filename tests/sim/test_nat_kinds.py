"""Every kind of NAT of the simulator, held against the table by probes from both sides, and by plain hole punches."""

import itertools

import pytest

from interpeer.testing import Allocation, Link, NatBehaviour, NatKind
from interpeer.testing._natkind import FIRST_PORT, can_punch
from tests.sim.nats import AD, APD, EI, NONE, Socket, make_net, punch

SHARED = (NatKind.CGN, NatKind.CGN_HAIRPIN)


@pytest.mark.parametrize("kind", list(NatKind))
def test_a_kind_does_what_its_row_of_the_table_says(kind, seed):
    net, servers = make_net(seed)
    host, behaviour = net.host("a", nat=kind), kind.behaviour
    if not behaviour.udp:
        assert servers.mapping(host) is None
        assert net.counters["blocked"] > 0
        return
    assert servers.mapping(host) is behaviour.mapping
    assert servers.filtering(host) is behaviour.filtering
    socket = Socket(host, 50_123)
    assert (servers.see(socket)[1] == 50_123) is behaviour.preserves_port
    if behaviour.translates:
        assert servers.hairpins(host) is behaviour.hairpin
        assert host.addresses == ("192.168.1.10",)


@pytest.mark.parametrize("mapping", [EI, AD, APD])
@pytest.mark.parametrize("filtering", [EI, AD, APD])
@pytest.mark.parametrize("allocation", list(Allocation))
def test_mapping_filtering_and_allocation_can_be_combined(mapping, filtering, allocation, seed):
    net, servers = make_net(seed)
    behaviour = NatBehaviour(mapping=mapping, filtering=filtering, allocation=allocation, hairpin=filtering is EI)
    host = net.host("a", nat=net.router("home", behaviour))
    socket = Socket(host, 50_123)
    seen = servers.see(socket)
    assert (seen[1] == 50_123) is behaviour.preserves_port
    assert servers.filtering(host) is filtering
    if mapping is EI or allocation is not Allocation.PRESERVED:
        assert servers.mapping(host) is mapping
    if filtering is EI:
        assert servers.hairpins(host)


@pytest.mark.parametrize(("one", "two"), list(itertools.combinations_with_replacement(NatKind, 2)), ids=str)
def test_a_plain_punch_works_between_the_pairs_that_the_table_says(one, two, seed):
    net, servers = make_net(seed)
    a, b = net.host("a", nat=one), net.host("b", nat=two)
    expected = can_punch(one.behaviour, two.behaviour)
    if one is two and one in SHARED:
        expected = one.behaviour.hairpin  # both are behind the same one
    assert punch(servers, a, b) is expected


def test_the_pairs_that_no_plain_punch_joins_are_those_that_were_measured_between_kernels(seed):
    """45 pairs of nine kinds, between network namespaces on links without delay."""
    kinds = [NatKind.PUBLIC, NatKind.FIREWALL, NatKind.FULLCONE, NatKind.ADDR, NatKind.PORT, NatKind.SYMMETRIC]
    kinds += [NatKind.SYMMETRIC_AD, NatKind.SYMMETRIC_EI, NatKind.UDPBLOCK]
    strict, hard = {NatKind.FIREWALL, NatKind.PORT}, {NatKind.SYMMETRIC, NatKind.SYMMETRIC_AD}
    for one, two in itertools.combinations_with_replacement(kinds, 2):
        is_hopeless = NatKind.UDPBLOCK in (one, two) or (one in strict and two in hard) or (one in hard and two in hard)
        net, servers = make_net(seed, Link())
        assert punch(servers, net.host("a", nat=one), net.host("b", nat=two)) is not is_hopeless, (one, two)


# --- what comes too early ---


@pytest.mark.parametrize("late_s", [0.0, 0.5])
@pytest.mark.parametrize("low_ttl", [None, 2])
def test_early_packets_spoil_a_punch_between_plain_linux_routers_unless_they_die_on_the_way(late_s, low_ttl, seed):
    net, servers = make_net(seed)
    a, b = net.host("a", nat=NatKind.LINUX), net.host("b", nat=NatKind.LINUX)
    assert punch(servers, a, b, late_s=late_s, low_ttl=low_ttl) is (low_ttl is not None or not late_s)


def test_a_stranger_takes_the_port_of_a_plain_linux_router_towards_himself(seed):
    net, servers = make_net(seed)
    socket = Socket(net.host("a", nat=NatKind.LINUX), 50_123)
    seen = servers.see(socket)
    assert seen[1] == 50_123
    servers.other.send(b"early", seen)
    assert not socket.hears()
    assert servers.see(socket, servers.other)[1] != 50_123  # and the answer still comes in
    assert servers.see(socket, servers.other_port) == seen == servers.see(socket)
    net.clock.advance_s(31)  # he is forgotten when he has been silent
    fresh = Socket(socket.host, 50_124)
    assert servers.see(fresh, servers.other)[1] == 50_124


# --- TTL ---


def test_a_router_counts_down_and_one_more_lies_between_two_sites(seed):
    net, servers = make_net(seed)
    fates = []
    net.observe(fates.append)
    home = Socket(net.host("a", nat=NatKind.PORT))
    public = Socket(net.host("p"))
    far = net.host("b", nat=NatKind.FULLCONE)
    behind = Socket(far)
    seen = servers.see(behind)

    def fate(socket, ttl):
        socket.send(b"x", seen, ttl)
        net.clock.advance_s(1)
        return fates[-1].what, fates[-1].source.host

    outside = net.routers[0].address
    assert fate(home, 1) == ("ttl expired", home.host.addresses[0])
    assert fate(home, 2) == ("ttl expired", outside)
    assert fate(home, 3) == ("ttl expired", outside)
    assert fate(home, 4) == ("delivered", outside)
    assert fate(public, 1)[0] == fate(public, 2)[0] == "ttl expired"
    assert fate(public, 3)[0] == "delivered"


def test_a_packet_of_ttl_two_opens_its_own_nat_and_not_the_others(seed):
    net, servers = make_net(seed)
    a, b = net.host("a", nat=NatKind.PORT), net.host("b", nat=NatKind.PORT)
    one, two = Socket(a), Socket(b)
    seen_one, seen_two = servers.see(one), servers.see(two)
    one.send(b"opens", seen_two, ttl=2)
    assert not two.hears()
    two.send(b"comes in", seen_one)
    assert one.hears()


def test_behind_two_routers_ttl_two_opens_the_first_only(seed):
    net, servers = make_net(seed)
    host = net.host("a", nat=NatKind.DOUBLE)
    inner, outer = host.router, host.router.behind
    socket = Socket(host)
    socket.send(b"x", servers.first.endpoint, ttl=2)
    net.clock.advance_s(1)
    assert (inner.mappings, outer.mappings) == (1, 0)
    assert servers.see(socket)[0][12:] == bytes(map(int, outer.address.split(".")))
    assert (inner.mappings, outer.mappings) == (1, 1)


# --- ports ---


def test_sequential_ports_go_up_by_a_step_and_other_flows_take_some(seed):
    net, servers = make_net(seed, Link())
    router = net.router("home", NatKind.SYMMETRIC_SEQ)
    host = net.host("a", nat=router)
    socket = Socket(host)
    ports = [servers.see(socket, server)[1] for server in (servers.first, servers.same_address, servers.other)]
    assert [(b - a) % 64_512 for a, b in itertools.pairwise(ports)] == [1, 1]
    router.set(step=-2)
    ports = [servers.see(socket, server)[1] for server in (servers.first, servers.same_address, servers.other)]
    assert [(b - a) % 64_512 for a, b in itertools.pairwise(ports)] == [64_510, 64_510]
    router.set(NatKind.SYMMETRIC_SEQ)
    router.background(20)
    first = servers.see(socket)[1]
    net.clock.advance_s(60)
    gone_by = (servers.see(socket, servers.other)[1] - first) % 64_512
    assert 20 * 60 * 0.8 < gone_by < 20 * 60 * 1.2
    router.background(0)
    with pytest.raises(ValueError, match="not negative"):
        router.background(-1)


def test_a_block_holds_all_ports_that_a_nat_gives_out(seed):
    net, servers = make_net(seed, Link())
    router = net.router("home", NatKind.SYMMETRIC_BLOCK)
    host = net.host("a", nat=router)
    first, last = router.ports
    assert last - first == 511
    assert first >= FIRST_PORT
    seen = [servers.see(Socket(host))[1] for _ in range(40)]
    assert all(first <= port <= last for port in seen)
    assert len(set(seen)) > 30


def test_one_outside_port_serves_one_inside_socket(seed):
    net, servers = make_net(seed)
    home = net.router("home", NatKind.FULLCONE)
    one, two = (Socket(net.host(name, nat=home), 7777) for name in "ab")
    seen_one, seen_two = servers.see(one), servers.see(two)
    assert seen_one[1] == 7777 != seen_two[1]
    assert servers.see(one, servers.other) == seen_one
    assert servers.see(two, servers.other) == seen_two
    servers.other_port.send(b"for one", seen_one)
    servers.other_port.send(b"for two", seen_two)
    net.clock.advance_s(1)
    assert [one.heard[-1][0], two.heard[-1][0]] == [b"for one", b"for two"]


def test_a_port_answers_to_whom_the_filter_let_in_by_the_port_he_came_to(seed):
    net, servers = make_net(seed)
    socket = Socket(net.host("a", nat=NatKind.SYMMETRIC_EI))
    seen = servers.see(socket)
    servers.other.send(b"hello", seen)
    assert socket.hears()
    assert servers.see(socket, servers.other) == seen
    assert servers.see(socket, servers.other_port) != seen


def test_when_no_port_is_left_packets_are_dropped(seed):
    net, servers = make_net(seed)
    behaviour = NatKind.FULLCONE.behaviour.replace(allocation=Allocation.RANDOM, block_ports=3)
    host = net.host("a", nat=net.router("home", behaviour))
    seen = [servers.see(Socket(host)) for _ in range(4)]
    assert None not in seen[:3]
    assert seen[3] is None
    assert net.counters["no port left"] == 1
    net.clock.advance_s(behaviour.lifetime_s)
    assert servers.see(Socket(host)) is not None


# --- time ---


@pytest.mark.parametrize("kind", [NatKind.PORT, NatKind.SYMMETRIC, NatKind.FULLCONE, NatKind.FIREWALL])
def test_a_mapping_lives_as_long_as_packets_go_out(kind, seed):
    net, servers = make_net(seed)
    router = net.router("home", kind)
    router.set(lifetime_s=20)
    socket = Socket(net.host("a", nat=router))
    seen = servers.see(socket)
    for wait_s, is_open in ((19.8, True), (20.1, False)):
        for _ in range(3):
            net.clock.advance_s(10)
            socket.send(b"keep", servers.first.endpoint)
        net.clock.advance_s(wait_s)
        servers.first.send(b"still there?", seen)
        assert socket.hears(within_s=0.1) is is_open


@pytest.mark.parametrize("inward", [False, True])
def test_packets_inwards_keep_a_mapping_alive_where_they_are_said_to(inward, seed):
    net, servers = make_net(seed)
    router = net.router("home", NatKind.PORT, is_refreshed_inward=inward)
    router.set(lifetime_s=20)
    socket = Socket(net.host("a", nat=router))
    seen = servers.see(socket)
    heard = []
    for _ in range(6):
        net.clock.advance_s(14)
        servers.first.send(b"keep", seen)
        heard.append(socket.hears())
    assert heard == ([True] * 6 if inward else [True] + [False] * 5)


def test_a_flow_that_was_answered_lives_longer_where_that_is_so(seed):
    net, servers = make_net(seed)
    socket = Socket(net.host("a", nat=NatKind.LINUX))  # 30 s, and 120 s once packets have gone both ways
    silent = Socket(net.host("silent"))
    socket.send(b"x", silent.endpoint)
    seen = servers.see(socket)
    net.clock.advance_s(60)
    servers.first.send(b"answered before", seen)
    assert socket.hears()
    silent.send(b"never answered", seen)
    assert not socket.hears()


# --- what changes while it runs ---


def test_a_reboot_closes_what_was_open_and_sending_opens_it_again(seed):
    net, servers = make_net(seed)
    host = net.host("a", nat=NatKind.PORT)
    socket = Socket(host)
    seen = servers.see(socket)
    host.router.flush()
    servers.first.send(b"x", seen)
    assert not socket.hears()
    assert servers.see(socket) == seen
    host.router.renumber()
    other = servers.see(socket)
    assert other[0] != seen[0]
    assert other[1] == seen[1]
    servers.first.send(b"x", seen)
    assert not socket.hears()
    servers.first.send(b"x", other)
    assert socket.hears()


def test_a_router_can_change_its_kind(seed):
    net, servers = make_net(seed)
    host = net.host("a", nat=NatKind.PORT)
    host.router.set(NatKind.SYMMETRIC_AD)
    assert (servers.mapping(host), servers.filtering(host)) == (AD, AD)
    host.router.set(NatKind.FULLCONE, hairpin=True)
    assert (servers.mapping(host), servers.filtering(host), servers.hairpins(host)) == (EI, EI, True)
    host.router.set(NatKind.CGN)  # its own part of it
    assert (servers.mapping(host), servers.filtering(host)) == (EI, APD)
    with pytest.raises(ValueError, match="does not become a firewall"):
        host.router.set(NatKind.FIREWALL)


# --- who is where ---


def test_homes_have_the_same_private_addresses_and_do_not_reach_each_other_by_them(seed):
    net, _servers = make_net(seed)
    a, b = net.host("a", nat=NatKind.PORT), net.host("b", nat=NatKind.PORT)
    assert a.addresses == b.addresses == ("192.168.1.10",)
    one, two = Socket(a, 4000), Socket(b, 4000)
    one.send(b"to myself, as it turns out", two.endpoint)
    assert not two.hears()
    assert one.heard[-1][1] == one.endpoint
    one.send(b"to nobody", (two.endpoint[0][:15] + b"\x63", 4000, 0))
    net.clock.advance_s(1)
    assert net.counters["nobody there"] == 1


def test_hosts_of_a_home_reach_each_other_without_the_router(seed):
    net, servers = make_net(seed)
    home = net.router("home", NatKind.UDPBLOCK)
    one, two = (Socket(net.host(name, nat=home)) for name in "ab")
    assert [socket.host.addresses[0] for socket in (one, two)] == ["192.168.1.10", "192.168.1.11"]
    assert home.hosts == (one.host, two.host)
    two.send(b"hello", one.endpoint, ttl=1)
    assert one.hears()
    assert one.heard == [(b"hello", two.endpoint)]
    net.wire(two.host, one.host).set(is_up=False)
    two.send(b"hello", one.endpoint)
    assert not one.hears()
    assert servers.see(one) is None


@pytest.mark.parametrize("kind", SHARED)
def test_homes_of_a_carrier_share_its_address_and_see_each_other_inside_it(kind, seed):
    net, servers = make_net(seed)
    a, b = net.host("a", nat=kind), net.host("b", nat=kind)
    assert a.router.behind is b.router.behind
    assert a.addresses == b.addresses
    assert a.router.address != b.router.address
    assert a.router.address.startswith("100.64.0.")
    one, two = Socket(a), Socket(b)
    seen_one, seen_two = servers.see(one), servers.see(two)
    assert seen_one[0] == seen_two[0]
    at_one = b.router.realm.nodes  # by the carrier's own addresses homes reach each other, hairpinning or not
    inside = [next(key for key, node in at_one.items() if node is host.router) for host in (a, b)]
    one.send(b"syn", (inside[1], two.endpoint[1], 0))
    two.send(b"syn", (inside[0], one.endpoint[1], 0))
    net.clock.advance_s(1)
    assert one.heard[-1] == (b"syn", (inside[1], two.endpoint[1], 0))


def test_a_router_inside_another_needs_another_network(seed):
    net, _servers = make_net(seed)
    outer = net.router("outer")
    with pytest.raises(ValueError, match="give it another lan"):
        net.router("inner", behind=outer)
    net.router("inner two", behind=outer, lan="10.0.0.0/24")
    with pytest.raises(ValueError, match="already"):
        net.router("outer")
    with pytest.raises(ValueError, match="ipv6 is 'off'"):
        net.router("third", ipv6="on")


def test_a_firewall_leaves_addresses_as_they_are(seed):
    net, servers = make_net(seed)
    host = net.host("a", nat=NatKind.FIREWALL)
    socket = Socket(host)
    assert socket.host.router.behaviour.mapping is NONE
    servers.first.send(b"unasked", socket.endpoint)
    assert not socket.hears()
    assert net.counters["filtered"] == 1
    assert servers.see(socket) == socket.endpoint
    servers.other.send(b"unasked", socket.endpoint)
    assert not socket.hears()
    servers.first.send(b"asked", socket.endpoint)
    assert socket.hears()


# --- IPv6 ---


@pytest.mark.parametrize(("ipv6", "is_open"), [("fw", False), ("open", True)])
@pytest.mark.parametrize("is_nested", [False, True])
def test_ipv6_is_not_translated_but_filtered_where_there_is_a_firewall(ipv6, is_open, is_nested, seed):
    net, servers = make_net(seed)
    home = net.router("home", NatKind.CGN if is_nested else NatKind.SYMMETRIC, ipv6=ipv6)
    host = net.host("a", nat=home)
    six = bytes(16), 0, 0
    socket = Socket(host, family_of=six)
    assert len(host.addresses) == 2
    servers.first_6.send(b"unasked", socket.endpoint)
    assert socket.hears() is is_open
    assert servers.see(socket, servers.first_6) == socket.endpoint
    servers.other_6.send(b"unasked", socket.endpoint)
    assert socket.hears() is is_open


def test_a_home_may_have_one_family_alone(seed):
    net, _servers = make_net(seed)
    assert net.host("four", nat=NatKind.PORT).addresses == ("192.168.1.10",)
    six = net.host("six", nat=net.router("home", ipv4=False, ipv6="fw"))
    assert [":" in address for address in six.addresses] == [True]
    assert six.router.address is None is six.router.gateway
    with pytest.raises(ValueError, match="which has none"):
        net.router("behind it", behind=six.router)


def test_addresses_that_are_routed_from_outside_belong_to_one_host(seed):
    net, _servers = make_net(seed)
    home = net.router("home", ipv6="fw")
    host = net.host("a", nat=home)
    with pytest.raises(ValueError, match="cannot be an address"):
        net.host("thief", host.addresses[1])
    net.host("no thief", host.addresses[0])


# --- with everything else ---


def test_two_packets_of_one_seed_get_the_same_ports():
    def ports(seed):
        net, servers = make_net(seed)
        return [servers.see(Socket(net.host(nat=NatKind.SYMMETRIC)))[1] for _ in range(5)]

    assert ports(5) == ports(5) != ports(6)


def test_wires_partitions_and_packets_by_hand_know_of_routers(seed):
    net, servers = make_net(seed)
    a, b = net.host("a", nat=NatKind.FULLCONE), net.host("b", nat=NatKind.FULLCONE)
    one, two = Socket(a), Socket(b)
    seen = servers.see(two)
    net.link(a, b, Link(delay_s=5))
    one.send(b"slow", seen)
    assert not two.hears(within_s=4.9)
    assert two.hears(within_s=0.2)
    assert net.wire(a, b).stats.packets == 1
    net.partition([a], [b])
    one.send(b"parted", seen)
    assert not two.hears(within_s=6)
    assert net.counters["partitioned"] == 1
    net.heal()
    net.bottleneck(Link(is_up=False), [a], [b])
    one.send(b"narrow", seen)
    assert not two.hears(within_s=6)


def test_a_router_has_an_access_of_its_own(seed):
    net, servers = make_net(seed, Link())
    home = net.router("home", NatKind.FULLCONE, up=Link(delay_s=1), down=Link(delay_s=2))
    socket = Socket(net.host("a", nat=home))
    socket.send(b"where", servers.first.endpoint)
    assert not socket.hears(within_s=2.9)
    assert socket.hears(within_s=0.2)
    assert (home.up.stats.packets, home.down.stats.packets) == (1, 1)
