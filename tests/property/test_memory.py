"""What keeps things, beside naive models of it: sets of ranges, replay windows, tables, timers, pools, buffers, queues."""

import re
from collections import deque

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from interpeer._core import probe_memory

small = st.integers(0, 300)


def ranges_of(numbers):
    """Return the ranges [start, end) that a set of numbers consists of."""
    found = []
    for number in sorted(numbers):
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    return [tuple(r) for r in found]


class RangesBesideASet(RuleBasedStateMachine):
    """What does not fit within the limit changes nothing."""

    @initialize(limit=st.integers(1, 12), base=st.sampled_from([0, 2**40, 2**64 - 1000]))
    def begin(self, limit, base):
        self.ranges, self.model, self.limit, self.base = probe_memory.Ranges(limit), set(), limit, base

    def change(self, does, after, start, length):
        has_room = does(self.base + start, self.base + start + length)
        assert has_room == (len(ranges_of(after)) <= self.limit)
        if has_room:
            self.model = after

    @rule(start=small, length=st.integers(0, 40))
    def add(self, start, length):
        self.change(self.ranges.add, self.model | set(range(start, start + length)), start, length)

    @rule(start=small, length=st.integers(0, 40))
    def remove(self, start, length):
        self.change(self.ranges.remove, self.model - set(range(start, start + length)), start, length)

    @rule()
    def add_behind_the_last(self):
        self.add(max(self.model, default=-1) + 1, 1)

    @rule()
    def drop_lowest(self):
        self.ranges.drop_lowest()
        self.model -= {n for low, high in ranges_of(self.model)[:1] for n in range(low, high)}

    @rule(number=small)
    def look(self, number):
        assert (self.base + number in self.ranges) == (number in self.model)

    @invariant()
    def same(self):
        assert list(self.ranges) == [(self.base + low, self.base + high) for low, high in ranges_of(self.model)]


class ReplayBesideASet(RuleBasedStateMachine):
    """A counter is new once, unless it is more than 8192 behind the newest."""

    def __init__(self):
        super().__init__()
        self.window, self.accepted = probe_memory.Replay(), set()

    def newest(self):
        return max(self.accepted, default=0)

    def is_new(self, counter):
        return counter not in self.accepted and (not self.accepted or counter > self.newest() - 8192)

    @rule(counter=st.integers(0, 2**56 - 1))
    def take_any(self, counter):
        self.take(counter)

    @rule(ahead=st.integers(1, 200) | st.sampled_from([63, 64, 65, 8191, 8192, 8193, 8255, 8256, 8257, 20000]))
    def take_newer(self, ahead):
        self.take(min(self.newest() + ahead, 2**56 - 1))

    @rule(behind=st.integers(0, 200) | st.sampled_from([63, 64, 65, 8127, 8128, 8190, 8191, 8192, 8193, 8256]))
    def take_older(self, behind):
        self.take(max(self.newest() - behind, 0))

    @rule(start=st.integers(0, 8300), count=st.integers(1, 130))
    def take_a_run(self, start, count):
        base = max(self.newest() - start, 0)
        for counter in range(base, base + count):
            self.take(counter)

    def take(self, counter):
        assert self.window.is_new(counter) == self.is_new(counter)
        if self.is_new(counter):
            self.window.accept(counter)
            self.accepted.add(counter)
            assert not self.window.is_new(counter)

    @invariant()
    def same(self):
        assert self.window.next == (self.newest() + 1 if self.accepted else 0)
        for counter in list(self.accepted)[-3:]:
            assert not self.window.is_new(counter)


class TableBesideADictionary(RuleBasedStateMachine):
    """Keys are few and near each other, so that they meet in the table; and it grows and shrinks."""

    keys = st.integers(1, 60) | st.sampled_from([2**64 - 1, 2**63, 2**32, 2**33])

    def __init__(self):
        super().__init__()
        self.table, self.model = probe_memory.Map(), {}

    @rule(key=keys, value=st.integers(1, 2**48))
    def put(self, key, value):
        self.table.put(key, value)
        self.model[key] = value

    @rule(key=keys)
    def remove(self, key):
        assert self.table.remove(key) == self.model.pop(key, 0)

    @rule(first=st.integers(1, 2**40), count=st.integers(1, 60))
    def put_many(self, first, count):
        for key in range(first, first + count):
            self.put(key, key)

    @rule(keep=st.integers(0, 5))
    def remove_many(self, keep):
        for key in list(self.model)[keep:]:
            self.remove(key)

    @rule(key=keys | st.integers(0, 2**64 - 1))
    def find(self, key):
        assert self.table.find(key) == self.model.get(key, 0)

    @invariant()
    def same(self):
        assert len(self.table) == len(self.model)
        for key, value in self.model.items():
            assert self.table.find(key) == value
        capacity = self.table.capacity
        assert capacity & (capacity - 1) == 0 and 4 * len(self.model) <= 3 * capacity + 4
        assert capacity <= max(8, 8 * len(self.model)) if self.model else capacity == 0


class TimersBesideADictionary(RuleBasedStateMachine):
    count = 100

    def __init__(self):
        super().__init__()
        self.clock, self.model = probe_memory.Clock(self.count), {}

    @rule(index=st.integers(0, count - 1), deadline=st.integers(0, 40) | st.integers(0, 2**64 - 1))
    def set(self, index, deadline):
        self.clock.set(index, deadline)
        if deadline:
            self.model[index] = deadline
        else:
            self.model.pop(index, None)

    @rule(step=st.integers(1, 7), scatter=st.integers(1, 2**32))
    def set_many(self, step, scatter):
        for index in range(0, self.count, step):
            self.set(index, 1 + scatter * (index + 1) % 1009)

    @rule(now=st.integers(0, 50) | st.integers(0, 2**64 - 1))
    def take_what_is_due(self, now):
        last = 0
        while (index := self.clock.due(now)) is not None:
            deadline = self.model.pop(index)
            assert last <= deadline <= now
            last = deadline
        assert all(deadline > now for deadline in self.model.values())

    @invariant()
    def same(self):
        assert len(self.clock) == len(self.model)
        assert self.clock.next_ns == min(self.model.values(), default=0)


class PoolBesideACount(RuleBasedStateMachine):
    @initialize(size=st.sampled_from([1, 8, 24, 4096]), keep=st.integers(0, 4))
    def begin(self, size, keep):
        self.pool, self.keep, self.kept = probe_memory.Blocks(size, keep), keep, 0

    @rule()
    def take(self):
        self.pool.take()
        self.kept = max(self.kept - 1, 0)

    @precondition(lambda self: self.pool.taken)
    @rule(data=st.data())
    def give(self, data):
        self.pool.give(data.draw(st.sampled_from(sorted(self.pool.taken))))
        self.kept = min(self.kept + 1, self.keep)

    @rule()
    def give_nothing(self):
        self.pool.give_nothing()

    @rule()
    def trim(self):
        self.pool.trim()
        self.kept = 0

    @invariant()
    def same(self):
        assert self.pool.live == len(self.pool.taken)
        assert self.pool.kept == self.kept


def pattern(start, n):
    """Bytes that tell where in a stream they belong."""
    return bytes((at * 7 + at // 256 * 13) % 251 for at in range(start, start + n))


sizes = st.sampled_from([0, 1, 100, 1200, 4031, 4032, 4033, 4096, 4097, 9000, 65472, 65473, 70000])


class SendBufferBesideABytearray(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.pools = probe_memory.Pools()
        self.buffer, self.model, self.start = probe_memory.Outgoing(self.pools), bytearray(), 0
        self.lent = []

    @rule(n=sizes | st.integers(0, 500))
    def append(self, n):
        assert self.buffer.append(pattern(len(self.model), n)) == n
        self.model += pattern(len(self.model), n)

    @rule(n=sizes | st.integers(0, 500))
    def lend(self, n):
        if n:
            self.lent.append((len(self.model), len(self.model) + n))
        self.buffer.lend(pattern(len(self.model), n))
        self.model += pattern(len(self.model), n)

    @rule(share=st.floats(0, 1))
    def release(self, share):
        offset = self.start + int(share * (len(self.model) - self.start))
        self.buffer.release(offset)
        self.start = offset

    @rule(offset=st.integers(0, 200_000))
    def release_what_is_gone_already(self, offset):
        self.buffer.release(min(offset, self.start))

    @rule(share=st.floats(0, 1), n=st.integers(1, 1300))
    def copy_out(self, share, n):
        """As packets do: piece after piece, then the same without a copy if it lies in one."""
        offset = self.start + int(share * (len(self.model) - self.start))
        n = min(n, len(self.model) - offset)
        assume(n)
        found = b""
        while len(found) < n:
            piece = self.buffer.at(offset + len(found))
            assert piece
            found += piece[: n - len(found)]
        assert found == self.model[offset : offset + n]
        own = self.buffer.own(offset, n)
        assert own is None or own == found
        if own is not None:
            assert not any(low < offset + n and high > offset for low, high in self.lent)

    @rule()
    def look_past_the_ends(self):
        assert self.buffer.at(len(self.model)) == b""
        if self.start:
            assert self.buffer.at(self.start - 1) == b""

    @rule()
    def clear(self):
        self.buffer.clear()
        self.start = len(self.model)
        assert self.pools.live == (0, 0) and self.buffer.chunks == 0

    @invariant()
    def same(self):
        assert (self.buffer.start, self.buffer.end) == (self.start, len(self.model))
        if self.start == len(self.model):
            assert self.pools.live == (0, 0)


class RecvBufferBesideABytearray(RuleBasedStateMachine):
    """Fragments disagree about their bytes, and the first one stays."""

    max_gaps = 5

    def __init__(self):
        super().__init__()
        self.pools = probe_memory.Pools()
        self.begin()

    def begin(self):
        self.buffer = probe_memory.Incoming(self.pools, self.max_gaps)
        self.content, self.has, self.read_to = bytearray(), bytearray(), 0

    def ready(self):
        """Everything below has come."""
        at = self.has.find(0, self.read_to)
        return at if at >= 0 else len(self.has)

    def waits(self):
        return any(self.has[self.read_to :])

    def write(self, offset, data):
        end = offset + len(data)
        content, has = self.content.ljust(end, b"\0"), self.has.ljust(end, b"\0")
        for at in range(max(offset, self.read_to), end):
            if not has[at]:
                content[at], has[at] = data[at - offset], 1
        ready = has.find(0, self.read_to)
        if ready >= 0 and len(re.findall(b"\1+", has[ready:])) > self.max_gaps:
            assert self.buffer.write(offset, data) == "gaps"
            self.clear()  # which ends the connection; the last piece may have taken a block for nothing
            return
        assert self.buffer.write(offset, data) == "ok"
        self.content, self.has = content, has

    @rule(ahead=st.integers(-50, 60) | st.sampled_from([4095, 4096, 8192, 20000]), data=st.binary(max_size=60))
    def receive(self, ahead, data):
        self.write(max(self.read_to + ahead, 0), data)

    @rule(n=st.sampled_from([1, 1200, 4095, 4096, 4097, 10000]), fill=st.integers(0, 255))
    def receive_next(self, n, fill):
        self.write(self.ready(), bytes([fill]) * n)

    @rule(n=st.integers(0, 100) | st.sampled_from([4096, 50000]), skip=st.booleans())
    def read(self, n, skip):
        expected = self.content[self.read_to : min(self.read_to + n, self.ready())]
        if skip:
            assert self.buffer.skip(n) == len(expected)
        else:
            assert self.buffer.read(n) == expected
        self.read_to += len(expected)

    @precondition(lambda self: not self.waits())
    @rule(
        n=st.integers(1, 100) | st.just(5000), data=st.lists(st.binary(max_size=80), max_size=4), big=st.sampled_from([0, 6000])
    )
    def receive_into_a_readers_memory(self, n, data, big):
        self.buffer.post(n)
        expected = b""
        for piece in [*data, bytes([7]) * big]:
            at, taken = self.ready(), b"" if self.waits() else piece[: n - len(expected)]
            self.write(at, piece)
            expected += taken
            self.read_to += len(taken)
        assert self.buffer.unpost() == expected

    @rule()
    def clear(self):
        self.buffer.clear()
        assert self.pools.live == (0, 0)
        self.begin()

    @invariant()
    def same(self):
        assert self.buffer.first_unread == self.read_to
        assert self.buffer.ready == self.ready()
        assert self.buffer.gaps == len(re.findall(b"\1+", self.has[self.ready() :]))
        blocks = sum(any(self.has[max(at, self.read_to) : at + 4096]) for at in range(0, len(self.has), 4096))
        # besides those with something in them, the one whose end has not come
        assert self.pools.live[0] in (blocks, blocks + 1) and self.pools.live[1] == 0
        if not blocks:
            assert self.pools.live == (0, 0) and self.buffer.slots <= 4


class MessagesBesideADeque(RuleBasedStateMachine):
    @initialize(limit=st.sampled_from([0, 4096, 5000, 20000]))
    def begin(self, limit):
        self.queue, self.model, self.dropped = probe_memory.Queue(limit), deque(), 0
        self.limit = 4096
        while self.limit < limit:
            self.limit *= 2
        assert self.queue.limit == self.limit

    def used(self):
        return sum(4 + len(message) for message in self.model)

    messages = st.binary(max_size=20) | st.sampled_from([64, 1000, 4092, 4093, 30000]).map(lambda n: bytes([n % 251]) * n)

    @rule(message=messages)
    def push(self, message):
        fits = self.used() + 4 + len(message) <= self.limit
        assert self.queue.push(message) == fits
        if fits:
            self.model.append(message)

    @rule(message=messages)
    def push_dropping(self, message):
        if 4 + len(message) > self.limit:
            assert not self.queue.push_dropping(message)
            self.dropped += 1
            return
        assert self.queue.push_dropping(message)
        while self.used() + 4 + len(message) > self.limit:
            self.model.popleft()
            self.dropped += 1
        self.model.append(message)

    @rule(n=st.integers(1, 5))
    def pop(self, n):
        for _ in range(n):
            assert self.queue.pop() == (self.model.popleft() if self.model else None)

    @rule()
    def trim(self):
        self.queue.trim()
        assert bool(self.queue.capacity) >= bool(self.model)
        if not self.model:
            assert self.queue.capacity == 0

    @invariant()
    def same(self):
        assert len(self.queue) == len(self.model)
        assert self.queue.used == self.used() <= self.queue.limit
        assert self.queue.capacity <= self.queue.limit
        assert self.queue.dropped == self.dropped


TestRanges = RangesBesideASet.TestCase
TestReplay = ReplayBesideASet.TestCase
TestTable = TableBesideADictionary.TestCase
TestTimers = TimersBesideADictionary.TestCase
TestPool = PoolBesideACount.TestCase
TestSendBuffer = SendBufferBesideABytearray.TestCase
TestRecvBuffer = RecvBufferBesideABytearray.TestCase
TestMessages = MessagesBesideADeque.TestCase
