"""One stream: both state machines pair by pair, and what each side does with its bytes."""

import pytest

from interpeer._core import probe_transport
from interpeer._core.probe_transport import Flow

SEND = ["OPEN", "FINISHING", "DONE", "RESETTING", "RESET"]
SEND_INPUTS = ["FINISH", "ALL_ACKED", "RESET", "RESET_ACKED"]
SEND_TRANSITIONS = {  # what is not here is not allowed
    ("OPEN", "FINISH"): "FINISHING",
    ("OPEN", "RESET"): "RESETTING",
    ("FINISHING", "FINISH"): "FINISHING",
    ("FINISHING", "ALL_ACKED"): "DONE",
    ("FINISHING", "RESET"): "RESETTING",
    ("DONE", "FINISH"): "DONE",
    ("DONE", "ALL_ACKED"): "DONE",
    ("DONE", "RESET"): "DONE",
    ("RESETTING", "FINISH"): "RESETTING",
    ("RESETTING", "RESET"): "RESETTING",
    ("RESETTING", "RESET_ACKED"): "RESET",
    ("RESET", "FINISH"): "RESET",
    ("RESET", "RESET"): "RESET",
    ("RESET", "RESET_ACKED"): "RESET",
}

RECV = ["OPEN", "SIZE_KNOWN", "COMPLETE", "READ", "RESET", "RESET_TOLD"]
RECV_INPUTS = ["SIZE", "COMPLETE", "READ_ALL", "RESET", "TOLD"]
RECV_TRANSITIONS = {
    ("OPEN", "SIZE"): "SIZE_KNOWN",
    ("OPEN", "RESET"): "RESET",
    ("SIZE_KNOWN", "SIZE"): "SIZE_KNOWN",
    ("SIZE_KNOWN", "COMPLETE"): "COMPLETE",
    ("SIZE_KNOWN", "RESET"): "RESET",
    ("COMPLETE", "SIZE"): "COMPLETE",
    ("COMPLETE", "COMPLETE"): "COMPLETE",
    ("COMPLETE", "READ_ALL"): "READ",
    ("COMPLETE", "RESET"): "COMPLETE",
    ("READ", "SIZE"): "READ",
    ("READ", "COMPLETE"): "READ",
    ("READ", "READ_ALL"): "READ",
    ("READ", "RESET"): "READ",
    ("READ", "TOLD"): "READ",
    ("RESET", "SIZE"): "RESET",
    ("RESET", "RESET"): "RESET",
    ("RESET", "TOLD"): "RESET_TOLD",
    ("RESET_TOLD", "SIZE"): "RESET_TOLD",
    ("RESET_TOLD", "RESET"): "RESET_TOLD",
    ("RESET_TOLD", "TOLD"): "RESET_TOLD",
}

ANNOUNCE, MAX_DATA, RESET, STOP = 1, 2, 4, 8  # Stream.pending
FLOW_CONTROL, FINAL_SIZE, GAPS = 3, 6, 10  # codes


@pytest.mark.parametrize("state", SEND)
@pytest.mark.parametrize("event", SEND_INPUTS)
def test_sending_side_moves_as_its_table_says(state, event):
    """What is not allowed changes nothing: the door asserts it."""
    after = probe_transport.step_send(SEND.index(state), SEND_INPUTS.index(event))
    expected = SEND_TRANSITIONS.get((state, event))
    assert after == (None if expected is None else SEND.index(expected))


@pytest.mark.parametrize("state", RECV)
@pytest.mark.parametrize("event", RECV_INPUTS)
def test_receiving_side_moves_as_its_table_says(state, event):
    after = probe_transport.step_recv(RECV.index(state), RECV_INPUTS.index(event))
    expected = RECV_TRANSITIONS.get((state, event))
    assert after == (None if expected is None else RECV.index(expected))


def states(flow):
    send, recv = flow.states
    return SEND[send], RECV[recv]


# --- sending ---


def test_pieces_follow_each_other_and_the_last_one_ends_the_stream():
    flow = Flow()
    flow.write(b"0123456789")
    assert flow.send(1000, 4) == (0, b"0123", False)
    flow.finish()
    assert flow.send(1000, 4) == (4, b"4567", False)
    assert flow.has_data
    assert flow.send(1000, 4) == (8, b"89", True)
    assert not flow.has_data and states(flow)[0] == "FINISHING"
    for offset, n, fin in ((0, 4, False), (8, 2, True), (4, 4, False)):
        flow.acked(offset, n, fin)
    assert states(flow)[0] == "DONE" and flow.pools.live == (0, 0)


def test_stream_without_data_ends_by_an_empty_piece():
    flow = Flow()
    assert not flow.has_data
    flow.finish()
    assert flow.has_data and flow.send(0, 100) == (0, b"", True)
    assert not flow.has_data
    flow.lost(0, 0, True)
    assert flow.has_data and flow.send(0, 100) == (0, b"", True)
    flow.acked(0, 0, True)
    assert states(flow)[0] == "DONE"


def test_end_behind_data_that_are_sent_goes_alone():
    flow = Flow()
    flow.write(b"abc")
    flow.send(100, 100)
    flow.acked(0, 3, False)
    flow.finish()
    assert flow.has_data and flow.send(0, 100) == (3, b"", True)


@pytest.mark.row("S1")
def test_peers_limits_hold_new_data_back_and_nothing_else():
    flow = Flow(send_limit=6)
    flow.write(b"0123456789")
    assert flow.next(4) == (0, 4) and flow.next(0) == (0, 0)
    assert flow.send(100, 100) == (0, b"012345", False)
    assert not flow.has_data and flow.next(100) == (6, 0)
    flow.lost(2, 2, False)
    assert flow.has_data and flow.next(0) == (2, 2)  # what was sent once has been counted
    assert flow.send(0, 100) == (2, b"23", False)
    flow.raise_send_limit(8)
    assert flow.send(1, 100) == (6, b"6", False) and flow.send(100, 100) == (7, b"7", False)


def test_end_waits_for_the_limit_too():
    flow = Flow(send_limit=2)
    flow.write(b"abc")
    flow.finish()
    assert flow.send(100, 100) == (0, b"ab", False)
    assert not flow.has_data
    flow.raise_send_limit(3)
    assert flow.send(100, 100) == (2, b"c", True)


def test_lost_pieces_go_before_new_ones_the_oldest_first():
    flow = Flow()
    flow.write(bytes(range(100)))
    for _ in range(5):
        flow.send(100, 10)
    flow.lost(30, 10, False)
    flow.lost(10, 10, False)
    assert [flow.send(100, 10)[0] for _ in range(3)] == [10, 30, 50]


def test_what_was_acknowledged_meanwhile_is_not_sent_again():
    flow = Flow()
    flow.write(bytes(100))
    for _ in range(10):
        flow.send(100, 10)
    flow.acked(20, 10, False)
    flow.acked(40, 20, False)
    flow.lost(0, 100, False)
    assert flow.next(100) == (0, 20)
    flow.send(100, 20)
    assert [flow.send(100, 100)[:2] for _ in range(2)] == [(30, bytes(10)), (60, bytes(40))]
    assert not flow.has_data
    flow.acked(0, 20, False)
    assert flow.acked_to == 30
    flow.lost(0, 30, False)
    assert not flow.has_data


def test_lost_piece_that_is_acknowledged_after_all_is_not_sent_again():
    flow = Flow()
    flow.write(bytes(30))
    flow.send(100, 30)
    flow.lost(0, 30, False)
    flow.acked(0, 10, False)
    flow.acked(20, 10, False)
    assert flow.send(100, 100) == (10, bytes(10), False) and not flow.has_data


def test_lost_end_is_sent_again_with_its_data():
    flow = Flow()
    flow.write(b"abc")
    flow.finish()
    assert flow.send(100, 100) == (0, b"abc", True)
    flow.lost(0, 3, True)
    assert flow.send(100, 100) == (0, b"abc", True)
    flow.acked(0, 3, True)
    assert states(flow)[0] == "DONE"


def test_acknowledgement_of_both_copies_is_harmless():
    flow = Flow()
    flow.write(b"abc")
    flow.finish()
    flow.send(100, 100)
    flow.lost(0, 3, True)
    flow.send(100, 100)
    flow.acked(0, 3, True)
    flow.acked(0, 3, True)
    flow.lost(0, 3, True)
    assert states(flow)[0] == "DONE" and not flow.has_data


@pytest.mark.row("S12")
def test_reset_forgets_what_waits_and_is_acknowledged():
    flow = Flow()
    flow.write(bytes(100_000))
    flow.send(1000, 1000)
    flow.reset(77)
    assert states(flow)[0] == "RESETTING" and flow.pending == RESET and flow.codes[0] == 77
    assert not flow.has_data and flow.pools.live == (0, 0) and flow.sent == 1000
    flow.acked(0, 1000, False)
    flow.lost(0, 1000, False)
    flow.reset(78)
    assert not flow.has_data and flow.codes[0] == 77 and states(flow)[0] == "RESETTING"


@pytest.mark.row("S12")
def test_reset_of_a_stream_that_is_delivered_changes_nothing():
    flow = Flow()
    flow.finish()
    flow.send(100, 100)
    flow.acked(0, 0, True)
    flow.reset(5)
    assert states(flow)[0] == "DONE" and flow.pending == 0


# --- receiving ---


def test_bytes_come_out_in_order_and_the_end_ends_the_machine():
    flow = Flow()
    assert flow.data(3, b"def", True) == (0, 6)
    assert states(flow)[1] == "SIZE_KNOWN" and flow.readable == 0
    assert flow.data(0, b"abc") == (0, 0)
    assert states(flow)[1] == "COMPLETE" and flow.read(4) == b"abcd"
    assert flow.read(4) == b"ef" and states(flow)[1] == "READ"
    assert flow.data(0, b"abcdef", True) == (0, 0) and flow.read(10) == b""


def test_end_alone_completes_what_has_been_read():
    flow = Flow()
    flow.data(0, b"abc")
    assert flow.read(10) == b"abc"
    assert flow.data(3, b"", True) == (0, 0)
    assert states(flow)[1] == "COMPLETE" and flow.read(10) == b"" and states(flow)[1] == "READ"


def test_end_that_finds_a_reader_waiting_ends_the_machine():
    flow = Flow()
    flow.post(10)
    flow.data(0, b"abc", True)
    assert states(flow)[1] == "READ" and flow.unpost() == b"abc"


@pytest.mark.row("S1")
def test_byte_beyond_the_streams_window_is_refused():
    flow = Flow(window=100)
    assert flow.data(90, b"x" * 10) == (0, 100)
    assert flow.data(100, b"x")[0] == flow.data(95, b"x" * 6)[0] == FLOW_CONTROL
    assert flow.data(2**61, b"x")[0] == FLOW_CONTROL
    assert flow.data(100, b"", True) == (0, 0)


@pytest.mark.row("S1")
def test_byte_beyond_the_connections_credit_is_refused_and_repeats_cost_none():
    flow = Flow()
    assert flow.data(0, b"x" * 10, credit=10) == (0, 10)
    assert flow.data(5, b"x" * 5, credit=0) == (0, 0)
    assert flow.data(5, b"x" * 6, credit=0)[0] == FLOW_CONTROL
    assert flow.data(50, b"x", credit=40)[0] == FLOW_CONTROL
    assert flow.data(50, b"x", credit=41) == (0, 41)


@pytest.mark.row("S4")
@pytest.mark.parametrize(
    ("offset", "data", "fin"), [(0, b"abcdef", True), (0, b"ab", True), (5, b"x", False), (6, b"", True), (0, b"", True)]
)
def test_second_size_is_refused(offset, data, fin):
    flow = Flow()
    assert flow.data(0, b"abcde", True) == (0, 5)
    assert flow.data(offset, data, fin)[0] == FINAL_SIZE
    assert flow.data(3, b"de", True) == (0, 0)


@pytest.mark.row("S4")
def test_size_below_what_has_come_is_refused():
    flow = Flow()
    flow.data(10, b"x")
    assert flow.data(0, b"x", True)[0] == FINAL_SIZE
    assert flow.peer_reset(1, 10)[0] == FINAL_SIZE
    assert states(flow)[1] == "OPEN"
    assert flow.peer_reset(1, 11) == (0, 0, 11)


@pytest.mark.row("S2")
def test_stream_keeps_a_thousand_gaps_and_no_more():
    flow = Flow()
    for i in range(1000):
        assert flow.data(1 + 2 * i, b"x")[0] == 0
    assert flow.data(2001, b"x")[0] == GAPS
    assert flow.pools.live == (1, 0)


def test_peers_reset_drops_what_is_not_read():
    flow = Flow()
    flow.data(0, b"abc")
    flow.read(1)
    assert flow.peer_reset(42, 10) == (0, 7, 9)  # ten bytes of credit, of which one was read
    assert states(flow)[1] == "RESET" and flow.peer_code == 42 and flow.pools.live == (0, 0)
    assert flow.peer_reset(43, 10) == (0, 0, 0) and flow.peer_code == 42
    assert flow.peer_reset(43, 11)[0] == FINAL_SIZE
    assert flow.data(3, b"x") == (0, 0) and flow.read(10) == b""
    assert flow.data(3, b"xxxxxxxx")[0] == FINAL_SIZE


@pytest.mark.row("S1")
def test_peers_reset_is_bound_by_the_limits():
    flow = Flow(window=100)
    assert flow.peer_reset(0, 101)[0] == FLOW_CONTROL
    assert flow.peer_reset(0, 50, credit=49)[0] == FLOW_CONTROL
    assert states(flow)[1] == "OPEN"
    assert flow.peer_reset(0, 50, credit=50) == (0, 50, 50)


def test_reset_behind_the_end_is_ignored():
    flow = Flow()
    flow.data(0, b"abc", True)
    assert flow.peer_reset(9, 3) == (0, 0, 0)
    assert states(flow)[1] == "COMPLETE" and flow.read(10) == b"abc"


@pytest.mark.row("S12")
def test_stopped_stream_drops_data_and_counts_them():
    flow = Flow()
    flow.data(0, b"abcdef")
    flow.read(2)
    assert flow.stop(13) == 4 and flow.pending == STOP and flow.codes[1] == 13
    assert flow.stop(14) == 0 and flow.codes[1] == 13
    assert flow.data(6, b"more") == (0, 4) and flow.readable == 0 and flow.pools.live == (0, 0)
    assert flow.data(10, b"", True) == (0, 0)
    assert states(flow)[1] == "READ"


@pytest.mark.row("S12")
def test_stopped_stream_is_over_when_it_is_reset():
    flow = Flow()
    flow.data(0, b"abc")
    assert flow.stop(1) == 3
    assert flow.peer_reset(5, 8) == (0, 5, 5)
    assert states(flow)[1] == "RESET_TOLD"


@pytest.mark.parametrize("fin_first", [False, True])
def test_stopping_a_stream_whose_size_is_known_asks_for_nothing(fin_first):
    flow = Flow()
    flow.data(0 if fin_first else 2, b"abc", True)
    assert flow.stop(1) == (3 if fin_first else 5)
    assert states(flow)[1] == "READ" and flow.pending == 0


def test_stopping_a_reset_stream_tells_the_application():
    flow = Flow()
    flow.peer_reset(5, 8)
    assert flow.stop(1) == 0 and states(flow)[1] == "RESET_TOLD" and flow.pending == 0


# --- windows ---


@pytest.mark.row("S6")
def test_limit_follows_what_was_read_not_what_has_come():
    flow = Flow(window=1000)
    flow.data(900, b"x" * 100)
    assert not flow.raise_limit(1, 0, 10**6) and flow.recv_limit == 1000
    flow.data(0, b"x" * 900)
    assert not flow.raise_limit(1, 0, 10**6)
    flow.read(499)
    assert not flow.raise_limit(1, 0, 10**6)
    flow.read(1)
    assert flow.raise_limit(1, 0, 10**6) and flow.recv_limit == 1500


READER_PAUSE_NS = 20_000_000  # a busy program reads no sooner


@pytest.mark.parametrize("rtt", [0, 50, READER_PAUSE_NS, 3 * READER_PAUSE_NS])
def test_window_doubles_for_a_reader_that_keeps_up(rtt):
    flow, now, pause = Flow(window=1000), 1, 2 * max(rtt, READER_PAUSE_NS)
    for expected in (1000, 2000, 4000, 5000, 5000):
        n = flow.recv_limit - flow.highest
        flow.data(flow.highest, bytes(n))
        flow.read(n)
        assert flow.raise_limit(now, rtt, 5000)
        assert flow.window == expected and flow.recv_limit == flow.highest + expected
        now += pause - 1
    slow = Flow(window=1000)
    for _ in range(5):
        n = slow.recv_limit - slow.highest
        slow.data(slow.highest, bytes(n))
        slow.read(n)
        assert slow.raise_limit(now, rtt, 5000) and slow.window == 1000
        now += pause


def test_stream_is_over_when_both_sides_are():
    flow = Flow()
    flow.finish()
    flow.send(100, 100)
    flow.acked(0, 0, True)
    assert not flow.is_over
    flow.data(0, b"", True)
    flow.read(1)
    assert flow.is_over
