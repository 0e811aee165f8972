"""Measure what a relay passes on: one bulk transfer through a third process, beside the same without it.

    python -m benchmarks relay                      packets of 1200 bytes, and as large as loopback carries
    python -m benchmarks relay --seconds 6 --runs 5 --json

Three processes on loopback, so that on two processors the ends and the relay share them: its processor time per gigabyte
tells more than the rate. The relay opens nothing and copies each packet once.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys

from benchmarks import command, transfer
from interpeer import Address, Config, Connection, Identity, Node, PeerId
from interpeer._bench.end import Control, Facts, Stopwatch, run
from interpeer._bench.process import End
from interpeer._core import connection_handle, control, legs
from interpeer._run import loop_factory

SIZES = {"1200": 1200, "largest": None}
UNLIMITED = float("inf")
SENDER, RECEIVER, RELAY = (Identity.from_seed(bytes([number]) * 32) for number in (1, 2, 3))


def main(arguments: list[str]) -> int:
    parser = command.parser("relay", __doc__)
    parser.add_argument("--seconds", type=float, default=4.0, help="for each figure; the first two do not count (default: 4)")
    parser.add_argument("--runs", type=int, default=3, help="of each case, in turns; medians count (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each row")
    asked = parser.parse_args(arguments)
    cases = [(size, is_relayed) for size in SIZES for is_relayed in (False, True)]
    runs: dict[tuple[str, bool], list[Facts]] = {case: [] for case in cases}
    for _ in range(asked.runs):
        for size, is_relayed in cases:
            runs[size, is_relayed].append(measure(SIZES[size], is_relayed, asked.seconds + transfer.SKIP_S))
    for (size, is_relayed), facts in runs.items():
        row = {"packets": size, "way": "relayed" if is_relayed else "direct"}
        row |= {name: statistics.median(one[name] for one in facts) for name in facts[0]}
        print(json.dumps(row) if asked.json else _line(row))
    return 0


def _line(row: Facts) -> str:
    text = f"{row['packets']:>8} bytes, {row['way']:8} {row['gbit_per_s']:6.2f} Gbit/s"
    if "relay_s_per_gb" in row:
        text += f", relay: {row['relay_s_per_gb']:.3f} processor s/GB, {row['packets_per_s'] / 1e3:.0f} k packets/s"
    return text


def measure(max_packet_bytes: int | None, is_relayed: bool, seconds: float) -> Facts:
    """Return gbit_per_s, and what the relay has spent. Raises EndFailed."""
    ids = [secrets.randbits(64) | 1 << 63 for _ in range(2)]
    sizes = {"max_packet_bytes": max_packet_bytes}
    with End(f"{__name__}:relay", ids=ids) as middle:
        at = middle.receive()["address"]
        with End(f"{__name__}:receive", relay=at, leg=ids[1], seconds=seconds, **sizes) as receiver:
            ways = {"there": receiver.receive()["address"], "leg": ids[0], "is_relayed": is_relayed}
            with End(f"{__name__}:send", relay=at, seconds=seconds, **ways, **sizes) as sender:
                received = receiver.receive()
                middle.stop()
                relayed = middle.receive()
                sender.stop()
                sender.receive()
    facts = {"gbit_per_s": received["mbit"] / 1e3}
    if is_relayed:
        facts["relay_s_per_gb"] = relayed["cpu_s"] / (relayed["bytes"] / 1e9)
        facts["packets_per_s"] = relayed["packets"] / relayed["seconds"]
    return facts


def _run(main) -> Facts | None:
    return run(main, uvloop=loop_factory() is not None)


# --- the relay ---


def relay(control: Control, *, ids: list[int]) -> Facts | None:
    return _run(_relay(control, ids))


async def _relay(control: Control, ids: list[int]) -> Facts:
    async with Node(RELAY, "127.0.0.1:0") as node:
        control.tell(address=str(node.address))
        connections = {}
        while len(connections) < 2:
            connection = await node.accept()
            connections[connection.peer_id] = connection._handle
        legs.join(connections[SENDER.id], ids[0], connections[RECEIVER.id], ids[1], UNLIMITED, 1 << 20)
        watch = Stopwatch()
        await control.stopped()
        (pair,) = legs.pairs(node._engines[0]) or [{}]
        return watch.read() | {
            "bytes": pair.get("bytes_a_to_b", 0) + pair.get("bytes_b_to_a", 0),
            "packets": pair.get("packets_a_to_b", 0) + pair.get("packets_b_to_a", 0),
        }


# --- the ends ---


def receive(control: Control, *, relay: str, leg: int, seconds: float, max_packet_bytes: int | None) -> Facts | None:
    return _run(_receive(control, relay, leg, seconds, max_packet_bytes))


async def _receive(control: Control, relay: str, leg: int, seconds: float, max_packet_bytes: int | None) -> None:
    async with Node(RECEIVER, "127.0.0.1:0", config=Config(max_packet_bytes=max_packet_bytes)) as node:
        carrier = await node.connect(relay)
        legs.add(carrier._handle, leg)
        control.tell(address=str(node.address))
        control.tell(**await transfer.count(await node.accept(), seconds))
        await control.stopped()  # the relay counts for as long as we are here


def send(
    control: Control, *, relay: str, there: str, leg: int, is_relayed: bool, seconds: float, max_packet_bytes: int | None
) -> Facts | None:
    return _run(_send(relay, there, leg, is_relayed, seconds, max_packet_bytes))


async def _send(relay: str, there: str, leg: int, is_relayed: bool, seconds: float, max_packet_bytes: int | None) -> Facts:
    async with Node(SENDER, "127.0.0.1:0", config=Config(max_packet_bytes=max_packet_bytes)) as node:
        carrier = await node.connect(relay)
        if is_relayed:
            connection = await _call(node, carrier, Address(there).peer_id, leg)
        else:
            connection = await node.connect(there)
        return {"cpu_s": (await transfer.send(connection, seconds))["sender_cpu_s"]}


async def _call(node: Node, carrier: Connection, peer: PeerId, leg: int) -> Connection:
    """Call through the relay alone: there is a direct way on this machine, which the node itself would find."""
    at = legs.add(carrier._handle, leg)
    handle = control.connect(carrier._handle.engine, bytes(peer), [at], b"interpeer/1")
    connection = Connection(node, handle, "interpeer/1")
    node._connections[handle] = connection
    await connection._waiters.wait(connection_handle.EVENT_OPEN, lambda: handle.want(connection_handle.EVENT_OPEN))
    return connection


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
