"""Reach a peer, say by which path and why, and measure round trips.

TARGET is a ticket, an address with an id (ID@192.0.2.1:4433,[2001:db8::1]:4433), or a bare id. Every command that listens
answers pings. Exit code 0 if at least one was answered.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import final

from interpeer._cli import run_async, settings
from interpeer._cli.errors import DONE, FAILED, Misuse, explain
from interpeer._cli.output import JsonObject, Output, duration, printable
from interpeer._cli.peer import PING, open_node, reach
from interpeer._cli.target import Target, parse_target
from interpeer._connection import Connection
from interpeer.errors import NetworkError, Refused

HELP = "reach a peer, say by which path, and measure round trips"
REACHES_PEERS = True
DATA_ON_STDOUT = False

COUNT = 4
INTERVAL_S = 0.2
SETTLE_S = 8.0
"""How long to wait, after the last ping, for a direct path or for the reasons why there is none."""
LOOK_S = 0.05
"""Between looks at whether a tunnel was left."""
PATIENCE_S = 2.0
"""After so long without its answer a ping is lost; the path is several times slower than any on this planet then."""
NUMBER_BYTES = 8
PAYLOAD_BYTES = 64


@final
@dataclass(slots=True)
class Pings:
    """Collect what became of the pings of one run."""

    sent: int = 0
    first_byte_at: float | None = None
    direct_at: float | None = None
    rtts_ms: dict[int, float] = field(default_factory=dict[int, float])

    @property
    def lost(self) -> int:
        return self.sent - len(self.rtts_ms)

    def rtt_ms(self) -> dict[str, float] | None:
        """Return the shortest, mean and longest round trip; None without any."""
        times = list(self.rtts_ms.values())
        if not times:
            return None
        return {"min": min(times), "avg": sum(times) / len(times), "max": max(times)}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="whom to ping")
    parser.add_argument("-c", "--count", metavar="N", default=str(COUNT), help=f"so many pings (default: {COUNT})")


def run(options: argparse.Namespace, output: Output) -> int:
    target = parse_target(options.target)
    if not options.count.isascii() or not options.count.isdigit() or not 0 < int(options.count) <= 1_000_000:
        raise Misuse(f"-c takes a number from 1 to 1000000, not {options.count!r}")
    return run_async(_ping(target, int(options.count), settings.resolve(options), output))


async def _ping(target: Target, count: int, resolved: settings.Settings, output: Output) -> int:
    async with open_node(resolved, output, (PING,), reaching=target.peer_id) as node:
        output.say(f"reaching {target.peer_id}")
        started = time.perf_counter()
        try:
            connection = await reach(node, target, PING)
        except Refused as error:
            return _refused(error, target, output)
        except NetworkError as error:
            _fail(target, output, *explain(error))
            return FAILED
        connected_s = time.perf_counter() - started
        pings = Pings()
        async with connection:
            output.say(f"reached in {duration(connected_s)}: {_describe(connection)}")
            if connection.path.kind != "relayed":
                pings.direct_at = started + connected_s
            watching = asyncio.create_task(_watch(connection, pings, output, has_udp=target.has_udp))
            lost_connection = await _exchange(connection, count, pings, output)
            with suppress(TimeoutError, NetworkError):
                async with asyncio.timeout(SETTLE_S):
                    await asyncio.shield(watching)
            watching.cancel()
            path, detail = connection.path, _describe(connection)
            if path.kind != "relayed" and path.transport == "udp":
                for reason in path.reasons:
                    output.say(f"no better path: {reason}")
        first_byte_s = None if pings.first_byte_at is None else pings.first_byte_at - started
        reasons = [lost_connection] if lost_connection else list(path.reasons)
        facts: JsonObject = {
            "ok": bool(pings.rtts_ms),
            "id": str(target.peer_id),
            "path": path.kind,
            "detail": detail,
            "connected_s": connected_s,
            "first_byte_s": first_byte_s,
            "direct_s": None if pings.direct_at is None else pings.direct_at - started,
            "rtt_ms": pings.rtt_ms(),
            "lost": pings.lost,
            "reasons": reasons,
        }
        if not pings.rtts_ms:
            facts["error"] = lost_connection or "the peer was reached, but no ping was answered"
        output.json_result(facts)
        _summarise(pings, lost_connection, output)
        return DONE if pings.rtts_ms else FAILED


async def _watch(connection: Connection, pings: Pings, output: Output, *, has_udp: bool) -> None:
    """Say when the peer is reached directly, and by UDP, or why not."""
    path = await connection.wait_direct()
    if path.kind != "relayed":
        if pings.direct_at is None:
            pings.direct_at = time.perf_counter()
            output.say(f"now direct: {_describe(connection)}")
        if path.transport != "udp" and has_udp:
            await _watch_tunnel(connection, output)
        return
    for reason in path.reasons:
        output.say(f"not direct: {reason}")


async def _watch_tunnel(connection: Connection, output: Output) -> None:
    """Say when a tunnel has been left for UDP, or why not."""
    while connection.is_open:
        await asyncio.sleep(LOOK_S)
        path = connection.path
        if path.transport == "udp":
            output.say(f"now by UDP: {_describe(connection)}")
            return
        for reason in path.reasons:
            output.say(f"not by UDP: {reason}")
        if path.reasons:
            return


def _describe(connection: Connection) -> str:
    path = connection.path
    how = f", {path.detail}" if path.detail else ""
    return f"{path.kind}, {path.remote}{' over UDP' if path.transport == 'udp' else ''}{how}, {connection.cipher}"


async def _exchange(connection: Connection, count: int, pings: Pings, output: Output) -> str | None:
    """Send pings and take the answers; return why the connection ended early, or None."""
    try:
        for number in range(count):
            sent_at = time.perf_counter()
            payload = number.to_bytes(NUMBER_BYTES, "big").ljust(PAYLOAD_BYTES, b"\0")
            pings.sent += connection.send_datagram(payload)
            try:
                async with asyncio.timeout(PATIENCE_S):
                    while bytes(await connection.recv_datagram()) != payload:
                        pass  # the answer to an earlier one, which was given up
            except TimeoutError:
                output.say(f"{number + 1}: no answer within {duration(PATIENCE_S)}")
                continue
            now = time.perf_counter()
            pings.first_byte_at = pings.first_byte_at or now
            pings.rtts_ms[number] = 1000 * (now - sent_at)
            output.say(f"{number + 1}: {pings.rtts_ms[number]:.3f} ms")
            if number + 1 < count:
                await asyncio.sleep(max(0.0, INTERVAL_S - (now - sent_at)))
    except NetworkError as error:
        return explain(error)[0]
    return None


def _summarise(pings: Pings, lost_connection: str | None, output: Output) -> None:
    if output.is_json:
        return
    if lost_connection:
        output.warn(lost_connection)
    text = f"{pings.sent} sent, {len(pings.rtts_ms)} answered, {pings.lost} lost"
    times = sorted(pings.rtts_ms.values())
    if times:
        text += f"; min/avg/max {times[0]:.3f}/{sum(times) / len(times):.3f}/{times[-1]:.3f} ms"
    output.answer(text)


def _refused(error: Refused, target: Target, output: Output) -> int:
    """Tell that somebody is there who does not answer pings: the network is not to blame."""
    _fail(target, output, f"the peer was reached, and refuses to answer pings: {error}", (str(error),))
    return FAILED


def _fail(target: Target, output: Output, message: str, reasons: tuple[str, ...]) -> None:
    nothing: JsonObject = dict.fromkeys(("path", "detail", "connected_s", "first_byte_s", "direct_s", "rtt_ms"))
    if output.is_json:
        output.json_result(
            {"ok": False, "id": str(target.peer_id), **nothing, "lost": 0, "reasons": list(reasons), "error": message}
        )
    else:
        output.error(printable(message), reasons)
