"""Reach peers behind every kind of NAT from behind every kind of NAT, and print who got through, how and how soon.

    python -m benchmarks nat                            every ordered pair of kinds, IPv4 (root, Linux; some minutes)
    python -m benchmarks nat --ipv6                     also hosts with IPv6 alone, and with both
    python -m benchmarks nat --kinds port,symmetric --runs 20 --background 20 --delay 0.015
    python -m benchmarks nat --laboratory natlab.py    in another laboratory: IPv4, without --seed
    python -m benchmarks nat --json >matrix.json        what every call said, one object a line

In the laboratory (interpeer.testing.natlab) stand three public nodes and two hosts of each kind. On the one `interpeer up`
runs all the time, from the other `interpeer ping` calls; both know the public ones by --bootstrap. Rows call, columns are
called. A cell has the seconds from the call until the direct path, or else how the peer was reached. It is bold where a plain
timed punch can work and the path was not direct, and where the peer was not reached at all. The exit code is 1 if one was not
reached.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import queue
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.other_laboratory import OtherHost, OtherLab
from interpeer.testing import Link, NatKind
from interpeer.testing._natkind import can_punch
from interpeer.testing.natlab import Host, Ipv6, Lab

INTERPEER = (sys.executable, "-m", "interpeer")
READY_S = 120.0  # until every node has said that it is up: they all start at once
DISCARD = 9  # the port that background flows go to
DIRECT = ("direct", "lan")


@dataclass(frozen=True, slots=True)
class Site:
    """A row and a column of the matrix."""

    name: str
    nat: NatKind
    ipv4: bool = True
    ipv6: Ipv6 = Ipv6.OFF


FOUR = tuple(Site(kind.value, kind) for kind in NatKind)
SIX = (
    Site("v6-open", NatKind.PUBLIC, ipv4=False, ipv6=Ipv6.OPEN),
    Site("v6-firewall", NatKind.FIREWALL, ipv4=False, ipv6=Ipv6.FIREWALL),
    Site("port-and-v6", NatKind.PORT, ipv6=Ipv6.FIREWALL),
    Site("symmetric-and-v6", NatKind.SYMMETRIC, ipv6=Ipv6.FIREWALL),
)


@dataclass(frozen=True, slots=True)
class Call:
    """What one call from a site to another said."""

    caller: str
    called: str
    is_direct_expected: bool
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    elapsed_s: float = 0.0
    """How long the command ran, the interpreter's start and the pings included."""

    @property
    def is_reached(self) -> bool:
        return bool(self.facts.get("ok"))

    @property
    def is_direct(self) -> bool:
        return self.is_reached and self.facts.get("path") in DIRECT


def main(arguments: list[str]) -> int:
    parser = command.parser("nat", __doc__)
    parser.add_argument("--kinds", metavar="A,B,...", help="only these rows and columns")
    parser.add_argument("--ipv6", action="store_true", help="also sites with IPv6")
    parser.add_argument("--runs", type=int, default=1, help="of each pair (default: 1)")
    parser.add_argument("--jobs", type=int, default=8, help="calls at the same time, between different hosts (default: 8)")
    parser.add_argument(
        "--delay", type=float, default=0.0, metavar="S", help="one way, of every link: a round trip has four of them"
    )
    parser.add_argument("--loss", type=float, default=0.0, metavar="SHARE", help="of every link, each way")
    parser.add_argument(
        "--background", type=float, default=0.0, metavar="N", help="new flows a second through the NATs of a pair"
    )
    parser.add_argument("--timeout", type=float, default=60.0, metavar="S", help="for a call (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the ports that NATs draw, and of losses (default: 1)")
    parser.add_argument("--name", default="matrix", help="of the laboratory: those with different names run side by side")
    parser.add_argument("--laboratory", type=Path, metavar="FILE", help="the natlab.py of another laboratory, instead of ours")
    parser.add_argument("--relay-options", default="", metavar="WORDS", help="more options of `interpeer up` on the public node")
    parser.add_argument("--ping-options", default="", metavar="WORDS", help="more options of `interpeer ping`")
    parser.add_argument("--json", action="store_true", help="print one object for each call instead of the table")
    asked = parser.parse_args(arguments)
    sites = [site for site in (*FOUR, *(SIX if asked.ipv6 else ())) if not asked.kinds or site.name in asked.kinds.split(",")]
    if not sites:
        parser.error(f"--kinds names none of {', '.join(site.name for site in (*FOUR, *SIX))}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the laboratory is removed then, too
    link = Link(delay_s=asked.delay, loss=asked.loss) if asked.delay or asked.loss else None
    laboratory = OtherLab(asked.laboratory, asked.name) if asked.laboratory else Lab(asked.name, seed=asked.seed)
    with laboratory as lab, Matrix(lab, sites, link, asked.relay_options.split()) as matrix:
        calls = []
        for call in matrix.calls(asked.runs, asked.jobs, asked.timeout, asked.background, asked.ping_options.split()):
            calls.append(call)
            if asked.json:
                print(json.dumps(dataclasses.asdict(call)), flush=True)
            elif sys.stderr.isatty():
                print(f"\r\033[K{len(calls)}: {call.caller} calls {call.called}", end="\r", file=sys.stderr, flush=True)
    if not asked.json:
        print("\n".join([*table(sites, calls), "", *summary(calls)]))
    return int(not all(call.is_reached for call in calls))


# --- running it ---


HELPERS = 3
"""Public nodes that all know: with two a NAT that gives each destination another port is told from one that draws ports."""


class Matrix(contextlib.ExitStack):
    """Nodes on all hosts of a laboratory: the public ones, and one for each site that is called."""

    def __init__(self, lab: Lab | OtherLab, sites: Sequence[Site], link: Link | None, relay_options: Sequence[str]) -> None:
        super().__init__()
        self._sites = sites
        self._folder = Path(self.enter_context(tempfile.TemporaryDirectory(prefix="interpeer-")))
        helpers = [lab.host(f"r{number}") for number in range(HELPERS)]
        self._relay_address = str(helpers[0].address)
        self._hosts = {site: (self._host(lab, site, "a", link), self._host(lab, site, "b", link)) for site in sites}
        try:
            self._known: list[str] = []
            for helper in helpers:
                _, ticket = self._up({None: helper}, relay_options)[None]
                self._known += ["--bootstrap", ticket]
            called = self._up({site: hosts[1] for site, hosts in self._hosts.items()}, self._known)
        except BaseException:
            self.close()
            raise
        self._ids = {site: ready[0] for site, ready in called.items() if site}

    @staticmethod
    def _host(lab: Lab | OtherLab, site: Site, role: str, link: Link | None) -> Host | OtherHost:
        return lab.host(f"{site.name}-{role}", site.nat, ipv4=site.ipv4, ipv6=site.ipv6, link=link)

    def _up(self, hosts: Mapping[Site | None, Host | OtherHost], options: Sequence[str]) -> dict[Site | None, tuple[str, str]]:
        """Start a node on each host; return their ids and addresses."""
        ready: queue.Queue[tuple[Site | None, str]] = queue.Queue()
        for site, host in hosts.items():
            words = [*INTERPEER, "up", "--json", "--state", str(self._folder / host.name), *options]
            with open(self._folder / f"{host.name}.log", "wb") as log:
                process = host.popen(words, stdout=subprocess.PIPE, stderr=log, text=True)
            reader = threading.Thread(target=_read_events, args=(process, site, ready))
            reader.start()
            self.callback(_end, process, reader)
        told: dict[Site | None, tuple[str, str]] = {}
        while len(told) < len(hosts):
            try:
                site, line = ready.get(timeout=READY_S)
            except queue.Empty:
                missing = ", ".join(host.name for site, host in hosts.items() if site not in told)
                raise RuntimeError(f"nodes that have not come up: {missing}") from None
            if not line:
                log_of = (self._folder / f"{hosts[site].name}.log").read_text().strip()
                raise RuntimeError(f"the node on {hosts[site].name} has ended: {log_of[-1000:]}")
            facts = json.loads(line)
            if facts.get("event") == "ready":
                told[site] = facts["id"], facts["address"]
        return told

    def calls(self, runs: int, jobs: int, timeout_s: float, background: float, options: Sequence[str]) -> Iterator[Call]:
        """Let every site call every other, and itself: at the same time only pairs that have no host in common."""

        def call(pair: tuple[Site, Site]) -> Call:
            with contextlib.ExitStack() as flows:
                for host in (self._hosts[pair[0]][0], self._hosts[pair[1]][1]) if background else ():
                    flows.enter_context(_Flows(host, self._relay_address, background))
                return self._call(*pair, timeout_s, options)

        with ThreadPoolExecutor(jobs) as pool:
            for _, shift in itertools.product(range(runs), range(len(self._sites))):
                yield from pool.map(call, zip(self._sites, [*self._sites[shift:], *self._sites[:shift]], strict=True))

    def _call(self, caller: Site, called: Site, timeout_s: float, options: Sequence[str]) -> Call:
        words = [*INTERPEER, "ping", self._ids[called], "--json", *self._known, *options]
        began = time.monotonic()
        with tempfile.TemporaryDirectory(dir=self._folder) as state:
            try:
                done = self._hosts[caller][0].run([*words, "--state", state], check=False, timeout_s=timeout_s)
            except subprocess.TimeoutExpired:
                facts = {"ok": False, "error": f"no outcome within {timeout_s} s"}
            else:
                lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
                facts = json.loads(lines[-1]) if lines else {"ok": False, "error": done.stderr.strip()[-500:]}
        return Call(caller.name, called.name, expects_direct(caller, called), facts, time.monotonic() - began)


def _read_events(process: subprocess.Popen[str], site: Site | None, ready: queue.Queue[tuple[Site | None, str]]) -> None:
    """Hand over what a node prints, and then an empty line. It prints to the end, or the pipe would fill."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            ready.put((site, line))
    ready.put((site, ""))


def _end(process: subprocess.Popen[str], reader: threading.Thread) -> None:
    process.terminate()
    process.wait()
    reader.join()


class _Flows:
    """What else goes on behind a NAT: every so often another socket sends one packet, and gets a port outside for it."""

    def __init__(self, host: Host | OtherHost, address: str, per_s: float) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=host.call, args=(self._run, address, per_s))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self, address: str, per_s: float) -> None:
        while not self._stop.wait(1 / per_s):
            with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow:
                flow.sendto(b"background", (address, DISCARD))


# --- what it says ---


def expects_direct(caller: Site, called: Site) -> bool:
    """Tell whether a plain timed punch can work, or for IPv6 packets that open a filter."""
    if caller.ipv6 is not Ipv6.OFF and called.ipv6 is not Ipv6.OFF:
        return True
    if not (caller.ipv4 and called.ipv4) or caller.nat is called.nat is NatKind.CGN:
        return False  # without hairpin the two homes behind one carrier do not reach each other's outside
    return can_punch(caller.nat.behaviour, called.nat.behaviour)


def table(sites: Sequence[Site], calls: Sequence[Call]) -> list[str]:
    """Return the matrix in Markdown."""
    cells: dict[tuple[str, str], list[Call]] = {}
    for call in calls:
        cells.setdefault((call.caller, call.called), []).append(call)
    lines = ["| calls | " + " | ".join(site.name for site in sites) + " |", "| --- |" + " --- |" * len(sites)]
    for row in sites:
        texts = [cell(cells.get((row.name, column.name), [])) for column in sites]
        lines.append(f"| {row.name} | {' | '.join(texts)} |")
    return lines


def cell(calls: Sequence[Call]) -> str:
    """Return what stands in a cell, over all runs of its pair."""
    if not calls:
        return ""
    direct = [call for call in calls if call.is_direct]
    failed = [call for call in calls if not call.is_reached]
    if failed:
        return f"**not reached {_share(failed, calls)}**".replace(" **", "**")
    if not direct:
        text = str(calls[0].facts.get("path"))
    else:
        times = [call.facts["direct_s"] for call in direct if call.facts.get("direct_s") is not None]
        text = f"{statistics.median(times):.2f}" if times else "direct"
        if len(direct) < len(calls):
            text += f" ({_share(direct, calls)})"
    return f"**{text}**" if calls[0].is_direct_expected and len(direct) < len(calls) else text


def _share(some: Sequence[Call], calls: Sequence[Call]) -> str:
    return "" if len(some) == len(calls) == 1 else f"{len(some)}/{len(calls)}"


def summary(calls: Sequence[Call]) -> list[str]:
    """Return the figures beside the table."""
    easy, hard = ([call for call in calls if call.is_direct_expected is expected] for expected in (True, False))
    lines = [
        f"reached: {sum(call.is_reached for call in calls)} of {len(calls)}",
        f"direct where a plain timed punch can work: {sum(call.is_direct for call in easy)} of {len(easy)}",
        f"direct elsewhere: {sum(call.is_direct for call in hard)} of {len(hard)}",
    ]
    for name, what in (("first_byte_s", "first byte"), ("direct_s", "direct path")):
        times = sorted(call.facts[name] for call in calls if call.facts.get(name) is not None)
        if times:
            late = times[min(len(times) - 1, round(0.99 * len(times)))]
            lines.append(f"{what}: {statistics.median(times):.3f} s median, {late:.3f} s p99, {times[-1]:.3f} s at most")
    return lines
