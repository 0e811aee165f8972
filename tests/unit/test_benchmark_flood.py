"""The flood of strangers, small: that it is one, that nothing answers it with more than it has sent, and who still gets in."""

import sys

import pytest

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from benchmarks import flood
from interpeer import Address, Endpoint, Identity
from interpeer._bench.end import RESIDENT

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not RESIDENT.exists(), reason="only Linux sends from any address of 127.0.0.0/8"
)


def test_first_messages_are_different_and_whole():
    address = Address.of(Identity.from_seed(bytes(32)).id, [Endpoint("127.0.0.1", 4433)])
    messages = flood.first_messages(address, 64)
    assert len(set(messages)) == 64 and {len(message) for message in messages} == {1200}
    assert {message[:2] for message in messages} == {b"\x41\x01"}


@pytest.mark.row("H16", "H20", "R2")
def test_a_node_in_a_flood_serves_its_connection_and_lets_newcomers_in():
    facts = flood.measure(rate=3000, seconds=0.5)
    assert facts["replies"] > 0 and facts["largest_reply_bytes"] <= 1200 and facts["amplification"] < 1
    assert facts["newcomers"] > 0 and facts["newcomers_failed"] == 0
    assert facts["flooded_gbit"] > 0
    assert facts["cookies_sent"] > 0 and facts["half_open"] <= 1024


@pytest.mark.parametrize(
    ("figure", "value", "is_met"),
    [("goodput_kept", 0.8, True), ("goodput_kept", 0.79, False), ("memory_mib", 8, True), ("newcomer_p99_s", 2.1, False)],
)
def test_each_figure_is_judged_by_its_goal(figure, value, is_met):
    (goal,) = (goal for goal in flood.GOALS if goal.figure == figure)
    assert goal.is_met(value) is is_met
    assert str(goal)[:2] in (">=", "<=")


def test_the_result_is_shown_beside_its_goals(monkeypatch, capsys):
    facts = dict.fromkeys((goal.figure for goal in flood.GOALS), 1.0)
    facts |= {"flood_per_s": 20_000.0, "replies": 7, "quiet_gbit": 2.0, "flooded_gbit": 2.0, "goodput_kept": 0.5}
    monkeypatch.setattr(flood, "measure", lambda rate, seconds, gbit: facts)
    assert flood.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(flood.GOALS)
    assert sum(line.endswith("short") for line in lines) == 2
    assert flood.main(["--json"]) == 0 and '"replies": 7' in capsys.readouterr().out
