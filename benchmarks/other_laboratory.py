"""The matrix of NATs in a laboratory that is not ours: what `interpeer.testing.natlab` does for the matrix, by a `natlab.py`.

An independent laboratory is a check of ours: its authors have read the same RFCs, and made other mistakes. It comes as one file
that is a command, takes sites in words ("a=port,delay=7.5@carrier"), and whose hosts are namespaces "LAB.HOST".
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from interpeer.testing import Link, NatKind
from interpeer.testing.natlab import Ipv6
from interpeer.testing.natlab._namespace import Namespace

WORDS = {
    NatKind.PUBLIC: "none",
    NatKind.SYMMETRIC_BLOCK: "symmetric,ports=20480-20991",
    NatKind.DOUBLE: "port",
    NatKind.CGN: "port",
    NatKind.CGN_HAIRPIN: "port",
}
"""Those that have other names there; all others have the same."""
CARRIERS = {NatKind.DOUBLE: "port", NatKind.CGN: "port", NatKind.CGN_HAIRPIN: "port,hairpin=on"}


@dataclass(frozen=True)
class OtherHost:
    """A host of that laboratory."""

    name: str
    address: str
    space: Namespace

    def popen(self, words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(self.space.command(words), **options)

    def run(self, words: Sequence[str], *, check: bool, timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.space.command(words), check=check, timeout=timeout_s, capture_output=True, text=True)

    def call(self, function: Any, *arguments: Any) -> Any:
        return self.space.call(function, *arguments)


class OtherLab:
    """Hosts behind NATs, by the words of another laboratory. Raises ValueError for what it cannot do."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._command = (sys.executable, str(path), "-L", name)
        self._carriers: set[str] = set()

    def __enter__(self) -> Self:
        self._tell("up", "nobody=none")  # it wants one host at least
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._tell("down")

    def _tell(self, *words: str) -> str:
        done = subprocess.run([*self._command, *words], capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"the other laboratory cannot {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def host(
        self, name: str, nat: NatKind | None = None, *, ipv4: bool = True, ipv6: Ipv6 = Ipv6.OFF, link: Link | None = None
    ) -> OtherHost:
        if not ipv4 or ipv6 is not Ipv6.OFF:
            raise ValueError("sites with IPv6 are for the laboratory of interpeer.testing")
        kind = NatKind.PUBLIC if nat is None else nat
        words = WORDS.get(kind, kind.value)
        if link is not None:
            words += f",delay={1000 * link.delay_s:g},loss={100 * link.loss:g}"
        if kind in CARRIERS:
            # two homes behind one carrier share it, two NATs in a row do not
            carrier = f"{kind.value}-of" if kind is not NatKind.DOUBLE else f"{name}-outer"
            if carrier not in self._carriers:
                self._tell("add", f"{carrier}:={CARRIERS[kind]}")
                self._carriers.add(carrier)
            words += f"@{carrier}"
        self._tell("add", f"{name}={words}")
        space = Namespace(f"{self.name}.{name}")
        (address,) = (
            one["local"]
            for link in json.loads(space.tell("ip", "-j", "-4", "addr", "show", "scope", "global"))
            for one in link["addr_info"]
        )
        return OtherHost(name, address, space)
