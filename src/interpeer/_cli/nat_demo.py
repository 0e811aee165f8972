"""The demonstration of reaching behind NATs: two hosts, a NAT each, and a public peer, in network namespaces of this machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from interpeer._cli.errors import DONE, FAILED, CommandError, Misuse
from interpeer._cli.output import JsonObject, Output, printable
from interpeer.testing import Link, NatKind
from interpeer.testing.natlab import Host, Lab, LabError

LINK = Link(delay_s=0.015)
"""Of each host's access: a round trip between the two takes 60 ms."""
PORT = 4433
TUNNEL = "tls://{}:443"
PINGS = 8
READY_S = 20.0
SETTLE_S = 10.0


def parse_kinds(text: str) -> tuple[NatKind, NatKind]:
    """Parse what --nat was given: one kind for both hosts, or one for each. Raises Misuse."""
    names = text.split(",")
    known = [kind.value for kind in NatKind]
    takes = "--nat takes one kind or two, as in port,symmetric"
    if len(names) > 2:
        raise Misuse(f"{takes}, not {len(names)}: {text!r}")
    for name in names:
        if name not in known:
            raise Misuse(f"{takes}; there is none called {name!r}: there are {', '.join(known)}")
    return NatKind(names[0]), NatKind(names[-1])


def run(kind_a: NatKind, kind_b: NatKind, output: Output) -> int:
    """Build the hosts, connect them, and tell how it went. Raises CommandError where that cannot be done."""
    try:
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="interpeer-demo-")))
            lab = stack.enter_context(Lab("demo"))
            output.say(f"a public peer, and two hosts behind NATs: a is {kind_a}, b is {kind_b}")
            helper = lab.host("helper")
            a = lab.host("a", kind_a, link=LINK)
            b = lab.host("b", kind_b, link=LINK)
            return _meet(stack, folder, helper, a, b, output)
    except (LabError, PermissionError) as error:
        raise CommandError(f"no laboratory can be built here: {printable(str(error))}") from None


def _meet(stack: ExitStack, folder: Path, helper: Host, a: Host, b: Host, output: Output) -> int:
    first = _up(stack, folder, helper, "--listen", f"{helper.address}:{PORT}", "--tunnel", TUNNEL.format(helper.address))
    known = ("--bootstrap", str(first["address"]))
    second = _up(stack, folder, b, *known)
    output.say(f"b is {second['id']}; a calls it by this id alone, and knows the public peer")
    command = _command(folder, a, "ping", str(second["id"]), "-c", str(PINGS), *known)
    done = a.run(command, check=False, timeout_s=READY_S + SETTLE_S)
    try:
        told: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, IndexError):
        raise CommandError(f"the call failed: {printable(done.stderr.strip()[-500:]) or 'it said nothing'}") from None
    _tell(told, output)
    return DONE if told["ok"] else FAILED


def _command(folder: Path, host: Host, *words: str) -> list[str]:
    common = ("--json", "--no-lan", "--network", "demo", "--state", str(folder / host.name))
    return [sys.executable, "-m", "interpeer", words[0], *words[1:], *common]


def _up(stack: ExitStack, folder: Path, host: Host, *more: str) -> dict[str, Any]:
    """Start a node; return its first line."""
    errors: IO[str] = stack.enter_context((folder / f"{host.name}.log").open("w+"))
    process = host.popen(_command(folder, host, "up", *more), stdout=subprocess.PIPE, stderr=errors, text=True)
    stack.callback(_end, process)
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        errors.seek(0)
        raise CommandError(f"the node on {host.name} did not start: {printable(errors.read().strip()[-500:])}")
    ready: dict[str, Any] = json.loads(line)
    return ready


def _end(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _tell(told: JsonObject, output: Output) -> None:
    output.json_result(told)
    if output.is_json:
        return
    if not told["ok"]:
        output.error(str(told.get("error")), tuple(told["reasons"]))
        return
    output.answer(f"connected in {_ms(told['connected_s'])}, first byte after {_ms(told['first_byte_s'])}")
    if told["direct_s"] is not None:
        output.answer(f"direct after {_ms(told['direct_s'])}: {told['detail']}")
        for reason in told["reasons"]:
            output.answer(f"  no better path: {reason}")
    else:
        output.answer(f"relayed: {told['detail']}")
        for reason in told["reasons"]:
            output.answer(f"  not direct: {reason}")


def _ms(seconds: float | None) -> str:
    return "no answer" if seconds is None else f"{1000 * seconds:.0f} ms"
