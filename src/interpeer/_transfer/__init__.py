"""Files and folders from one peer to another: resumable, every byte verified. The protocol is in `protocol`.

    names       which names a receiver takes
    protocol    the messages of files/1, and their parsers
    worker      blocking work on a thread of its own, with reused buffers and their digests
    listing     what a sender offers: walks files and folders
    sending     one receiver served
    store       where a receiver puts files: partial ones aside, whole ones by an atomic rename
    receiving   one listing received

Nothing here prints; a `Meter` is told how far things are.
"""

from __future__ import annotations

from typing import Protocol


class Meter(Protocol):
    """Whoever wants to know how far a transfer is."""

    total: int | None
    """Bytes in all; set when it is known."""
    checked: int
    """Bytes of earlier attempts that were compared."""

    def advance(self, count: int) -> None:
        """Count bytes that have moved."""

    def skip(self, count: int) -> None:
        """Count bytes that were there already."""
