"""Peers in one network, and in networks of another IP: on one switch with nothing else, at home, behind IPv6 firewalls."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from interpeer import errors
from interpeer.testing import Link, NatKind, SimNet, run
from tests.sim.test_reach import LINK


def test_two_nodes_on_one_switch_find_each_other_by_id_with_no_internet_at_all():
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home = net.router("home", NatKind.PORT)
        async with net.host("a", nat=home).node(network="test") as a, net.host("b", nat=home).node(network="test") as b:
            connection = await a.connect(b.id)
            assert connection.path.kind == "lan"
            await connection.close()

    run(main(), seed=1)


def test_a_neighbour_of_another_network_is_not_found():
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home = net.router("home", NatKind.PORT)
        async with net.host("a", nat=home).node(network="one") as a, net.host("b", nat=home).node(network="two") as b:
            with pytest.raises(errors.Unreachable):
                await a.connect(b.id)

    run(main(), seed=1)


async def met(stack, net, hosts, helpers=2, **settings):
    """Open nodes on hosts that know some public helpers."""

    async def node(host, **more):
        return await stack.enter_async_context(host.node(network="test", lan=False, **more, **settings))

    bootstrap = [(await node(net.host(f"helper{i}"))).address for i in range(helpers)]
    nodes = [await node(host, bootstrap=bootstrap) for host in hosts]
    await asyncio.gather(*(one.joined() for one in nodes))
    await asyncio.sleep(1.5)
    return nodes


def kind_between(make_hosts, within_s=5.0):
    """Connect two hosts; return the path that they have after a while."""

    async def main():
        net = SimNet(LINK)
        async with AsyncExitStack() as stack:
            a, b = await met(stack, net, make_hosts(net))
            connection = await a.connect(b.id)
            await asyncio.sleep(within_s)
            path = connection.path
            await connection.close()
            return path

    return run(main(), seed=1)


def test_two_nodes_at_one_home_talk_within_it_although_its_router_does_not_turn_packets_back():
    def hosts(net):
        home = net.router("home", NatKind.SYMMETRIC)
        return [net.host("a", nat=home), net.host("b", nat=home)]

    path = kind_between(hosts)
    assert path.kind == "lan" and path.remote.host.startswith("192.168.1.")


@pytest.mark.parametrize("sides", [("fw", "fw"), ("fw", "open"), ("open", "fw")])
def test_ipv6_firewalls_are_no_hindrance_to_a_direct_path(sides):
    def hosts(net):
        return [
            net.host(name, nat=net.router(f"{name}.gw", NatKind.SYMMETRIC, ipv4=False, ipv6=side))
            for name, side in zip("ab", sides, strict=True)
        ]

    path = kind_between(hosts)
    assert path.kind == "direct" and ":" in path.remote.host


def test_between_two_symmetric_nats_ipv6_is_the_direct_way():
    def hosts(net):
        return [net.host(name, nat=net.router(f"{name}.gw", NatKind.SYMMETRIC, ipv6="fw")) for name in "ab"]

    path = kind_between(hosts)
    assert path.kind == "direct" and ":" in path.remote.host


def test_a_host_with_ipv6_alone_reaches_one_with_ipv4_alone_by_a_relay_that_has_both():
    def hosts(net):
        six = net.router("six", NatKind.PORT, ipv4=False, ipv6="fw")
        return [net.host("a", nat=six), net.host("b", nat=NatKind.PORT)]

    path = kind_between(hosts)
    assert path.kind == "relayed" and path.reasons
