"""Measure interpeer on this machine: the limit, interpeer, the rivals, each row beside its goal.

    python -m benchmarks                    everything but --soak; some minutes
    python -m benchmarks --quick            shorter runs, fewer and smaller connections
    python -m benchmarks --only ping        one row (may be repeated)
    python -m benchmarks --soak             also memory after 20 GB through one stream
    python -m benchmarks micro [ARGS]       single functions (pytest benchmarks/micro ARGS)
    python -m benchmarks goodput --link [ARGS]  goodput under loss between two processes, over a bad link (--help)
    python -m benchmarks interop [ARGS]     the QUIC interop runner's cases, over a bad link (--help)
    python -m benchmarks goodput [ARGS]     congestion control in the simulator: loss, fairness, queues
    python -m benchmarks paths [ARGS]       several paths, and a NAT that rebinds, between two processes
    python -m benchmarks relay [ARGS]       what a relay passes on, between three processes
    python -m benchmarks punching [ARGS]    how often two punching machines find each other between NATs, in the simulator
    python -m benchmarks reaching [ARGS]    how often, and how soon, two nodes behind NATs have a direct path, in the simulator
    python -m benchmarks nat [ARGS]         every kind of NAT calls every other, in network namespaces (root)
    python -m benchmarks control [ARGS]     urgent messages beside a bulk transfer, in the simulator

Two processes on loopback for each load, started anew for each run. The runs of all loads take turns and medians count; trust
ratios and processor seconds more than rates, since other work on the machine changes those. A goal is "short" when missed;
the exit code is 1 only if something of interpeer's own could not be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from benchmarks import command, control, goodput, goodput_link, nat_matrix, paths, punching, reaching, relay
from benchmarks.interop import table as interop
from benchmarks.table import NAMES, ROWS, Measured, Row, Scale, has_micro, judge, measure, needed, own_loads, rival_loads
from interpeer._bench.end import Facts
from interpeer._bench.table import busy_processors
from interpeer._cli import machine

MICRO = Path(__file__).parent / "micro"


def main(arguments: list[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["micro"]:
        return _micro(words[1:])
    if words[:2] == ["goodput", "--link"]:
        return goodput_link.main(words[2:])
    if words[:1] == ["interop"]:
        return interop.main(words[1:])
    if words[:1] == ["paths"]:
        return paths.main(words[1:])
    if words[:1] == ["nat"]:
        return nat_matrix.main(words[1:])
    if words[:1] == ["relay"]:
        return relay.main(words[1:])
    if words[:1] == ["goodput"]:
        return goodput.main(words[1:])
    if words[:1] == ["punching"]:
        return punching.main(words[1:])
    if words[:1] == ["reaching"]:
        return reaching.main(words[1:])
    if words[:1] == ["control"]:
        return control.main(words[1:])
    asked = _parse(words)
    rows = [row for row in ROWS if row.name in asked.only and (row.name != "soak" or asked.soak)]
    scale = Scale.of(is_quick=asked.quick, rounds=asked.rounds)
    names = needed(rows)
    loads = [load for load in own_loads(scale) if load.name in names]
    rivals, left_out = ([], {}) if asked.no_rivals else rival_loads(rows, scale)
    busy = busy_processors()
    print(f"{machine.describe()}; {busy or 0:.1f} processors busy before it began", file=sys.stderr)
    measured = measure(loads + rivals, scale.rounds, _show)
    measured.left_out |= left_out
    judged = [judge(row, measured) for row in rows]
    if asked.json:
        print(json.dumps(_facts(judged, measured, scale, busy)))
    else:
        print("\n".join(_lines(rows, judged, measured)))
    return 1 if names & set(measured.left_out) else 0


def _parse(words: list[str]) -> argparse.Namespace:
    parser = command.parser("", __doc__)
    parser.add_argument("--quick", action="store_true", help="shorter runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="runs of each load (default: 5, quick 3)")
    parser.add_argument("--only", action="append", choices=NAMES, metavar="ROW", help=f"one of {', '.join(NAMES)}")
    parser.add_argument("--no-rivals", action="store_true", help="measure interpeer and the limit alone")
    parser.add_argument("--soak", action="store_true", help="also the memory after 20 GB through one stream")
    asked = parser.parse_args(words)
    asked.soak = asked.soak or "soak" in (asked.only or ())
    asked.only = asked.only or NAMES
    return asked


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _micro(words: list[str]) -> int:
    if not has_micro(MICRO):
        print(f"there are no benchmarks in {MICRO}", file=sys.stderr)
        return 1
    return subprocess.call([sys.executable, "-m", "pytest", str(MICRO), *words])


def _show(name: str, number: int, count: int) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{number}/{count} {name}" if number < count else "\r\033[K", end="", file=sys.stderr, flush=True)


def _facts(judged: list[Facts], measured: Measured, scale: Scale, busy: float | None) -> Facts:
    return {
        "machine": machine.describe(),
        "load_before": busy,
        "cipher": measured.cipher,
        "rounds": scale.rounds,
        "seconds": scale.seconds,
        "connections": scale.connections,
        "rows": judged,
        "left_out": measured.left_out,
    }


def _lines(rows: list[Row], judged: list[Facts], measured: Measured) -> list[str]:
    lines = [f"cipher: {measured.cipher}"] if measured.cipher else []
    lines.append(f"{'':<49}{'interpeer':>10}  {'lowest..highest':<22}{'beside':>10}{'compared':>9}  goal")
    for row, facts in zip(rows, judged, strict=True):
        lines.append(_line(row, facts))
        if facts["rivals"]:
            lines.append("      " + ", ".join(f"{name} {value:{row.form}}" for name, value in facts["rivals"].items()))
    reasons: dict[str, list[str]] = {}
    for name, why in measured.left_out.items():
        reasons.setdefault(why, []).append(name)
    lines += [f"left out: {', '.join(names)}: {why}" for why, names in reasons.items()]
    return lines


def _line(row: Row, facts: Facts) -> str:
    if facts["value"] is None:
        return f"{row.label:<49}{'-':>10}  {'':<22}{'':>10}{'':>9}  {facts['goal']:<14}{facts['status']}"
    low, high = facts["spread"]
    spread = f"{low:{row.form}}..{high:{row.form}}" if high > low else ""
    beside = "" if facts["beside"] is None else f"{facts['beside']:{row.form}}"
    compared = "" if facts["compared"] is None else format(facts["compared"], "+.1f" if row.is_difference else ".2f")
    if compared and not row.is_difference:
        compared += "x"
    status = facts["status"] if facts["status"] != "-" else ""
    shown = f"{row.label:<49}{facts['value']:>10{row.form}}  {spread:<22}{beside:>10}{compared:>9}  {facts['goal']:<14}{status}"
    return shown.rstrip()


if __name__ == "__main__":
    raise SystemExit(main())
