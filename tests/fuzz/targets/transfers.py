"""files/1 from either side: a ProtocolError, or what can be acted on: names in the folder, requests in order, short texts."""

import posixpath
import struct

from interpeer._transfer import names
from interpeer._transfer import protocol as p
from interpeer.errors import ProtocolError
from tests.fuzz.source import Source

ENTRIES = [p.Entry(p.FOLDER, 0, 0, "d"), p.Entry(p.FILE, 5 * p.CHUNK_BYTES - 1, 0, "d/a"), p.Entry(p.FILE, 0, 0, "d/b")]


def feed(data: bytes) -> None:
    source = Source(data)
    try:
        {0: feed_listing, 1: feed_entries, 2: feed_requests, 3: feed_answer}[source.byte(4)](source)
    except ProtocolError as error:
        assert len(str(error)) < 1000


def feed_listing(source: Source) -> None:
    count, size = p.parse_listing_head(source.take(8).ljust(8, b"\0"))
    assert size <= p.MAX_LISTING_BYTES and count <= p.MAX_ENTRIES
    look_at(p.parse_entries(source.take(size), count))


def feed_entries(source: Source) -> None:
    """Entries whose lengths are right, so that the rest is looked at."""
    body, count = b"", 0
    while source:
        kind, size, name = source.byte(5), source.number(1 << 52), source.take(source.byte())
        body += struct.pack(">BQqH", kind, size, source.number(), len(name)) + name
        count += 1
    look_at(p.parse_entries(body, count))


def look_at(entries: list[p.Entry]) -> None:
    for entry in entries:
        assert posixpath.normpath(f"/folder/{entry.name}").startswith("/folder/") and "\0" not in entry.name
        assert 0 <= entry.size <= p.MAX_SIZE and p.bytes_in(entry.chunks, entry.size) == entry.size
    assert len({entry.name for entry in entries}) == len(entries)
    try:
        listing = p.write_listing(entries)
    except UnicodeEncodeError as error:
        raise AssertionError(f"a name that was taken cannot be sent on: {error}") from error
    assert p.parse_entries(listing[8:], len(entries)) == entries
    for entry in entries:
        try:
            names.check(entry.name, on_windows=True)
        except ValueError:
            continue


def feed_requests(source: Source) -> None:
    previous = -1
    while source:
        kind = source.byte()
        asked = p.parse_request(bytes([kind]) + source.take(p.rest_of_request(kind)), ENTRIES, previous)
        if isinstance(asked, p.Done):
            return
        assert previous < asked.index < len(ENTRIES) and asked.digests <= ENTRIES[asked.index].chunks
        previous = asked.index


def feed_answer(source: Source) -> None:
    answer = p.parse_answer(source.take(p.HEADER_BYTES))
    assert not isinstance(answer, p.Failed) or answer.text_bytes <= p.MAX_TEXT_BYTES
