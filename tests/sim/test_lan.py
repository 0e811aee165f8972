"""Neighbours in simulated homes: found without anybody's help, again after a move, and at little cost."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

import interpeer
from interpeer.testing import Host, Link, SimNet, run


async def opened(stack: AsyncExitStack, *hosts: Host, network: str = "ours") -> list[interpeer.Node]:
    return [await stack.enter_async_context(host.node(network=network, config=NO_MAPPING)) for host in hosts]


NO_MAPPING = interpeer.Config(port_mapping=False)


def test_bare_id_is_enough_in_one_home_and_not_in_two(seed):
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home, other = net.router("home", lan="192.168.1.0/24"), net.router("other", lan="192.168.1.0/24")
        hosts = [net.host(name) for name in ("alice", "bob", "carol")]
        for host, place in zip(hosts, (home, home, other), strict=True):
            host.move_to(place)
        async with AsyncExitStack() as stack:
            alice, bob, carol = await opened(stack, *hosts)
            await asyncio.sleep(5)
            async with alice.connect(bob.id) as connection:
                path = connection.path
            with pytest.raises(interpeer.errors.Unreachable):
                await carol.connect(bob.id)
            return path.kind, path.remote.host, hosts[1].addresses

    kind, where, addresses = run(main(), seed=seed)
    assert kind == "lan" and where in addresses


def test_another_network_on_the_same_link_is_not_found(seed):
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home = net.router("home", lan="192.168.1.0/24")
        hosts = [net.host("alice"), net.host("bob")]
        for host in hosts:
            host.move_to(home)
        async with AsyncExitStack() as stack:
            (alice,), (bob,) = await opened(stack, hosts[0]), await opened(stack, hosts[1], network="theirs")
            await asyncio.sleep(60)
            with pytest.raises(interpeer.errors.Unreachable):
                await alice.connect(bob.id)

    run(main(), seed=seed)


def test_who_comes_home_is_found_within_seconds(seed):
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home, cafe = net.router("home", lan="192.168.1.0/24"), net.router("cafe", lan="10.0.0.0/24")
        hosts = [net.host("alice"), net.host("bob")]
        hosts[0].move_to(home)
        hosts[1].move_to(cafe)
        async with AsyncExitStack() as stack:
            alice, bob = await opened(stack, *hosts)
            await asyncio.sleep(1000)  # both say hello rarely by now
            hosts[1].move_to(home)
            await asyncio.sleep(2)
            async with alice.connect(bob.id) as connection:
                return connection.path.kind

    assert run(main(), seed=seed) == "lan"


def test_whole_day_of_hellos_is_a_few_packets_an_hour(seed):
    async def main():
        net = SimNet(Link(delay_s=0.001))
        home = net.router("home", lan="192.168.1.0/24")
        host = net.host("alice")
        host.move_to(home)
        async with AsyncExitStack() as stack:
            await opened(stack, host)
            await asyncio.sleep(600)
            before = net.counters.total()
            await asyncio.sleep(3000)
            return net.counters.total() - before

    assert run(main(), seed=seed, until_s=4000) <= 3000 / 45 * 2  # a multicast and a broadcast, at least 45 s apart
