"""Chapter 9 of the specification: acknowledgements, round trips, loss recovery. See also test_congestion.py."""

import random

import pytest

from tests.spec import reference as ref
from tests.spec.peer import MS, SECOND, Node, Peer, ack_of, answered, called
from tests.spec.test_frames import connected, with_packets
from tests.spec.test_packets import pto_ns

RTT_NS = 20 * MS


def quiet(**limits):
    """Return a peer that owes nothing and is owed nothing."""
    peer = connected(**limits)
    peer.exchange()
    return peer


def acks(frames):
    return [frame for frame in frames if frame.kind in (ref.ACK, ref.ACK_ECN)]


# --- acknowledgements ---


@pytest.mark.spec("RC-1")
@pytest.mark.parametrize("delay_ms", [0, 1, 5, 25])
def test_a_packet_is_acknowledged_within_the_delay_that_was_promised(delay_ms):
    peer = quiet(max_ack_delay_ns=delay_ms * MS)
    assert ref.number(peer.remote_parameters.get(ref.MAX_ACK_DELAY, b"\0")) == delay_ms * 1000
    for frame in (ref.ping(), ref.datagram(b"message"), ref.stream(0, b"data"), ref.max_data(1), ref.ignorable(0x40)):
        peer.send(frame)
        sent_ns = peer.node.now_ns
        (sent,) = peer.node.wait(50 * MS)
        assert sent.at_ns <= sent_ns + delay_ms * MS
        (ack,) = peer.frames([sent])
        assert ack.value == peer.counter - 1


@pytest.mark.spec("RC-2")
def test_the_second_packet_is_acknowledged_at_once_and_a_batch_as_one():
    peer = quiet()
    for _ in range(5):
        peer.send(ref.ping())
        assert peer.node.say() == []
        peer.send(ref.ping())
        (ack,) = peer.frames()
        assert ack.value == peer.counter - 1
    peer.node.hear(*[peer.packet(ref.ping()) for _ in range(30)])
    (ack,) = peer.frames()
    assert ack.value == peer.counter - 1 and peer.node.wait(SECOND) == []


@pytest.mark.spec("RC-3")
def test_a_packet_out_of_order_is_acknowledged_at_once():
    peer = quiet()
    late = peer.packet(ref.ping())
    peer.send(ref.ping())
    (ack,) = peer.frames()
    assert ack.ranges == ((peer.counter - 1, peer.counter - 1), (0, peer.counter - 3)), "one is missing"
    peer.node.hear(late)
    (ack,) = peer.frames()
    assert ack.ranges == ((0, peer.counter - 1),), "it is here"
    peer.send(ref.ping())
    assert peer.node.say() == []


@pytest.mark.spec("RC-4", "RC-35")
def test_a_packet_that_is_marked_ce_is_acknowledged_at_once():
    peer = quiet()
    peer.send(ref.ping(), ecn=2)
    assert peer.node.say() == []
    (ack,) = peer.frames(peer.node.wait(SECOND))
    assert ack.ecn == (1, 0, 0)
    peer.send(ref.ping(), ecn=3)
    (ack,) = peer.frames()
    assert ack.ecn == (1, 0, 1)


@pytest.mark.spec("RC-5")
def test_acknowledgements_are_not_acknowledged():
    peer = with_packets()
    peer.acknowledge()
    for ecn in (0, 2, 3):
        for _ in range(20):
            peer.send(ack_of(peer.received), ecn=ecn)
            peer.send(bytes(10), ecn=ecn)
            peer.send(ecn=ecn)
            peer.counter += 1  # and something is missing
    assert peer.node.wait(SECOND) == []


@pytest.mark.spec("RC-6")
@pytest.mark.parametrize("waited_us", [0, 1, 1234, 4999])
def test_an_ack_tells_how_long_its_largest_packet_has_waited(waited_us):
    peer = quiet()
    peer.send(ref.ping())
    peer.node.now_ns += waited_us * 1000
    peer.handle.send_datagram(b"takes the acknowledgement along")
    (ack,) = acks(peer.frames())
    assert ack.delay_us == waited_us
    # a packet that comes late does not make the largest younger
    peer.counter += 1
    peer.send(ref.ping())
    peer.frames()
    peer.node.now_ns += 3 * MS
    peer.send(ref.ping(), counter=peer.counter - 2)
    (ack,) = acks(peer.frames())
    assert ack.delay_us == 3000


@pytest.mark.spec("RC-7")
@pytest.mark.row("C4")
def test_an_ack_has_at_most_64_ranges_and_they_are_the_newest():
    peer = quiet()
    for _ in range(300):
        peer.counter += 1
        peer.send(ref.ping())
        (ack,) = acks(peer.frames())
    newest = peer.counter - 1
    assert ack.ranges == tuple((newest - 2 * i, newest - 2 * i) for i in range(64))


@pytest.mark.parametrize(("is_answered", "pings"), [(True, 3), (False, 1)])
def test_a_receiver_makes_sure_now_and_then_that_its_acks_arrive(is_answered, pings):
    peer = quiet()
    kinds = []
    for _ in range(100):
        peer.send(ref.ping())
        peer.send(ref.ping())
        said = [frame.kind for frame in peer.frames()]
        if is_answered and ref.PING in said:
            peer.acknowledge()
        kinds += said
    assert kinds.count(ref.ACK) == 100 and kinds.count(ref.PING) == pings


@pytest.mark.spec("RC-10")
def test_acks_are_not_held_back_by_congestion_control_or_pacing():
    peer = quiet()
    stream = peer.handle.open_stream()
    stream.write(bytes(100_000))
    peer.node.wait(30 * MS)
    assert peer.node.say() == [], "the window is full"
    for _ in range(20):
        peer.node.hear(peer.packet(ref.ping()), peer.packet(ref.ping()))
        (sent,) = peer.node.say()
        (ack,) = peer.frames([sent])
        assert ack.value == peer.counter - 1 and len(sent.data) < 60


# --- round trip ---


def sent_packet(peer, stream):
    """Let the node send one packet; return its number."""
    stream.write(b".")
    (sent,) = peer.node.say()
    return peer.open(sent.data).counter


@pytest.mark.spec("RC-11", "RC-12", "RC-13")
def test_round_trip_and_variance_follow_rfc_9002(seed):
    choose = random.Random(seed)
    peer = quiet()
    stream = peer.handle.open_stream()
    stats = peer.handle.stats()
    smoothed, variance, least = (stats[name] for name in ("rtt_ns", "rtt_variance_ns", "min_rtt_ns"))
    assert least > 0
    for _ in range(100):
        first, second = sent_packet(peer, stream), sent_packet(peer, stream)
        sample = choose.choice([RTT_NS, 5 * MS, 100 * MS]) + choose.randrange(10 * MS)
        delay_us = choose.choice([0, 1, 1000, 4999, 5000, 5001, 10**6, 2**62 - 1])
        peer.node.now_ns += sample
        peer.acknowledge(first, second, delay_us=delay_us)
        least = min(least, sample)
        delay_ns = min(delay_us * 1000, 5 * MS)
        adjusted = sample - delay_ns if sample >= least + delay_ns else sample
        variance = (3 * variance + abs(smoothed - adjusted)) // 4
        smoothed = (7 * smoothed + adjusted) // 8
        stats = peer.handle.stats()
        assert stats["latest_rtt_ns"] == sample and stats["min_rtt_ns"] == least
        assert (stats["rtt_ns"], stats["rtt_variance_ns"]) == (smoothed, variance)


@pytest.mark.spec("RC-11")
def test_no_sample_is_taken_unless_the_largest_is_acknowledged_anew():
    peer = quiet()
    stream = peer.handle.open_stream()
    first, second, third = (sent_packet(peer, stream) for _ in range(3))
    peer.node.now_ns += RTT_NS
    peer.acknowledge(second)
    before = peer.handle.stats()
    peer.node.now_ns += 500 * MS
    for _ in range(2):
        peer.acknowledge(first, second)
        after = peer.handle.stats()
        assert {name: after[name] for name in after if "rtt" in name} == {name: before[name] for name in before if "rtt" in name}
    peer.acknowledge(first, second, third)
    assert peer.handle.stats()["latest_rtt_ns"] == RTT_NS + 500 * MS


@pytest.mark.spec("RC-11")
def test_the_largest_may_be_a_packet_that_asks_for_nothing():
    peer = quiet()
    stream = peer.handle.open_stream()
    first = sent_packet(peer, stream)
    peer.node.now_ns += RTT_NS
    peer.send(ref.ping())
    peer.send(ref.ping())
    (bare,) = peer.packets()
    assert [frame.kind for frame in ref.read_frames(bare.payload)] == [ref.ACK]
    peer.node.now_ns += 3 * RTT_NS
    peer.acknowledge(first, bare.counter)
    assert peer.handle.stats()["latest_rtt_ns"] == 3 * RTT_NS
    assert stream.write(b"more")


@pytest.mark.spec("RC-14")
def test_the_handshake_is_a_sample_unless_something_was_sent_twice():
    for repeats in range(2):
        peer = Peer(Node())
        handle, init = called(peer)
        peer.node.wait(260 * MS * repeats)
        peer.node.now_ns += 30 * MS
        peer.node.hear(peer.answer(init))
        assert handle.stats()["latest_rtt_ns"] == (0 if repeats else 30 * MS)
        peer.node.say()
    for repeats in range(2):
        peer = Peer(Node())
        answered(peer)
        init = ref.with_macs(peer.body, peer.node.identity.public, b"")
        assert len(peer.node.answers(*[init] * repeats)) == repeats
        peer.node.now_ns += 30 * MS
        peer.send(ref.ping())
        assert peer.node.incoming().stats()["latest_rtt_ns"] == (0 if repeats else 30 * MS)


# --- loss ---


@pytest.mark.spec("RC-15")
def test_a_packet_is_lost_when_one_three_later_is_acknowledged():
    peer = with_packets(10)
    # 0 is lost by the acknowledgement of 3, 1 by that of 4, and 5 and 6 by that of 9
    for largest, lost in ((2, 0), (3, 1), (4, 2), (9, 4)):
        peer.acknowledge(largest)
        assert peer.handle.stats()["packets_lost"] == lost, largest


@pytest.mark.spec("RC-16")
def test_a_packet_is_lost_nine_eighths_of_a_round_trip_after_it_was_sent():
    peer = quiet()
    stream = peer.handle.open_stream()
    sent_ns = peer.node.now_ns
    sent_packet(peer, stream)
    peer.node.now_ns += MS
    second = sent_packet(peer, stream)
    peer.node.now_ns += RTT_NS
    peer.acknowledge(second)
    stats = peer.handle.stats()
    delay_ns = max(stats["latest_rtt_ns"], stats["rtt_ns"]) * 9 // 8
    assert stats["packets_lost"] == 0
    assert peer.told(peer.node.wait(sent_ns + delay_ns - peer.node.now_ns - 1)) == []
    assert peer.handle.stats()["packets_lost"] == 0
    (again,) = peer.told(peer.node.wait(1))
    assert peer.handle.stats()["packets_lost"] == 1 and (again.offset, again.data) == (0, b".")


@pytest.mark.spec("RC-16")
def test_the_time_threshold_is_a_millisecond_at_least():
    peer = quiet()
    stream = peer.handle.open_stream()
    for _ in range(100):  # a round trip of 10 us
        number = sent_packet(peer, stream)
        peer.node.now_ns += 10_000
        peer.acknowledge(number)
    assert peer.handle.stats()["rtt_ns"] < 100_000
    sent_ns = peer.node.now_ns
    sent_packet(peer, stream)
    second = sent_packet(peer, stream)
    peer.node.now_ns += 10_000
    peer.acknowledge(second)
    peer.node.wait(sent_ns + MS - peer.node.now_ns - 1)
    assert peer.handle.stats()["packets_lost"] == 0
    peer.node.wait(1)
    assert peer.handle.stats()["packets_lost"] == 1


def lose(peer, number):
    """Acknowledge three packets after one that is lost; they carry nothing that matters."""
    later = []
    for _ in range(3):
        peer.handle.send_datagram(b"later")
        later += [peer.open(sent.data).counter for sent in peer.node.say()]
    peer.acknowledge(*later)
    assert number not in later
    return peer.told()


@pytest.mark.spec("RC-17", "PK-12")
def test_lost_data_and_fin_are_sent_again_under_new_numbers():
    peer = quiet()
    stream = peer.handle.open_stream()
    stream.write(b"lost data")
    stream.finish()
    (packet,) = peer.packets()
    frames = lose(peer, packet.counter)
    assert [(frame.kind, frame.data, frame.fin) for frame in frames] == [(ref.STREAM, b"lost data", True)]
    assert max(peer.received) > packet.counter


@pytest.mark.spec("RC-17")
def test_a_fin_that_was_lost_is_sent_again_without_the_data_before_it():
    peer = quiet()
    stream = peer.handle.open_stream()
    stream.write(b"data")
    peer.exchange()
    stream.finish()
    (packet,) = peer.packets()
    frames = lose(peer, packet.counter)
    assert [(frame.kind & ~7, frame.offset, frame.data, frame.fin) for frame in frames] == [(ref.STREAM, 4, b"", True)]


@pytest.mark.spec("RC-17")
def test_data_that_were_acknowledged_meanwhile_are_not_sent_again():
    peer = quiet()
    stream = peer.handle.open_stream()
    stream.write(b"data")
    (packet,) = peer.packets()
    probes = peer.packets(peer.node.wait(pto_ns(peer) + MS))
    assert [frame.data for frame in ref.read_frames(probes[0].payload)] == [b"data"]
    peer.acknowledge(*[probe.counter for probe in probes])
    assert lose(peer, packet.counter) == [] and peer.handle.stats()["packets_lost"] == 1


@pytest.mark.spec("RC-18")
def test_lost_resets_and_stops_are_sent_again_while_they_matter():
    peer = quiet()
    peer.send(ref.stream(0, b"1"), ref.stream(2, b"1"))
    stopped, ended = peer.handle.accept_stream(), peer.handle.accept_stream()
    given_up = peer.handle.open_stream()
    given_up.write(b"data")
    peer.exchange()
    given_up.reset(5)
    stopped.stop(6)
    ended.stop(7)
    (packet,) = peer.packets()
    peer.send(ref.stream(2, b"", 1, fin=True))  # there is nothing to stop any more
    peer.frames(peer.node.wait(10 * MS))
    frames = lose(peer, packet.counter)
    assert {(frame.kind, frame.id, frame.value) for frame in frames} == {
        (ref.RESET_STREAM, given_up.id, 5), (ref.STOP_SENDING, 0, 6)
    }  # fmt: skip
    assert set(lose(peer, max(peer.received))) == set(frames), "it is lost again"


@pytest.mark.spec("RC-19")
def test_lost_limits_are_sent_again_as_they_are_now():
    window = {"stream_window": 1000, "max_stream_window": 1000, "connection_window": 1000, "max_connection_window": 1000}
    peer = quiet(max_streams=2, **window)
    peer.send(ref.stream(0, bytes(600)), ref.stream(2, fin=True))
    stream, over = peer.handle.accept_stream(), peer.handle.accept_stream()
    over.read(1)
    over.finish()
    peer.exchange()
    del over
    assert len(stream.read(600)) == 600
    (packet,) = peer.packets()
    told = {frame.kind: frame.value for frame in ref.read_frames(packet.payload) if frame.kind != ref.ACK}
    assert told == {ref.F_MAX_DATA: 1600, ref.F_MAX_STREAM_DATA: 1600, ref.F_MAX_STREAMS: 3}
    peer.send(ref.stream(0, bytes(400), 600))
    assert len(stream.read(100)) == 100, "not enough for a new limit"
    frames = lose(peer, packet.counter)
    assert {frame.kind: frame.value for frame in frames} == told
    # lost again, when new limits have been told meanwhile
    number = max(peer.received)
    assert len(stream.read(400)) == 300
    peer.send(ref.stream(0, bytes(400), 1000))
    stream.read(400)
    now = {frame.kind: frame.value for frame in peer.told()}
    assert now == {ref.F_MAX_DATA: 2400, ref.F_MAX_STREAM_DATA: 2400}
    frames = lose(peer, number)
    assert {frame.kind: frame.value for frame in frames} == now | {ref.F_MAX_STREAMS: 3}


# --- probes ---


@pytest.mark.spec("RC-20", "RC-21", "RC-22")
@pytest.mark.row("C8")
def test_probes_go_in_pairs_after_timeouts_that_double_up_to_two_seconds():
    peer = quiet(idle_timeout_ns=0)
    peer.node.say()
    stream = peer.handle.open_stream()
    sent_packet(peer, stream)
    first_ns, expected, at_ns = pto_ns(peer), [], peer.node.now_ns
    for i in range(10):
        at_ns += min(first_ns << i, 2 * SECOND)
        expected += [at_ns, at_ns]
    said = peer.node.wait(15 * SECOND)
    assert [sent.at_ns for sent in said][:20] == expected
    # an acknowledgement starts it anew
    peer.packets(said)
    peer.acknowledge()
    sent_ns, timeout_ns = peer.node.now_ns, pto_ns(peer)
    sent_packet(peer, stream)
    assert peer.node.wait(5 * SECOND)[0].at_ns == sent_ns + timeout_ns


@pytest.mark.spec("RC-20")
def test_before_the_first_sample_the_probe_timeout_is_999_milliseconds():
    peer = Peer(Node())
    handle, init = called(peer)
    peer.node.wait(260 * MS)
    peer.node.hear(peer.answer(init))
    assert handle.stats()["latest_rtt_ns"] == 0
    (confirmation,) = peer.node.say()
    probes = peer.node.wait(2 * SECOND)
    assert [sent.at_ns - confirmation.at_ns for sent in probes] == [999 * MS] * 2


@pytest.mark.spec("RC-21")
def test_a_probe_timeout_longer_than_two_seconds_does_not_double():
    peer = Peer(Node(idle_timeout_ns=0))
    answered(peer)
    peer.node.now_ns += 900 * MS  # a long way
    peer.send(ref.ping())
    peer.handle = peer.node.incoming()
    peer.node.wait(SECOND)
    stream = peer.handle.open_stream()
    sent_packet(peer, stream)
    timeout_ns, sent_ns = pto_ns(peer), peer.node.now_ns
    assert timeout_ns > 2 * SECOND
    at = sorted({sent.at_ns for sent in peer.node.wait(4 * timeout_ns)})
    assert [ns - sent_ns for ns in at] == [timeout_ns, 2 * timeout_ns, 3 * timeout_ns, 4 * timeout_ns]


@pytest.mark.spec("RC-22", "RC-23")
def test_probes_go_beyond_a_full_window_and_repeat_the_oldest_data():
    peer = quiet()
    stream = peer.handle.open_stream()
    stream.write(bytes(range(256)) * 400)
    sent = peer.told(peer.node.wait(30 * MS))
    stats = peer.handle.stats()
    assert stats["bytes_in_flight"] + 1200 > stats["window_bytes"]
    probes = peer.packets(peer.node.wait(200 * MS))
    frames = [frame for probe in probes for frame in ref.read_frames(probe.payload)]
    assert len(probes) >= 2 and (frames[0].offset, frames[0].data) == (0, sent[0].data)
    # a probe repeats nothing that is acknowledged
    peer.acknowledge(probes[0].counter)
    peer.told()
    again = peer.told(peer.node.wait(2 * SECOND))
    assert again and all(frame.offset > 0 for frame in again if frame.kind == ref.STREAM)


@pytest.mark.spec("RC-22")
def test_a_probe_without_anything_to_repeat_is_a_ping():
    peer = quiet()
    peer.handle.send_datagram(b"not repeated")
    peer.node.say()
    probes = peer.packets(peer.node.wait(pto_ns(peer) + MS))
    assert [[frame.kind for frame in ref.read_frames(probe.payload)] for probe in probes] == [[ref.PING]] * 2
