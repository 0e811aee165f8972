"""Simulated hosts that roam, have several interfaces, and open extra sockets, with production nodes on them."""

import asyncio

import pytest

import interpeer
from interpeer import errors
from interpeer._core import control
from interpeer._interfaces import interfaces
from interpeer.testing import Link, NatKind, SimClock, SimNet, run
from interpeer.testing._extra import MAX_ADOPTED
from tests.sim.nats import PROBE, Reflector, Socket

NEAR = Link(delay_s=0.01, rate_bit_per_s=20e6, queue_packets=60)
SIX = bytes(16), 0, 0


def make_net():
    return SimNet(Link(delay_s=0.01), seed=1, clock=SimClock())


# --- places ---


def test_a_host_that_roams_keeps_its_sockets_and_gets_the_addresses_of_the_place():
    net = make_net()
    server = Reflector(net.host("server", "203.0.113.1"), 3478)
    host = net.host("phone", nat=NatKind.PORT)
    socket = Socket(host, 5000)
    cafe = net.router("cafe", NatKind.SYMMETRIC, lan="10.0.0.0/24")
    seen = []
    for place in (host.router, cafe, None):
        host.move_to(place)
        assert host.router is place
        socket.send(b"where", server.endpoint)
        assert socket.hears()
        seen.append((host.addresses[0], socket.heard[-1][0]))
    assert [address for address, _ in seen[:2]] == ["192.168.1.11", "10.0.0.10"]
    assert len({data[:16] for _, data in seen}) == 3
    assert seen[2][1][16:] == (5000).to_bytes(2, "big")
    host.move_to(cafe, "10.0.0.99")
    assert host.addresses == ("10.0.0.99",)
    other = net.host("other", nat=cafe)
    with pytest.raises(ValueError, match="cannot be an address"):
        host.move_to(cafe, other.addresses[0])
    assert host.addresses == ("10.0.0.99",)


def test_an_address_that_a_host_has_left_is_given_to_the_next():
    net = make_net()
    small = net.router("small", lan="192.168.7.0/28")
    hosts = [net.host(nat=small) for _ in range(5)]
    assert [host.addresses[0] for host in hosts] == [f"192.168.7.{number}" for number in range(10, 15)]
    with pytest.raises(ValueError, match="no address left"):
        net.host(nat=small)
    hosts[2].move_to(None)
    assert net.host("late", nat=small).addresses == ("192.168.7.12",)


def test_a_nat_that_rebinds_is_left_behind():
    net = make_net()
    server = Reflector(net.host("server", "203.0.113.1"), 3478)
    host = net.host("phone", nat=NatKind.PORT)
    socket = Socket(host, 5000)
    for place in (host.router, None, net.router("cafe", lan="10.0.0.0/24")):
        host.move_to(place)
        for is_elsewhere in (True, False, True):
            host.rebind(address=is_elsewhere)
            socket.send(b"where", server.endpoint)
            assert socket.hears()


def test_a_run_behind_nats_is_the_same_each_time():
    async def main():
        net = SimNet(Link(delay_s=0.01, loss=0.05))
        router = net.router("home", NatKind.SYMMETRIC_SEQ)
        router.background(20)
        server = net.host("server", "203.0.113.1")
        async with net.host("a", nat=router).node() as a, server.node() as b, a.connect(b.address) as connection:
            for _ in range(20):
                connection.send_datagram(b"x")
                await asyncio.sleep(0.5)
            router.flush()
            connection.send_datagram(b"y")
            await asyncio.sleep(5)
        return net.digest()

    assert run(main(), seed=3) == run(main(), seed=3) != run(main(), seed=4)


def test_what_is_on_its_way_to_where_a_host_was_finds_nobody():
    net = make_net()
    host = net.host("phone", nat=NatKind.FULLCONE)
    socket, server = Socket(host, 5000), Reflector(net.host("server", "203.0.113.1"), 3478)
    socket.send(b"where", server.endpoint)
    net.clock.advance_s(0.015)
    host.move_to(None)
    assert not socket.hears()
    assert net.counters["nobody there"] == 1


def test_a_host_may_be_in_two_networks_and_sends_where_the_target_is():
    net = make_net()
    home, phone = net.router("home", NatKind.PORT), net.router("phone", NatKind.SYMMETRIC, lan="10.0.0.0/24")
    host = net.host("laptop", nat=home)
    host.add_interface("wlan0", phone)
    assert host.addresses == ("192.168.1.10", "10.0.0.10")
    near_home, near_phone = (Socket(net.host(router.name, nat=router)) for router in (home, phone))
    public = Socket(net.host("public"))
    socket = Socket(host)

    def source(target):
        socket.send(b"x", target.endpoint)
        assert target.hears()
        return interpeer.Endpoint.from_core(target.heard[-1][1]).host

    assert source(near_home) == "192.168.1.10"
    assert source(near_phone) == "10.0.0.10"
    assert source(public) == home.address
    host.set_interface("eth0", is_up=False)
    assert source(public) == phone.address
    near_home.send(b"x", (host.packed_addresses[0], socket.endpoint[1], 0))
    assert not socket.hears()
    assert net.counters["interface down"] == 1
    host.set_interface("eth0", is_up=True)
    assert source(public) == home.address
    with pytest.raises(ValueError, match="already"):
        host.add_interface("wlan0")
    with pytest.raises(KeyError, match="wlan1"):
        host.set_interface("wlan1", is_up=False)
    with pytest.raises(ValueError, match="cannot be an address"):
        host.add_interface("wlan1", home, "192.168.1.11")
    assert len(host.network_interfaces) == 2


def test_interfaces_are_told_and_watched():
    net = make_net()
    home = net.router("home", ipv6="fw")
    host = net.host("laptop", nat=home)
    told = []
    stop = host.watch_interfaces(lambda: told.append(host.interfaces()))
    host.add_interface("wlan0", net.router("phone", lan="10.0.0.0/24"))
    host.set_interface("eth0", is_up=False)
    net.clock.advance_s(1)
    assert len(told) == 1  # of one moment once
    six = host.addresses[1]
    assert told[0] == [
        ("eth0", "192.168.1.10", 24, False, True),
        ("eth0", six, 64, False, True),
        ("wlan0", "10.0.0.10", 24, True, True),
    ]
    for change in (host.unplug, host.plug_in, lambda: host.move_to(None), lambda: host.move("192.0.2.1")):
        change()
        net.clock.advance_s(1)
    assert [len(one) for one in told[1:]] == [3, 3, 3, 2]
    assert not any(is_up for *_, is_up, _ in told[1])
    stop()
    stop()
    host.move("192.0.2.2")
    net.clock.advance_s(1)
    assert len(told) == 5


def test_a_node_tells_all_addresses_of_its_host(sim):
    async def main():
        net = SimNet()
        host = net.host("laptop", nat=net.router("home"))
        host.add_interface("wlan0", net.router("phone", lan="10.0.0.0/24"))
        assert [one.name for one in await host.start(ask())] == ["eth0", "wlan0"]
        async with host.node(listen="0.0.0.0:0") as node:
            assert {endpoint.host for endpoint in node.address.endpoints} == {"192.168.1.10", "10.0.0.10"}
            host.set_interface("wlan0", is_up=False)
            await asyncio.sleep(1)
            assert {endpoint.host for endpoint in node.address.endpoints} == {"192.168.1.10"}

    async def ask():
        return interfaces()

    sim.run(main())


@pytest.mark.parametrize("kind", [NatKind.PORT, NatKind.SYMMETRIC, NatKind.LINUX, NatKind.CGN, NatKind.PUBLIC])
def test_a_transfer_goes_on_when_its_sender_roams(kind, sim):
    async def main():
        net = SimNet(NEAR)
        phone, server = net.host("phone", nat=kind), net.host("server", "203.0.113.1")
        async with phone.node() as a, server.node() as b:
            accepting = asyncio.create_task(b.accept())
            here, there = await a.connect(b.address), await accepting
            data = sim.bytes(4_000_000)

            async def send():
                async with here.open_stream() as stream:
                    await stream.write(data)

            sending = asyncio.create_task(send())
            stream = await there.accept_stream()
            received = await stream.readexactly(1_000_000)
            phone.move_to(net.router("cafe", NatKind.SYMMETRIC, lan="10.0.0.0/24"))
            begun_s = net.clock.now_s
            received += await stream.readexactly(1_000_000)
            assert net.clock.now_s - begun_s < 3
            received += await stream.read()
            assert received == data
            await sending

    sim.run(main())


# --- extra sockets ---


class Extra:
    """A node with extra sockets behind a NAT, and a public port that answers."""

    def __init__(self, node, host, server):
        self.driver, self.host, self.server, self.heard = node._driver, host, server, []

    def open(self, count, is_ipv6=False):
        return self.driver.open_sockets(count, is_ipv6, lambda *what: self.heard.append(what))


async def with_extra(program, kind=NatKind.SYMMETRIC):
    net = SimNet(Link(delay_s=0.01))
    host = net.host("a", nat=kind)
    server = Reflector(net.host("server", "203.0.113.1"), 3478)
    async with host.node(listen="0.0.0.0:0") as node:
        await program(Extra(node, host, server))


def test_extra_sockets_have_ports_and_time_to_live_of_their_own(sim):
    async def program(extra):
        sockets = extra.open(200)
        assert len({one.port for one in sockets}) == 200
        for one in sockets:
            one.send(PROBE, extra.server.endpoint)
        await asyncio.sleep(1)
        assert [socket for socket, _, _ in extra.heard] == sockets
        assert {source for _, _, source in extra.heard} == {extra.server.endpoint}
        assert extra.host.router.mappings == 200
        extra.host.router.flush()
        sockets[0].send(PROBE, extra.server.endpoint, ttl=2)
        await asyncio.sleep(1)
        assert len(extra.heard) == 200
        assert extra.host.router.mappings == 1
        sockets[0].close()
        sockets[0].close()
        with pytest.raises(errors.ClosedError):
            sockets[0].send(b"", extra.server.endpoint)
        with pytest.raises(errors.ClosedError):
            sockets[0].adopt()
        with pytest.raises(errors.LocalError, match="512 extra sockets"):
            extra.open(314)
        with pytest.raises(ValueError, match="no IPv6 socket"):
            extra.open(1, is_ipv6=True)

    sim.run(with_extra(program))


def test_an_adopted_socket_is_the_engines(sim):
    async def program(extra):
        sockets = extra.open(MAX_ADOPTED + 1)
        assert extra.driver.can_adopt
        locals_ = [one.adopt() for one in sockets[:MAX_ADOPTED]]
        assert len(set(locals_)) == MAX_ADOPTED
        assert all(local.startswith(b"\1" + bytes(6) + b"\3") for local in locals_)
        assert not extra.driver.can_adopt
        with pytest.raises(errors.LocalError, match="adopted already"):
            sockets[-1].adopt()
        with pytest.raises(errors.ClosedError):
            sockets[0].send(b"", extra.server.endpoint)
        core = extra.driver._core
        for local, one in zip(locals_, sockets, strict=False):
            before = len(extra.server.heard)
            assert control.send_raw(core, PROBE, extra.server.endpoint, local, 64)
            await asyncio.sleep(1)
            assert extra.server.heard[before][0] == PROBE
            assert len(extra.server.heard) == before + 1
            extra.driver.release_socket(local)
            extra.driver.release_socket(local)
            assert one.port
        assert extra.driver.can_adopt
        assert control.send_raw(core, PROBE, extra.server.endpoint, locals_[0])
        await asyncio.sleep(1)
        assert len(extra.server.heard) == MAX_ADOPTED  # nothing leaves by a socket that is closed
        assert extra.heard == []

    sim.run(with_extra(program))


def test_what_comes_to_an_adopted_socket_is_told_with_its_virtual_address(sim):
    async def program(extra):
        (one,) = extra.open(1)
        token = b"12345678"
        core = extra.driver._core
        control.expect(core, token)
        local = one.adopt()
        events = []
        extra.driver._on_events = events.extend
        answer = b"\x46\x01" + token + bytes(54)
        control.send_raw(core, PROBE, extra.server.endpoint, local)
        await asyncio.sleep(1)
        extra.server.send(answer, extra.server.heard[-1][1])
        await asyncio.sleep(1)
        assert [(event[1], event[3]) for event in events if event[0] == control.RAW] == [(answer, local)]

    sim.run(with_extra(program))


def test_a_forged_virtual_source_is_dropped(sim):
    async def program(extra):
        (one,) = extra.open(1)
        target = extra.host.packed_addresses[0], one.port, 0
        one._receive(_packet(b"x", (b"\1" + bytes(6) + b"\2" + bytes(8), 1, 0), target))
        await asyncio.sleep(1)
        assert extra.heard == []

    def _packet(data, source, target):
        return interpeer.testing.Packet(data, source, target)

    sim.run(with_extra(program, NatKind.PUBLIC))
