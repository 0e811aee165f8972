"""Figures in common units, medians, and what the loads share."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from interpeer._bench import loads
from interpeer._bench.figures import FIGURES, LoadBroken, figures, jain, median_of


def test_bulk_counts_bits_of_the_clients_clock_and_processor_of_both_ends() -> None:
    client = {"bytes": 2_000_000_000, "seconds": 4.0, "cpu_s": 3.0}
    server = {"bytes": 2_000_000_000, "seconds": 3.9, "cpu_s": 1.0}
    assert figures("bulk", client, server) == {"gbit": 4.0, "cpu_s_per_gb": 2.0, "cpu_s_per_gb_ends": [1.5, 0.5]}


def test_messages_are_counted_where_they_arrive() -> None:
    measured = figures("msgs", {"sent": 1000, "seconds": 2.0}, {"received": 900})
    assert measured == {"messages_per_s": 450.0, "delivered": 0.9}


def test_idle_memory_is_told_for_each_end_in_kilobytes() -> None:
    client = {"connections": 1000, "fresh_bytes": 3_000_000, "used_bytes": 5_000_000}
    server = {"connections": 1000, "fresh_bytes": 2_000_000, "used_bytes": 4_000_000}
    measured = figures("idle", client, server)
    assert measured["kb_per_connection"] == [5.0, 4.0]
    assert measured["kb_per_fresh_connection"] == [3.0, 2.0]


@pytest.mark.parametrize(
    ("part", "client", "server"),
    [
        ("bulk", {"bytes": 2, "seconds": 1.0, "cpu_s": 1.0}, {"bytes": 1, "cpu_s": 1.0}),
        ("handshakes", {"handshakes": 2, "seconds": 1.0}, {"handshakes": 1}),
        ("soak", {"bytes": 2}, {"bytes": 1}),
        ("many", {"bytes": 2, "seconds": 1.0, "cpu_s": 1.0}, {"bytes": 1, "cpu_s": 1.0}),
        ("channels", {"bytes": 2, "seconds": 1.0, "cpu_s": 1.0, "channels": 1}, {"bytes": 1, "cpu_s": 1.0, "jain": 1.0}),
        ("idle", {"connections": 2, "used_bytes": 1, "fresh_bytes": 1}, {"connections": 1}),
    ],
)
def test_run_whose_ends_disagree_counts_for_nothing(part: str, client: dict, server: dict) -> None:
    with pytest.raises(LoadBroken):
        figures(part, client, server)


def test_shares_that_are_equal_are_fair_and_one_that_has_all_is_not() -> None:
    assert jain([7, 7, 7, 7]) == 1.0 and jain([0, 0, 28, 0]) == 0.25 and jain([1, 3]) == pytest.approx(0.8)
    assert jain([0, 0]) == 0.0


def test_every_part_of_every_load_has_figures() -> None:
    assert {part for parts in loads.PARTS.values() for part in parts} | {"soak", "many", "channels"} == set(FIGURES)


def test_memory_is_compared_at_both_ends_and_the_worse_counts() -> None:
    ends = [{"bytes": 9, "early_bytes": early, "late_bytes": late} for early, late in ((100, 101), (100, 110))]
    assert figures("soak", *ends)["resident_growth"] == pytest.approx(0.1)


def test_median_of_runs_keeps_pairs_and_tells_the_spread() -> None:
    runs = [{"gbit": gbit, "kb_per_connection": [gbit, 10 * gbit]} for gbit in (3.0, 1.0, 2.0)]
    assert median_of(runs) == {"gbit": 2.0, "kb_per_connection": [2.0, 20.0], "spread": {"gbit": [1.0, 3.0]}, "runs": 3}


@given(
    messages=st.lists(st.binary(min_size=1, max_size=70), max_size=20),
    cuts=st.lists(st.integers(min_value=0, max_value=1500), max_size=20),
)
def test_frames_come_out_whole_wherever_the_stream_is_cut(messages: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(len(m).to_bytes(4, "big") + m for m in messages) + loads.END_FRAME
    frames = loads.Frames()
    received = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, stop in itertools.pairwise(edges):
        assert not frames.ended or start == stop
        received += frames.feed(stream[start:stop])
    assert received == messages
    assert frames.ended
    assert frames.count == len(messages)


def test_handshakes_still_under_way_at_the_end_are_awaited_but_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    finished = []

    async def attempt() -> None:
        nonlocal now_s
        now_s += 0.4
        finished.append(now_s)

    monkeypatch.setattr(loads.time, "perf_counter", lambda: now_s)
    measured = asyncio.run(loads.handshakes(attempt, 1.0, 1))
    assert measured == {"handshakes": 2, "seconds": 1.0}
    assert len(finished) == 3
