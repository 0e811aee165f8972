"""A bad link between real processes: a relay for UDP in a process of its own, written in C and compiled at first use.

    with UdpLink(("127.0.0.1", 4433), up=Link(delay_s=0.05, loss=0.01), down=Link(delay_s=0.05)) as link:
        ...dial link.host, link.port...
        link.set(loss=0.1)
        link.stats()["up"]["lost"]

Whoever sends to the link's port reaches the target, through a socket of the link's for each source; answers come back the same
way. "up" is the direction to the target. The settings are interpeer.testing's and mean the same; CoDel is not among them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self, cast

from interpeer.testing import Link
from interpeer.testing.natlab._wire import compiled, settings

HERE = Path(__file__).parent
CACHE = HERE.parents[1] / ".cache" / "udplink"
IPV4_OVERHEAD_BYTES, IPV6_OVERHEAD_BYTES = 28, 48


@functools.cache
def program() -> Path:
    """Return the compiled relay."""
    return compiled(HERE / "udplink.c", CACHE)


class UdpLink:
    """A running relay. Leaving the `with` block ends it.

    target: where it relays to. up, down: the directions to the target and back; `down` is like `up` if it is not given.
    overhead_bytes: what each packet counts beyond its payload, None for the headers of IP and UDP. listen: where it listens.
    also: more targets, each with a port of its own in `ports`, whose packets share the two directions."""

    def __init__(
        self,
        target: tuple[str, int],
        up: Link | None = None,
        down: Link | None = None,
        *,
        seed: int = 0,
        overhead_bytes: int | None = None,
        listen: str | None = None,
        also: Iterable[tuple[str, int]] = (),
    ) -> None:
        host, _port = target
        is_ipv6 = ":" in host
        self.host = listen or ("::1" if is_ipv6 else "127.0.0.1")
        self._overhead_bytes = overhead_bytes
        if overhead_bytes is None:
            self._overhead_bytes = IPV6_OVERHEAD_BYTES if is_ipv6 else IPV4_OVERHEAD_BYTES
        self._links = {"up": up or Link(), "down": down or up or Link()}
        lines = [self._setting(side, link) for side, link in self._links.items()]
        self._process = subprocess.Popen(
            [str(program()), self.host, str(seed % 2**62), *(str(word) for one in (target, *also) for word in one)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.ports: tuple[int, ...] = tuple(self._read()["ports"])
            self.port = self.ports[0]
            for line in lines:
                self._ask(line)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the relay."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.wait()

    def set(self, link: Link | None = None, *, side: str | None = None, **changes: Any) -> None:
        """Change some settings, or all of them, of "up" or "down" or else of both."""
        for one in [side] if side else ["up", "down"]:
            self._links[one] = (link or self._links[one]).replace(**changes)
            self._ask(self._setting(one, self._links[one]))

    def schedule(
        self, steps: Iterable[tuple[float, Mapping[str, Any]]], *, every_s: float | None = None, side: str | None = None
    ) -> None:
        """Change settings at times from now on, once or again and again, as `interpeer.testing.Wire.schedule` does."""
        for time_s, changes in steps:
            for one in [side] if side else ["up", "down"]:
                self._after(time_s, every_s, self._setting(one, self._links[one].replace(**changes)))

    def rebind(self, *, address: bool = False, after_s: float = 0.0, every_s: float | None = None) -> None:
        """Let packets to the target come from other ports, or another address of 127.0.0.0/8, as behind a NAT that forgets."""
        self._after(after_s, every_s, f"rebind {'address' if address else 'port'}")

    def drop(self, side: str, first: int, last: int) -> None:
        """Lose a direction's packets from the first to the last, by their number from 1."""
        self._ask(f"set {side} drop_first={first} drop_last={last}")

    def clear(self) -> None:
        """Forget what `schedule` and `rebind` have planned."""
        self._ask("clear")

    def stats(self) -> dict[str, Any]:
        """Return the counters: of each direction, and of all of it."""
        return self._ask("stats")

    def _setting(self, side: str, link: Link) -> str:
        assert self._overhead_bytes is not None
        return f"set {side} {settings(link, self._overhead_bytes)}"

    def _after(self, after_s: float, every_s: float | None, command: str) -> None:
        self._ask(f"after {round(after_s * 1e9)} {round((every_s or 0) * 1e9)} {command}")

    def _ask(self, line: str) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the link has ended with {self._process.wait()}")
        answer = cast(dict[str, Any], json.loads(line))
        if "error" in answer:
            raise ValueError(answer["error"])
        return answer
