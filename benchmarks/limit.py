"""Print this machine's limit: raw UDP with the ciphers of the transport and nothing else (`interpeer._core.limit`).

    python -m benchmarks.limit                                   the whole table, medians of three interleaved runs
    python -m benchmarks.limit --aead aegis-256 --payload 1200   one row
    python -m benchmarks.limit --message 64 --json               64 bytes of text in each packet, one JSON object a row

A packet is 8 bytes of header, text and the cipher's tag; `--payload` is the whole, and Gbit/s count the text alone. CPU
seconds are those of both ends. Rates swing with whatever else the machine does: trust the ratios, and CPU more than rates.
Loopback flatters GSO, since a super-datagram is never cut there: the rows without it show the other extreme.
INTERPEER_DISABLE switches abilities off for all rows.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from interpeer._core.limit import suites
from interpeer._limit import HEADER_BYTES, TAG_BYTES, Bulk, Ping, bulk, ping

NO_OFFLOAD = "gso,gro"
NO_BATCH = "gso,gro,mmsg"
SENDING = {"": "gso/gro", NO_OFFLOAD: "mmsg", NO_BATCH: "one by one"}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what to run, and how its result is called."""

    name: str
    run: Callable[[], Bulk | Ping]


def bulk_row(aead: str, text_bytes: int, seconds: float, disable: str) -> Row:
    disabled = ",".join(filter(None, (os.environ.get("INTERPEER_DISABLE", ""), disable)))
    name = f"{aead} {text_bytes + HEADER_BYTES + TAG_BYTES[aead]} B, {SENDING.get(disable, disable)}"
    return Row(name, lambda: bulk(aead, text_bytes, seconds=seconds, disable=disabled))


def ping_row(aead: str, spin: bool) -> Row:
    return Row(f"{aead} ping, {'spinning' if spin else 'sleeping'}", lambda: ping(aead, spin=spin))


def all_rows(seconds: float) -> Iterator[Row]:
    """Yield the table: ciphers, sizes, ways of sending, small messages, round trips."""
    for aead in suites():
        yield bulk_row(aead, text_in(aead, 1200), seconds, "")
        yield bulk_row(aead, text_in(aead, 1420), seconds, "")
    for disable in (NO_OFFLOAD, NO_BATCH):
        for aead in ("none", "chacha20-poly1305"):
            yield bulk_row(aead, text_in(aead, 1200), seconds, disable)
    for aead in suites():
        yield bulk_row(aead, 64, seconds, "")
    for spin in (False, True):
        for aead in ("none", suites()[-1]):
            yield ping_row(aead, spin)


def text_in(aead: str, payload: int) -> int:
    """Return the bytes of text in a packet of so many bytes."""
    return payload - HEADER_BYTES - TAG_BYTES[aead]


def measure(rows: list[Row], runs: int) -> list[list[Bulk | Ping]]:
    """Run all rows, then all again: what disturbs the machine for a while disturbs every row once."""
    results: list[list[Bulk | Ping]] = [[] for _ in rows]
    for turn in range(runs):
        for row, of_row in zip(rows, results, strict=True):
            print(f"\r{turn + 1}/{runs} {row.name:<40}", end="", file=sys.stderr, flush=True)
            of_row.append(row.run())
    print(f"\r{'':<50}\r", end="", file=sys.stderr, flush=True)
    return results


def summary(name: str, results: list[Bulk | Ping]) -> dict[str, Any]:
    """Return medians of the numbers, and the spread of the one that matters most."""
    taken = [asdict(one) for one in results]
    out: dict[str, Any] = {"row": name, "runs": len(taken)}
    for key, value in taken[0].items():
        out[key] = statistics.median(one[key] for one in taken) if isinstance(value, float) else value
    main = "p50_us" if isinstance(results[0], Ping) else "gbit_per_s"
    out["spread"] = [min(one[main] for one in taken), max(one[main] for one in taken)]
    return out


def line(of: dict[str, Any]) -> str:
    spread = "..".join(f"{value:.3g}" for value in of["spread"])
    if "p50_us" in of:
        return f"{of['row']:<38} p50 {of['p50_us']:8.1f} us  p99 {of['p99_us']:8.1f} us  cpu {of['cpu_us']:6.1f} us   {spread}"
    return (
        f"{of['row']:<38} {of['gbit_per_s']:6.2f} Gbit/s {of['packets_per_s'] / 1e6:6.2f} M packets/s  lost {of['lost']:.2%}  "
        f"cpu {of['sender_cpu_s_per_gb']:6.3f} + {of['receiver_cpu_s_per_gb']:6.3f} s/GB   {spread}"
    )


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limit", description=__doc__.partition("\n")[0])
    parser.add_argument("--aead", choices=suites(), help="one row: this cipher")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--payload", type=int, default=1200, help="bytes of a packet, header and tag included (1200)")
    size.add_argument("--message", type=int, help="bytes of text in a packet")
    parser.add_argument("--ping", choices=("sleep", "spin"), help="one row: round trips")
    parser.add_argument("--disable", default="", help="abilities not to use, as in INTERPEER_DISABLE")
    parser.add_argument("--seconds", type=float, default=2.0, help="time of a run (2)")
    parser.add_argument("--runs", type=int, default=3, help="runs of which the median is taken (3)")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    asked = parse(arguments)
    if asked.ping:
        rows = [ping_row(asked.aead or "none", asked.ping == "spin")]
    elif asked.aead or asked.message:
        aead = asked.aead or "none"
        rows = [bulk_row(aead, asked.message or text_in(aead, asked.payload), asked.seconds, asked.disable)]
    else:
        rows = list(all_rows(asked.seconds))
    for row, results in zip(rows, measure(rows, asked.runs), strict=True):
        summed = summary(row.name, results)
        print(json.dumps(summed) if asked.json else line(summed), flush=True)


if __name__ == "__main__":
    main()
