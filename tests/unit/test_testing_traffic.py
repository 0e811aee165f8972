"""interpeer.testing's competitors: UDP that nobody controls, and TCP with CUBIC."""

import itertools
import statistics

import pytest

from interpeer.testing import Link, SimClock, SimNet, SimulationError, TcpFlow, Traffic, run
from interpeer.testing._tcp import DUPLICATES, INITIAL_WINDOW, TcpReceiver, TcpSender
from tests.models import cubic

NS = 1_000_000_000


@pytest.fixture
def net():
    return SimNet(Link(delay_s=0.01), seed=1, clock=SimClock())


def sent_times(net, seconds, **settings):
    times = []
    net.intercept(lambda packet: times.append(net.clock.now_s))
    traffic = Traffic(net.host("a"), net.host("b"), **settings)
    net.clock.advance_s(seconds)
    traffic.stop()
    net.clock.advance_s(1)
    assert len(times) == traffic.sent_packets
    return times


def test_constant_traffic_has_its_rate_and_equal_gaps(net):
    times = sent_times(net, 9.9995, rate_bit_per_s=1e6, packet_bytes=125)
    assert len(times) == 10_000
    assert {round(after - before, 9) for before, after in itertools.pairwise(times)} == {0.001}


def test_poisson_traffic_has_its_rate_and_gaps_as_spread_as_long(net):
    times = sent_times(net, 10, rate_bit_per_s=1e6, packet_bytes=125, pattern="poisson")
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert len(times) == pytest.approx(10_000, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(0.001, rel=0.05)


def test_on_off_traffic_is_silent_for_its_share(net):
    times = sent_times(net, 400, rate_bit_per_s=1e5, packet_bytes=125, on_s=1, off_s=3)
    pauses = [after - before for before, after in itertools.pairwise(times) if after - before > 0.02]
    assert len(times) == pytest.approx(100 * 400 / 4, rel=0.25)
    assert statistics.mean(pauses) == pytest.approx(3, rel=0.3)


def test_traffic_is_the_same_for_the_same_seed():
    def times(seed):
        net = SimNet(seed=seed, clock=SimClock())
        return sent_times(net, 5, rate_bit_per_s=1e6, pattern="poisson", on_s=0.1, off_s=0.1)

    assert times(1) == times(1) != times(2)


@pytest.mark.parametrize(
    "wrong", [{"pattern": "loud"}, {"rate_bit_per_s": 0}, {"on_s": 1}, {"on_s": -1, "off_s": -1}, {"packet_bytes": 28}]
)
def test_impossible_traffic_is_refused(net, wrong):
    with pytest.raises(ValueError):
        Traffic(net.host("a", "192.0.2.1"), net.host("b", "192.0.2.2"), **{"rate_bit_per_s": 1e6, **wrong})


def test_hosts_without_a_common_family_have_no_traffic(net):
    with pytest.raises(SimulationError, match="no family"):
        Traffic(net.host("four", "192.0.2.1"), net.host("six", "2001:db8::1"), rate_bit_per_s=1e6)


# --- TCP between two hosts ---


def shared_link(net, queue_packets=25):
    a, b, c, d = (net.host() for _ in range(4))
    link = Link(delay_s=0.015, rate_bit_per_s=10e6, queue_packets=queue_packets)
    return net.bottleneck(link, [a, b], [c, d]), (a, c), (b, d)


@pytest.mark.parametrize("queue_packets", [25, 100])
def test_a_tcp_flow_fills_a_link(net, queue_packets):
    _wire, pair, _ = shared_link(net, queue_packets)
    flow = TcpFlow(*pair)
    net.clock.advance_s(20)
    assert flow.received_bytes * 8 / 20 > 0.93 * 10e6
    flow.stop()


@pytest.mark.row("C11")
def test_two_tcp_flows_come_to_share_a_link(net):
    _wire, first, second = shared_link(net)
    flows = [TcpFlow(*first)]
    net.clock.advance_s(5)
    flows.append(TcpFlow(*second))
    net.clock.advance_s(20)
    before = [flow.received_bytes for flow in flows]
    net.clock.advance_s(60)
    rates = [(flow.received_bytes - size) * 8 / 60 for flow, size in zip(flows, before, strict=True)]
    assert sum(rates) > 0.93 * 10e6
    assert sum(rates) ** 2 / (2 * sum(rate**2 for rate in rates)) > 0.9


def test_random_loss_slows_it_down_as_it_does_any_loss_based_control(net):
    a, b = net.host(), net.host()
    net.link(a, b, Link(delay_s=0.025, rate_bit_per_s=100e6, queue_packets=450, loss=0.01), back=Link(delay_s=0.025))
    flow = TcpFlow(a, b)
    net.clock.advance_s(60)
    assert 1e6 < flow.received_bytes * 8 / 60 < 5e6  # Mathis' bound is 2.8 Mbit/s, and CUBIC is a little above
    assert flow.retransmissions > 0


def test_a_transfer_of_a_size_ends_and_leaves_nothing_on_the_clock(net):
    a, b = net.host(), net.host()
    net.link(a, b, loss=0.1)
    flow = TcpFlow(a, b, 100_000)
    net.clock.advance_s(60)
    assert flow.is_done
    assert 100_000 <= flow.received_bytes < 102_000
    assert net.clock.next_ns is None
    with pytest.raises(ValueError, match="at least 1"):
        TcpFlow(a, b, 0)


def test_a_program_can_wait_for_the_end_of_a_transfer():
    async def main():
        net = SimNet(Link(delay_s=0.01))
        flow = TcpFlow(net.host(), net.host(), 1_000_000)
        await flow.wait()
        await flow.wait()
        return flow.received_bytes

    assert run(main(), seed=1) >= 1_000_000


def test_a_hole_is_got_over_by_a_time_out():
    net = SimNet(Link(delay_s=0.01, rate_bit_per_s=10e6), seed=1, clock=SimClock())
    a, b = net.host(), net.host()
    flow = TcpFlow(a, b)
    net.wire(a, b).schedule([(1, {"is_up": False}), (2, {"is_up": True})])
    net.clock.advance_s(1.5)
    before = flow.received_bytes
    net.clock.advance_s(3)
    assert flow.timeouts >= 1
    assert flow.received_bytes > before + 500_000


# --- its machines ---


def test_slow_start_begins_with_ten_segments_and_doubles():
    sender, receiver, now_ns = TcpSender(), TcpReceiver(), 0
    sizes, out = [], sender.poll_transmit(0)
    for _ in range(4):
        sizes.append(len(out))
        now_ns += NS // 10
        after = []
        for segment in out:
            ack = receiver.handle_segment(segment, now_ns)
            if ack is not None:
                sender.handle_ack(ack, now_ns)
                after += sender.poll_transmit(now_ns)
        out = after
    assert sizes == [INITIAL_WINDOW * 2**number for number in range(4)]


def test_three_later_segments_show_that_one_is_lost_and_it_alone_is_sent_again():
    sender, receiver = TcpSender(), TcpReceiver()
    out = sender.poll_transmit(0)
    for segment in out[1 : DUPLICATES + 1]:
        assert sender.retransmissions == 0
        ack = receiver.handle_segment(segment, NS // 10)
        assert ack is not None
        sender.handle_ack(ack, NS // 10)
        sender.poll_transmit(NS // 10)
    assert sender.retransmissions == 1
    assert sender.window == pytest.approx(10 * cubic.BETA)


def test_a_lone_segment_is_acknowledged_after_a_while():
    sender, receiver = TcpSender(1), TcpReceiver()
    (segment,) = sender.poll_transmit(0)
    assert receiver.handle_segment(segment, 5) is None
    assert receiver.handle_timeout(receiver.poll_timeout() - 1) is None
    ack = receiver.handle_timeout(receiver.poll_timeout())
    assert ack is not None
    sender.handle_ack(ack, receiver.poll_timeout() or 10**9)
    assert sender.is_done


def test_the_window_follows_the_formulas_of_rfc_9438():
    """After one loss at a hundred segments, a round trip at a time, with nothing else to hold the sender back."""
    from interpeer.testing._tcp import _Cubic

    ours, rtt_s = _Cubic(), 0.05
    window = ours.reduce(100.0)
    model = cubic.Cubic(100.0)
    assert window == pytest.approx(model.window)
    now_s = 1.0
    for _ in range(400):
        now_s += rtt_s
        acked = int(window)
        window = ours.grow(window, acked, round(now_s * NS), rtt_s * NS)
        model.ack(now_s, acked, rtt_s)
        assert window == pytest.approx(model.window, rel=0.02)
    assert window > 100


def test_time_outs_back_off():
    sender = TcpSender()
    sender.poll_transmit(0)
    times = []
    for _ in range(4):
        at_ns = sender.poll_timeout()
        assert at_ns is not None
        times.append(at_ns / NS)
        sender.handle_timeout(at_ns)
        assert len(sender.poll_transmit(at_ns)) == 1
    assert times == [1, 3, 7, 15]
