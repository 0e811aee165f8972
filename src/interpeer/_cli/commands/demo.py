"""See the main job in miniature: no network, no root, less than 15 seconds.

Two processes, each with a key of its own, reach each other by id and address on this machine and move data over one encrypted
connection; every byte is compared. TLS over TCP is measured in the same run, before and after.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from statistics import mean

from interpeer._bench.demonstration import Step, move
from interpeer._bench.figures import LoadBroken
from interpeer._bench.process import EndFailed
from interpeer._bench.table import busy_processors, tls_bulk
from interpeer._cli import machine
from interpeer._cli.errors import DONE, CommandError
from interpeer._cli.output import Output, duration, printable, size
from interpeer._run import loop_factory

HELP = "see the main job in miniature"
REACHES_PEERS = False
DATA_ON_STDOUT = False

MOVE_S = 4.0
TLS_S = 1.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nat",
        metavar="KIND",
        nargs="?",
        const="port",
        help="instead: two hosts behind NATs of a kind (default: port; or two kinds, as in port,symmetric) and a public peer, "
        "in network namespaces; needs root on Linux",
    )


def run(options: argparse.Namespace, output: Output) -> int:
    if options.nat is not None:
        from interpeer._cli import nat_demo

        return nat_demo.run(*nat_demo.parse_kinds(options.nat), output)
    loop = "asyncio" if loop_factory() is None else "uvloop"
    output.say(machine.describe())
    output.say(f"TLS 1.3 over TCP, for comparison ({TLS_S} s) ...")
    busy = busy_processors()
    rates, why_not = _tls([], loop)
    try:
        step = _move(loop, output)
    except EndFailed as error:
        raise CommandError(f"the demonstration failed: {printable(str(error))}") from None
    if why_not is None:
        rates, why_not = _tls(rates, loop)
    _tell(step, machine.loop(), rates, why_not, busy, output)
    return DONE


def _tls(rates: list[float], loop: str) -> tuple[list[float], str | None]:
    """Measure TLS once more; return all rates, and why there is none."""
    try:
        return [*rates, tls_bulk(TLS_S, loop)["tls_gbit"]], None
    except (EndFailed, LoadBroken, OSError) as error:
        return rates, str(error)


def _move(loop: str, output: Output) -> Step:
    """Run the two processes, and show how they fare; return the end of it."""
    step = None
    for step in move(MOVE_S, loop):
        if not step.cipher:
            output.say(f"two processes: {step.caller[:16]}... calls {step.called[:16]}... at {step.address}")
        elif not step.is_last and output.is_live:
            sys.stderr.write(f"\r\033[K{_rate(step)}, {step.cipher}, {machine.loop()}, {step.path}")
            sys.stderr.flush()
    assert step is not None
    if output.is_live:
        sys.stderr.write("\r\033[K")
    return step


def _rate(step: Step) -> str:
    return f"{step.gbit_per_s:.2f} Gbit/s, {size(step.bytes)} in {duration(step.seconds)}"


def _tell(step: Step, loop: str, rates: list[float], why_not: str | None, busy: float | None, output: Output) -> None:
    tls = mean(rates) if rates else None
    times = step.gbit_per_s / tls if tls else None
    lines = [
        f"reached by id and address in {duration(step.connected_s)}: {step.path}, {step.cipher}, {loop}",
        f"moved {size(step.bytes)} in {duration(step.seconds)}: {step.gbit_per_s:.2f} Gbit/s, every byte compared",
    ]
    if tls is None:
        lines.append(f"not compared with TLS over TCP: {printable(why_not or '')}")
    else:
        when = "before and after" if len(rates) > 1 else "before"
        lines.append(f"TLS 1.3 over TCP, asyncio's streams on {loop}, {when}: {tls:.2f} Gbit/s")
        lines.append(f"the connection was {times:.1f} times as fast")
    if busy is not None and busy > 0.5:
        lines.append(f"other work kept {busy:.1f} of {os.cpu_count()} processors busy in the minute before")
    name = "interpeer" if shutil.which("interpeer") else os.path.relpath(sys.argv[0])
    lines += [
        "next:",
        f"  {name} bench --quick     all figures of this machine, beside its limit",
        f"  {name} send FILE         and on another machine: interpeer recv TICKET",
        f"  {name} doctor            what this machine can do",
    ]
    output.answer(
        "\n".join(lines),
        seconds=step.seconds,
        bytes=step.bytes,
        gbit_per_s=step.gbit_per_s,
        cipher=step.cipher,
        loop=loop.partition(" ")[0],
        path=step.path,
        connected_s=step.connected_s,
        tls_gbit_per_s=tls,
        times_tls=times,
        tls_left_out=why_not,
        load_before=busy,
    )
