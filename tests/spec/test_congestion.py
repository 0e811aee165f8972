"""Chapter 9 of the specification, continued: congestion control, pacing and ECN."""

import pytest

from tests.spec import reference as ref
from tests.spec.flow import Flow
from tests.spec.peer import MS, SECOND, Node, Peer, ack_of
from tests.spec.test_packets import pto_ns
from tests.spec.test_recovery import RTT_NS, quiet, sent_packet

PACKET = 1200
ECN_TESTING, ECN_CAPABLE, ECN_FAILED = range(3)


def in_flight(peer):
    return peer.handle.stats()["bytes_in_flight"]


def window(peer):
    return peer.handle.stats()["window_bytes"]


def filled(peer):
    """Let the node fill its window; return the numbers of its packets."""
    peer.stream = peer.handle.open_stream()
    peer.stream.write(bytes(1 << 20))
    said = peer.node.wait(25 * MS)
    return [peer.open(sent.data).counter for sent in said]


# --- the window ---


@pytest.mark.spec("RC-24", "RC-25")
def test_no_more_is_in_flight_than_the_window_which_starts_with_ten_packets():
    peer = quiet()
    assert window(peer) == 10 * PACKET
    filled(peer)
    assert 9 * PACKET < in_flight(peer) <= 10 * PACKET
    flow = Flow(quiet(), 20 * MS, lose=lambda number: number % 50 == 10)
    for _ in range(300):
        flow.run(MS)
        assert in_flight(flow.peer) <= max(flow.window, flow.windows[-2][1] if len(flow.windows) > 1 else 0) + 2 * PACKET


@pytest.mark.spec("RC-26")
def test_a_loss_takes_three_tenths_of_the_window():
    peer = quiet()
    numbers = filled(peer)
    before = window(peer)
    peer.acknowledge(numbers[3])
    # what is acknowledged belongs to the same round trip, so it does not make the window grow again
    assert window(peer) == before * 7 // 10 and peer.handle.stats()["congestion_events"] == 1


@pytest.mark.spec("RC-27")
def test_losses_of_one_round_trip_count_once():
    peer = quiet()
    numbers = filled(peer)
    peer.acknowledge(numbers[3])
    after = window(peer)
    peer.node.now_ns += 5 * MS
    peer.acknowledge(numbers[9])
    assert peer.handle.stats()["packets_lost"] > 3
    assert window(peer) == after and peer.handle.stats()["congestion_events"] == 1
    # what is sent from now on is another matter
    peer.stream.write(bytes(100_000))
    later = [peer.open(sent.data).counter for sent in peer.node.wait(30 * MS)]
    peer.acknowledge(later[3])
    assert window(peer) == after * 7 // 10 and peer.handle.stats()["congestion_events"] == 2


@pytest.mark.spec("RC-25")
def test_the_window_never_falls_below_two_packets():
    flow = Flow(quiet(), 20 * MS, lose=lambda number: number % 3 != 0)
    flow.run(10 * SECOND)
    assert min(size for _, size in flow.windows) == 2 * PACKET
    assert flow.peer.handle.stats()["congestion_events"] > 5


@pytest.mark.spec("RC-28")
def test_a_ce_mark_counts_like_a_loss():
    peer = quiet()
    numbers = filled(peer)
    before, marked = window(peer), len(numbers)
    peer.acknowledge(*numbers[:4], ecn=(4, 0, 0))
    assert window(peer) >= before and peer.handle.stats()["ecn"] == ECN_CAPABLE
    before = window(peer)
    peer.acknowledge(*numbers[4:6], ecn=(5, 0, 1))
    assert window(peer) == before * 7 // 10 and peer.handle.stats()["congestion_events"] == 1
    # the same mark told again is none
    peer.acknowledge(*numbers[6:], ecn=(marked - 1, 0, 1))
    assert peer.handle.stats()["congestion_events"] == 1 and peer.handle.stats()["ecn_ce"] == 1


@pytest.mark.spec("RC-29")
@pytest.mark.parametrize("is_interrupted", [False, True])
def test_the_window_collapses_when_everything_is_lost_for_long(is_interrupted):
    peer = quiet()
    stream = peer.handle.open_stream()
    numbers = []
    for _ in range(7):  # the first six are lost, over five probe time-outs
        numbers.append(sent_packet(peer, stream))
        peer.node.now_ns += pto_ns(peer)
    peer.node.now_ns += RTT_NS - pto_ns(peer)
    # if one of those in between has arrived, nothing was lost for more than two
    peer.acknowledge(*numbers[3 : 4 if is_interrupted else 3], numbers[6])
    assert peer.handle.stats()["packets_lost"] == 6 - is_interrupted
    assert (window(peer) <= 3 * PACKET) == (not is_interrupted)


@pytest.mark.spec("RC-29")
def test_the_window_collapses_when_an_outage_is_over():
    peer = quiet(idle_timeout_ns=0)
    numbers = filled(peer)
    probes = [peer.open(sent.data).counter for sent in peer.node.wait(5 * SECOND)]
    assert len(probes) >= 8
    while not (said := peer.node.wait(MS)):
        pass
    probes += [peer.open(sent.data).counter for sent in said]
    peer.node.now_ns += 20 * MS
    peer.acknowledge(probes[-1])
    assert peer.handle.stats()["packets_lost"] >= len(numbers) + len(probes) - 5
    # the packet that is acknowledged opens the window by its own size again
    assert window(peer) <= 3 * PACKET


# --- growth ---


@pytest.mark.spec("RC-30")
def test_in_slow_start_the_window_grows_by_what_is_acknowledged():
    flow = Flow(quiet(), 20 * MS)
    flow.run(35 * MS)  # from here on, all that is on its way is acknowledged in each round trip
    for _ in range(4):
        before = flow.window
        flow.run(20 * MS)
        assert 1.4 * before < flow.window <= 2.1 * before
    peer = quiet()
    numbers = filled(peer)
    before, bytes_before = window(peer), in_flight(peer)
    peer.acknowledge(*numbers)
    assert window(peer) == before + bytes_before


@pytest.mark.spec("RC-30")
def test_slow_start_ends_when_the_round_trip_grows():
    windows = []
    for growth_ns in (0, 8 * MS):
        flow = Flow(quiet(stream_window=1 << 24), 20 * MS)
        for _ in range(9):
            flow.run(flow.rtt_ns)
            flow.rtt_ns += growth_ns
        assert flow.peer.handle.stats()["congestion_events"] == 0
        windows.append(flow.window)
    steady, growing = windows
    assert growing < steady / 8


@pytest.mark.spec("RC-31")
def test_after_a_loss_the_window_follows_the_cubic_curve():
    """RFC 9438: with W(t) = C (t - K)^3 + W_max and K = cbrt(W_max (1 - beta) / C), in packets and seconds."""
    rtt_ns = 100 * MS
    peer = quiet(stream_window=1 << 24)
    flow = Flow(peer, rtt_ns, step_ns=5 * MS)
    while flow.window < 150 * PACKET:
        flow.run(rtt_ns)
    flow.lose = lambda number: number == lost
    lost = peer.handle.stats()["packets_sent"] + 20
    while not peer.handle.stats()["congestion_events"]:
        flow.run(5 * MS)
    most = max(size for _, size in flow.windows) / PACKET
    assert flow.window == int(most * 0.7 * PACKET)
    flow.windows.clear()
    flow.run(12 * SECOND)
    # the curve begins with the first growth
    begin_ns, floor = next((at_ns, size / PACKET) for at_ns, size in flow.windows if size > 0.7 * most * PACKET + 1)
    k = ((most - 0.7 * most) / 0.4) ** (1 / 3)
    assert abs(floor - 0.7 * most) < 3 and 5 < k < 9
    for at_ns, size in flow.windows:
        t = (at_ns - begin_ns) / SECOND
        if 0.5 < t < k + 3:
            # the window aims at where the curve will be a round trip later
            assert abs(size / PACKET - (0.4 * (t + 0.1 - k) ** 3 + most)) < 0.05 * most, t


@pytest.mark.spec("RC-31")
def test_after_a_loss_the_window_grows_at_least_like_reno():
    """On short round trips CUBIC's curve is flatter than Reno's line (RFC 9438, 4.3)."""
    peer = quiet(stream_window=1 << 24)
    flow = Flow(peer, 10 * MS)
    while flow.window < 60 * PACKET:
        flow.run(10 * MS)
    flow.lose = lambda number: number == lost
    lost = peer.handle.stats()["packets_sent"] + 5
    while not peer.handle.stats()["congestion_events"]:
        flow.run(MS)
    flow.windows.clear()
    floor = flow.window / PACKET
    flow.run(SECOND)
    rounds = SECOND / (11 * MS)
    grown = flow.window / PACKET - floor
    assert 0.8 < grown / (rounds * 3 * 0.3 / 1.7) < 1.2


@pytest.mark.spec("RC-32")
def test_a_window_that_is_not_used_does_not_grow():
    flow = Flow(quiet(), 20 * MS)
    flow.run(60 * MS)
    flow.run(200 * MS, is_writing=False)
    while in_flight(flow.peer):
        flow.run(20 * MS, is_writing=False)
    before = flow.window
    assert before > 30 * PACKET
    for share, grows in ((0.3, False), (0.45, False), (0.6, True)):
        flow.stream.write(bytes(int(before * share)))
        flow.run(100 * MS, is_writing=False)
        assert (flow.window > before) == grows, share


# --- pacing ---


@pytest.mark.spec("RC-33")
@pytest.mark.row("C10")
def test_packets_are_spread_over_the_round_trip():
    rtt_ns = 100 * MS
    flow = Flow(quiet(stream_window=1 << 24), rtt_ns)
    flow.run(150 * MS)
    for is_slow_start in (True, False):
        if not is_slow_start:
            lost = flow.peer.handle.stats()["packets_sent"] + 3
            flow.lose = lambda number, lost=lost: number == lost
            while not flow.peer.handle.stats()["congestion_events"]:
                flow.run(MS)
            flow.run(200 * MS)
        start_ns = flow.peer.node.now_ns
        said = flow.run(rtt_ns)
        stats = flow.peer.handle.stats()
        rate = (2.0 if is_slow_start else 1.25) * stats["window_bytes"] / stats["rtt_ns"]
        burst = max(10 * PACKET, rate * MS)
        # in no interval more than the rate gives, and one burst
        for i, first in enumerate(said):
            total = 0
            for sent in said[i:]:
                total += len(sent.data)
                assert total <= 1.1 * rate * (sent.at_ns - first.at_ns) + burst + PACKET, (first.at_ns - start_ns, is_slow_start)
        assert len({sent.at_ns for sent in said}) > 8


@pytest.mark.spec("RC-33")
@pytest.mark.row("C10")
def test_no_burst_follows_a_pause():
    flow = Flow(quiet(), 20 * MS)
    flow.run(100 * MS)
    flow.run(300 * MS, is_writing=False)
    assert flow.window > 50 * PACKET
    flow.peer.node.now_ns += 5 * SECOND
    flow.stream.write(bytes(1 << 20))
    at_once = flow.peer.node.say()
    stats = flow.peer.handle.stats()
    assert sum(len(sent.data) for sent in at_once) <= max(10 * PACKET, 2 * stats["window_bytes"] * MS / stats["rtt_ns"]) + PACKET


# --- the peer's socket ---


@pytest.mark.spec("RC-38", "HS-27")
@pytest.mark.parametrize("buffer", [20_000, None])
def test_no_more_waits_in_queues_than_the_peers_socket_holds(buffer):
    limit = buffer or 131_072
    peer = Peer(Node(stream_window=1 << 24)).call(RECEIVE_BUFFER=buffer)
    peer.exchange()
    flow = Flow(peer, 4 * MS, step_ns=MS // 2)
    flow.run(20 * MS)
    queued = []
    for _ in range(100):  # a queue builds up: packets wait ever longer
        flow.rtt_ns = min(flow.rtt_ns + 2 * MS, 100 * MS)
        flow.run(5 * MS)
        stats = peer.handle.stats()
        queued.append(stats["bytes_in_flight"] * (stats["rtt_ns"] - stats["min_rtt_ns"]) / stats["rtt_ns"])
    assert limit - 10 * PACKET < max(queued) < limit + 20 * PACKET
    assert flow.window > 1.3 * max(queued), "it is not the congestion window that holds the sender back"


# --- ECN ---


def test_packets_are_marked_as_capable_of_ecn():
    peer = Peer(Node()).call()
    peer.stream = peer.handle.open_stream()
    assert [sent.ecn for sent in peer.node.say()] == [2]


@pytest.mark.spec("RC-35")
def test_marks_that_were_received_are_counted_in_every_ack():
    peer = quiet()
    expected = [0, 0, 0]
    for ecn in (2, 2, 1, 0, 3, 2, 0, 1, 3, 3):
        for _ in range(2):
            peer.send(ref.ping(), ecn=ecn)
            if ecn:
                expected[{2: 0, 1: 1, 3: 2}[ecn]] += 1
        acks = [frame for frame in peer.frames(peer.node.wait(10 * MS)) if frame.kind in (ref.ACK, ref.ACK_ECN)]
        assert acks[-1].ecn == tuple(expected)
        assert acks[-1].kind == ref.ACK_ECN


def marking(n=8):
    """Return a peer whose node has sent so many marked packets, and their numbers."""
    peer = Peer(Node()).call()
    peer.stream = peer.handle.open_stream()
    numbers = []
    for _ in range(n):
        peer.stream.write(b".")
        numbers += [peer.open(sent.data).counter for sent in peer.node.say()]
    assert peer.handle.stats()["ecn"] == ECN_TESTING and len(numbers) == n
    peer.node.now_ns += 20 * MS
    return peer, numbers


@pytest.mark.spec("RC-36")
@pytest.mark.row("C5")
@pytest.mark.parametrize(
    ("ecn", "is_true"),
    [((4, 0, 0), True), ((3, 0, 1), True), ((8, 0, 0), True), (None, False), ((3, 0, 0), False), ((9, 0, 0), False),
     ((4, 1, 0), False), ((0, 4, 0), False), ((2**62 - 1, 0, 0), False)],
)  # fmt: skip
def test_marking_ends_when_the_first_counts_cannot_be(ecn, is_true):
    peer, numbers = marking()
    peer.acknowledge(*numbers[:4], ecn=ecn)
    assert peer.handle.stats()["ecn"] == (ECN_CAPABLE if is_true else ECN_FAILED)
    peer.stream.write(b".")
    assert {sent.ecn for sent in peer.node.say()} == {2 if is_true else 0}
    assert peer.handle.is_open


@pytest.mark.spec("RC-36")
@pytest.mark.row("C5")
@pytest.mark.parametrize(
    ("ecn", "is_true"),
    [((5, 0, 1), True), (None, False), ((3, 0, 1), False), ((6, 0, 0), False), ((4, 0, 1), False), ((8, 0, 1), False)],
)
def test_marking_ends_when_counts_do_not_follow(ecn, is_true):
    peer, numbers = marking()
    peer.acknowledge(*numbers[:4], ecn=(3, 0, 1))
    peer.acknowledge(*numbers[4:6], ecn=ecn)
    assert peer.handle.stats()["ecn"] == (ECN_CAPABLE if is_true else ECN_FAILED)
    # an old ACK that comes late proves nothing
    peer, numbers = marking()
    peer.acknowledge(*numbers[:6], ecn=(6, 0, 0))
    peer.acknowledge(*numbers[:4], ecn=(4, 0, 0))
    assert peer.handle.stats()["ecn"] == ECN_CAPABLE


@pytest.mark.spec("RC-37")
def test_marking_ends_when_nothing_marked_gets_through():
    peer, _ = marking(1)
    said = peer.node.wait(10 * SECOND)
    assert [sent.ecn for sent in said[:6]] == [2, 2, 2, 2, 0, 0]
    assert {sent.ecn for sent in said[6:]} == {0} and peer.handle.stats()["ecn"] == ECN_FAILED
    # once marks have been confirmed, an outage is an outage
    peer, numbers = marking(3)
    peer.send(ack_of(numbers, ecn=(3, 0, 0)))
    peer.stream.write(b".")
    assert {sent.ecn for sent in peer.node.wait(10 * SECOND)} == {2}
