"""Build a laboratory from a shell:

    python -m interpeer.testing.natlab [--name NAME] HOST[=KIND[,SETTING=NUMBER...]] ... [-- COMMAND ...]

It is there until interrupted. With a command, which runs on the first host, it is there until that ends; {HOST} in the command
stands for a host's public address. Settings are those of interpeer.testing.Link.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, NoReturn

from interpeer.testing._link import Link
from interpeer.testing._natkind import NatKind
from interpeer.testing.natlab._lab import Lab
from interpeer.testing.natlab._machine import Host
from interpeer.testing.natlab._namespace import LabError


def _leave(number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; return the status to exit with."""
    at = arguments.index("--") if "--" in arguments else len(arguments)
    own, command = arguments[:at], arguments[at + 1 :]
    parser = argparse.ArgumentParser(
        prog="python -m interpeer.testing.natlab",
        description="Build hosts behind NATs, and keep them until interrupted, or until the command has ended.",
        epilog=f"kinds: {', '.join(NatKind)}; settings are those of interpeer.testing.Link, as in a=port,delay_s=0.02",
    )
    parser.add_argument("--name", default="lab", help="of the laboratory; those with different names run side by side")
    parser.add_argument("host", nargs="+", metavar="HOST[=KIND[,SETTING=NUMBER...]]", help="the kind is public if it is left out")
    options = parser.parse_args(own)
    signal.signal(signal.SIGTERM, _leave)  # so that all of it is removed then, too
    try:
        sites = [_site(text) for text in options.host]
        with Lab(options.name) as lab:
            hosts = [lab.host(name, kind, link=link) for name, kind, link in sites]
            return _run(hosts, command) if command else _wait(hosts, [kind for _name, kind, _link in sites])
    except (LabError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


def _site(text: str) -> tuple[str, NatKind, Link | None]:
    """Read HOST=KIND,SETTING=NUMBER."""
    name, _, rest = text.partition("=")
    kind, *settings = rest.split(",") if rest else ["public"]
    if kind not in set(NatKind):
        raise ValueError(f"{kind!r} is not a kind of NAT: there are {', '.join(NatKind)}")
    numbers: dict[str, Any] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in Link.__dataclass_fields__:
            raise ValueError(f"{key!r} is not a setting of a link: there are {', '.join(Link.__dataclass_fields__)}")
        numbers[key] = int(value) if value.isdecimal() else float(value)
    return name, NatKind(kind), Link(**numbers) if numbers else None


def _run(hosts: Sequence[Host], command: Sequence[str]) -> int:
    words = list(command)
    for host in hosts:
        words = [word.replace(f"{{{host.name}}}", host.public_address or host.address6 or "") for word in words]
    return hosts[0].popen(words).wait()


def _wait(hosts: Sequence[Host], kinds: Sequence[NatKind]) -> int:
    width = max(len(host.name) for host in hosts)
    for host, kind in zip(hosts, kinds, strict=True):
        where = f"{host.address or '':15}  outside {host.public_address or '':15}"
        print(f"{host.name:{width}}  {kind:15}  {where}  ip netns exec {host.namespace} ...", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return 0
    raise AssertionError("nobody sets this event")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
