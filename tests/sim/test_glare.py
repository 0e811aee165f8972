"""Both call at once: exactly one session, both calls succeed, and the calls' connections are its two ends."""

import asyncio
import contextlib
import itertools
import random
from dataclasses import dataclass

import pytest

import interpeer
from interpeer.testing import Link

NEAR = Link(delay_s=0.03)
ROUNDS = 12.0
"""Seconds after which whatever a handshake leaves behind is forgotten."""


class Meeting:
    """Two nodes, and what their applications got."""

    def __init__(self, pair):
        self.pair = pair
        self.accepted = {pair.a: [], pair.b: []}
        self.tasks = [asyncio.create_task(self._accept(node)) for node in (pair.a, pair.b)]

    async def _accept(self, node):
        async for connection in node.incoming():
            self.accepted[node].append(connection)

    async def call(self, node, peer, after_s=0.0):
        await asyncio.sleep(after_s)
        return await node.connect(peer.address)

    async def call_both(self, offset_s=0.0):
        """Call from both sides, `b` so much later than `a`; return what each got."""
        a, b = self.pair.a, self.pair.b
        return await asyncio.gather(self.call(a, b, max(0, -offset_s)), self.call(b, a, max(0, offset_s)))

    async def wait_for_accepted(self, node):
        """Return what comes in within some seconds."""
        await asyncio.sleep(8)
        return self.accepted[node]

    async def settle(self):
        await asyncio.sleep(ROUNDS)
        for task in self.tasks:
            task.cancel()

    async def check_one_session(self, here, there):
        await self.settle()
        assert len(self.pair.a.connections) == len(self.pair.b.connections) == 1
        assert not any(self.accepted.values())
        await talk(here, there)
        await talk(there, here)


async def talk(here, there):
    async with here.open_stream() as stream:
        await stream.write(b"ping")
    assert await (await there.accept_stream()).read() == b"ping"


async def talk_somewhere(end, others):
    """Prove that exactly one of these connections is the other end of one."""
    async with end.open_stream() as stream:
        await stream.write(b"ping")
    readers = [asyncio.create_task(other.accept_stream()) for other in others if other is not end]
    done, waiting = await asyncio.wait(readers, timeout=5)
    assert len(done) == 1
    for reader in waiting:
        reader.cancel()


def is_simultaneous(there_s, back_s, offset_s):
    """Tell whether each side calls before the other's first message has come."""
    return -back_s < offset_s < there_s


DELAYS = (0.001, 0.02, 0.1, 0.4, 0.8)
OFFSETS = (-0.5, -0.2, -0.05, -0.01, 0.0, 0.01, 0.05, 0.2, 0.5)


@pytest.mark.row("H15")
@pytest.mark.parametrize("there_s", DELAYS)
@pytest.mark.parametrize("back_s", DELAYS)
def test_one_session_in_every_order_of_arrival(sim, there_s, back_s):
    async def main(offset_s):
        async with sim.pair(Link(delay_s=there_s), back=Link(delay_s=back_s)) as pair:
            meeting = Meeting(pair)
            start = pair.net.clock.now_s
            ends = await meeting.call_both(offset_s)
            # the winner is the lower key's handshake: a round trip, and half of one until the other side knows
            assert pair.net.clock.now_s - start <= abs(offset_s) + 2 * (there_s + back_s) + 1e-3
            await meeting.check_one_session(*ends)

    for offset_s in OFFSETS:
        if is_simultaneous(there_s, back_s, offset_s):
            for seed in (1, 2, 3):  # for both orders of the keys
                sim.run(main(offset_s), seed=sim.seed + seed)


@pytest.mark.row("H15")
def test_calls_that_are_not_simultaneous_are_never_mixed_up(sim):
    """Later the peer may already have a session when it calls; then there are two, or it joins the one: whole in any case."""

    async def main(delay_s, offset_s):
        async with sim.pair(Link(delay_s=delay_s)) as pair:
            meeting = Meeting(pair)
            ends = await meeting.call_both(offset_s)
            await meeting.settle()
            accepted = sum(map(len, meeting.accepted.values()))
            assert len(pair.a.connections) == len(pair.b.connections) == 1 + accepted // 2
            assert accepted % 2 == 0
            for end, node in zip(ends, (pair.b, pair.a), strict=True):
                await talk_somewhere(end, [*meeting.accepted[node], *ends])

    for delay_s, offset_s in itertools.product((0.01, 0.1, 0.6), (0.02, 0.11, 0.15, 0.21, 0.3, 0.61, 1.21, 1.5, 2.0)):
        sim.run(main(delay_s, offset_s))


@pytest.mark.row("H15", "H22")
@pytest.mark.parametrize("loss", [0.1, 0.3, 0.5])
def test_one_session_through_loss(sim, loss):
    async def main():
        link = NEAR.replace(loss=loss, reorder=0.2, reorder_s=0.4, duplicate=0.2)
        async with sim.pair(link, connect_timeout_s=60) as pair:
            meeting = Meeting(pair)
            ends = await meeting.call_both()
            for wire in (pair.there, pair.back):
                wire.set(Link())
            await meeting.check_one_session(*ends)

    for seed in range(40):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H15")
def test_one_session_when_the_winners_first_packets_are_lost_for_seconds(sim):
    """The loser calls again meanwhile; the winner, whose call is answered, must not answer that."""

    async def main(silent_s):
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            clock = pair.net.clock
            pair.net.intercept(lambda packet: () if packet.kind == "data" and clock.now_s < silent_s else None)
            ends = await meeting.call_both()
            await meeting.check_one_session(*ends)

    for silent_s, seed in itertools.product((0.5, 1.2, 2.5, 6.0), range(4)):
        sim.run(main(silent_s), seed=sim.seed + seed)


@pytest.mark.row("H15")
def test_one_session_through_a_one_way_filter(sim):
    """The first messages of one side get through only after its peer has sent something there, as through a firewall."""

    async def main(filtered_name):
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            filtered = pair.alice if filtered_name == "alice" else pair.bob
            has_sent = []

            def firewall(packet):
                if packet.sender is filtered:
                    has_sent.append(packet)
                    return None
                return None if has_sent else ()

            pair.net.intercept(firewall)
            ends = await meeting.call_both(offset_s=0.5 if filtered is pair.bob else -0.5)
            await meeting.check_one_session(*ends)

    for name, seed in itertools.product(("alice", "bob"), range(3)):
        sim.run(main(name), seed=sim.seed + seed)


@pytest.mark.row("H15")
def test_one_session_when_neither_knows_the_others_true_address(sim):
    """The address that the loser was given is wrong; the winner's messages show it the right one, and the other way round."""

    async def main(blind_name):
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            wrong = interpeer.Endpoint("192.0.2.66", 9)
            a_address, b_address = pair.a.address, pair.b.address
            if blind_name == "alice":
                b_address = interpeer.Address.of(pair.b.id, [wrong])
            else:
                a_address = interpeer.Address.of(pair.a.id, [wrong])
            ends = await asyncio.gather(pair.a.connect(b_address), pair.b.connect(a_address))
            await meeting.check_one_session(*ends)

    for name, seed in itertools.product(("alice", "bob"), range(3)):
        sim.run(main(name), seed=sim.seed + seed)


@pytest.mark.row("H15", "H16")
def test_one_session_when_both_are_under_load(sim):
    async def main():
        async with sim.pair(NEAR, max_half_open=4) as pair:
            meeting = Meeting(pair)
            others = [pair.net.host(name) for name in ("carol", "dave")]
            pair.net.intercept(lambda packet: () if packet.sender in others and packet.kind == "data" else None)
            async with others[0].node() as c, others[1].node() as d:
                for caller, target in itertools.product((c, d), (pair.a, pair.b)):
                    await caller.connect(target.address)
                ends = await meeting.call_both()
                assert pair.a.counters()["cookies_sent"] + pair.b.counters()["cookies_sent"] > 0
                await meeting.check_one_session(*ends)

    for seed in range(4):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H15", "A3")
def test_a_call_that_is_cancelled_leaves_the_other_one_a_session(sim):
    """Cancelled after any number of packets: the other call still succeeds, with a session that is accepted."""

    async def main(packets, canceller):
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            calls = [asyncio.create_task(meeting.call(pair.a, pair.b)), asyncio.create_task(meeting.call(pair.b, pair.a))]
            sent = []

            def count(packet):
                sent.append(packet)
                if len(sent) == packets:
                    calls[canceller].cancel()

            pair.net.intercept(count)
            done = await asyncio.gather(*calls, return_exceptions=True)
            if not isinstance(done[canceller], asyncio.CancelledError):
                return False
            kept, node = done[1 - canceller], (pair.a, pair.b)[canceller]
            await meeting.settle()
            if not meeting.accepted[node]:
                # it had become the cancelled call's session, too, which closed it
                assert isinstance(kept, interpeer.ConnectionClosed) or kept.closed_by == "peer"
                assert pair.a.connections == pair.b.connections == []
            else:
                await talk(kept, meeting.accepted[node][0])
                assert len(pair.a.connections) == len(pair.b.connections) == 1
            return True

    for canceller, seed in itertools.product((0, 1), range(4)):
        packets = 0
        while sim.run(main(packets + 1, canceller), seed=sim.seed + seed):
            packets += 1
        assert packets >= 2


@pytest.mark.row("H15", "A3")
def test_a_session_whose_call_was_cancelled_at_the_same_moment_is_not_adopted_by_nobody(sim):
    """The packet that confirms the peer's handshake comes after the call is closed, and before the core has put it away."""

    async def main():
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            calls = {node: asyncio.create_task(meeting.call(node, peer)) for node, peer in ((pair.a, pair.b), (pair.b, pair.a))}

            def close_the_losers_call(fate):
                if fate.kind == "data" and fate.what == "delivered" and not closed:
                    loser = pair.b if fate.source == pair.a.address.endpoints[0] else pair.a
                    closed.append(loser)
                    for connection in loser._connections.values():
                        connection._handle.close(0, b"")

            closed = []
            pair.net.observe(close_the_losers_call)
            await asyncio.wait(calls.values())
            await meeting.settle()
            [loser] = closed
            winner = pair.a if loser is pair.b else pair.b
            with pytest.raises(interpeer.ClosedError):
                calls[loser].result()
            [accepted] = meeting.accepted[loser]
            await talk(calls[winner].result(), accepted)

    for seed in range(4):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H15", "H10")
def test_a_peer_that_is_not_allowed_does_not_come_in_by_a_cancelled_call(sim):
    async def main():
        async with sim.pair(NEAR, a={"allow": ()}, b={"allow": ()}) as pair:
            meeting = Meeting(pair)
            calls = [asyncio.create_task(meeting.call(pair.a, pair.b)), asyncio.create_task(meeting.call(pair.b, pair.a))]
            responses = []

            def cancel_the_responder(packet):
                if packet.kind == "response" and not responses:
                    responses.append(packet)
                    calls[0 if packet.sender is pair.alice else 1].cancel()

            pair.net.intercept(cancel_the_responder)
            await asyncio.gather(*calls, return_exceptions=True)
            await meeting.settle()
            assert not any(meeting.accepted.values())
            assert pair.a.connections == pair.b.connections == []

    for seed in range(4):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H8", "H15")
def test_replayed_first_messages_do_not_hold_a_call_back(sim):
    """Somebody replays the peer's old first message while we call it: the answer to our call counts all the same."""

    async def main():
        async with sim.pair(NEAR) as pair:
            inits = []
            stop = pair.net.intercept(lambda packet: inits.append(packet.copy()) if packet.kind == "init" else None)
            for caller, callee in ((pair.a, pair.b), (pair.b, pair.a)):
                connection = await caller.connect(callee.address)
                accepted = await callee.accept()
                await connection.close()
                await accepted.wait_closed()
            stop()
            await asyncio.sleep(30)
            for node, peer, init in ((pair.a, pair.b, inits[1]), (pair.b, pair.a, inits[0])):
                call = asyncio.create_task(node.connect(peer.address))
                for _ in range(100):
                    pair.net.inject(init.copy())
                    await asyncio.sleep(0.02)
                    if call.done():
                        break
                start = pair.net.clock.now_s
                here, there = await call, await peer.accept()
                assert pair.net.clock.now_s - start < 2.5
                await talk(here, there)
                await asyncio.sleep(ROUNDS)
                assert node.counters()["half_open"] == 0

    for seed in range(4):
        sim.run(main(), seed=sim.seed + seed)


@pytest.mark.row("H15")
def test_two_sessions_that_could_not_be_avoided_are_both_whole(sim):
    """Responses and confirmations are lost until each side has answered the other's call, and neither knows of it."""

    async def main(swap):
        async with sim.pair(NEAR) as pair:
            meeting = Meeting(pair)
            clock = pair.net.clock
            second = pair.alice if swap else pair.bob
            start_s = clock.now_s

            def drop(packet):
                age_s = clock.now_s - start_s
                if packet.kind == "response" and packet.sender is second:
                    return () if age_s < 2 else None
                return () if packet.kind == "data" and age_s < 4 else None

            pair.net.intercept(drop)
            here, there = await meeting.call_both(offset_s=-0.04 if swap else 0.04)
            await talk_somewhere(here, [there, *await meeting.wait_for_accepted(pair.b)])
            await talk_somewhere(there, [here, *await meeting.wait_for_accepted(pair.a)])
            await meeting.settle()
            assert len(pair.a.connections) == len(pair.b.connections)

    for swap, seed in itertools.product((False, True), range(4)):
        sim.run(main(swap), seed=sim.seed + seed)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What may go wrong while two nodes call each other."""

    offset_s: float = 0.0
    loss: float = 0.0
    filtered: str | None = None
    """Whose firewall lets nothing in before something has gone out."""
    is_loaded: bool = False
    is_replayed: bool = False
    cancelled: str | None = None
    """Who has called before, and given up."""


TROUBLES = [
    Trouble(*values)
    for values in itertools.product(
        (-0.04, 0.0, 0.04), (0.0, 0.3), (None, "alice", "bob"), (False, True), (False, True), (None, "alice", "bob")
    )
]


async def meet_in(sim, trouble):
    """Have both call through all of it; afterwards there is one session, and it is that of both calls."""
    link = NEAR.replace(loss=trouble.loss)
    async with sim.pair(link, connect_timeout_s=60, max_half_open=4) as pair, contextlib.AsyncExitStack() as stack:
        meeting, net, silent, has_sent, is_over = Meeting(pair), pair.net, [], set(), []
        names = {node.address.endpoints[0]: host.name for node, host in ((pair.a, pair.alice), (pair.b, pair.bob))}

        def interfere(packet):
            if packet.sender in silent:
                return () if packet.kind == "data" else None
            target = names.get(packet.target)
            if target is None or is_over:
                return None
            has_sent.add(packet.sender.name)
            if target == trouble.filtered and target not in has_sent:
                return ()
            if trouble.is_replayed and packet.kind == "init":
                return [packet, packet.copy(delay_s=0.05), packet.copy(delay_s=0.7), packet.copy(delay_s=3)]
            return None

        net.intercept(interfere)
        if trouble.is_loaded:
            silent += [net.host(name) for name in ("carol", "dave")]
            for host in silent:
                node = await stack.enter_async_context(host.node())
                for target in (pair.a, pair.b):
                    await node.connect(target.address)
        if trouble.cancelled:
            caller, callee = (pair.a, pair.b) if trouble.cancelled == "alice" else (pair.b, pair.a)
            given_up = asyncio.create_task(caller.connect(callee.address))
            await asyncio.sleep(0.05)
            given_up.cancel()
            await asyncio.wait([given_up])
        ends = await meeting.call_both(trouble.offset_s)
        is_over.append(True)
        for wire in (pair.there, pair.back):
            wire.set(Link())
        await meeting.check_one_session(*ends)


@pytest.mark.row("H15", "H16", "H8", "A3")
def test_one_session_in_any_mixture_of_troubles(sim):
    for trouble in random.Random(sim.seed).sample(TROUBLES, 40):
        try:
            sim.run(meet_in(sim, trouble))
        except BaseException as error:
            error.add_note(str(trouble))
            raise


@pytest.mark.soak
@pytest.mark.row("H15", "H16", "H8", "A3")
@pytest.mark.parametrize("trouble", TROUBLES, ids=str)
def test_one_session_in_every_mixture_of_troubles(sim, trouble):
    for seed in range(20):
        sim.run(meet_in(sim, trouble), seed=sim.seed + seed)
