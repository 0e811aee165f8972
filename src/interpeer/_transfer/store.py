"""Where a receiver puts what it gets: partial files aside, whole ones in their place by an atomic rename.

Partial files are kept in one folder beside the others (`names.PARTIAL_FOLDER`), under a digest of their name, so that the next
attempt finds them, whatever ended this one. What is in them is right as far as its digests say, and their size says how far
they are: they are only ever appended to. Nothing that exists is replaced, and nothing is written through a link.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import final

from interpeer._identity import sync_directory
from interpeer._state import lock_file
from interpeer._transfer import names
from interpeer._transfer.protocol import CHUNK_BYTES, EXECUTABLE, FOLDER, Entry, bytes_in, chunks_in

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class Conflict(Exception):
    """Say why one file cannot be put in its place; the others can."""


@final
@dataclass(frozen=True, slots=True)
class Earlier:
    """Say what is there of a file already."""

    file: FileIO | None
    """The file to read it from; the reader closes it. None: nothing is there."""
    chunks: int
    """Whole chunks in it, the last, shorter one included if the file is as long as it should be."""
    is_in_place: bool
    """Whether it is not a partial file but one in its final place: then it is right as a whole, or in the way."""


@final
class Store:
    """Put files into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._partial_folder = folder / names.PARTIAL_FOLDER
        self._real_folders: set[str] = set()

    def open(self) -> None:
        """Make the folder, and find out whether it can be written to. Raises OSError."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._partial_folder.mkdir(exist_ok=True)
        if not _is_real_folder(self._partial_folder):
            raise NotADirectoryError(20, "is not a folder of its own", str(self._partial_folder))
        probe = self._partial_folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()

    def close(self) -> None:
        """Remove the folder of partial files, if there are none."""
        try:
            self._partial_folder.rmdir()
        except OSError:
            pass

    def bytes_missing(self, entries: Iterable[Entry]) -> int:
        """Return how much room is missing for what is not there yet; 0 if there is enough."""
        needed = 0
        for entry in entries:
            if entry.kind != FOLDER and not os.path.lexists(self._place(entry)):
                needed += entry.size - min(entry.size, _size(self._partial(entry)))
        return max(0, needed - shutil.disk_usage(self.folder).free)

    def make_folders(self, entries: Iterable[Entry]) -> None:
        """Make the folders, those without files included. Raises OSError, or Conflict for a name that is taken."""
        for entry in entries:
            if entry.kind == FOLDER:
                self._make_folder(entry.name)

    def look(self, entry: Entry) -> Earlier:
        """Make the folder of a file, and find out what is there of it. Raises OSError, or Conflict when its place is taken by
        something else, or leads elsewhere."""
        self._make_folder(os.path.dirname(entry.name))
        place = self._place(entry)
        if os.path.lexists(place):
            status = os.lstat(place)
            if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size:
                raise Conflict("something else of that name exists: move it away, or receive into another folder")
            return Earlier(_open(place, os.O_RDONLY), entry.chunks, True)
        try:
            file = _open(self._partial(entry), os.O_RDWR)
        except FileNotFoundError:
            return Earlier(None, 0, False)
        _lock(file)
        size = min(os.fstat(file.fileno()).st_size, entry.size)
        whole = chunks_in(size) if size == entry.size else size // CHUNK_BYTES
        return Earlier(file, whole, False)

    def begin(self, entry: Entry, good: int) -> FileIO:
        """Open a partial file behind its good chunks. Raises OSError, or Conflict when another process writes it."""
        self._partial_folder.mkdir(exist_ok=True)  # another process that receives into this folder may have removed it
        file = _open(self._partial(entry), os.O_RDWR | os.O_CREAT)
        try:
            _lock(file)
            start = bytes_in(good, entry.size)
            if os.fstat(file.fileno()).st_size < start:
                raise Conflict("another process has changed what was there of it: receive it again")
            file.truncate(start)
            file.seek(start)
        except BaseException:
            file.close()
            raise
        return file

    def complete(self, entry: Entry, file: FileIO) -> None:
        """Put a whole file in its place, and close it. Raises OSError, or Conflict when the place is taken meanwhile.

        What is in its place is on the disk: a crash of the machine leaves a partial file, or a whole one."""
        if entry.kind == EXECUTABLE and os.name == "posix":
            mode = os.fstat(file.fileno()).st_mode
            os.fchmod(file.fileno(), stat.S_IMODE(mode) | (mode & 0o444) >> 2)
        os.fsync(file.fileno())
        file.close()
        partial, place = self._partial(entry), self._place(entry)
        try:
            os.utime(partial, ns=(entry.mtime_ns, entry.mtime_ns))
        except (OSError, OverflowError):
            pass  # a time that this file system cannot hold; the bytes are right
        if os.path.lexists(place):
            raise Conflict("something of that name has come into being meanwhile; what was received is kept for the next attempt")
        os.rename(partial, place)
        sync_directory(Path(place).parent)

    def _place(self, entry: Entry) -> str:
        return os.path.join(self.folder, *entry.name.split("/"))

    def _partial(self, entry: Entry) -> str:
        digest = hashlib.blake2b(names.encode(entry.name), digest_size=16, person=b"interpeer part").hexdigest()
        return os.path.join(self._partial_folder, f"{digest}.part")

    def _make_folder(self, name: str) -> None:
        """Make a folder and those above it; each must be one, and no link."""
        if not name or name in self._real_folders:
            return
        self._make_folder(os.path.dirname(name))
        path = os.path.join(self.folder, *name.split("/"))
        try:
            os.mkdir(path)
        except FileExistsError:
            if not _is_real_folder(path):
                raise Conflict(f"{path} exists, and is not a folder") from None
        self._real_folders.add(name)


def _open(path: str, flags: int) -> FileIO:
    """Open a plain file without buffers and without following a link."""
    descriptor = os.open(path, flags | _NO_FOLLOW | getattr(os, "O_NONBLOCK", 0), 0o666)
    return FileIO(descriptor, "r+b" if flags & os.O_RDWR else "rb")


def _lock(file: FileIO) -> None:
    try:
        lock_file(file)
    except OSError:
        file.close()
        raise Conflict("another process is receiving it") from None


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:
        return 0


def _is_real_folder(path: str | Path) -> bool:
    status = os.lstat(path)
    is_junction = getattr(status, "st_reparse_tag", 0) == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", -1)
    return stat.S_ISDIR(status.st_mode) and not is_junction
