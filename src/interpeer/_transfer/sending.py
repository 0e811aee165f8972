"""Serve one receiver: tell what there is, compare what it has, send what it lacks."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from typing import final

from interpeer._stream import Stream
from interpeer._transfer import Meter
from interpeer._transfer import protocol as p
from interpeer._transfer.listing import Listing
from interpeer._transfer.worker import Buffer, Pool, Stopped, Worker
from interpeer.errors import ProtocolError

MAX_REQUESTS = 256
"""Requests read ahead; a receiver that has more waits, and so costs no more memory."""
DIGESTS_AT_ONCE = 256


@final
@dataclass(frozen=True, slots=True)
class Sent:
    """Say how a receiver was served."""

    bytes: int
    """Of all files that it has now."""
    resumed_bytes: int
    """Of these it had before."""
    failures: int
    """Files that it could not get or keep."""


# what the thread is asked for
@dataclass(frozen=True, slots=True)
class _Begin:
    index: int


@dataclass(frozen=True, slots=True)
class _Compare:
    digests: bytes


@dataclass(frozen=True, slots=True)
class _Send:
    is_question: bool


_Item = _Begin | _Compare | _Send


@dataclass(frozen=True, slots=True)
class _Frame:
    """Bytes to be written, and what they mean to the meter."""

    data: bytes | memoryview
    buffer: Buffer | None = None
    moved: int = 0
    skipped: int = 0
    compared: int = 0
    ends_request: bool = False


async def serve(stream: Stream, listing: Listing, meter: Meter) -> Sent:
    """Serve one receiver until it is done. Raises ProtocolError, and the connection's error when it is lost."""
    meter.total = listing.total_bytes
    await stream.write(listing.encoded)
    pool = Pool()
    reader = _Reader(listing, pool)
    slots = asyncio.Semaphore(MAX_REQUESTS)
    async with Worker(reader.frames, pool.close) as worker:
        requests = asyncio.create_task(_take_requests(stream, listing, worker, slots))
        try:
            sent, resumed = await _send_frames(stream, worker, pool, slots, meter, requests)
            failures = await requests
        finally:
            requests.cancel()
    return Sent(sent + resumed, resumed, failures)


async def _take_requests(stream: Stream, listing: Listing, worker: Worker[_Item, _Frame], slots: asyncio.Semaphore) -> int:
    """Hand what the receiver asks for to the thread; return how many failures it counts when it is done."""
    previous = -1
    try:
        while True:
            kind = await stream.readexactly(1)
            asked = p.parse_request(kind + await stream.readexactly(p.rest_of_request(kind[0])), listing.entries, previous)
            if isinstance(asked, p.Done):
                return asked.failures
            previous = asked.index
            await slots.acquire()
            worker.put(_Begin(asked.index))
            for left in range(asked.digests, 0, -DIGESTS_AT_ONCE):
                count = min(left, DIGESTS_AT_ONCE)
                worker.put(_Compare(await stream.readexactly(count * p.DIGEST_BYTES)))
            worker.put(_Send(asked.is_question))
    except EOFError:
        raise ProtocolError("the receiver ended before it was done") from None
    finally:
        worker.put_end()


async def _send_frames(
    stream: Stream,
    worker: Worker[_Item, _Frame],
    pool: Pool,
    slots: asyncio.Semaphore,
    meter: Meter,
    requests: asyncio.Task[int],
) -> tuple[int, int]:
    """Write what the thread has made until there is no more; return the bytes sent, and those that were not needed."""
    sent = resumed = 0
    while (frame := await worker.get()) is not None:
        if frame.data:
            await stream.write(frame.data)
        if frame.buffer is not None:
            pool.give_back(frame.buffer)
        if frame.ends_request:
            slots.release()
        sent += frame.moved
        resumed += frame.skipped
        meter.checked += frame.compared
        if frame.skipped:
            meter.skip(frame.skipped)
        meter.advance(frame.moved)
        if requests.done() and requests.exception() is not None:
            break
    return sent, resumed


@final
class _Reader:
    """Read files and digest them, on a thread."""

    def __init__(self, listing: Listing, pool: Pool) -> None:
        self._listing = listing
        self._pool = pool

    def frames(self, items: Iterator[_Item]) -> Iterator[_Frame]:
        """Yield what is to be written for each request."""
        for item in items:
            assert isinstance(item, _Begin)
            yield from self._one_file(item.index, items)

    def _one_file(self, index: int, items: Iterator[_Item]) -> Iterator[_Frame]:
        entry = self._listing.entries[index]
        file: FileIO | None = None
        good, is_right, error = 0, True, ""
        try:
            try:
                file = _open(self._listing.paths[index], entry)
            except OSError as failure:
                error = _reason(failure)
            while not isinstance(item := _next(items), _Send):
                assert isinstance(item, _Compare)
                for at in range(0, len(item.digests), p.DIGEST_BYTES):
                    if file is not None and is_right:
                        size, is_right = self._compare(file, entry, good, item.digests[at : at + p.DIGEST_BYTES])
                        good += is_right
                        yield _Frame(b"", compared=size)
            if file is None:
                yield _Frame(p.write_failed(error), ends_request=True)
            elif item.is_question:
                skipped = entry.size if good == entry.chunks else 0
                yield _Frame(p.write_found(index, good), skipped=skipped, ends_request=True)
            else:
                yield _Frame(p.write_found(index, good), skipped=p.bytes_in(good, entry.size))
                yield from self._chunks(file, entry, good)
        finally:
            if file is not None:
                file.close()

    def _compare(self, file: FileIO, entry: p.Entry, number: int, digest: bytes) -> tuple[int, bool]:
        """Tell how large a chunk is, and whether it has this digest."""
        buffer = self._pool.take()
        try:
            size = _read_chunk(file, buffer, entry, number)
            return size, buffer.digest(size) == digest
        except OSError:
            return 0, False  # sending it fails in the same way, and says why
        finally:
            self._pool.give_back(buffer)

    def _chunks(self, file: FileIO, entry: p.Entry, good: int) -> Iterator[_Frame]:
        """Yield the chunks from one on; a failure ends them."""
        try:
            file.seek(good * p.CHUNK_BYTES)
            for number in range(good, entry.chunks):
                buffer = self._pool.take()
                try:
                    size = _read_chunk(file, buffer, entry, number)
                except OSError:
                    self._pool.give_back(buffer)
                    raise
                buffer.view[: p.HEADER_BYTES] = p.write_chunk_header(buffer.digest(size))
                yield _Frame(buffer.view[: p.HEADER_BYTES + size], buffer, moved=size)
        except OSError as failure:
            yield _Frame(p.write_failed(_reason(failure)))
        yield _Frame(b"", ends_request=True)


def _next(items: Iterator[_Item]) -> _Item:
    """Return the next part of a request. Raises Stopped when the receiver ended in the middle of it."""
    item = next(items, None)
    if item is None:
        raise Stopped
    return item


def _open(path: str, entry: p.Entry) -> FileIO:
    """Open a file that was listed, if it still is the same."""
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    file = FileIO(descriptor, "rb")
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size or status.st_mtime_ns != entry.mtime_ns:
        file.close()
        raise OSError("it has changed since it was offered")
    return file


def _read_chunk(file: FileIO, buffer: Buffer, entry: p.Entry, number: int) -> int:
    """Fill a buffer with a chunk; return its size. Raises OSError when the file has become shorter."""
    size = p.bytes_in(number + 1, entry.size) - p.bytes_in(number, entry.size)
    room, done = buffer.chunk, 0
    while done < size:
        count = file.readinto(room[done:size])
        if not count:
            raise OSError("it has changed since it was offered")
        done += count
    return size


def _reason(failure: OSError) -> str:
    return failure.strerror or str(failure)
