"""Whether a gateway still knows its mappings: it counts the seconds since it has begun to (RFC 6887, section 8.5)."""

from __future__ import annotations

from typing import final

TOLERANCE_S = 2
"""What rounding to seconds, twice, may make of a moment."""


@final
class Epoch:
    """Compare the gateway's clock with ours. `is_exact`: one that runs fast is suspicious, too (PCP; not NAT-PMP)."""

    def __init__(self, *, is_exact: bool) -> None:
        self._is_exact = is_exact
        self._server_s: int | None = None
        self._client_s = 0.0

    def has_kept(self, server_s: int, now_s: float) -> bool:
        """Take the number of an answer; return False when the gateway must have lost what it knew."""
        before, then_s = self._server_s, self._client_s
        self._server_s, self._client_s = server_s, now_s
        if before is None:
            return True
        client, server = now_s - then_s, server_s - before
        if server < -1:
            return False
        if server + TOLERANCE_S < client - client / 16:
            return False
        return not self._is_exact or client + TOLERANCE_S >= server - server / 16
