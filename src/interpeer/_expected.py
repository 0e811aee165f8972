"""What a node waits for beside its connections: answers to STUN, and probes, by their tokens (docs/spec, chapters 22 to 24)."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

from interpeer import errors
from interpeer._address import CoreEndpoint
from interpeer._core import control, engine

Answered = Callable[[bytes, CoreEndpoint, bytes], object]
"""Takes the data, where they came from, and the local address they came to."""


@final
class Expected:
    """Give each datagram that was expected to whoever expects it."""

    def __init__(self, engines: list[engine.Engine]) -> None:
        self._engines = engines
        self._by_token: dict[bytes, Answered] = {}

    def add(self, token: bytes, answered: Answered) -> None:
        """Give `answered` each STUN answer (to a transaction, 12 bytes) or probe (with a token, 8 bytes) until `remove`.

        Raises LocalError when too many are expected."""
        for core in self._engines:
            try:
                control.expect(core, token)
            except errors.LocalError:
                self.remove(token)
                raise
        self._by_token[token] = answered

    def remove(self, token: bytes) -> None:
        """Take no more of them; harmless when repeated."""
        self._by_token.pop(token, None)
        for core in self._engines:
            control.unexpect(core, token)

    def handle(self, data: bytes, source: CoreEndpoint, local: bytes) -> None:
        """Take a datagram that the core has let through."""
        answered = self._by_token.get(data[2:10] if data[0] & 0x40 else data[8:20])
        if answered is not None:
            answered(data, source, local)

    def __contains__(self, token: bytes) -> bool:
        return token in self._by_token

    def __len__(self) -> int:
        return len(self._by_token)
