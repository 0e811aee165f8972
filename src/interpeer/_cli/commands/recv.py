"""Receive what `interpeer send` offers, into the current folder or the one of -o.

Every chunk is checked against its digest, and a file appears under its name only when all of it is there. If a transfer
breaks, even by kill -9 or a crash, run the same command again: both ends compare what is there, and only the rest is sent.
Nothing that exists is replaced; a file that is there already and is the same is not sent again.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from interpeer._cli import run_async, settings
from interpeer._cli.door import knock, turned_away
from interpeer._cli.errors import DONE, FAILED, CommandError, Misuse
from interpeer._cli.output import JsonObject, Output, duration, printable, size
from interpeer._cli.peer import open_node, reach
from interpeer._cli.progress import Progress
from interpeer._cli.target import Target, parse_target
from interpeer._connection import Connection
from interpeer._transfer.protocol import FOLDER, PROTOCOL, Entry
from interpeer._transfer.receiving import Received, read_listing, receive
from interpeer._transfer.store import Store
from interpeer.errors import ConnectionClosed, InterpeerError

HELP = "receive what `send` offers"
REACHES_PEERS = True
DATA_ON_STDOUT = False

CODE_FAILED = 1
SHOWN_FAILURES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ticket", metavar="TICKET", help="what `interpeer send` has printed")
    parser.add_argument("-o", "--output", metavar="DIR", help="the folder to receive into (default: the current one)")


def run(options: argparse.Namespace, output: Output) -> int:
    target = parse_target(options.ticket)
    if options.output == "":
        raise Misuse('-o "" names no folder; the current one is "."')
    folder = None if options.output is None else Path(options.output)
    return run_async(_recv(target, folder, settings.resolve(options), output))


async def _recv(target: Target, folder: Path | None, resolved: settings.Settings, output: Output) -> int:
    store = Store(folder or Path())
    store.open()
    try:
        async with open_node(resolved, output, (PROTOCOL,), reaching=target.peer_id) as node:
            output.event("reaching", peer=str(target.peer_id))
            output.say(f"reaching {target.peer_id}")
            connection = await reach(node, target, PROTOCOL)
            async with connection:
                path = str(connection.path)
                output.event("connected", peer=str(target.peer_id), path=connection.path.kind, detail=path)
                output.say(f"reached by {path}, {connection.cipher}")
                try:
                    return await _transfer(connection, target, store, is_folder_named=folder is not None, output=output)
                except ConnectionClosed as error:
                    raise turned_away(error) from None
                except (OSError, InterpeerError) as error:
                    if connection.is_open:  # our own trouble: the sender should know as well
                        await connection.close(CODE_FAILED, _for_the_other_side(error))
                    raise
    finally:
        store.close()


async def _transfer(connection: Connection, target: Target, store: Store, *, is_folder_named: bool, output: Output) -> int:
    started = time.monotonic()
    stream = await knock(connection, target.secret)
    entries = await read_listing(stream)
    if not is_folder_named:
        _refuse_hidden(entries)
    total, files = sum(entry.size for entry in entries), sum(entry.kind != FOLDER for entry in entries)
    output.event("receiving", files=files, bytes=total)
    where = printable(str(store.folder.absolute()))
    output.say(f"receiving {files} file{'' if files == 1 else 's'}, {size(total)}, into {where}")
    async with Progress(output) as progress:
        transfer = progress.add("receiving", total, str(connection.path))
        received = await receive(stream, entries, store, transfer)
    kind, path = connection.path.kind, str(connection.path)
    await connection.close()
    return _tell(received, time.monotonic() - started, kind, path, output)


def _refuse_hidden(entries: list[Entry]) -> None:
    """Refuse to put hidden files into a folder that was not named: in a home directory they would be settings."""
    for entry in entries:
        if entry.name.startswith("."):
            raise CommandError(
                f"{entry.name.partition('/')[0]!r} is hidden, and the current folder may be one where that matters: "
                "name a folder with -o to receive it"
            )


def _tell(received: Received, seconds: float, kind: str, path: str, output: Output) -> int:
    failures = [f"{printable(name)}: {printable(why)}" for name, why in received.failures]
    facts: JsonObject = {"bytes": received.bytes, "seconds": seconds, "path": kind, "resumed_bytes": received.resumed_bytes}
    moved = received.bytes - received.resumed_bytes
    rate = f", {size(moved / max(seconds, 1e-9))}/s" if moved else ""
    text = f"received {size(received.bytes)} in {duration(seconds)}{rate}, {path}"
    if received.resumed_bytes:
        text += f"; {size(received.resumed_bytes)} of it was here already, and is right"
    if not failures:
        output.event("done", ok=True, **facts, files=received.files, reasons=[])
        output.say(text)
        return DONE
    message = f"{len(failures)} of {len(failures) + received.files} files not received: {failures[0]}"
    output.event("done", ok=False, **facts, files=received.files, error=message, reasons=failures)
    output.say(text)
    for failure in failures[1:SHOWN_FAILURES]:
        output.say(f"not received: {failure}")
    if not output.is_json:
        output.error(message)
    return FAILED


def _for_the_other_side(error: Exception) -> str:
    """Return a reason that tells the sender what happened, and nothing of this machine's paths."""
    if isinstance(error, OSError) and error.strerror:
        return f"the receiver cannot go on: {error.strerror}"
    return f"the receiver cannot go on: {type(error).__name__}"
