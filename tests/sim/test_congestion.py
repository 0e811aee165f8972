"""Congestion control over whole connections: what each controller makes of loss, of others, and of queues."""

import pytest

from benchmarks import control
from benchmarks.goodput import Bottleneck, Flow, jain, simulate
from interpeer import Config
from interpeer.testing import Link

CONTROLLERS = ("cubic", "bbr", "bbr-lossy", "ledbat")


@pytest.mark.row("C7", "R3")
@pytest.mark.parametrize(("loss", "least"), [(0.0, 0.93), (0.02, 0.8), (0.1, 0.35)])
def test_loss_costs_the_tolerant_controller_little(seed, loss, least):
    bottleneck = Bottleneck(20, 0.05, loss=loss)
    result = simulate(bottleneck, [Flow("bbr-lossy")], 6.0, skip_s=2.0, seed=seed)
    assert result.mbit[0] >= least * bottleneck.mbit


@pytest.mark.row("C11", "R4")
@pytest.mark.parametrize("controller", ["bbr", "bbr-lossy"])
def test_a_flow_beside_cubic_gets_its_share_and_leaves_its_share(seed, controller):
    flows = [Flow(controller), Flow("cubic", start_s=0.5)]
    result = simulate(Bottleneck(10, 0.04), flows, 20.0, skip_s=5.0, seed=seed)
    assert 0.3 <= result.mbit[0] / sum(result.mbit) <= 0.7


@pytest.mark.row("C11", "R4")
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_two_flows_of_a_kind_share(seed, controller):
    flows = [Flow(controller), Flow(controller, start_s=0.5)]
    seconds = 48.0 if controller == "ledbat" else 20.0  # it is its slowdowns that make it fair, and they come every few seconds
    result = simulate(Bottleneck(10, 0.04), flows, seconds, skip_s=8.0, seed=seed)
    assert jain(result.mbit) >= 0.9


def test_a_flow_in_the_background_gives_way():
    flows = [Flow("ledbat"), Flow("cubic", start_s=2.0)]
    result = simulate(Bottleneck(10, 0.04, 4.0), flows, 14.0, skip_s=6.0)
    assert result.mbit[0] < 0.2 * result.mbit[1]


@pytest.mark.row("C12")
@pytest.mark.parametrize("controller", ["bbr", "bbr-lossy"])
def test_a_large_queue_is_not_filled(seed, controller):
    result = simulate(Bottleneck(20, 0.04, 4.0), [Flow(controller)], 7.0, skip_s=2.0, seed=seed)
    assert result.rtt_ms[0] <= 2 * 40 and result.mbit[0] > 0.9 * 20


@pytest.mark.row("C5", "C12")
@pytest.mark.parametrize("controller", ["cubic", "bbr", "bbr-lossy"])
def test_marks_keep_a_queue_from_losing_anything(seed, controller):
    bottleneck = Bottleneck(20, 0.04, 4.0)
    link = bottleneck.link().replace(ecn_mark_bytes=round(bottleneck.bdp_bytes / 2))
    result = simulate(bottleneck, [Flow(controller)], 7.0, skip_s=3.0, seed=seed, link=link)
    assert result.loss == [0.0] and result.mbit[0] > 0.75 * 20


@pytest.mark.row("S14")
@pytest.mark.parametrize("controller", ["cubic", "bbr-lossy"])
def test_an_urgent_message_beside_a_bulk_transfer_waits_for_no_more_than_the_round_trip(seed, controller):
    row = control.simulate(Bottleneck(20, 0.05), controller, 8.0, seed=seed)
    assert row.is_met_now and row.bulk_mbit > 0.85 * 20


@pytest.mark.parametrize("congestion", CONTROLLERS)
def test_each_end_has_the_controller_it_asks_for(sim, congestion):
    async def main():
        async with sim.pair(Link(delay_s=0.01)) as pair:
            there, back = await pair.connect(congestion=congestion)
            assert there.stats().congestion == congestion and back.stats().congestion == "cubic"
            assert there.stats().pacing_bytes_per_s > 0

    sim.run(main())


def test_a_node_has_a_controller_for_connections_that_name_none(sim):
    async def main():
        async with sim.pair(Link(delay_s=0.01), b={"config": Config(congestion="bbr")}) as pair:
            there, back = await pair.connect()
            assert (there.stats().congestion, back.stats().congestion) == ("cubic", "bbr")

    sim.run(main())


@pytest.mark.parametrize("name", ["reno", "", "CUBIC"])
def test_a_controller_that_there_is_not_is_refused_with_a_list_of_those_there_are(sim, name):
    async def main():
        async with sim.pair(Link()) as pair:
            with pytest.raises(ValueError, match="cubic, bbr, bbr-lossy or ledbat"):
                await pair.a.connect(pair.b.address, congestion=name)

    sim.run(main())
