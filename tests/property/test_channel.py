"""Whatever the network does, a channel delivers exactly what its options promise.

Two engines talk over a network that loses, repeats and reorders packets as hypothesis likes, and is quiet at the end. Then
what was delivered, and what the receiver was told to be given up, are compared with what was sent.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from interpeer import ChannelOptions, Config
from interpeer._core import control
from interpeer._core.channel_handle import ChannelHandle
from interpeer._core.connection_handle import ConnectionHandle
from interpeer._core.engine import Engine
from tests.spec.peer import MS, NODE_AT, PEER_AT, PROTOCOL, SECOND

A, B = NODE_AT, PEER_AT


class Net:
    """Two engines, and packets on their way between them."""

    def __init__(self, seed: int, **limits: int) -> None:
        self.random = random.Random(seed)
        self.now_ns = 1000 * SECOND
        defaults = Config().core_limits() | {"keep_alive_ns": 0, "idle_timeout_ns": 3600 * SECOND}
        self.engines: dict[tuple[bytes, int, int], Engine] = {}
        self.exchanges = {}
        self.seeds: dict[tuple[bytes, int, int], bytes] = {}
        for at in (A, B):
            engine = Engine()
            keys = self.seeds[at] = self.random.randbytes(32)
            control.configure(engine, keys, b"", True, [PROTOCOL], ["chacha20-poly1305"], 8, defaults | limits)
            self.engines[at] = engine
            self.exchanges[at] = control.Exchange(engine)
        self.flying: list[tuple[int, int, tuple[bytes, int, int], bytes]] = []
        self.fates = lambda: (1, 0)
        """How often a packet arrives, and how much later than others."""

    def step(self, ns: int) -> None:
        """Let time pass in milliseconds."""
        for _ in range(max(1, ns // MS)):
            for at, exchange in self.exchanges.items():
                control.add_entropy(self.engines[at], self.random.randbytes(control.entropy_missing(self.engines[at])))
                exchange.handle_timeout(self.now_ns)
                to = B if at is A else A
                for data, _, _ in exchange.transmit(self.now_ns):
                    times, late_ns = self.fates()
                    for i in range(times):
                        self.flying.append((self.now_ns + 5 * MS + late_ns + i * MS, len(self.flying), to, data))
            self.now_ns += MS
            due = sorted(packet for packet in self.flying if packet[0] <= self.now_ns)
            self.flying = [packet for packet in self.flying if packet[0] > self.now_ns]
            for _, _, to, data in due:
                self.exchanges[to].receive([(data, A if to is B else B, 0)], self.now_ns)

    def connect(self) -> tuple[ConnectionHandle, ConnectionHandle]:
        here = control.connect(self.engines[A], control.identity_of(self.seeds[B]), [B], PROTOCOL)
        self.step(50 * MS)
        control.events(self.engines[A])
        (there,) = (event[1] for event in control.events(self.engines[B]) if event[0] == control.INCOMING)
        there.take()
        return here, there


@dataclass
class Side:
    """One channel, what went in and what came out."""

    options: ChannelOptions
    near: ChannelHandle
    far: ChannelHandle | None = None
    sent: list[bytes] = field(default_factory=list)
    promised: list[ChannelOptions] = field(default_factory=list)
    got: list[tuple[int, bytes]] = field(default_factory=list)

    def read(self) -> None:
        if self.far is not None:
            while some := self.far.recv_many(3, True):
                self.got += some

    def check(self) -> None:
        numbers = [number for number, _ in self.got]
        assert len(set(numbers)) == len(numbers), "a message was delivered twice"
        assert all(self.sent[number] == message for number, message in self.got)
        _, theirs, ranges = self.far.dropped()
        gone = {number for start, end in ranges for number in range(start, end)}
        assert theirs == len(gone) <= self.near.dropped()[0]
        assert not gone & set(numbers), "a message was delivered that is told to be given up"
        assert gone | set(numbers) == set(range(len(self.sent))), "a message has vanished"
        for number in gone:
            promise = self.promised[number]
            assert not promise.resend or promise.deadline is not None, "a message was given up that must not be"
        ordered = [number for number in numbers if self.promised[number].ordered]
        assert ordered == sorted(ordered)
        for i, number in enumerate(numbers):
            if self.promised[number].ordered:
                assert not [later for later in numbers[i + 1 :] if later < number], "it did not wait for what was before it"


OPTIONS = st.builds(
    ChannelOptions,
    resend=st.booleans(),
    ordered=st.booleans(),
    deadline=st.sampled_from([None, None, 0.004, 0.02, 0.2]),
    priority=st.integers(-4, 3),
    fec=st.sampled_from([None, 1, 0.5, 0.2]),
)
SIZES = st.one_of(st.sampled_from([0, 1, 30, 1100, 1130, 1200, 5000, 40_000]), st.integers(0, 3000))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 2), st.lists(SIZES, min_size=1, max_size=12)),
        st.tuples(st.just("wait"), st.integers(1, 40)),
        st.tuples(st.just("set"), st.integers(0, 2), OPTIONS),
        st.tuples(st.just("read")),
    ),
    max_size=25,
)
TOLD_TWICE = {
    "seed": 1,
    "loss": 0.3,
    "repeat": 0,
    "late": 0.2,
    "steps": [("send", 0, [1109, 5000, 5000, 241, 1100, 1100, 1100, 5000, 41, 2361])],
    "window": 4096,
}
"""A DROPPED frame that was sent twice is acknowledged twice, and the one behind it, of the same message, is lost."""


@pytest.mark.row("S10", "S13")
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    seed=st.integers(0, 2**32),
    loss=st.sampled_from([0, 0.02, 0.1, 0.3]),
    repeat=st.sampled_from([0, 0.1]),
    late=st.sampled_from([0, 0.2]),
    options=st.lists(OPTIONS, min_size=1, max_size=3),
    steps=STEPS,
    window=st.sampled_from([4096, 20_000, 1 << 19]),
)
@example(**TOLD_TWICE, options=[ChannelOptions(resend=False, ordered=False)])
@example(**TOLD_TWICE, options=[ChannelOptions(resend=False, ordered=False, deadline=0.2)])
def test_exactly_what_is_promised_is_delivered(seed, loss, repeat, late, options, steps, window):
    net = Net(seed, stream_window=window, connection_window=2 * window)
    chance = random.Random(seed)
    here, there = net.connect()
    net.fates = lambda: (
        0 if chance.random() < loss else 2 if chance.random() < repeat else 1,
        chance.randrange(20) * MS if chance.random() < late else 0,
    )
    sides = [Side(each, here.open_channel(each.to_core())) for each in options]
    for step in steps:
        if step[0] == "wait":
            net.step(step[1] * MS)
        side = sides[step[1] % len(sides)] if step[0] in ("send", "set") else None
        if step[0] == "set":
            side.options = step[2]
            side.near.set(step[2].to_core())
        if step[0] == "send":
            for size in step[2]:
                message = chance.randbytes(size)
                if side.near.send(message) == 0:
                    side.sent.append(message)
                    side.promised.append(side.options)
        accept(there, sides)
        if step[0] == "read":
            for each in sides:
                each.read()
    for side in sides:
        side.near.finish()
    for _ in range(400):
        net.step(25 * MS)
        accept(there, sides)
        for side in sides:
            side.read()
        if all(side.near.has_acked() and side.far is not None and side.far.reading() == 1 for side in sides):
            break
        if net.now_ns > 1004 * SECOND:
            net.fates = lambda: (1, 0)
    assert here.is_open and there.is_open, (here.closed(), there.closed())
    for side in sides:
        assert side.near.has_acked(), (side.options, side.near.stats(), side.far.stats())
        side.check()


def accept(there: ConnectionHandle, sides: list[Side]) -> None:
    while (far := there.accept_channel()) is not None:
        sides[far.id >> 1].far = far
