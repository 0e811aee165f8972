"""Run a node until it is interrupted: others find it, and reach each other through it, within what --give allows.

The first line tells its id, and the address by which others reach it: give that to `--bootstrap` or to `ping`. With --bootstrap
it keeps in touch with the peers named there, and is reached through them, whatever NAT or firewall it is behind.

    interpeer up                                 on a machine with an address of its own, and on others
    interpeer up --bootstrap ADDRESS
    interpeer ping ID --bootstrap ADDRESS
"""

from __future__ import annotations

import argparse
import asyncio

from interpeer._cli import run_async, settings
from interpeer._cli.errors import DONE
from interpeer._cli.output import JsonObject, Output
from interpeer._cli.peer import PING, answer_callers, echo_datagrams, open_node, settled_address
from interpeer._events import ConnectFailed, Event, EventsDropped, PathChanged, PeerConnected, PeerDisconnected
from interpeer._node import Node

HELP = "run a node: be found, be reached, and help others to reach each other"
REACHES_PEERS = True
DATA_ON_STDOUT = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    del parser  # it has no options of its own


def run(options: argparse.Namespace, output: Output) -> int:
    return run_async(_run(settings.resolve(options), output))


async def _run(resolved: settings.Settings, output: Output) -> int:
    async with open_node(resolved, output, (PING,)) as node:
        address = str(await settled_address(node))
        output.event("ready", id=str(node.id), address=address)
        output.say(f"this node is {node.id}; others reach it by: {address}")
        async with asyncio.TaskGroup() as group:
            group.create_task(answer_callers(node, {PING: echo_datagrams}))
            group.create_task(_tell_events(node, output))
    return DONE


async def _tell_events(node: Node, output: Output) -> None:
    async for event in node.events():
        name, facts, text = _describe(event)
        output.event(name, **facts)
        output.say(text)


def _describe(event: Event) -> tuple[str, JsonObject, str]:
    """Return an event's name, its facts and what to say of it."""
    match event:
        case PeerConnected():
            facts = {"peer": str(event.peer_id), "path": event.path, "incoming": event.incoming}
            return "connected", facts, f"{event.peer_id} is connected: {event.path}"
        case PeerDisconnected():
            return "disconnected", {"peer": str(event.peer_id), "reason": event.reason}, f"{event.peer_id}: {event.reason}"
        case PathChanged():
            facts = {"peer": str(event.peer_id), "path": event.path, "what": event.what, "reason": event.reason}
            text = f"{event.peer_id}: path {event.path} ({event.remote}) {event.what}"
            return "path", {**facts, "remote": event.remote}, f"{text}: {event.reason}" if event.reason else text
        case ConnectFailed():
            facts = {"peer": str(event.peer_id), "reason": event.reason, "reasons": list(event.reasons)}
            return "failed", facts, f"{event.peer_id} is not reached: {event.reason}"
        case EventsDropped():
            return "dropped", {"count": event.count}, f"{event.count} events were dropped"
        case _:
            return "event", {}, str(event)
