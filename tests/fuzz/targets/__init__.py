"""What is fuzzed: everything that reads bytes which somebody else has made.

Each module here is a target: `feed(data)` returns for every input, however wrong, or raises what its reader promises not to.
It makes all it needs from the input alone, so a file of the corpus does the same on every machine. Where there is an
independent reader, or a writer that goes the other way, the target compares with it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

TARGETS = {
    "frames": "the frames of a payload, beside the plain twin of the parser",
    "parameters": "transport parameters, beside the twin, and as they are written again",
    "handshakes": "what a node hears from strangers: all four messages, with macs and seals that are right",
    "packets": "sealed payloads and raw packets to an open connection, which answers in between",
    "connections": "streams, datagrams and paths: frames of a peer and calls of an application, mixed, on a production engine",
    "sessions": "the whole engine: plaintexts and calls, with channels, repairs, paths, fresh keys and a search for the MTU",
    "acks": "acknowledgements of what was sent and of what never was; the ranges that are acknowledged",
    "repairs": "forward error correction: repairs that are right, delayed, lost, repeated or made up",
    "agreements": "fresh keys: messages that are lost, repeated, delayed or damaged, among key updates",
    "punching": "a punching machine: candidates, probes and answers of peers and strangers, sockets, time; facts of NATs",
    "addresses": "ids, addresses, tickets, endpoints and what is typed for them",
    "keyfiles": "key files",
    "stun": "STUN: what a node answers to it, for what it costs, and what a client believes",
    "arrays": "numpy arrays from a stream",
    "transfers": "the messages of files/1, both ways, and the names in them",
    "mappings": "what gateways answer: PCP and NAT-PMP beside the twin, replies to SSDP, routing tables",
    "settings": "config.toml, and the environment",
    "beacons": "what is said on the local network, and what the kernel says of interfaces",
    "tunnels": "the stream of a tunnel: frames, cut anywhere, and what is none",
}
"""Each target, and what it feeds."""

CORPUS = Path(__file__).parents[1] / "corpus"
"""A folder for each target: inputs to start from, and every one that has found something."""


def load(name: str) -> Callable[[bytes], None]:
    """Return a target's `feed`; imported late, when the fuzzer is ready to watch."""
    return importlib.import_module(f"tests.fuzz.targets.{name}").feed
