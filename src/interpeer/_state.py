"""The directory in which a node keeps what outlives its process."""

from __future__ import annotations

import sys
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import IO, Self, final

from interpeer.errors import LocalError


class StateLockedError(LocalError):
    """Say that another process uses the state directory."""


@final
class StateDirectory:
    """Hold a directory, made private (0700) at first use, for one process at a time."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = open(self.path / "lock", "ab")
        try:
            lock_file(file)
        except OSError:
            file.close()
            raise StateLockedError(f"the state directory {self.path} is in use by another process") from None
        self._lock = file
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


if sys.platform == "win32":
    import msvcrt

    def lock_file(file: IO[bytes] | FileIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock_file(file: IO[bytes] | FileIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
