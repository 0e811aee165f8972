"""Offer files and folders to whoever has the ticket; runs until interrupted, or with --once until they were received.

The receiver runs `interpeer recv TICKET`. A broken transfer goes on where it was: run recv again. Links are followed, so what
they point to is sent; those that lead out of the folder are left out and named, and so is what is neither file nor folder.
With --allow only those peers may receive, and the ticket has no secret: they are told apart by their keys (`interpeer id`).
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress
from typing import final

from interpeer._cli import run_async, settings
from interpeer._cli.door import Door
from interpeer._cli.errors import DONE, CommandError, Misuse, explain
from interpeer._cli.output import Output, duration, printable, size
from interpeer._cli.peer import PING, answer_callers, echo_datagrams, open_node, settled_address
from interpeer._cli.progress import Progress
from interpeer._cli.target import parse_id
from interpeer._connection import Connection
from interpeer._transfer.listing import Listing, collect
from interpeer._transfer.protocol import PROTOCOL
from interpeer._transfer.sending import Sent, serve
from interpeer.errors import InterpeerError, ProtocolError

HELP = "offer files and folders to whoever has the ticket"
REACHES_PEERS = True
DATA_ON_STDOUT = False

SILENCE_S = 1.0
"""After so long of looking through folders people are told what takes the time."""
PARTING_S = 5.0
CODE_FAILED = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", metavar="PATH", nargs="+", help="a file or a folder")
    parser.add_argument("--once", action="store_true", help="end when everything was received once")
    parser.add_argument("--allow", metavar="ID", action="append", default=[], help="let this peer in; may be repeated")


def run(options: argparse.Namespace, output: Output) -> int:
    if "" in options.paths:
        raise Misuse('"" names no file and no folder; the current folder is "."')
    door = Door([parse_id(text) for text in options.allow])
    return run_async(_send(options.paths, options.once, door, settings.resolve(options), output))


async def _send(paths: list[str], is_once: bool, door: Door, resolved: settings.Settings, output: Output) -> int:
    listing, left_out = await _collect(paths, output)
    what = f"{printable(listing.title)}: {_count(listing.files)}, {size(listing.total_bytes)}"
    async with open_node(resolved, output, (PROTOCOL, PING), door.allowed) as node, Progress(output) as progress:
        ticket = door.ticket(await settled_address(node))
        facts = {"files": listing.files, "bytes": listing.total_bytes, "left_out": left_out}
        output.event("ready", ticket=ticket, id=str(node.id), **facts)
        output.say(what)
        if not output.is_json:
            output.answer(ticket)
        output.say("receive it with: interpeer recv TICKET" + ("" if is_once else "   (ends with Ctrl-C)"))
        sender = _Sender(listing, door, progress, output)
        serving = asyncio.create_task(answer_callers(node, {PROTOCOL: sender.serve, PING: echo_datagrams}))
        finished = asyncio.create_task(sender.received.wait())
        try:
            await asyncio.wait({serving, finished} if is_once else {serving}, return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                serving.result()
        finally:
            serving.cancel()
            finished.cancel()
            await asyncio.gather(serving, finished, return_exceptions=True)
    return DONE


async def _collect(paths: list[str], output: Output) -> tuple[Listing, list[str]]:
    """Look through what is to be sent; say so if it takes long. Return what is left out, too."""
    skipped: list[tuple[str, str]] = []
    looking = asyncio.create_task(asyncio.to_thread(collect, paths, lambda path, why: skipped.append((path, why))))
    while not (await asyncio.wait({looking}, timeout=SILENCE_S))[0]:
        output.note("looking", "looking through what is to be sent ...")
    try:
        listing = looking.result()
    except ValueError as error:
        raise CommandError(str(error)) from None
    left_out = [f"{path}: {why}" for path, why in skipped]
    for one in left_out if not output.is_json else ():
        output.warn(f"left out: {one}")
    return listing, left_out


@final
class _Sender:
    """Serve receivers, several at once."""

    def __init__(self, listing: Listing, door: Door, progress: Progress, output: Output) -> None:
        self.received = asyncio.Event()
        """Set when somebody has received everything."""
        self._listing = listing
        self._door = door
        self._progress = progress
        self._output = output

    async def serve(self, connection: Connection) -> None:
        stream = await self._door.admit(connection)
        peer, path = str(connection.peer_id), str(connection.path)
        if stream is None:
            self._output.event("refused", peer=peer, detail=path)
            self._output.say(f"refused {peer} ({path}): no valid ticket")
            return
        self._output.event("connected", peer=peer, path=connection.path.kind, detail=path)
        started = time.monotonic()
        transfer = self._progress.add(f"to {peer[:8]}", self._listing.total_bytes, path, peer=peer)
        try:
            sent = await serve(stream, self._listing, transfer)
            with suppress(TimeoutError):  # the receiver closes when it has our acknowledgement
                async with asyncio.timeout(PARTING_S):
                    await connection.wait_closed()
        except (InterpeerError, OSError) as error:
            self._output.event("failed", ok=False, peer=peer, error=explain(error)[0], reasons=list(explain(error)[1]))
            self._output.say(f"to {peer[:8]}: failed after {size(transfer.done)}: {printable(explain(error)[0])}")
            if isinstance(error, ProtocolError):
                await connection.close(CODE_FAILED, str(error))
            return
        finally:
            self._progress.remove(transfer)
        self._tell(sent, peer, connection, time.monotonic() - started)

    def _tell(self, sent: Sent, peer: str, connection: Connection, seconds: float) -> None:
        is_ok = sent.failures == 0
        self._output.event(
            "sent",
            ok=is_ok,
            peer=peer,
            bytes=sent.bytes,
            seconds=seconds,
            path=connection.path.kind,
            resumed_bytes=sent.resumed_bytes,
            failures=sent.failures,
        )
        moved = sent.bytes - sent.resumed_bytes
        rate = f", {size(moved / max(seconds, 1e-9))}/s" if moved else ""
        text = f"to {peer[:8]}: {size(sent.bytes)} received in {duration(seconds)}{rate}"
        if sent.resumed_bytes:
            text += f" ({size(sent.resumed_bytes)} of it was there)"
        self._output.say(text + f", {connection.path}" + ("" if is_ok else f"; {sent.failures} files are missing there"))
        if is_ok:
            self.received.set()


def _count(files: int) -> str:
    return "1 file" if files == 1 else f"{files} files"
