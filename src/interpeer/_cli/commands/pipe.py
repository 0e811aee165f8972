"""Connect standard input and output of two machines, as netcat does, over one encrypted stream.

Without TARGET it listens, and prints a ticket on standard error; with the ticket it calls. The end of standard input ends
that direction alone, and the command ends when both directions have. A terminal ends with the other side; and where nothing
ever comes from the other side, because its input stays open, the command waits a few seconds for a first answer (--wait).

    interpeer pipe < backup.tar              on one machine, and on the other
    interpeer pipe TICKET | tar x
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
import time
from contextlib import suppress
from typing import final

from interpeer._cli import run_async, settings
from interpeer._cli.descriptors import Reader, Writer
from interpeer._cli.door import CODE_BUSY, Door, knock, turned_away
from interpeer._cli.errors import DONE, CommandError, Misuse
from interpeer._cli.output import Output, duration, size
from interpeer._cli.peer import PING, answer_callers, echo_datagrams, open_node, reach, settled_address
from interpeer._cli.progress import Progress
from interpeer._cli.target import Target, parse_id, parse_target
from interpeer._connection import Connection
from interpeer._stream import Stream
from interpeer.errors import ConnectionClosed

HELP = "netcat: standard input and output over one encrypted stream"
REACHES_PEERS = True
DATA_ON_STDOUT = True

PROTOCOL = "pipe/1"
PARTING_S = 5.0
WAIT_S = 5
CODE_OUTPUT_CLOSED = 1
"""Why a side reads no more: whoever reads its standard output has gone."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the ticket of the other side; without it, listen")
    parser.add_argument("--allow", metavar="ID", action="append", default=[], help="when listening: let this peer in")
    parser.add_argument("--wait", metavar="S", default=str(WAIT_S), help=f"see above (default: {WAIT_S} seconds; inf: for ever)")


def run(options: argparse.Namespace, output: Output) -> int:
    resolved = settings.resolve(options)
    if sys.stdout is None:
        raise CommandError("standard output is closed: there is nowhere to put what comes")
    ends = _Ends(output, _wait_s(options.wait))
    if options.target is None:
        return run_async(_listen(Door([parse_id(text) for text in options.allow]), ends, resolved, output))
    if options.allow:
        raise Misuse("--allow is for the side that listens: leave TARGET or --allow out")
    return run_async(_call(parse_target(options.target), ends, resolved, output))


async def _call(target: Target, ends: _Ends, resolved: settings.Settings, output: Output) -> int:
    async with open_node(resolved, output, (PROTOCOL,), reaching=target.peer_id) as node:
        connection = await reach(node, target, PROTOCOL)
        async with connection:
            try:
                await ends.join(await knock(connection, target.secret))
            except ConnectionClosed as error:
                raise turned_away(error) from None
    return DONE


async def _listen(door: Door, ends: _Ends, resolved: settings.Settings, output: Output) -> int:
    async with open_node(resolved, output, (PROTOCOL, PING), door.allowed) as node:
        ticket = door.ticket(await settled_address(node))
        output.event("ready", ticket=ticket, id=str(node.id))
        output.say(f"the other side runs: interpeer pipe {ticket}")
        listener = _Listener(door, ends, output)
        answering = asyncio.create_task(answer_callers(node, {PROTOCOL: listener.serve, PING: echo_datagrams}))
        try:
            await asyncio.wait({answering, listener.finished}, return_when=asyncio.FIRST_COMPLETED)
            if listener.finished.done():
                listener.finished.result()
            else:
                answering.result()
        finally:
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
    return DONE


@final
class _Listener:
    """Join standard input and output with the first caller that may come in."""

    def __init__(self, door: Door, ends: _Ends, output: Output) -> None:
        self.finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._door = door
        self._ends = ends
        self._output = output
        self._is_taken = False

    async def serve(self, connection: Connection) -> None:
        stream = await self._door.admit(connection)
        if stream is None:
            peer, path = str(connection.peer_id), str(connection.path)
            self._output.event("refused", peer=peer, detail=path)
            self._output.say(f"refused {peer} ({path}): no valid ticket")
        elif self._is_taken:
            await connection.close(CODE_BUSY, "somebody else is connected already")
        else:
            self._is_taken = True
            try:
                if await self._ends.join(stream):
                    with suppress(TimeoutError):  # the caller closes first, when it has all that we sent
                        async with asyncio.timeout(PARTING_S):
                            await connection.wait_closed()
                await connection.close()
            except Exception as error:
                self.finished.set_exception(error)
            else:
                self.finished.set_result(None)


@final
class _Ends:
    """Standard input and output, to be joined with a stream."""

    def __init__(self, output: Output, wait_s: float | None) -> None:
        self._output = output
        self._wait_s = wait_s
        self._sent = 0
        self._received = 0

    async def join(self, stream: Stream) -> bool:
        """Carry both directions until they end; return whether the stream has ended properly on both sides.

        Raises OSError for our descriptors, and the connection's errors."""
        connection = stream.connection
        path = str(connection.path)
        self._output.event("connected", peer=str(connection.peer_id), path=connection.path.kind, detail=path)
        self._output.say(f"connected to {connection.peer_id} by {path}, {connection.cipher}")
        started = time.monotonic()
        async with Progress(self._output) as progress:
            self._transfer = progress.add("pipe", None, path)
            sending = asyncio.create_task(self._send(stream))
            receiving = asyncio.create_task(self._receive(stream))
            closing = asyncio.create_task(connection.wait_closed())
            try:
                have_both_ended = await self._until_both_end(sending, receiving, closing, stream)
            finally:
                for task in (sending, receiving, closing):
                    task.cancel()
                await asyncio.gather(sending, receiving, closing, return_exceptions=True)
        self._tell(time.monotonic() - started, connection)
        return have_both_ended

    async def _until_both_end(
        self, sending: asyncio.Task[None], receiving: asyncio.Task[None], closing: asyncio.Task[None], stream: Stream
    ) -> bool:
        """Return when nothing more can come or go; whether the stream has ended properly on both sides."""
        first = asyncio.FIRST_COMPLETED
        await asyncio.wait({sending, receiving, closing}, return_when=first)
        if _is_well(sending) and not self._received:
            await asyncio.wait({receiving, closing}, return_when=first, timeout=self._wait_s)
            if not (self._received or receiving.done() or closing.done()):
                return False  # the other input is open, and has nothing to say
        if not sending.done() or _is_well(sending):
            await receiving  # what has come is still written when the other side has closed
        if not sending.done() and _is_terminal():
            sending.cancel()
            await _finish(stream)
            return True
        await asyncio.wait({sending, closing}, return_when=first)
        if sending.done():
            sending.result()
        elif self._sent > stream._handle.bytes_acked:
            raise stream.connection._error()
        return sending.done()

    async def _send(self, stream: Stream) -> None:
        if sys.stdin is not None:
            reader = Reader(0)
            while data := await reader.read():
                await stream.write(data)
                self._sent += len(data)
                self._transfer.advance(len(data))
        await _finish(stream)

    async def _receive(self, stream: Stream) -> None:
        writer = Writer(1)
        try:
            while True:
                buffer = await writer.buffer()
                count = await stream.readinto(buffer)
                writer.write(buffer, count)
                if not count:
                    break
                self._received += count
                self._transfer.advance(count)
            await writer.close()
        except OSError:
            stream.stop(CODE_OUTPUT_CLOSED)
            raise

    def _tell(self, seconds: float, connection: Connection) -> None:
        self._output.event("done", ok=True, sent=self._sent, received=self._received, seconds=seconds, path=connection.path.kind)
        self._output.say(f"sent {size(self._sent)}, received {size(self._received)} in {duration(seconds)}, {connection.path}")


async def _finish(stream: Stream) -> None:
    """End our direction; a caller that has read it to the end may close before it has acknowledged that."""
    try:
        await stream.finish()
    except ConnectionClosed as error:
        if error.code:
            raise


def _is_well(task: asyncio.Task[None]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _is_terminal() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()


def _wait_s(text: str) -> float | None:
    """Read a time to wait; None is for ever."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not seconds >= 0:
        raise Misuse(f"--wait takes a number of seconds, or inf, not {text!r}")
    return None if seconds == math.inf else seconds
