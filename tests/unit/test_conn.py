"""The connection's machine by itself; what peers can see of it is tested with the specification, chapter 5."""

import os

import pytest

from interpeer import Config
from interpeer._core.probe_conn import INPUT_NAMES, STATE_NAMES, Lone

MS = 1_000_000
PING = b"\x01"
PROTOCOL = 7
PEER = {"suites": b"\1", "idle_timeout_ms": 30_000, "max_ack_delay_us": 5000, "max_udp_payload": 65_507, "max_streams": 10}
AFTER = {
    "dialing": ["open", "closed", "closed", None, None, None, None, None],
    "open": [None, None, "closing", "closing", "draining", "closed", "closed", None],
    "closing": [None, None, "closing", "closing", "draining", "closed", "closed", "closed"],
    "draining": [None, None, "draining", "draining", "draining", "draining", "closed", "closed"],
    "closed": [None, *["closed"] * 7],
}


@pytest.fixture
def lone():
    return Lone(limits=Config().core_limits(), peer=PEER, now_ns=1)


@pytest.mark.parametrize("state", STATE_NAMES)
@pytest.mark.parametrize("event", INPUT_NAMES)
def test_every_input_in_every_state(lone, state, event):
    expected = AFTER[state][INPUT_NAMES.index(event)]
    assert lone.step(state, event) == (expected is not None, expected or state)


@pytest.mark.row("S2")
def test_a_peer_that_sends_and_never_acknowledges_is_not_remembered_for_ever(lone):
    """Every second packet is acknowledged in one of its own, and some of these ask in vain to be acknowledged."""
    now_ns, sent, most = 1000 * MS, 0, 0
    while lone.state == "open":
        assert sent < 200_000, f"{lone.unsettled} packets are remembered"
        lone.give_entropy(os.urandom(64))
        now_ns += MS // 10
        assert lone.feed(PING, now_ns) == lone.feed(PING, now_ns) == "ok"
        if 0 < lone.deadline_ns <= now_ns:
            lone.handle_timeout(now_ns)
        sent += len(lone.transmit_packets(now_ns))
        most = max(most, lone.unsettled)
    assert 65_000 < most < 66_000 and lone.unsettled == 0
    assert lone.closed == (PROTOCOL, b"nothing is acknowledged")
