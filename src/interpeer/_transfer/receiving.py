"""Receive what a sender lists: show it what is there, take what it sends, put it in its place.

Three things go on at once: a thread digests what earlier attempts have left and asks for the rest, the event loop takes
answers, and another thread checks chunks and writes them.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import FileIO
from typing import final

from interpeer._stream import Stream
from interpeer._transfer import Meter
from interpeer._transfer import protocol as p
from interpeer._transfer.store import Conflict, Earlier, Store
from interpeer._transfer.worker import BUFFERS, Buffer, Worker
from interpeer.errors import ProtocolError

DIGESTS_AT_ONCE = 64


@final
@dataclass(slots=True)
class Received:
    """Say what was received."""

    files: int = 0
    """Files of the listing that are in their place now."""
    bytes: int = 0
    """Of these files."""
    resumed_bytes: int = 0
    """Of these there were before."""
    failures: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Names of files that are not in their place, and why."""


async def read_listing(stream: Stream) -> list[p.Entry]:
    """Read what the sender offers. Raises ProtocolError, and the connection's error when it is lost."""
    try:
        count, size = p.parse_listing_head(await stream.readexactly(p.LISTING_HEAD.size))
        return p.parse_entries(await stream.readexactly(size), count)
    except EOFError:
        raise ProtocolError("the sender ended in the middle of its listing") from None


async def receive(stream: Stream, entries: list[p.Entry], store: Store, meter: Meter) -> Received:
    """Receive everything listed, as far as it is not there. Raises OSError, ProtocolError, and the connection's error."""
    meter.total = sum(entry.size for entry in entries)
    if missing := store.bytes_missing(entries):
        raise OSError(errno.ENOSPC, f"no room: {missing} bytes are missing", str(store.folder))
    try:
        store.make_folders(entries)
    except Conflict as conflict:
        raise OSError(str(conflict)) from None
    receiving = _Receiving(stream, entries, store, meter)
    await receiving.run()
    return receiving.received


# what the asking thread tells


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request, ready to be written up to its digests."""

    index: int
    digests: int
    is_question: bool


@dataclass(frozen=True, slots=True)
class _Digests:
    data: bytes
    bytes: int


@dataclass(frozen=True, slots=True)
class _Impossible:
    index: int
    reason: str


# what the writing thread is told, and tells


@dataclass(frozen=True, slots=True)
class _Begin:
    index: int
    good: int


@dataclass(frozen=True, slots=True)
class _Write:
    buffer: Buffer
    size: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class _End:
    is_complete: bool


@dataclass(frozen=True, slots=True)
class _Written:
    buffer: Buffer
    size: int


@dataclass(frozen=True, slots=True)
class _Complete:
    index: int


_Order = _Begin | _Write | _End
_Result = _Written | _Complete | _Impossible


@final
class _Receiving:
    """One transfer."""

    def __init__(self, stream: Stream, entries: list[p.Entry], store: Store, meter: Meter) -> None:
        self.received = Received()
        self._stream = stream
        self._entries = entries
        self._store = store
        self._meter = meter
        self._asked: asyncio.Queue[_Asked | None] = asyncio.Queue()
        self._free = [Buffer() for _ in range(BUFFERS)]

    async def run(self) -> None:
        async with Worker(self._look) as asker, Worker(self._write) as writer:
            asking = asyncio.create_task(self._ask(asker))
            try:
                await self._take_answers(writer, asking)
                await asking
                writer.put_end()
                while (result := await writer.get()) is not None:
                    self._note(result)
            finally:
                asking.cancel()
        await self._stream.write(p.write_done(len(self.received.failures)))
        await self._stream.finish()

    # --- asking ---

    async def _ask(self, asker: Worker[int, _Asked | _Digests | _Impossible]) -> None:
        """Write requests for all files, as fast as what is there of them can be digested."""
        for index, entry in enumerate(self._entries):
            if entry.kind != p.FOLDER:
                asker.put(index)
        asker.put_end()
        try:
            while (told := await asker.get()) is not None:
                if isinstance(told, _Impossible):
                    self._fail(told.index, told.reason)
                elif isinstance(told, _Digests):
                    self._meter.checked += told.bytes
                    await self._stream.write(told.data)
                else:
                    self._asked.put_nowait(told)
                    await self._stream.write(p.write_request(told.index, is_question=told.is_question, digests=told.digests))
        finally:
            self._asked.put_nowait(None)

    def _look(self, indices: Iterator[int]) -> Iterator[_Asked | _Digests | _Impossible]:
        """Look at what is there of each file; on a thread."""
        buffer = Buffer()
        for index in indices:
            try:
                earlier = self._store.look(self._entries[index])
            except Conflict as conflict:
                yield _Impossible(index, str(conflict))
                continue
            if earlier.file is not None and not earlier.chunks:
                earlier.file.close()
            yield _Asked(index, earlier.chunks, earlier.is_in_place)
            if earlier.file is not None and earlier.chunks:
                with earlier.file as file:
                    yield from _digests(file, earlier, self._entries[index], buffer)

    # --- taking answers ---

    async def _take_answers(self, writer: Worker[_Order, _Result], asking: asyncio.Task[None]) -> None:
        while (asked := await self._asked.get()) is not None:
            answer = await self._read_answer()
            if isinstance(answer, p.Failed):
                self._fail(asked.index, await self._read_text(answer))
                continue
            if not isinstance(answer, p.Found) or answer.index != asked.index or answer.good > asked.digests:
                raise ProtocolError("the sender's answer does not fit the request")
            if asked.is_question:
                self._judge(asked, answer.good)
            else:
                await self._take_chunks(writer, asked.index, answer.good)
            if asking.done() and not asking.cancelled() and asking.exception() is not None:
                return  # which is raised where it is awaited

    def _judge(self, asked: _Asked, good: int) -> None:
        """Note whether a file that was there already is the one that is sent."""
        entry = self._entries[asked.index]
        if good == entry.chunks:
            self._skip(entry.size)
            self._complete(asked.index)
        else:
            self._fail(asked.index, "another file of that name and size exists: move it away, or receive into another folder")

    async def _take_chunks(self, writer: Worker[_Order, _Result], index: int, good: int) -> None:
        entry = self._entries[index]
        self._skip(p.bytes_in(good, entry.size))
        writer.put(_Begin(index, good))
        for number in range(good, entry.chunks):
            answer = await self._read_answer()
            if isinstance(answer, p.Failed):
                self._fail(index, await self._read_text(answer))
                writer.put(_End(False))
                return
            if not isinstance(answer, p.Chunk):
                raise ProtocolError("the sender's answer does not fit the request")
            while not self._free:
                if (result := await writer.get()) is None:
                    raise ProtocolError("the writer ended too early")
                self._note(result)
            buffer = self._free.pop()
            size = p.bytes_in(number + 1, entry.size) - p.bytes_in(number, entry.size)
            if await self._stream._fill(buffer.chunk, size) < size:
                raise ProtocolError("the sender ended in the middle of a file")
            writer.put(_Write(buffer, size, answer.digest))
        writer.put(_End(True))

    async def _read_answer(self) -> p.Found | p.Chunk | p.Failed:
        try:
            return p.parse_answer(await self._stream.readexactly(p.HEADER_BYTES))
        except EOFError:
            raise ProtocolError("the sender ended before everything was sent") from None

    async def _read_text(self, failed: p.Failed) -> str:
        return (await self._stream.readexactly(failed.text_bytes)).decode("utf-8", "replace")

    # --- writing ---

    def _write(self, items: Iterator[_Order]) -> Iterator[_Result]:
        """Check chunks and write them; on a thread, with another one for the digests."""
        file: FileIO | None = None
        index = -1
        digester = ThreadPoolExecutor(1, "interpeer digests")
        try:
            for item in items:
                if isinstance(item, _Write):
                    digest = digester.submit(item.buffer.digest, item.size)
                    if file is not None:
                        self._write_chunk(file, item.buffer.chunk[: item.size])
                    if digest.result() != item.digest:  # what is written counts for nothing: the next attempt compares
                        raise ProtocolError(f"a chunk of {self._entries[index].name!r} does not match its digest")
                    yield _Written(item.buffer, item.size if file is not None else 0)
                    continue
                try:
                    if isinstance(item, _Begin):
                        index = item.index
                        file = self._store.begin(self._entries[index], item.good)
                    elif file is not None and item.is_complete:
                        self._store.complete(self._entries[index], file)
                        yield _Complete(index)
                    elif file is not None:
                        file.close()
                except Conflict as conflict:
                    file = None
                    yield _Impossible(index, str(conflict))
        finally:
            digester.shutdown()
            if file is not None:
                file.close()

    def _write_chunk(self, file: FileIO, data: memoryview) -> None:
        try:
            while data:
                data = data[file.write(data) :]
        except OSError as error:  # which names nothing, since it is about a descriptor
            raise OSError(error.errno, f"{error.strerror} (what has come is kept)", str(self._store.folder)) from None

    # --- what has come of it ---

    def _note(self, result: _Result) -> None:
        if isinstance(result, _Written):
            self._free.append(result.buffer)
            self._meter.advance(result.size)
        elif isinstance(result, _Complete):
            self._complete(result.index)
        else:
            self._fail(result.index, result.reason)

    def _skip(self, count: int) -> None:
        self.received.resumed_bytes += count
        self._meter.skip(count)

    def _complete(self, index: int) -> None:
        self.received.files += 1
        self.received.bytes += self._entries[index].size

    def _fail(self, index: int, reason: str) -> None:
        self.received.failures.append((self._entries[index].name, reason))


def _digests(file: FileIO, earlier: Earlier, entry: p.Entry, buffer: Buffer) -> Iterator[_Digests]:
    """Yield the digests of what is there, some at a time, and close the file before the last ones: the answer to these makes
    the writer open it, and it is locked."""
    collected, compared = b"", 0
    for number in range(earlier.chunks):
        size = p.bytes_in(number + 1, entry.size) - p.bytes_in(number, entry.size)
        done = 0
        while done < size:
            count = file.readinto(buffer.chunk[done:size])
            if not count:
                raise OSError(errno.EIO, "has become shorter while it was compared", entry.name)
            done += count
        collected += buffer.digest(size)
        compared += size
        if number == earlier.chunks - 1:
            file.close()
        if len(collected) == DIGESTS_AT_ONCE * p.DIGEST_BYTES or number == earlier.chunks - 1:
            yield _Digests(collected, compared)
            collected, compared = b"", 0
