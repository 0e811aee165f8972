"""The table of `python -m benchmarks`: which loads there are, what each row shows, and how far it is from its goal.

A load gives figures, named `load.figure` here; medians are taken over its runs. A row shows one of interpeer's figures beside
the limit's and the rivals', and says whether its goal is reached: rows 1 to 8 of the table of numbers to reach.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.rivals import RIVALS, run_once
from interpeer import Config, _limit
from interpeer._bench import peer
from interpeer._bench.end import RESIDENT, Facts
from interpeer._bench.figures import LoadBroken
from interpeer._bench.loads import BUSY_CHANNELS
from interpeer._bench.process import EndFailed
from interpeer._bench.table import preferred_cipher, tls_bulk, tls_tuned_bulk
from interpeer._run import loop_factory

IDLE_TIMEOUT_S = 600.0
BUSY_BUFFER_BYTES = 1 << 17  # of each of many busy streams: what a program does that has many
SPIN_S = 0.001
FEW_BUSY = 100  # connections that are busy where one core is compared with two
PINGS, SPINNING_PINGS = 4000, 400  # where others want the processors, a round trip that spins takes milliseconds

OnRun = Callable[[str, int, int], None]
"""Told before each run what it measures, its number, and how many there are."""


@dataclass(frozen=True, slots=True)
class Load:
    """Something that is run."""

    name: str
    run: Callable[[], Facts]
    only_once: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    """What `--only` calls it; several lines may share one."""
    label: str
    figure: str
    """`load.figure` of interpeer's own."""
    form: str = ".2f"
    beside: str | None = None
    """`load.figure` to compare with: the limit's, or that of a quiet machine."""
    is_difference: bool = False
    """Whether it is compared by the difference, not by the ratio."""
    at_least: float | None = None
    at_most: float | None = None
    is_compared: bool = False
    """Whether the goal is about the comparison, not about the figure itself."""
    rival: tuple[str, str] | None = None
    """The rivals' load, and their figure."""


ROWS = (
    Row("stream", "one encrypted stream, Gbit/s, of the limit", "bulk.gbit", beside="limit.gbit", at_least=0.6, is_compared=True,
        rival=("bulk", "gbit")),
    Row("stream", "... times TLS 1.3 over TCP, asyncio's streams", "bulk.gbit", beside="tls.tls_gbit", at_least=3,
        is_compared=True),
    Row("stream", "... times TLS 1.3 over TCP, tuned by hand", "bulk.gbit", beside="tls-tuned.tls_tuned_gbit"),
    Row("stream", "... packets as large as the path carries, times 1200", "wide.gbit", beside="bulk.gbit"),
    Row("cpu", "CPU seconds per GB, both ends, of the limit", "bulk.cpu_s_per_gb", beside="limit.cpu_s_per_gb", at_most=1.7,
        is_compared=True, rival=("bulk", "cpu_s_per_gb")),
    Row("cpu", "... packets as large as the path carries, times 1200", "wide.cpu_s_per_gb", beside="bulk.cpu_s_per_gb"),
    Row("busy", "stream beside 2 busy threads at sender, Gbit/s", "busy-client.gbit", beside="thread.gbit", at_least=0.5,
        is_compared=True),
    Row("busy", "... both at the receiver", "busy-server.gbit", beside="thread.gbit", at_least=0.5, is_compared=True),
    Row("busy", "... one at each", "busy-both.gbit", beside="thread.gbit", at_least=0.5, is_compared=True),
    Row("messages", "64-byte messages per second, many in a call", "msgs.messages_per_s", ",.0f", at_least=2e6,
        rival=("msgs", "messages_per_s")),
    Row("messages", "... of these delivered", "msgs.delivered", ".2%", at_least=0.99),
    Row("messages", "... one in a call", "msgs-single.messages_single_per_s", ",.0f", at_least=6e5,
        rival=("msgs", "messages_single_per_s")),
    Row("messages", "... of these delivered", "msgs-single.delivered_single", ".2%", at_least=0.99),
    Row("messages", "... many in a call, one in a packet", "msgs-unbundled.messages_per_s", ",.0f"),
    Row("messages", "... of these delivered", "msgs-unbundled.delivered", ".2%", at_least=0.99),
    Row("ping", "64-byte round trip p50, us, over raw UDP", "ping.p50_us", ".1f", beside="raw-ping.p50_us", is_difference=True,
        at_most=60, is_compared=True, rival=("ping", "p50_us")),
    Row("ping", "... spinning", "ping-spin.p50_us", ".1f", beside="raw-ping-spin.p50_us", is_difference=True),
    Row("handshakes", "handshakes per second, 16 at once", "handshakes.handshakes_per_s", ",.0f", at_least=2000,
        rival=("handshakes", "handshakes_per_s")),
    Row("handshakes", "... one after another", "handshakes-in-a-row.handshakes_in_a_row_per_s", ",.0f", at_least=1000,
        rival=("handshakes", "handshakes_in_a_row_per_s")),
    Row("idle", "KB per idle connection: calling end", "idle.kb_client", ".1f", at_most=10, rival=("idle", "kb_client")),
    Row("idle", "... called end", "idle.kb_server", ".1f", at_most=10, rival=("idle", "kb_server")),
    Row("many", "1,000 busy connections, Gbit/s together", "many.gbit", beside="bulk.gbit"),
    Row("many", "... CPU seconds per GB, both ends", "many.cpu_s_per_gb", beside="bulk.cpu_s_per_gb"),
    Row("many", "... how evenly they share it (Jain's index)", "many.jain", at_least=0.9),
    Row("many", "... round trip of a datagram on them, p99, ms", "many.ping_p99_ms", ".0f"),
    Row("channels", "1,000 busy channels of a connection, of one stream", "channels.gbit", beside="bulk.gbit", at_least=0.9,
        is_compared=True),
    Row("channels", "... CPU seconds per GB, both ends", "channels.cpu_s_per_gb", beside="bulk.cpu_s_per_gb"),
    Row("channels", "... how evenly they share it (Jain's index)", "channels.jain", at_least=0.9),
    Row("channels", "one stream beside 1,000 open channels", "beside-channels.gbit", beside="bulk.gbit", at_least=0.9,
        is_compared=True),
    Row("shards", "100 busy connections, 2 shards at each end, Gbit/s", "shards.gbit", beside="one-shard.gbit"),
    Row("shards", "... handshakes per second, 16 at once", "shards-handshakes.handshakes_per_s", ",.0f",
        beside="handshakes.handshakes_per_s"),
    Row("soak", "growth of memory from 1 GB to 20 GB of a stream", "soak.resident_growth", ".1%", at_most=0.05),
)  # fmt: skip
NAMES = tuple(dict.fromkeys(row.name for row in ROWS))


@dataclass(frozen=True, slots=True)
class Scale:
    """How long and how often is measured."""

    rounds: int
    seconds: float
    connections: int
    moved_bytes: int
    busy_connections: int

    @classmethod
    def of(cls, *, is_quick: bool, rounds: int | None) -> Scale:
        if is_quick:
            return cls(rounds or 3, 0.5, 1000, 1 << 16, 200)
        return cls(rounds or 5, 2.0, 10_000, 1 << 20, 1000)


def own_loads(scale: Scale) -> list[Load]:
    """Return interpeer's loads, and those that they are compared with."""
    loop = "uvloop" if loop_factory() is not None else "asyncio"
    cipher = preferred_cipher()
    text_bytes = Config().packet_bytes - _limit.HEADER_BYTES - _limit.TAG_BYTES[cipher]

    def ours(name: str, part: str, *, only_once: bool = False, **options: Any) -> Load:
        return Load(name, lambda: _flat(peer.run_once(part, scale.seconds, loop=loop, **options)), only_once)

    def limit() -> Facts:
        bulk = _limit.bulk(cipher, text_bytes, seconds=scale.seconds)
        return {"gbit": bulk.gbit_per_s, "cpu_s_per_gb": bulk.cpu_s_per_gb}

    def raw_ping(*, spin: bool) -> Facts:
        return {"p50_us": _limit.ping("none", count=SPINNING_PINGS if spin else PINGS, spin=spin).p50_us}

    small = {"send_buffer_bytes": BUSY_BUFFER_BYTES, "max_send_buffer_bytes": BUSY_BUFFER_BYTES}
    loads = [
        Load("limit", limit),
        ours("bulk", "bulk"),
        ours("wide", "bulk", max_packet_bytes=None),
        Load("tls", lambda: tls_bulk(scale.seconds, loop)),
        Load("tls-tuned", lambda: tls_tuned_bulk(scale.seconds, loop)),
        ours("thread", "bulk", pump="thread"),
        *(ours(f"busy-{end}", "bulk", pump="thread", plan={"busy": end}) for end in ("client", "server", "both")),
        ours("msgs", "msgs"),
        ours("msgs-single", "msgs-single"),
        ours("msgs-unbundled", "msgs", bundle=False),
        ours("ping", "ping"),
        Load("raw-ping", lambda: raw_ping(spin=False)),
        ours("ping-spin", "ping", spin_s=SPIN_S),
        Load("raw-ping-spin", lambda: raw_ping(spin=True)),
        ours("handshakes", "handshakes"),
        ours("handshakes-in-a-row", "handshakes-in-a-row"),
        ours("many", "many", plan={"busy_connections": scale.busy_connections}, **small),
        ours("channels", "channels", **small),
        ours("beside-channels", "bulk", plan={"idle_channels": BUSY_CHANNELS}),
        ours("one-shard", "many", plan={"busy_connections": FEW_BUSY}, pump="thread", **small),
        ours("shards", "many", plan={"busy_connections": FEW_BUSY}, shards=2, **small),
        ours("shards-handshakes", "handshakes", shards=2),
    ]
    if RESIDENT.exists():
        size = {"connections": scale.connections, "moved_bytes": scale.moved_bytes}
        loads.append(ours("idle", "idle", only_once=True, plan=size, timeout_s=IDLE_TIMEOUT_S))
        loads.append(ours("soak", "soak", only_once=True, timeout_s=IDLE_TIMEOUT_S))
    return loads


def rival_loads(rows: Iterable[Row], scale: Scale) -> tuple[list[Load], dict[str, str]]:
    """Return the rivals' loads for these rows, and those that cannot be measured here, with the reason."""
    loads: list[Load] = []
    left_out: dict[str, str] = {}
    for part in dict.fromkeys(row.rival[0] for row in rows if row.rival is not None):
        for rival, program in RIVALS.items():
            name = f"{rival}:{part}"
            if reason := program.why_not(part):
                left_out[name] = reason
            else:
                loads.append(Load(name, _rival_run(rival, part, scale.seconds), only_once=part == "idle"))
    return loads, left_out


def _rival_run(rival: str, part: str, seconds: float) -> Callable[[], Facts]:
    return lambda: _flat(run_once(rival, part, seconds))


def _flat(facts: Facts) -> Facts:
    """Name the two ends of what is told in pairs."""
    if "kb_per_connection" in facts:
        facts["kb_client"], facts["kb_server"] = facts["kb_per_connection"]
    return facts


def needed(rows: Iterable[Row]) -> set[str]:
    """Return the names of interpeer's loads that these rows show."""
    figures = [figure for row in rows for figure in (row.figure, row.beside) if figure is not None]
    return {figure.partition(".")[0] for figure in figures}


@dataclass(slots=True)
class Measured:
    """What came of it."""

    samples: dict[str, list[float]] = field(default_factory=dict)
    """The values of each `load.figure`, one a run."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Loads without figures, and why."""
    cipher: str | None = None

    def median(self, figure: str | None) -> float | None:
        values = self.samples.get(figure) if figure is not None else None
        return statistics.median(values) if values else None


def measure(loads: list[Load], rounds: int, on_run: OnRun) -> Measured:
    """Run all loads in turn, then all again: what disturbs the machine for a while disturbs every load once."""
    measured = Measured()
    plan = [load for turn in range(rounds) for load in loads if turn == 0 or not load.only_once]
    for number, load in enumerate(plan):
        if load.name in measured.left_out:
            continue
        on_run(load.name, number + 1, len(plan))
        try:
            facts = load.run()
        except (EndFailed, LoadBroken, RuntimeError, OSError) as error:
            measured.left_out[load.name] = str(error)
            continue
        measured.cipher = facts.get("cipher") or measured.cipher
        for name, value in facts.items():
            if isinstance(value, (int, float)):
                measured.samples.setdefault(f"{load.name}.{name}", []).append(float(value))
    return measured


def judge(row: Row, measured: Measured) -> Facts:
    """Return what a row shows: the median, how far the runs lie apart, the comparison, the goal and whether it is reached."""
    value, beside = measured.median(row.figure), measured.median(row.beside)
    compared = None
    if value is not None and beside:
        compared = value - beside if row.is_difference else value / beside
    what = compared if row.is_compared else value
    status = "not measured" if what is None else "-"
    if what is not None and (row.at_least is not None or row.at_most is not None):
        is_reached = (row.at_least is None or what >= row.at_least) and (row.at_most is None or what <= row.at_most)
        status = "ok" if is_reached else "short"
    values = measured.samples.get(row.figure, [])
    return {
        "row": row.name,
        "label": row.label,
        "value": value,
        "spread": [min(values), max(values)] if values else None,
        "beside": beside,
        "compared": compared,
        "goal": goal(row),
        "status": status,
        "rivals": {} if row.rival is None else _rivals(row.rival, measured),
    }


def goal(row: Row) -> str:
    """Return the goal in words; empty if there is none."""
    if row.at_least is None and row.at_most is None:
        return ""
    bound, number = (">=", row.at_least) if row.at_least is not None else ("<=", row.at_most)
    if row.is_compared:
        return f"{bound} {'+' if row.is_difference else ''}{number:g}{'' if row.is_difference else 'x'}"
    return f"{bound} {number:{row.form}}"


def _rivals(of: tuple[str, str], measured: Measured) -> Facts:
    part, figure = of
    medians = {rival: measured.median(f"{rival}:{part}.{figure}") for rival in RIVALS}
    return {rival: value for rival, value in medians.items() if value is not None}


def has_micro(folder: Path) -> bool:
    """Tell whether there are benchmarks of single functions."""
    return folder.is_dir() and any(name.endswith(".py") for name in os.listdir(folder))
