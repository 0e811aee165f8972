"""A node finds out what NAT is in front of it, with peers as helpers and nobody else: the production code from end to end."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from interpeer.testing import Link, NatKind, SimNet, run

LINK = Link(delay_s=0.015)
HELPERS = 3
KINDS = [kind for kind in NatKind if kind.behaviour.udp]


def survey(kind, *, link=LINK, helpers=HELPERS, budget_s=0.0, seed=1, **changes):
    """Let a node behind a NAT join a network, and return what it finds out."""

    async def main():
        net = SimNet(link)
        async with AsyncExitStack() as stack:
            peers = []
            for i in range(helpers):
                known = [peer.address for peer in peers[:1]]
                node = net.host(f"helper{i}").node(network="test", lan=False, bootstrap=known)
                peers.append(await stack.enter_async_context(node))
            host = net.host("home", nat=net.router("gateway", kind.behaviour.replace(**changes)) if changes else kind)
            asking = await stack.enter_async_context(
                host.node(network="test", lan=False, bootstrap=[peer.address for peer in peers])
            )
            await asking.joined()
            await asyncio.sleep(1)
            surveyor = asking._reach.surveyor
            return await surveyor.look(surveyor.servers(), budget_s), host

    return run(main(), seed=seed)


@pytest.mark.row("N9")
@pytest.mark.parametrize("kind", KINDS)
def test_peers_tell_every_kind_apart(kind):
    report, host = survey(kind)
    nat = kind.behaviour
    # a peer has one port to be asked at, so that what depends on addresses alone counts as the worse of two
    worse = {"address-dependent": ("address-dependent", "address-and-port-dependent")}
    assert report.mapping in worse.get(nat.mapping, (nat.mapping,)), report
    assert report.filtering == nat.filtering, report
    assert report.udp is True and report.reflexive
    if nat.mapping == "none":
        assert {one.host for one in report.reflexive} <= set(host.addresses)
        return
    assert report.preserves_port is nat.preserves_port
    assert (report.port_step is not None) == (kind is NatKind.SYMMETRIC_SEQ)
    assert (report.port_block is not None) == (nat.block_ports == 512)
    if nat.mapping == "endpoint-independent":
        assert report.hairpin is nat.hairpin


@pytest.mark.parametrize("lifetime_s", [20.0, 60.0])
def test_the_lifetime_of_mappings_is_found(lifetime_s):
    report, _ = survey(NatKind.PORT, budget_s=200.0, lifetime_s=lifetime_s)
    assert lifetime_s / 1.2 <= report.lifetime_s <= lifetime_s


def test_far_away_and_with_loss_the_same_is_found():
    report, _ = survey(NatKind.PORT_RANDOM, link=Link(delay_s=0.15, loss=0.05))
    assert (report.mapping, report.filtering) == ("endpoint-independent", "address-and-port-dependent")
    assert (report.preserves_port, report.port_step, report.port_block) == (False, None, None)
