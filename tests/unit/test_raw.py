"""Raw datagrams: what Python sends and hears beside connections, and what it never hears."""

import os

import pytest

from interpeer import Config, errors
from interpeer._core import control
from interpeer._core.engine import Engine

HERE, THERE = ((bytes(10) + b"\xff\xff" + bytes([192, 0, 2, n]), 1000 + n, 0) for n in (1, 2))
LOCAL = HERE[0]
TXID, TOKEN = bytes(range(12)), bytes(range(100, 108))
MAGIC = bytes.fromhex("2112a442")
RING, LARGEST, QUEUE, EXPECTED = 512, 1232, 128, 256
REQUEST, INDICATION, SUCCESS, ERROR = b"\0\1", b"\0\x11", b"\1\1", b"\1\x11"


def stun(kind=SUCCESS, txid=TXID, magic=MAGIC, attributes=b""):
    return kind + len(attributes).to_bytes(2, "big") + magic + txid + attributes


def probe(kind=0x45, version=1, token=TOKEN, size=64):
    return (bytes([kind, version]) + token).ljust(size, b"\0")


class Side:
    def __init__(self):
        self.engine = Engine()
        limits = Config().core_limits()
        control.configure(self.engine, bytes(32), b"", False, [b"raw/1"], ["chacha20-poly1305"], 8, limits)
        self.exchange = control.Exchange(self.engine)
        self.kicks = 0
        self.engine.on_kick = self.kicked

    def kicked(self):
        self.kicks += 1

    def close(self):
        self.engine.on_kick = None
        self.__dict__.clear()  # pytest keeps the fixture itself a little longer

    def sent(self):
        control.add_entropy(self.engine, os.urandom(control.entropy_missing(self.engine)))
        return self.exchange.transmit_from(1)

    def hear(self, *datagrams, source=THERE, local=LOCAL):
        """Receive datagrams; return those that Python hears of."""
        self.exchange.receive([(data, source, 0, local) for data in datagrams], 1)
        has_events = self.exchange.has_events
        events = control.events(self.engine)
        assert has_events == bool(events) and all(event[0] == control.RAW for event in events)
        return [event[1:] for event in events]

    def dropped(self):
        return {name: n for name, n in control.counters(self.engine).items() if name.startswith("dropped") and n}


@pytest.fixture
def side():
    side = Side()
    yield side
    side.close()


# --- out ---


def test_raw_datagrams_go_out_in_order_with_source_and_time_to_live_and_wake_the_driver(side):
    assert control.send_raw(side.engine, b"one", THERE)
    assert control.send_raw(side.engine, b"two", HERE, LOCAL, 3)
    assert side.kicks == 2 and side.exchange.poll_timeout() == 1
    assert side.sent() == [(b"one", THERE, 0, bytes(16), 0), (b"two", HERE, 0, LOCAL, 3)]
    assert side.sent() == [] and side.exchange.poll_timeout() == 0


def test_full_ring_tells_and_loses_nothing_that_it_took(side):
    numbered = [i.to_bytes(4, "big").ljust(LARGEST, b"x") for i in range(RING)]
    assert all(control.send_raw(side.engine, data, THERE) for data in numbered)
    assert not control.send_raw(side.engine, b"more", THERE)
    assert [data for data, *_ in side.sent()] == numbered
    assert control.send_raw(side.engine, b"again", THERE) and len(side.sent()) == 1


def test_connections_go_on_behind_raw_datagrams(side):
    peer = control.identity_of(bytes([1]) * 32)
    handle = control.connect(side.engine, peer, [THERE], b"raw/1")
    control.send_raw(side.engine, b"first", THERE)
    assert [len(data) for data, *_ in side.sent()] == [5, 1200] and handle.state == 0


@pytest.mark.parametrize(
    ("data", "remote", "ttl", "what"),
    [
        (b"", THERE, 0, "from 1 to 1232 bytes, not 0"),
        (bytes(1233), THERE, 0, "not 1233"),
        (b"x", THERE, 256, "time to live"),
        (b"x", THERE, -1, "time to live"),
        (b"x", (bytes(4), 1, 0), 0, "16 bytes"),
        (b"x", (bytes.fromhex("0100000000000002") + bytes(8), 1, 0), 0, "not through a relay or a tunnel"),
    ],
)
def test_what_cannot_be_sent_raw_is_refused_with_the_reason(side, data, remote, ttl, what):
    with pytest.raises(ValueError, match=what):
        control.send_raw(side.engine, data, remote, None, ttl)
    assert side.sent() == []


# --- in ---


@pytest.mark.parametrize("kind", [INDICATION, SUCCESS, ERROR])
def test_expected_stun_answer_is_told_with_where_it_came_from(side, kind):
    control.expect(side.engine, TXID)
    answer = stun(kind, attributes=b"\0\x20\0\0")
    assert side.hear(answer) == [(answer, THERE, LOCAL)]
    assert side.hear(answer) == [(answer, THERE, LOCAL)], "a transaction may be answered again until it is given up"
    assert side.dropped() == {}


@pytest.mark.parametrize("kind", [0x45, 0x46])
def test_expected_probe_is_told(side, kind):
    control.expect(side.engine, TOKEN)
    assert side.hear(probe(kind)) == [(probe(kind), THERE, LOCAL)]


@pytest.mark.parametrize(
    "data",
    [stun(REQUEST), stun(txid=bytes(12)), stun(txid=TXID[:11] + b"x"), stun(attributes=bytes(LARGEST))],
    ids=["request", "other", "other at its end", "too large"],
)
def test_other_stun_never_reaches_python(side, data):
    control.expect(side.engine, TXID)
    assert side.hear(data) == [] and side.dropped() == {"dropped_stun": 1}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (probe(token=TXID[:8]), "dropped_probes"),
        (probe(version=2), "dropped_probes"),
        (probe(size=63), "dropped_short"),
        (probe(size=65), "dropped_short"),
        (probe(kind=0x47), "dropped_short"),
        (stun(magic=bytes(4)), "dropped_short"),
        (stun()[:19], "dropped_short"),
    ],
)
def test_what_is_no_probe_of_ours_never_reaches_python(side, data, why):
    control.expect(side.engine, TOKEN)
    control.expect(side.engine, TXID)
    assert side.hear(data) == [] and side.dropped() == {why: 1}


def test_nothing_is_heard_before_anything_is_expected_nor_after(side):
    assert side.hear(stun(), probe()) == []
    control.expect(side.engine, TXID)
    control.expect(side.engine, TOKEN)
    control.unexpect(side.engine, TXID)
    control.unexpect(side.engine, TXID)
    assert [data for data, *_ in side.hear(stun(), probe())] == [probe()]
    control.unexpect(side.engine, TOKEN)
    assert side.hear(stun(), probe()) == []
    assert side.dropped() == {"dropped_stun": 3, "dropped_probes": 2}


def test_tokens_are_kept_apart_by_kind_and_removing_one_keeps_the_others(side):
    txids = [bytes([i]) * 12 for i in range(EXPECTED)]
    for txid in txids:
        control.expect(side.engine, txid)
        control.expect(side.engine, txid)
    with pytest.raises(errors.LocalError, match="256 tokens already"):
        control.expect(side.engine, TXID)
    control.expect(side.engine, TOKEN)
    assert side.hear(probe(token=txids[7][:8])) == []
    control.unexpect(side.engine, txids[0])
    control.expect(side.engine, TXID)
    heard = [data[8:20] for i in range(0, EXPECTED, 64) for data, *_ in side.hear(*(stun(txid=t) for t in txids[i : i + 64]))]
    assert heard == txids[1:] and len(side.hear(stun())) == 1


@pytest.mark.parametrize("token", [b"", bytes(7), bytes(11), bytes(13)])
def test_token_of_no_kind_is_refused(side, token):
    with pytest.raises(ValueError, match=f"this has {len(token)}"):
        control.expect(side.engine, token)
    with pytest.raises(ValueError, match=f"this has {len(token)}"):
        control.unexpect(side.engine, token)


def test_answers_that_nobody_takes_are_dropped_and_counted(side):
    control.expect(side.engine, TXID)
    side.exchange.receive([(stun(), THERE, 0)] * (QUEUE + 5), 1)
    assert side.dropped() == {"dropped_raw": 5}
    assert len(control.events(side.engine)) == QUEUE
    assert len(side.hear(stun())) == 1, "there is room again"


@pytest.mark.parametrize("kind", [0, 1, 2, 3, 255])
def test_datagram_from_an_address_that_stands_for_something_else_is_dropped(side, kind):
    control.expect(side.engine, TXID)
    forged = bytes([1, 0, 0, 0, 0, 0, 0, kind]) + (5).to_bytes(8, "big"), 1, 0
    assert side.hear(stun(), source=forged) == [] and side.dropped() == {"dropped_virtual": 1}
    beside = bytes([1, 0, 0, 0, 0, 0, 1, kind]) + bytes(8), 1, 0
    assert len(side.hear(stun(), source=beside)) == 1


def test_shard_passes_answers_on_to_the_one_that_everything_strange_is_for():
    sides = [Side(), Side()]
    control.share([side.engine for side in sides])
    for side in sides:
        control.expect(side.engine, TXID)
        control.expect(side.engine, TOKEN)
    assert sides[1].hear(stun(), probe()) == []
    sides[0].exchange.handle_timeout(2)
    assert [event[1] for event in control.events(sides[0].engine)] == [stun(), probe()]
    for side in sides:
        side.close()
