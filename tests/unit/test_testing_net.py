"""interpeer.testing's network: hosts, addresses, faults between hosts, packets by hand, and what is told of it all."""

import asyncio
import inspect
import io
import itertools

import pytest

import interpeer
from interpeer import Endpoint
from interpeer.testing import Amplified, Deadlock, Link, Packet, SimClock, SimNet, SimulationError, run
from interpeer.testing._audit import Audit


async def echo(node):
    """Send back what comes on the first stream of each connection."""
    async for connection in node.incoming():
        stream = await connection.accept_stream()
        await stream.write(await stream.read())
        await stream.finish()


async def exchange(a, b, payload=b"hello"):
    """Have `b` echo what `a` sends; return what came back."""
    service = asyncio.create_task(echo(b))
    try:
        async with a.connect(b.address) as connection, connection.open_stream() as stream:
            await stream.write(payload)
            await stream.finish()
            return await stream.read()
    finally:
        service.cancel()


def test_two_nodes_talk():
    async def main():
        net = SimNet()
        async with net.host("a").node() as a, net.host("b").node() as b:
            return await exchange(a, b)

    assert run(main()) == b"hello"


def test_a_node_of_a_host_takes_what_interpeer_node_takes():
    net = SimNet(clock=SimClock())
    assert isinstance(net.host().node(listen="[::]:5", protocols=("x",), config=interpeer.Config()), interpeer.Node)
    assert "listen" in inspect.signature(interpeer.Node).parameters


def test_a_program_runs_on_a_host_without_knowing_it():
    async def service(addresses):
        async with interpeer.Node() as node:
            await addresses.put(node.address)
            await echo(node)

    async def program(address):
        async with interpeer.Node() as node, node.connect(address) as connection, connection.open_stream() as stream:
            await stream.write(b"?")
            await stream.finish()
            return node.address.endpoints[0].host, await stream.read()

    async def main():
        net = SimNet()
        alice, bob = net.host("alice"), net.host("bob")
        addresses = asyncio.Queue()
        bob.start(service(addresses))
        host, answer = await alice.start(program(await addresses.get()))
        assert host in alice.addresses
        return answer

    assert run(main()) == b"?"


def test_identities_and_packets_come_from_the_seed():
    async def main():
        net = SimNet(Link(delay_s=0.01, loss=0.05, reorder=0.1, reorder_s=0.02, duplicate=0.05, corrupt=0.02, jitter_s=0.003))
        async with net.host("a").node() as a, net.host("b").node() as b:
            await exchange(a, b, bytes(200_000))
            return a.id, net.digest(), net.counters

    first = run(main(), seed=11)
    assert all(run(main(), seed=11) == first for _ in range(19))
    assert run(main(), seed=12)[1] != first[1]


def test_ipv6_and_ipv4_are_both_there_and_can_be_chosen():
    async def main():
        net = SimNet()
        four, six, both = net.host("four", "192.0.2.1"), net.host("six", "2001:db8::1"), net.host("both")
        async with four.node() as a, six.node() as b, both.node() as c:
            assert [endpoint.host for endpoint in a.address.endpoints] == ["192.0.2.1"]
            assert [endpoint.host for endpoint in b.address.endpoints] == ["2001:db8::1"]
            assert len(c.address.endpoints) == 2
            assert await exchange(a, c) == b"hello" == await exchange(b, c)
            with pytest.raises(interpeer.Unreachable, match="no address to call"):
                await a.connect(b.address)

    run(main())


def test_nodes_of_one_host_reach_each_other_by_loopback():
    async def main():
        host = SimNet(Link(is_up=False)).host()
        async with host.node(listen="127.0.0.1:0") as a, host.node(listen="127.0.0.1:0") as b, host.node() as c, host.node() as d:
            assert a.address.endpoints[0].host == "127.0.0.1"
            return await exchange(a, b), await exchange(c, d)

    assert run(main()) == (b"hello", b"hello")


def test_ports_are_taken_and_given_back():
    async def main():
        host = SimNet().host("h")
        async with host.node(listen="[::]:4433"):
            with pytest.raises(OSError, match=r"cannot listen at \[::\]:4433"):
                await host.node(listen="[::]:4433").__aenter__()
        async with host.node(listen="[::]:4433") as node:
            return {endpoint.port for endpoint in node.address.endpoints}

    assert run(main()) == {4433}


def test_an_address_of_another_host_cannot_be_listened_at():
    async def main():
        net = SimNet()
        net.host("a", "192.0.2.1")
        async with net.host("b", "192.0.2.2").node(listen="192.0.2.1:5"):
            pass

    with pytest.raises(OSError, match=r"cannot listen at 192\.0\.2\.1:5"):
        run(main())


@pytest.mark.parametrize("addresses", [["192.0.2.1"], ["127.0.0.1"], ["::"], ["192.0.2.2", "192.0.2.3"]])
def test_impossible_addresses_of_a_host_are_refused(addresses):
    net = SimNet(clock=SimClock())
    net.host("first", "192.0.2.1")
    with pytest.raises(ValueError, match="address"):
        net.host("second", *addresses)


def test_names_of_hosts_are_unique():
    net = SimNet(clock=SimClock())
    net.host("a")
    with pytest.raises(ValueError, match="already"):
        net.host("a")


def test_a_partition_parts_and_heals():
    async def main():
        net = SimNet()
        hosts = [net.host(name) for name in "abc"]
        async with hosts[0].node() as a, hosts[1].node() as b, hosts[2].node() as c:
            net.partition([hosts[0]])
            with pytest.raises(interpeer.Unreachable):
                await a.connect(b.address)
            assert await exchange(b, c) == b"hello"
            net.heal()
            assert await exchange(a, b) == b"hello"
            assert net.counters["partitioned"] > 0

    run(main())


def test_an_unplugged_host_is_cut_off_until_it_is_plugged_in():
    async def main():
        net = SimNet()
        alice, bob = net.host("alice"), net.host("bob")
        async with alice.node() as a, bob.node() as b:
            for host in (alice, bob):
                host.unplug()
                with pytest.raises(interpeer.Unreachable):
                    await a.connect(b.address)
                host.plug_in()
                assert await exchange(a, b) == b"hello"
            assert net.counters["unplugged"] > 0

    run(main())


def test_a_host_that_moves_is_found_at_its_new_address_only():
    async def main():
        net = SimNet()
        alice, bob = net.host("alice"), net.host("bob", "192.0.2.1")
        async with alice.node() as a, bob.node() as b:
            before = b.address
            bob.move("192.0.2.99")
            assert [endpoint.host for endpoint in b.address.endpoints] == ["192.0.2.99"]
            assert await exchange(a, b) == b"hello"
            with pytest.raises(interpeer.Unreachable):
                await a.connect(before)

    run(main())


def test_a_hosts_own_access_is_shared_by_all_who_talk_to_it():
    async def main():
        net = SimNet()
        hub = net.host("hub", up=Link(delay_s=0.01), down=Link(delay_s=0.02))
        async with hub.node() as h, net.host("a").node() as a, net.host("b").node() as b:
            rtts = []
            for node in (a, b):
                async with node.connect(h.address) as connection:
                    rtts.append(connection.stats().rtt_s)
            assert hub.up.stats.packets > 0
            return rtts

    assert run(main()) == pytest.approx([0.03, 0.03], abs=0.001)


def test_links_are_set_by_direction():
    async def main():
        net = SimNet()
        alice, bob = net.host("alice"), net.host("bob")
        net.link(alice, bob, Link(delay_s=0.03), back=Link(delay_s=0.01))
        async with alice.node() as a, bob.node() as b, a.connect(b.address) as connection:
            assert connection.stats().rtt_s == pytest.approx(0.04)
            assert net.wire(bob, alice).link.delay_s == 0.01
            with pytest.raises(ValueError, match="itself"):
                net.wire(alice, alice)

    run(main())


def test_interceptors_see_drop_change_delay_duplicate_and_replay():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        async with net.host("a").node() as a, net.host("b").node() as b:
            seen, fates = [], []
            net.observe(fates.append)

            def drop_first_init(packet):
                seen.append(packet.kind)
                return () if seen == ["init"] else None

            with net.intercepting(drop_first_init):
                assert await exchange(a, b) == b"hello"
            assert seen[:3] == ["init", "init", "response"]
            assert [fate.what for fate in fates][:2] == ["intercepted", "delivered"]

            stop = net.intercept(lambda packet: [packet, packet.copy()])
            before = b.counters()["dropped_replayed"]
            assert await exchange(a, b) == b"hello"
            stop()
            assert b.counters()["dropped_replayed"] > before

            before = b.counters()["dropped_forged"]
            with net.intercepting(lambda packet: [packet.copy(data=bytes([*packet.data[:-1], packet.data[-1] ^ 1])), packet]):
                assert await exchange(a, b) == b"hello"
            assert b.counters()["dropped_forged"] > before

    run(main())


def test_injected_packets_come_from_wherever_they_say():
    async def main():
        net = SimNet(Link(is_up=False))
        bob = net.host("bob", "192.0.2.2")
        async with bob.node(listen="192.0.2.2:77") as b:
            fates = []
            net.observe(fates.append)
            net.inject(Packet.of(b"noise", Endpoint("203.0.113.5", 1234), Endpoint("192.0.2.2", 77)))
            await asyncio.sleep(1)
            assert str(fates[0]) == "0.000000000 0.000000000 203.0.113.5:1234 > 192.0.2.2:77 other 5 delivered"
            assert b.counters()["dropped_short"] == 1

    run(main())


def test_the_trace_is_written_as_text():
    async def main():
        net, file = SimNet(), io.StringIO()
        net.trace_to(file)
        async with net.host("a").node() as a, net.host("b").node() as b:
            await exchange(a, b)
        return file.getvalue().splitlines()

    lines = run(main(), seed=1)
    assert lines[0].endswith("init 1200 delivered")
    assert " response " in lines[1]


def test_a_deadlock_with_nodes_is_told():
    async def main():
        async with SimNet().host().node() as node:
            await node.accept()

    with pytest.raises(Deadlock, match=r"await node\.accept\(\)"):
        run(main())


def test_a_net_makes_its_own_chance_from_its_own_seed():
    async def main(seed):
        net = SimNet(seed=seed)
        async with net.host("a").node() as a:
            return a.id

    assert run(main(5), seed=1) == run(main(5), seed=2) != run(main(6), seed=2)


def test_fifty_nodes_talk_to_each_other():
    async def main():
        net = SimNet(Link(delay_s=0.02, loss=0.01))
        nodes = [await net.host().node().__aenter__() for _ in range(50)]
        answers = await asyncio.gather(*(exchange(a, b) for a, b in itertools.pairwise(nodes)))
        await asyncio.gather(*(node.close() for node in nodes))
        return answers

    assert run(main()) == [b"hello"] * 49


@pytest.mark.row("R1")
def test_the_audit_notices_more_bytes_than_came():
    audit = Audit("somebody")
    near, far = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
    audit.received(Packet.of(b"\x41" + bytes(99), far, near))
    audit.sent(Packet.of(b"\x42" + bytes(99), near, far))
    with pytest.raises(Amplified, match=r"sent 101 bytes to 192\.0\.2\.2:2.*100 have come"):
        audit.sent(Packet.of(b"\x42", near, far))


@pytest.mark.row("R1")
def test_the_audit_lets_first_messages_go_where_the_application_calls():
    audit = Audit("somebody")
    near, far = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
    init = Packet.of(b"\x41" + bytes(1199), near, far)
    with pytest.raises(Amplified):
        audit.sent(init)
    audit.called(far.to_core())
    audit.sent(init)


@pytest.mark.row("R1")
def test_the_audit_lets_requests_go_anywhere_but_not_answers():
    audit = Audit("somebody")
    near, far = Endpoint("192.0.2.1", 1), Endpoint("192.0.2.2", 2)
    stun = bytes.fromhex("000100002112a442") + bytes(12)
    for request in (b"\x45" + bytes(63), stun):
        for _ in range(3):
            audit.sent(Packet.of(request, near, far))
    with pytest.raises(Amplified):
        audit.sent(Packet.of(b"\x46" + bytes(63), near, far))
    audit = Audit("somebody else")
    with pytest.raises(Amplified, match="'stun'"):
        audit.sent(Packet.of(b"\x01" + stun[1:], near, far))


@pytest.mark.row("R1")
def test_an_amplifying_node_ends_the_run():
    async def main():
        net = SimNet()
        async with net.host("a").node() as a, net.host("b").node() as b:
            b._driver.audit.received = lambda packet: None  # as if nothing had come
            await a.connect(b.address)

    with pytest.raises(Amplified, match="node 1 on b"):
        run(main())


def test_two_runs_cannot_share_a_net():
    async def make():
        return SimNet()

    net = run(make())

    async def use():
        async with net.host().node() as node:
            await node.accept()

    with pytest.raises(SimulationError):
        run(use())
