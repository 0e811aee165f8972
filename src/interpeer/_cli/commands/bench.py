"""Measure what this machine does, beside its limit: raw UDP with the same cipher, moved in C.

Two processes on loopback for each row, the runs of all rows in turn, medians. Rates change with whatever else the machine
does: the ratios say more, and the processor seconds. --quick takes less than a minute.
"""

from __future__ import annotations

import argparse
import sys

from interpeer._bench.table import FIGURES, Table, busy_processors, measure, spread_of
from interpeer._cli import machine
from interpeer._cli.errors import DONE, FAILED
from interpeer._cli.output import JsonObject, Output, printable

HELP = "measure this machine, beside its limit"
REACHES_PEERS = False
DATA_ON_STDOUT = False

LINES = (
    ("one encrypted stream, Gbit/s", "stream_gbit", ".2f"),
    ("  packets as large as the path carries", "stream_wide_gbit", ".2f"),
    ("  raw UDP, same cipher, in C", "limit_gbit", ".2f"),
    ("  TLS 1.3 over TCP, asyncio's streams", "tls_gbit", ".2f"),
    ("  TLS 1.3 over TCP, tuned by hand", "tls_tuned_gbit", ".2f"),
    ("CPU seconds per GB, both ends", "cpu_s_per_gb", ".2f"),
    ("  packets as large as the path carries", "wide_cpu_s_per_gb", ".2f"),
    ("  raw UDP", "limit_cpu_s_per_gb", ".2f"),
    ("  TLS 1.3 over TCP, asyncio's streams", "tls_cpu_s_per_gb", ".2f"),
    ("  TLS 1.3 over TCP, tuned by hand", "tls_tuned_cpu_s_per_gb", ".2f"),
    ("64-byte messages per second, many in a call", "messages_per_s", ",.0f"),
    ("  one in a call", "messages_single_per_s", ",.0f"),
    ("  one in a packet", "messages_unbundled_per_s", ",.0f"),
    ("64-byte round trip, median, us", "ping_p50_us", ".0f"),
    ("  raw UDP", "raw_ping_p50_us", ".0f"),
    ("handshakes per second, many at once", "handshakes_per_s", ",.0f"),
    ("  one after another", "handshakes_in_a_row_per_s", ",.0f"),
    ("bytes per idle connection and end", "bytes_per_idle_connection", ",.0f"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="shorter runs, less than a minute in all")


def run(options: argparse.Namespace, output: Output) -> int:
    busy = busy_processors()
    output.say(machine.describe())
    table = measure(is_quick=options.quick, on_run=lambda name, number, count: _show(name, number, count, output))
    if output.is_live:
        sys.stderr.write("\r\033[K")
    is_ok = not table.left_out and table.figures["stream_gbit"] is not None
    facts: JsonObject = {
        "ok": is_ok,
        **table.figures,
        "spread": spread_of(table, FIGURES),
        "left_out": table.left_out,
        "machine": machine.describe(),
        "load_before": busy,
    }
    if not is_ok:
        facts |= {"error": _failure(table), "reasons": [f"{name}: {why}" for name, why in table.left_out.items()]}
    output.json_result(facts)
    if not output.is_json:
        output.answer(_text(table))
        if busy is not None and busy > 0.5:
            output.say(f"before it began, other work kept {busy:.1f} processors busy: trust the ratios")
        if not is_ok:
            output.error(_failure(table))
    return DONE if is_ok else FAILED


def _show(name: str, number: int, count: int, output: Output) -> None:
    if output.is_live:
        sys.stderr.write(f"\r\033[K{number}/{count} {name}")
        sys.stderr.flush()
    elif number <= count // 3 or number == count:
        output.say(f"{number}/{count} {name}")


def _text(table: Table) -> str:
    figures = table.figures
    lines = [f"cipher: {figures['cipher']}"]
    for label, name, form in LINES:
        if figures[name] is None:
            continue
        low, high = table.spreads[name]
        ratio = {
            "limit_gbit": ("stream_of_limit", "the stream reaches {:.0%} of it"),
            "tls_gbit": ("stream_of_tls", "the stream is {:.1f} times as fast"),
            "tls_tuned_gbit": ("stream_of_tls_tuned", "the stream is {:.1f} times as fast"),
            "limit_cpu_s_per_gb": ("cpu_of_limit", "the stream takes {:.1f} times as much"),
        }.get(name)
        remark = ratio[1].format(figures[ratio[0]]) if ratio and figures[ratio[0]] is not None else ""
        spread = f"({low:{form}} to {high:{form}})" if high > low else ""
        lines.append(f"{label:<45}{figures[name]:>12{form}}  {spread:<24}{remark}".rstrip())
    shares = [name for name in ("delivered", "delivered_single", "delivered_unbundled") if (figures[name] or 1) < 1]
    lines += [f"{name.replace('_', ', ')}: {figures[name]:.2%} of the messages" for name in shares]
    return "\n".join(lines)


def _failure(table: Table) -> str:
    name, why = next(iter(table.left_out.items()), ("one encrypted stream", "it gave no figure"))
    return f"{len(table.left_out) or 1} of the rows could not be measured; {name}: {printable(why)}"
