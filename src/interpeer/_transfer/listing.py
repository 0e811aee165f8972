"""What a sender offers: the files and folders that it was given, with everything in them.

Symbolic links are followed: what they point to is sent in their place, so a receiver never makes a link. But nobody shall give
away by a forgotten link what is not in the folder that was named: links that lead out of it are left out, as are those that
lead nowhere or back into a folder that holds them, and whatever is neither file nor folder. The caller is told of each.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import final

from interpeer._transfer import names
from interpeer._transfer.protocol import EXECUTABLE, FILE, FOLDER, MAX_ENTRIES, Entry, write_listing

OnSkip = Callable[[str, str], None]
"""Called with the path of what is left out, and why."""


@final
@dataclass(frozen=True, slots=True)
class Listing:
    """Hold what is offered, and where it is here."""

    entries: list[Entry]
    paths: list[str]
    """The path of each entry on this machine."""
    encoded: bytes
    """The LISTING message."""

    @property
    def total_bytes(self) -> int:
        return sum(entry.size for entry in self.entries)

    @property
    def files(self) -> int:
        return sum(entry.kind != FOLDER for entry in self.entries)

    @property
    def title(self) -> str:
        """What people call it: the first name, and how many more."""
        top = [entry.name for entry in self.entries if "/" not in entry.name]
        return top[0] if len(top) == 1 else f"{top[0]} and {len(top) - 1} more"


def collect(paths: Iterable[str], on_skip: OnSkip) -> Listing:
    """Walk files and folders. Raises ValueError for names that cannot be sent, OSError for what cannot be read."""
    walk = _Walk(on_skip)
    for given in paths:
        path = os.path.abspath(given)
        name = os.path.basename(path)
        if not name:
            raise ValueError(f"{given}: the root has no name to send it under; name what is in it")
        if name in walk.top_names:
            raise ValueError(f"{given}: there are two of the name {name!r}; send them one after the other")
        walk.top_names.add(name)
        walk.top = os.path.join(os.path.realpath(path), "")
        if not walk.add(path, name, ()):
            raise ValueError(f"{given} is neither a file nor a folder")
    return Listing(walk.entries, walk.paths, write_listing(walk.entries))


class _Walk:
    """Collect entries, folders before what is in them, in the order of their names."""

    def __init__(self, on_skip: OnSkip) -> None:
        self.entries: list[Entry] = []
        self.paths: list[str] = []
        self.top_names: set[str] = set()
        self.top = ""
        """The real path of the folder that is walked, with a separator at its end."""
        self._on_skip = on_skip

    def add(self, path: str, name: str, above: tuple[tuple[int, int], ...]) -> bool:
        """Add what is at a path; `above` are the folders that it is in. False if there is nothing to be sent."""
        try:
            names.check(name, on_windows=False)
        except ValueError as error:
            raise ValueError(f"{path} cannot be sent: {error}") from None
        is_link = bool(above) and os.path.islink(path)
        try:
            status = os.stat(path)
        except OSError as error:
            if not is_link:
                raise
            self._on_skip(path, f"a link that leads nowhere ({error.strerror})")
            return False
        if is_link and not os.path.join(os.path.realpath(path), "").startswith(self.top):
            self._on_skip(path, "a link that leads out of the folder; name what it points to if that is to be sent too")
            return False
        if stat.S_ISDIR(status.st_mode):
            return self._add_folder(path, name, status, above)
        if not stat.S_ISREG(status.st_mode):
            if above:
                self._on_skip(path, "neither a file nor a folder")
            return False
        if not os.access(path, os.R_OK):
            raise PermissionError(13, "cannot be read", path)
        kind = EXECUTABLE if status.st_mode & stat.S_IXUSR and os.name == "posix" else FILE
        self._append(Entry(kind, status.st_size, status.st_mtime_ns, name), path)
        return True

    def _add_folder(self, path: str, name: str, status: os.stat_result, above: tuple[tuple[int, int], ...]) -> bool:
        this = (status.st_dev, status.st_ino)
        if this in above:
            self._on_skip(path, "a link back into a folder that holds it")
            return False
        self._append(Entry(FOLDER, 0, status.st_mtime_ns, name), path)
        with os.scandir(path) as found:
            inside = sorted(one.name for one in found)
        for one in inside:
            self.add(os.path.join(path, one), f"{name}/{one}", (*above, this))
        return True

    def _append(self, entry: Entry, path: str) -> None:
        if len(self.entries) == MAX_ENTRIES:
            raise ValueError(f"there are more than {MAX_ENTRIES} files and folders: pack them first")
        self.entries.append(entry)
        self.paths.append(path)
