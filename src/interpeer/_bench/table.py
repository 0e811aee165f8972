"""This machine's figures beside its limit: what `interpeer bench` measures.

The runs of all rows take turns, so that other work on the machine meets all of them; each figure is the median of its runs,
and the ratios are those of the medians. The limit is raw UDP with the same cipher and packets of the same size.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, final

from interpeer import Config, _limit
from interpeer._bench import peer, tls, tls_streams
from interpeer._bench.end import RESIDENT, Facts
from interpeer._bench.figures import LoadBroken, figures
from interpeer._bench.process import EndFailed, run_pair
from interpeer._core import control
from interpeer._run import loop_factory

PINGS = 4000
QUICK, THOROUGH = (3, 0.6), (5, 2.0)
"""Runs of each row, and seconds of each run."""

OnRun = Callable[[str, int, int], None]
"""Told before each run what it measures, its number, and how many there are."""


@final
@dataclass(frozen=True, slots=True)
class Row:
    """Something to be measured."""

    name: str
    run: Callable[[], Facts]
    only_once: bool = False


@final
@dataclass(frozen=True, slots=True)
class Table:
    """What was measured."""

    figures: Facts
    """Medians and ratios, by name; None for what is missing."""
    spreads: dict[str, tuple[float, float]]
    """The lowest and the highest run of each."""
    left_out: dict[str, str]
    """Rows that could not be measured, and why."""


def measure(*, is_quick: bool, on_run: OnRun) -> Table:
    """Measure everything; under a minute if quick. What fails is left out, with the reason."""
    rounds, seconds = QUICK if is_quick else THOROUGH
    rows = make_rows(seconds)
    results: dict[str, list[Facts]] = {row.name: [] for row in rows}
    left_out: dict[str, str] = {}
    plan = [row for turn in range(rounds) for row in rows if turn == 0 or not row.only_once]
    for number, row in enumerate(plan):
        if row.name in left_out:
            continue
        on_run(row.name, number + 1, len(plan))
        try:
            results[row.name].append(row.run())
        except (EndFailed, LoadBroken, RuntimeError, OSError) as error:
            left_out[row.name] = str(error)
    return combine(results, left_out)


def make_rows(seconds: float) -> list[Row]:
    """Return what is measured, so many seconds each."""
    loop = "uvloop" if loop_factory() is not None else "asyncio"
    cipher = preferred_cipher()
    text_bytes = Config().packet_bytes - _limit.HEADER_BYTES - _limit.TAG_BYTES[cipher]

    def ours(part: str, **config: Any) -> Callable[[], Facts]:
        return lambda: peer.run_once(part, seconds, loop=loop, **config)

    rows = [
        Row("the limit: raw UDP", lambda: _limit_of_bulk(cipher, text_bytes, seconds)),
        Row("one encrypted stream", ours("bulk")),
        Row("one encrypted stream, packets as large as they may be", lambda: _wide(ours("bulk", max_packet_bytes=None)())),
        Row("TLS over TCP", lambda: tls_bulk(seconds, loop)),
        Row("TLS over TCP, tuned by hand", lambda: tls_tuned_bulk(seconds, loop)),
        Row("messages, many in a call", ours("msgs")),
        Row("messages, one in a call", ours("msgs-single")),
        Row("messages, one in a packet", lambda: _unbundled(ours("msgs", bundle=False)())),
        Row("round trips", ours("ping")),
        Row("round trips of raw UDP", lambda: {"raw_ping_p50_us": _limit.ping("none", count=PINGS).p50_us}),
        Row("handshakes, many at once", ours("handshakes")),
        Row("handshakes, one after another", ours("handshakes-in-a-row")),
    ]
    if RESIDENT.exists():
        rows.append(Row("idle connections", ours("idle"), only_once=True))
    return rows


def preferred_cipher() -> str:
    """Return the cipher that two nodes on this machine agree on."""
    available = control.available_suites()
    return next(name for name in Config().ciphers if name in available)


def tls_bulk(seconds: float, loop: str) -> Facts:
    """Measure one connection of TLS 1.3 over TCP through asyncio's streams, the API that interpeer's streams have, too.

    Raises EndFailed or LoadBroken."""
    measured = _pair(tls_streams.__name__, seconds, loop)
    return {"tls_gbit": measured["gbit"], "tls_cpu_s_per_gb": measured["cpu_s_per_gb"]}


def tls_tuned_bulk(seconds: float, loop: str) -> Facts:
    """Measure the same with all that tuning by hand gives: callbacks into one buffer, the sockets' buffers, CUBIC."""
    measured = _pair(tls.__name__, seconds, loop)
    return {"tls_tuned_gbit": measured["gbit"], "tls_tuned_cpu_s_per_gb": measured["cpu_s_per_gb"]}


def _pair(module: str, seconds: float, loop: str) -> Facts:
    return figures("bulk", *run_pair(f"{module}:serve", f"{module}:dial", part="bulk", seconds=seconds, loop=loop))


def _limit_of_bulk(cipher: str, text_bytes: int, seconds: float) -> Facts:
    bulk = _limit.bulk(cipher, text_bytes, seconds=seconds)
    return {"limit_gbit": bulk.gbit_per_s, "limit_cpu_s_per_gb": bulk.cpu_s_per_gb}


def _unbundled(measured: Facts) -> Facts:
    return {"messages_unbundled_per_s": measured["messages_per_s"], "delivered_unbundled": measured["delivered"]}


def _wide(measured: Facts) -> Facts:
    return {"stream_wide_gbit": measured["gbit"], "wide_cpu_s_per_gb": measured["cpu_s_per_gb"]}


NAMES = {
    "gbit": "stream_gbit",
    "p50_us": "ping_p50_us",
    "p99_us": "ping_p99_us",
}
"""What the figures of interpeer's own loads are called here."""
FIGURES = (
    "limit_gbit", "stream_gbit", "stream_of_limit", "tls_gbit", "stream_of_tls", "tls_tuned_gbit",
    "stream_of_tls_tuned", "stream_wide_gbit", "wide_cpu_s_per_gb", "cpu_s_per_gb", "limit_cpu_s_per_gb",
    "cpu_of_limit", "tls_cpu_s_per_gb",
    "tls_tuned_cpu_s_per_gb", "messages_per_s", "delivered", "messages_single_per_s", "delivered_single",
    "messages_unbundled_per_s", "delivered_unbundled", "ping_p50_us", "ping_p99_us", "raw_ping_p50_us",
    "handshakes_per_s", "handshakes_in_a_row_per_s", "bytes_per_idle_connection",
)  # fmt: skip


def combine(results: dict[str, list[Facts]], left_out: dict[str, str]) -> Table:
    """Put the runs together: medians, spreads, ratios."""
    samples: dict[str, list[float]] = {}
    cipher: str | None = None
    for facts in (facts for runs in results.values() for facts in runs):
        cipher = facts.get("cipher") or cipher
        for name, value in facts.items():
            if isinstance(value, (int, float)):
                samples.setdefault(NAMES.get(name, name), []).append(float(value))
        if "kb_per_connection" in facts:  # the end that needs more counts
            samples.setdefault("bytes_per_idle_connection", []).append(1000 * max(facts["kb_per_connection"]))
    medians: Facts = dict.fromkeys(FIGURES)
    medians |= {name: statistics.median(values) for name, values in samples.items() if name in medians}
    medians["stream_of_limit"] = _ratio(medians, "stream_gbit", "limit_gbit")
    medians["stream_of_tls"] = _ratio(medians, "stream_gbit", "tls_gbit")
    medians["stream_of_tls_tuned"] = _ratio(medians, "stream_gbit", "tls_tuned_gbit")
    medians["cpu_of_limit"] = _ratio(medians, "cpu_s_per_gb", "limit_cpu_s_per_gb")
    spreads = {name: (min(values), max(values)) for name, values in samples.items() if name in medians}
    return Table({"cipher": cipher, **medians}, spreads, left_out)


def _ratio(medians: Facts, above: str, below: str) -> float | None:
    return medians[above] / medians[below] if medians[above] is not None and medians[below] else None


def busy_processors() -> float | None:
    """Return how many processors other work kept busy in the last minute; None where the system does not tell."""
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def spread_of(table: Table, names: Iterable[str]) -> dict[str, list[float]]:
    """Return the lowest and the highest run of some figures, for JSON."""
    return {name: list(table.spreads[name]) for name in names if name in table.spreads}
