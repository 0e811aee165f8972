"""Which names a receiver takes: none that leads out of its folder, or that the file system would take for something else.

A name is the path of a file or folder within what is sent, its parts separated by "/". On Windows more is refused than
elsewhere: "aux.c" is a fine name in most places, and a device there.
"""

from __future__ import annotations

import os
import re

MAX_NAME_BYTES = 4096
MAX_PART_BYTES = 255
"""What file systems take in one part of a path."""
MAX_PARTS = 128
PARTIAL_FOLDER = ".interpeer-partial"
"""Where a receiver keeps files that are not complete: nobody may send into it."""

_WINDOWS_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\..*)?", re.IGNORECASE | re.DOTALL)
_WINDOWS_FORBIDDEN = re.compile(r'[\x00-\x1f<>:"\\|?*]')


def encode(name: str) -> bytes:
    """Return a name's bytes; those of a name that is not UTF-8 are kept as they are."""
    return name.encode("utf-8", "surrogateescape")


def decode(name: bytes) -> str:
    """Return the name that `encode` has encoded."""
    return name.decode("utf-8", "surrogateescape")


def check(name: str, *, on_windows: bool = os.name == "nt") -> None:
    """Raise ValueError with the reason for a name that is not taken."""
    if len(encode(name)) > MAX_NAME_BYTES:
        raise ValueError(f"it is longer than {MAX_NAME_BYTES} bytes")
    parts = name.split("/")
    if len(parts) > MAX_PARTS:
        raise ValueError(f"it is deeper than {MAX_PARTS} folders")
    for part in parts:
        _check_part(part, on_windows)
    if parts[0].lower() == PARTIAL_FOLDER:
        raise ValueError(f"{PARTIAL_FOLDER} is where the receiver keeps what is not complete")


def _check_part(part: str, on_windows: bool) -> None:
    if not part:
        raise ValueError("it has an empty part, or starts at the root")
    if part in (".", ".."):
        raise ValueError(f"it has the part {part!r}, which leads elsewhere")
    if "\0" in part:
        raise ValueError("it has a NUL")
    if len(encode(part)) > MAX_PART_BYTES:
        raise ValueError(f"it has a part longer than {MAX_PART_BYTES} bytes")
    if on_windows:
        if _WINDOWS_DEVICE.fullmatch(part):
            raise ValueError(f"{part!r} is a device on Windows")
        if _WINDOWS_FORBIDDEN.search(part) or part[-1] in ". ":
            raise ValueError(f"{part!r} cannot be a name on Windows")
