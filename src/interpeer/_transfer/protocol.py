"""files/1: how a receiver gets files and folders from a sender.

The receiver calls, and opens one stream with the 16 bytes that every service asks for (`interpeer._cli.door`). Numbers are
big-endian. A file is a row of chunks of 1 MiB, the last one shorter; a digest is the BLAKE2b-256 of a chunk.

    sender -> receiver, first
        LISTING     entries u32, bytes u32, then the entries in so many bytes
        an entry    kind u8 (1 folder, 2 file, 3 executable file), size u64, mtime in ns i64, length u16, name (UTF-8)

    receiver -> sender, as often as it likes, files in the order of the listing
        REQUEST     1 u8, entry u32, question u8, digests u32, then the digests of the first chunks that it has
        DONE        2 u8, failures u32: nothing more is wanted; then the stream ends

    sender -> receiver, an answer for each request, in the same order; each starts with a header of 33 bytes
        FOUND       1 u8, entry u32, good u32, zeros: of these digests so many from the first on are right;
                    unless it was a question only, then comes a CHUNK for each of the others
        CHUNK       2 u8, digest; then the chunk
        FAILED      3 u8, length u16, zeros; then why this file cannot be (further) sent: in place of FOUND or of a CHUNK

So both agree on what of an earlier attempt is right before anything is added to it, whatever has happened to the file on
either side, and nothing needs to be remembered but the partial file itself.

What is limited, since the other side may be hostile: entries and bytes of a listing, lengths of names and texts, digests
(no more than the file has chunks), order of requests. Parsers raise ProtocolError and read nothing beyond what they are given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import final

from interpeer._transfer import names
from interpeer.errors import ProtocolError

PROTOCOL = "files/1"
CHUNK_BYTES = 1 << 20
DIGEST_BYTES = 32
HEADER_BYTES = 1 + DIGEST_BYTES
MAX_ENTRIES = 1 << 20
MAX_LISTING_BYTES = 1 << 27
MAX_SIZE = 1 << 50
"""A file of a petabyte: more is a mistake, and no sum of sizes overflows anything."""
MAX_TEXT_BYTES = 1024

FOLDER, FILE, EXECUTABLE = 1, 2, 3
REQUEST, DONE = 1, 2
FOUND, CHUNK, FAILED = 1, 2, 3

LISTING_HEAD = struct.Struct(">II")
_ENTRY = struct.Struct(">BQqH")
_REQUEST = struct.Struct(">BIBI")
_DONE = struct.Struct(">BI")
_FOUND = struct.Struct(">BII24x")
_FAILED = struct.Struct(">BH30x")


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """Name one file or folder of a listing."""

    kind: int
    size: int
    mtime_ns: int
    name: str

    @property
    def chunks(self) -> int:
        """How many chunks it has."""
        return chunks_in(self.size)


@final
@dataclass(frozen=True, slots=True)
class Request:
    """Ask for a file, or only how much of it is right."""

    index: int
    is_question: bool
    digests: int


@final
@dataclass(frozen=True, slots=True)
class Done:
    """Say that nothing more is wanted."""

    failures: int


@final
@dataclass(frozen=True, slots=True)
class Found:
    """Say how many leading chunks are right."""

    index: int
    good: int


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """Announce a chunk."""

    digest: bytes


@final
@dataclass(frozen=True, slots=True)
class Failed:
    """Announce why a file cannot be sent: a text of so many bytes."""

    text_bytes: int


def chunks_in(size: int) -> int:
    """Return how many chunks so many bytes make."""
    return -(-size // CHUNK_BYTES)


def bytes_in(chunks: int, size: int) -> int:
    """Return how many bytes the first chunks of a file of some size have."""
    return min(chunks * CHUNK_BYTES, size)


# --- the listing ---


def write_listing(entries: Iterable[Entry]) -> bytes:
    """Return a LISTING. Raises ValueError for one that no receiver would take."""
    parts: list[bytes] = []
    for entry in entries:
        name = names.encode(entry.name)
        parts.append(_ENTRY.pack(entry.kind, entry.size, entry.mtime_ns, len(name)) + name)
    body = b"".join(parts)
    if len(parts) > MAX_ENTRIES or len(body) > MAX_LISTING_BYTES:
        raise ValueError(f"{len(parts)} files and folders are too many for one listing (at most {MAX_ENTRIES}): pack them first")
    return LISTING_HEAD.pack(len(parts), len(body)) + body


def parse_listing_head(head: bytes) -> tuple[int, int]:
    """Return the number of entries and of bytes that follow. Raises ProtocolError."""
    count, size = LISTING_HEAD.unpack(head)
    if count > MAX_ENTRIES or size > MAX_LISTING_BYTES or size < count * (_ENTRY.size + 1):
        raise ProtocolError(f"the sender announces a listing of {count} entries in {size} bytes, which cannot be")
    return count, size


def parse_entries(body: bytes, count: int) -> list[Entry]:
    """Parse the entries of a LISTING. Raises ProtocolError; what it returns is safe to create below one folder."""
    entries: list[Entry] = []
    at = 0
    for _ in range(count):
        if at + _ENTRY.size > len(body):
            raise ProtocolError("the sender's listing is cut")
        kind, size, mtime_ns, length = _ENTRY.unpack_from(body, at)
        at += _ENTRY.size
        if at + length > len(body):
            raise ProtocolError("the sender's listing is cut within a name")
        entries.append(_entry(kind, size, mtime_ns, body[at : at + length]))
        at += length
    if at != len(body):
        raise ProtocolError(f"the sender's listing has {len(body) - at} bytes too many")
    _check_together(entries)
    return entries


def _entry(kind: int, size: int, mtime_ns: int, raw_name: bytes) -> Entry:
    name = names.decode(raw_name)
    try:
        names.check(name)
    except ValueError as error:
        raise ProtocolError(f"the sender offers a name that is not taken, {name[:80]!r}: {error}") from None
    if kind not in (FOLDER, FILE, EXECUTABLE) or size > MAX_SIZE or (kind == FOLDER and size):
        raise ProtocolError(f"the sender offers {name[:80]!r} of kind {kind} and {size} bytes, which cannot be")
    return Entry(kind, size, mtime_ns, name)


def _check_together(entries: list[Entry]) -> None:
    """Refuse a listing in which a name stands twice, or a file holds other files."""
    files = {entry.name for entry in entries if entry.kind != FOLDER}
    if len({entry.name for entry in entries}) != len(entries):
        raise ProtocolError("the sender's listing has a name twice")
    for entry in entries:
        at = entry.name.rfind("/")
        while at > 0:
            if entry.name[:at] in files:
                raise ProtocolError(f"the sender's listing has {entry.name[:80]!r} below a file")
            at = entry.name.rfind("/", 0, at)


# --- requests ---

REQUEST_REST_BYTES = _REQUEST.size - 1
DONE_REST_BYTES = _DONE.size - 1


def write_request(index: int, *, is_question: bool, digests: int) -> bytes:
    """Return the head of a REQUEST; the digests follow it."""
    return _REQUEST.pack(REQUEST, index, is_question, digests)


def write_done(failures: int) -> bytes:
    """Return a DONE."""
    return _DONE.pack(DONE, failures)


def rest_of_request(kind: int) -> int:
    """Return how many bytes follow the first one of what a receiver says. Raises ProtocolError."""
    if kind not in (REQUEST, DONE):
        raise ProtocolError(f"the receiver sends a message of the unknown kind {kind}")
    return REQUEST_REST_BYTES if kind == REQUEST else DONE_REST_BYTES


def parse_request(head: bytes, entries: Sequence[Entry], previous: int) -> Request | Done:
    """Parse a REQUEST without its digests, or a DONE; `previous` is the entry last asked for. Raises ProtocolError."""
    if len(head) != 1 + rest_of_request(head[0]):
        raise ProtocolError("the receiver's message is cut")
    if head[0] == DONE:
        return Done(_DONE.unpack(head)[1])
    index: int
    _, index, question, digests = _REQUEST.unpack(head)
    if not previous < index < len(entries) or entries[index].kind == FOLDER or question > 1:
        raise ProtocolError(f"the receiver asks for entry {index} after {previous}, which cannot be")
    if digests > entries[index].chunks:
        raise ProtocolError(f"the receiver shows {digests} digests of a file of {entries[index].chunks} chunks")
    return Request(index, bool(question), digests)


# --- answers ---


def write_found(index: int, good: int) -> bytes:
    """Return a FOUND."""
    return _FOUND.pack(FOUND, index, good)


def write_chunk_header(digest: bytes) -> bytes:
    """Return the header of a CHUNK."""
    return bytes([CHUNK]) + digest


def write_failed(text: str) -> bytes:
    """Return a FAILED with its text, shortened if need be."""
    raw = text.encode("utf-8", "replace")[:MAX_TEXT_BYTES]
    return _FAILED.pack(FAILED, len(raw)) + raw


def parse_answer(header: bytes) -> Found | Chunk | Failed:
    """Parse the header of an answer. Raises ProtocolError."""
    if len(header) != HEADER_BYTES:
        raise ProtocolError("the sender's message is cut")
    if header[0] == CHUNK:
        return Chunk(header[1:])
    if header[0] == FOUND:
        return Found(*_FOUND.unpack(header)[1:])
    if header[0] == FAILED:
        (_, length) = _FAILED.unpack(header)
        if length > MAX_TEXT_BYTES:
            raise ProtocolError(f"the sender announces a text of {length} bytes")
        return Failed(length)
    raise ProtocolError(f"the sender sends a message of the unknown kind {header[0]}")
