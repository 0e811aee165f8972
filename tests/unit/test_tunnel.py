"""What the core does for tunnels: frames made and cut, queues with ends, and two engines that talk through nothing else."""

import os

import pytest

from interpeer import Config, errors
from interpeer._core import control, tunnels
from interpeer._core.connection_handle import EVENT_OPEN
from interpeer._core.engine import Engine

PROTOCOL = b"tunnel/1"
NUMBER = 7
MOST, LARGEST, QUEUE, INBOX, HEADER = 256, 1500, 1 << 20, 2 << 20, 2
HERE = bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1])


def packets(frames):
    """Cut frames; what is left over is a mistake."""
    found, at = [], 0
    while at < len(frames):
        length = int.from_bytes(frames[at : at + HEADER], "big")
        found.append(frames[at + HEADER : at + HEADER + length])
        assert len(found[-1]) == length
        at += HEADER + length
    return found


class Side:
    """An engine with one tunnel that is stepped by hand."""

    def __init__(self, seed):
        self.engine = Engine()
        limits = Config(keep_alive_s=0).core_limits()
        control.configure(self.engine, bytes([seed]) * 32, b"", False, [PROTOCOL], ["chacha20-poly1305"], 8, limits)
        self.exchange = control.Exchange(self.engine)
        tunnels.add(self.engine, NUMBER)
        self.now = 1_000_000_000
        self.incoming = []
        self.kicks = 0
        self.engine.on_kick = self.kicked

    def kicked(self):
        self.kicks += 1

    def turn(self):
        """Take a turn; return (what goes out by sockets, {tunnel: frames})."""
        control.add_entropy(self.engine, os.urandom(control.entropy_missing(self.engine)))
        self.exchange.handle_timeout(self.now)
        sent = self.exchange.transmit(self.now)
        frames = {}
        has_events = self.exchange.has_events
        events = control.events(self.engine)
        assert has_events or not events
        for event in events:
            if event[0] == control.TUNNEL:
                frames[event[1]] = frames.get(event[1], b"") + event[2]
            elif event[0] == control.INCOMING:
                self.incoming.append(event[1])
        return sent, frames

    def call(self, count=1):
        identity = control.identity_of(bytes([99]) * 32)
        self.handles = [control.connect(self.engine, identity, [tunnels.endpoint(NUMBER)], PROTOCOL) for _ in range(count)]

    def close(self):
        self.engine.on_kick = None
        self.__dict__.clear()  # pytest keeps the fixture itself a little longer


@pytest.fixture
def side():
    side = Side(1)
    yield side
    side.close()


@pytest.fixture
def pair():
    pair = Side(1), Side(2)
    yield pair
    for side in pair:
        side.close()


def carry(a, b, limit=200):
    """Carry frames to and fro until both are silent."""
    for _ in range(limit):
        moved = 0
        for writer, reader in ((a, b), (b, a)):
            sent, frames = writer.turn()
            assert not sent, "nothing leaves by a socket"
            for data in frames.values():
                moved += len(data)
                assert tunnels.receive(reader.engine, NUMBER, data) == len(data)
        a.now += 1_000_000
        b.now += 1_000_000
        if not moved:
            return


def test_two_engines_talk_through_a_tunnel_alone(pair):
    a, b = pair
    identity = control.identity_of(bytes([2]) * 32)
    handle = control.connect(a.engine, identity, [tunnels.endpoint(NUMBER)], PROTOCOL)
    carry(a, b)
    assert handle.want(EVENT_OPEN) and handle.remote == tunnels.endpoint(NUMBER)
    (other,) = b.incoming
    other.take()
    assert other.remote == tunnels.endpoint(NUMBER)
    for i in range(50):
        assert handle.send_datagram(bytes([i]) * 1000)
    carry(a, b)
    assert [other.recv_datagram()[0] for _ in range(50)] == list(range(50))


def test_what_is_held_stays_and_comes_in_order_when_it_is_let_go(side):
    side.call(3)
    tunnels.hold(side.engine, NUMBER, True)
    assert side.turn() == ([], {}) and tunnels.figures(side.engine, NUMBER) == (3 * (1200 + HEADER), 0)
    kicks = side.kicks
    tunnels.hold(side.engine, NUMBER, False)
    assert side.kicks == kicks + 1
    _, frames = side.turn()
    assert [len(packet) for packet in packets(frames[NUMBER])] == [1200] * 3
    assert tunnels.figures(side.engine, NUMBER) == (0, 0)


def test_full_queue_drops_what_comes_last_and_counts_it(side):
    fits = QUEUE // (1200 + HEADER)
    side.call(fits + 5)
    tunnels.hold(side.engine, NUMBER, True)
    for _ in range(40):  # a turn has random bytes for some thirty calls
        side.turn()
    assert tunnels.figures(side.engine, NUMBER) == (fits * (1200 + HEADER), 5)
    tunnels.hold(side.engine, NUMBER, False)
    assert len(packets(side.turn()[1][NUMBER])) == fits


def test_packets_for_a_tunnel_that_has_gone_go_nowhere(side):
    side.call()
    tunnels.remove(side.engine, NUMBER)
    tunnels.remove(side.engine, NUMBER)
    tunnels.add(side.engine, 8)
    assert side.turn() == ([], {})


def test_last_tunnel_that_has_gone_leaves_nothing_to_the_sockets(side):
    side.call()
    tunnels.remove(side.engine, NUMBER)
    assert side.turn() == ([], {})


def test_ordinary_packets_beside_tunnelled_ones_leave_by_sockets_in_order(side):
    identity = control.identity_of(bytes([99]) * 32)
    handle = control.connect(side.engine, identity, [(HERE, 9, 0), tunnels.endpoint(NUMBER), (HERE, 10, 0)], PROTOCOL)
    sent, tunnelled = [], {}
    for _ in range(5):
        one, frames = side.turn()
        sent += one
        tunnelled |= frames
        side.now += 100_000_000
    assert [target[1] for _, target, _ in sent][:2] == [9, 10] and all(target[0] == HERE for _, target, _ in sent)
    assert [len(packet) for packet in packets(tunnelled[NUMBER])] == [1200] and handle.state == 0


def test_frames_are_cut_wherever_the_stream_is(side):
    frames = b"".join(len(data).to_bytes(2, "big") + data for data in (b"a", b"x" * LARGEST, b"z" * 20))
    for cut in (0, 1, 2, 3, 4, 5, 100, len(frames) - 21, len(frames) - 1, len(frames)):
        whole = tunnels.receive(side.engine, NUMBER, frames[:cut])
        assert whole <= cut and len(packets(frames[:whole])) == (cut >= 3) + (cut >= 1505) + (cut == len(frames))
    side.turn()
    counters = control.counters(side.engine)
    assert counters["dropped_short"] == counters["packets_received"] == 11


@pytest.mark.parametrize("length", [0, LARGEST + 1, 0xFFFF])
def test_frame_that_cannot_be_ends_the_stream(side, length):
    with pytest.raises(ValueError, match="from 1 to 1500"):
        tunnels.receive(side.engine, NUMBER, b"\0\1x" + length.to_bytes(2, "big"))
    side.turn()
    assert control.counters(side.engine)["packets_received"] == 0


def test_inbox_has_an_end(side):
    frame = LARGEST.to_bytes(2, "big") + bytes(LARGEST)
    for _ in range(20):
        assert tunnels.receive(side.engine, NUMBER, frame * 100) == 100 * len(frame)
    side.turn()
    taken = control.counters(side.engine)["packets_received"]
    assert taken == INBOX // (16 + LARGEST)
    tunnels.receive(side.engine, NUMBER, frame)
    side.turn()
    assert control.counters(side.engine)["packets_received"] == taken + 1


def test_what_comes_for_no_tunnel_is_not_kept(side):
    assert tunnels.receive(side.engine, 99, b"\0\1x") == 3
    side.turn()
    assert control.counters(side.engine)["packets_received"] == 0


def test_numbers_are_given_once_and_there_are_only_so_many(side):
    for number in (0, NUMBER):
        with pytest.raises(ValueError, match=f"{number} is the number of another"):
            tunnels.add(side.engine, number)
    for number in range(100, 100 + MOST - 1):
        tunnels.add(side.engine, number)
    with pytest.raises(errors.LocalError, match="at most 256"):
        tunnels.add(side.engine, 1000)
    tunnels.remove(side.engine, 150)
    tunnels.add(side.engine, 1000)


def test_shards_share_what_a_tunnel_brings():
    sides = [Side(1), Side(1)]
    control.share([side.engine for side in sides])
    init = b"\x41\x01" + bytes(6) + b"\0\1" + bytes(1190)  # the second shard's, by its last two bytes of connection id
    assert tunnels.receive(sides[0].engine, NUMBER, len(init).to_bytes(2, "big") + init)
    sides[0].turn()
    sides[1].turn()
    assert control.counters(sides[0].engine)["shard_forwarded"] == 1
    assert [control.counters(side.engine)["packets_received"] for side in sides] == [0, 1]
    for side in sides:
        side.close()
