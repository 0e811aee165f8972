"""Shards: engines of one node, in memory. Datagrams come to whichever the test says, as where the kernel does not steer."""

import collections
import itertools
import random
from collections.abc import Callable

import pytest

from interpeer import Config
from interpeer._core import connection_handle, control
from interpeer._core.engine import Engine
from interpeer._core.probe_shards import MAILBOX_BYTES, receive_glued, shard_of, steering_program

MS = 1_000_000
S = 1000 * MS
PROTOCOL = b"shards/1"
OPEN, CLOSED = 1, 4
INIT, RESPONSE = 0x41, 0x42


def to_any(chance: random.Random) -> Callable[[bytes, int], int]:
    """Let datagrams come anywhere."""
    return lambda data, count: chance.randrange(count)


def to_wrong(data: bytes, count: int) -> int:
    """Let each come where it does not belong."""
    return (shard_of(data, count) + 1) % count


class Side:
    """A node of some shards; what arrives is dealt out by `deal`."""

    def __init__(self, seed: int, port: int, shards: int, deal=shard_of, is_stored=False, **settings):
        self.address = (bytes(10) + b"\xff\xff\x7f\0\0\1", port, 0)
        self.chance = random.Random(f"{seed} {port}")
        self.deal = deal
        self.engines = [Engine() for _ in range(shards)]
        self.seed = bytes([seed]) * 32
        self.identity = control.identity_of(self.seed)
        config = Config(**settings)
        for engine in self.engines:
            control.configure(
                engine, self.seed, b"", is_stored, [PROTOCOL], ["chacha20-poly1305"], config.backlog, config.core_limits()
            )
        if shards > 1:
            control.share(self.engines)
        self.exchanges = [control.Exchange(engine) for engine in self.engines]
        self.calls: list[connection_handle.ConnectionHandle] = []
        self.incoming: list[connection_handle.ConnectionHandle] = []

    def call(self, other: "Side", now_ns: int) -> connection_handle.ConnectionHandle:
        shard = control.shard_for(self.engines[0], other.identity, PROTOCOL, now_ns)
        self.calls.append(control.connect(self.engines[shard], other.identity, [other.address], PROTOCOL))
        return self.calls[-1]

    def take(self, data, source, now_ns):
        shard = self.deal(data, len(self.engines))
        self.exchanges[shard].receive([(data, source, 0)], now_ns)

    def turn(self, now_ns):
        """Let every engine have a turn; return what goes out."""
        out = []
        for engine, exchange in zip(self.engines, self.exchanges, strict=True):
            control.add_entropy(engine, self.chance.randbytes(control.entropy_missing(engine)))
            exchange.handle_timeout(now_ns)
            out += exchange.transmit(now_ns)
            self.incoming += [event[1] for event in control.events(engine) if event[0] == control.INCOMING]
        return out

    def counter(self, name: str) -> int:
        return sum(control.counters(engine)[name] for engine in self.engines)


class Net:
    """Sides, and a delay between them."""

    def __init__(self, *sides: Side, delay_ns: int = MS, is_lost: Callable[[bytes], bool] = lambda data: False):
        self.now_ns = 100 * S
        self.sides = {side.address[1]: side for side in sides}
        self.delay_ns, self.is_lost = delay_ns, is_lost
        self.on_the_way = collections.deque()

    def run(self, ns: int) -> None:
        end_ns = self.now_ns + ns
        while self.now_ns < end_ns:
            self.now_ns += MS
            while self.on_the_way and self.on_the_way[0][0] <= self.now_ns:
                _, data, source, port = self.on_the_way.popleft()
                if port in self.sides:
                    self.sides[port].take(data, source, self.now_ns)
            for side in list(self.sides.values()):
                for data, (_, port, _), _ in [packet for _ in side.engines for packet in side.turn(self.now_ns)]:
                    if not self.is_lost(data):
                        self.on_the_way.append((self.now_ns + self.delay_ns, data, side.address, port))


def say(here, text: bytes) -> None:
    stream = here.open_stream()
    stream.write(text)
    stream.finish()


def heard(there) -> bytes:
    stream = there.accept_stream()
    return stream.read(100) if stream is not None else b""


# --- where a datagram belongs ---


def run_program(program, data: bytes) -> int:
    """Run a program of the classic packet filter, as far as ours uses it."""
    a = x = at = 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        width = {0x28: 2, 0x30: 1}.get(code)
        if width:
            if value + width > len(data):
                return 0
            a = int.from_bytes(data[value : value + width], "big")
        elif code == 0x07:
            x = a
        elif code == 0xAC:
            a ^= x
        elif code == 0x54:
            a &= value
        elif code == 0x94:
            a %= value
        elif code in (0x06, 0x16):
            return value if code == 0x06 else a
        else:
            is_true = {0x15: a == value, 0x25: a > value, 0x35: a >= value, 0x45: bool(a & value)}[code]
            at += if_true if is_true else if_false


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 32])
def test_the_kernel_is_told_what_the_core_does(count, seed):
    chance, program = random.Random(seed), steering_program(count)
    firsts = [0x00, 0x3F, 0x40, 0x41, 0x42, 0x43, 0x44, 0x45, 0x7F, 0x80, 0xFF]
    for first, length in itertools.product(firsts, [*range(14), 40, 1200]):
        for _ in range(10):
            data = bytes([first]) * (length > 0) + chance.randbytes(max(0, length - 1))
            assert run_program(program, data) == shard_of(data, count) < count


def test_inits_are_spread_and_a_repeated_one_comes_to_the_same_shard():
    side, far = Side(1, 1, 1), Side(2, 2, 1)
    for _ in range(64):
        side.call(far, S)
    inits = [data for data, *_ in side.turn(S)]
    again = [data for data, *_ in side.turn(2 * S)]
    shards = collections.Counter(shard_of(init, 2) for init in inits)
    assert len(inits) == 64 and min(shards.values()) > 8
    assert {init[2:10]: shard_of(init, 2) for init in inits} == {init[2:10]: shard_of(init, 2) for init in again}


# --- passing on ---


@pytest.mark.parametrize("shards", [2, 3, 5])
@pytest.mark.parametrize("deal", [shard_of, to_wrong, lambda data, count: 0], ids=["steered", "wrong", "one"])
def test_connections_work_wherever_datagrams_come(shards, deal):
    a, b = Side(1, 1, shards, deal), Side(2, 2, shards, deal)
    net = Net(a, b)
    calls = [a.call(b, net.now_ns) for _ in range(2 * shards)]
    net.run(50 * MS)
    assert len(b.incoming) == 2 * shards and all(call.is_open for call in calls)
    assert [control.counters(engine)["connections"] for engine in a.engines] == [2] * shards
    for i, call in enumerate(calls):
        say(call, b"%d" % i)
    net.run(50 * MS)
    assert sorted(heard(connection) for connection in b.incoming) == [b"%d" % i for i in range(2 * shards)]
    assert (a.counter("shard_forwarded") > 0) == (b.counter("shard_forwarded") > 0) == (deal is not shard_of)
    assert a.counter("dropped_unknown") == b.counter("dropped_unknown") == 0


def test_packets_for_several_shards_in_one_message_are_sorted():
    """GRO glues packets of one address, which may be those of several connections."""
    a, b = Side(1, 1, 1), Side(2, 2, 3)
    net = Net(a, b)
    calls = [a.call(b, net.now_ns) for _ in range(12)]
    net.run(50 * MS)
    for call in calls:
        assert call.send_datagram(bytes(500))
    packets = [data for data, *_ in a.turn(net.now_ns)]
    assert len({len(packet) for packet in packets}) == 1 and len({shard_of(packet, 3) for packet in packets}) == 3
    receive_glued(b.engines[1], packets, len(packets[0]), net.now_ns)
    others = [packet for packet in packets if shard_of(packet, 3) != 1]
    assert control.counters(b.engines[1])["shard_forwarded"] == len(others)
    net.run(10 * MS)
    assert [connection.recv_datagram() for connection in b.incoming] == [bytes(500)] * 12
    receive_glued(b.engines[1], [b""], 0, net.now_ns)
    assert b.counter("dropped_short") == 1


def test_mail_that_nobody_takes_is_bounded_and_counted():
    b = Side(2, 2, 2)
    packet = bytes([0x80, 0x01]) + bytes(59_998)
    for _ in range(100):
        b.exchanges[0].receive([(packet, b.address, 0)], S)
    first = control.counters(b.engines[0])
    kept = first["shard_forwarded"]
    assert MAILBOX_BYTES - 2 * 60_100 < kept * 60_000 < MAILBOX_BYTES
    assert first["shard_dropped"] == 100 - kept
    b.exchanges[1].handle_timeout(S)
    assert control.counters(b.engines[1])["packets_received"] == kept
    b.exchanges[0].receive([(packet, b.address, 0)], S)
    assert control.counters(b.engines[0])["shard_forwarded"] == kept + 1


# --- glare ---


@pytest.mark.parametrize("offset_ms", [0, 5, 15, 19])
@pytest.mark.parametrize("keys", [(1, 2), (2, 1)])
def test_calls_that_cross_become_one_session_in_whichever_shards_they_begin(offset_ms, keys, seed):
    """So too when responses are lost, and the same init comes again."""
    for number in range(4):
        chance = random.Random(f"{seed} {number}")
        lost = {"left": chance.randrange(3)}

        def is_lost(data, lost=lost):
            lost["left"] -= data[0] == RESPONSE
            return data[0] == RESPONSE and lost["left"] >= 0

        a, b = (Side(key, port, 4, to_any(chance)) for port, key in enumerate(keys, 1))
        net = Net(a, b, delay_ns=20 * MS, is_lost=is_lost)
        others = [Side(10 + i, 10 + i, 1) for i in range(chance.randrange(3))]
        for other in others:  # so that not always shard 0 is the one with the fewest connections
            a.call(other, net.now_ns)
        here = a.call(b, net.now_ns)
        net.run(offset_ms * MS)
        there = b.call(a, net.now_ns)
        net.run(6 * S)
        assert here.state == there.state == OPEN
        assert not a.incoming and not b.incoming
        assert b.counter("connections") == 1 and a.counter("connections") <= 1 + len(others)
        say(here, b"one way")
        say(there, b"or another")
        net.run(100 * MS)
        assert heard(there) == b"one way" and heard(here) == b"or another"


@pytest.mark.parametrize("shards", [1, 2])
@pytest.mark.parametrize("keys", [(1, 2), (2, 1)])
@pytest.mark.parametrize("offset_ms", [21, 40, 60])
def test_a_call_takes_the_peers_session_over_until_the_moment_of_its_confirmation(offset_ms, keys, shards):
    """The confirmation comes 61 ms after the peer's call. A thread, once woken by a call, looks first what has come."""
    a, b = (Side(key, port, shards) for port, key in enumerate(keys, 1))
    net = Net(a, b, delay_ns=20 * MS)
    here = a.call(b, net.now_ns)
    net.run(offset_ms * MS)
    assert b.counter("half_open") == 1 and b.counter("connections_accepted") == 0
    there = b.call(a, net.now_ns)
    net.run(2 * S)
    assert here.state == there.state == OPEN and here.is_initiator and not there.is_initiator
    assert not a.incoming and not b.incoming
    assert a.counter("connections") == b.counter("connections") == 1
    say(here, b"one way")
    net.run(50 * MS)
    assert heard(there) == b"one way"


def test_calls_that_do_not_cross_are_spread_over_shards():
    a, b = Side(1, 1, 4), Side(2, 2, 4)
    net = Net(a, b)
    for _ in range(8):
        a.call(b, net.now_ns)
    net.run(50 * MS)
    assert [control.counters(engine)["connections"] for engine in a.engines] == [2, 2, 2, 2]
    back = b.call(a, net.now_ns)
    net.run(50 * MS)
    assert back.is_open and len(a.incoming) == 1 and len(b.incoming) == 8


# --- what holds for the node as a whole ---


def test_connection_limit_holds_over_all_shards():
    b = Side(1, 1, 4, max_connections=6)
    callers = [Side(10 + i, 10 + i, 1) for i in range(12)]
    net = Net(b, *callers)
    calls = [caller.call(b, net.now_ns) for caller in callers]
    net.run(200 * MS)
    assert sum(call.state == OPEN for call in calls) == len(b.incoming) == b.counter("connections") == 6
    assert sum(call.state == CLOSED for call in calls) == 6


def test_backlog_holds_over_all_shards_and_is_freed_by_taking():
    b = Side(1, 1, 4, backlog=5)
    callers = [Side(10 + i, 10 + i, 1) for i in range(12)]
    net = Net(b, *callers)
    first = [caller.call(b, net.now_ns) for caller in callers]
    net.run(200 * MS)
    assert sum(call.state == OPEN for call in first) == len(b.incoming) == 5
    for connection in b.incoming:
        connection.take()
    more = [caller.call(b, net.now_ns) for caller in callers[:5]]
    net.run(200 * MS)
    assert [call.state for call in more] == [OPEN] * 5


@pytest.mark.parametrize("shards", [2, 4])
def test_a_reset_ends_its_connection_wherever_it_comes(shards):
    """It begins with a connection id of nobody: only its token says whose it is."""
    a, b = Side(1, 1, shards), Side(2, 2, shards, is_stored=True)
    net = Net(a, b)
    calls = [a.call(b, net.now_ns) for _ in range(2 * shards)]
    net.run(50 * MS)
    assert len(b.incoming) == 2 * shards
    net.sides[2] = Side(2, 2, shards, to_wrong, is_stored=True)  # it restarts and has forgotten
    for call in calls:
        call.send_datagram(bytes(100))
    net.run(50 * MS)
    assert [call.closed()[0] for call in calls] == [5] * len(calls)  # by reset
    assert a.counter("resets_received") == len(calls)


def test_resets_are_as_few_as_one_engine_would_send(seed):
    chance = random.Random(seed)
    b = Side(2, 2, 4, is_stored=True)
    for i in range(1000):
        b.take(b"\xff" + chance.randbytes(99), b.address, 50 * S + i)
    for _ in b.engines:
        b.turn(51 * S - 1)
    assert 90 <= b.counter("resets_sent") <= 200  # of which a bucket holds the first second's
    assert b.counter("packets_received") >= 1000


def test_half_open_handshakes_share_the_table_out():
    b = Side(1, 1, 4, max_half_open=16)
    callers = [Side(10 + i, 10 + i, 1) for i in range(40)]
    b.turn(S)
    for caller in callers:
        caller.call(b, S)
        for data, *_ in caller.turn(S):
            b.take(data, caller.address, S)
    assert b.counter("half_open") <= 16 and b.counter("cookies_sent") > 0


def test_shards_are_few():
    with pytest.raises(ValueError, match="up to 32 shards"):
        control.share([Engine() for _ in range(33)])
    with pytest.raises(ValueError, match="shards is from 0 to 32"):
        Config(shards=33)


# --- many busy connections ---


def gaps_of_runs(connections: int) -> list[int]:
    """Return the milliseconds between packets of data of one connection, while so many have more to send than they may."""
    a, b = Side(1, 1, 1), Side(2, 2, 1)
    times = collections.defaultdict(set)

    def note(data):
        if len(data) > 1100 and data[0] != INIT:
            times[data[:8]].add(net.now_ns // MS)
        return False

    net = Net(a, b, delay_ns=20 * MS, is_lost=note)
    calls = [a.call(b, net.now_ns) for _ in range(connections)]
    net.run(100 * MS)
    streams = [call.open_stream() for call in calls]
    for stream in streams:
        assert stream.write(bytes(1 << 19)) == 1 << 19
    net.run(300 * MS)
    assert len(times) == connections
    return [later - now for each in times.values() for now, later in itertools.pairwise(sorted(each))]


def test_many_connections_send_in_runs_and_a_few_as_pacing_lets_them():
    many, few = gaps_of_runs(64), gaps_of_runs(2)
    assert few.count(1) > len(few) / 2
    assert sum(gap >= 5 for gap in many) > 0.9 * len(many)  # 0.1 ms for each of 64, less those that have no more
