"""Write the test vectors of chapter 13: `python -m tests.spec.make_vectors` in the checkout.

Every message and packet is what two engines say to each other with fixed seeds and fixed random bytes. The other
implementation, in reference.py, only opens them, to tell what is inside; test_vectors.py has it make them anew.
"""

from __future__ import annotations

import json
import textwrap
from typing import Any

from interpeer import Address, PeerId
from interpeer._core import control
from tests.spec import make_more_vectors as more
from tests.spec import reference as ref
from tests.spec.document import SPEC
from tests.spec.peer import MS, PROTOCOL, SECOND, Node, endpoint

INITIATOR_SEED, RESPONDER_SEED = bytes(range(32)), bytes(range(32, 64))
INITIATOR_RANDOM, RESPONDER_RANDOM = bytes(range(64, 104)), bytes(range(128, 168))  # connection id 8, ephemeral key 32
INITIATOR_AT, RESPONDER_AT = endpoint("192.0.2.1", 1001), endpoint("198.51.100.7", 2002)
NETWORK = b"vectors"
JSON_FILE, CHAPTER = SPEC / "vectors.json", SPEC / "13-vectors.md"

HEAD = """# 13 Test vectors

**[TV-1]** These are made by `tests/spec/make_vectors.py` with the production code, and verified by an implementation over other
libraries (`tests/spec/test_vectors.py`). The file [vectors.json](vectors.json) has the same bytes for programs. All are in
hexadecimal.

**[TV-2]** In the handshakes, the network is `vectors`, the protocol `test/1`, and the suite the only one that is offered. The
initiator's first 40 random bytes are {initiator_random}, the responder's are {responder_random}: of
each, 8 make the connection id and 32 are the ephemeral secret key. The packets are the first of both directions: a PING that
confirms, a stream with data, the acknowledgement of both, and, after a change of key, one datagram in epoch 1.

**[TV-3]** The other replies answer inits whose bytes are given, with nonces and cookies as shown.

**[TV-4]** Behind these there is one of each frame, written by the parser's twin in the tests; packets of several paths; a repair
that brings a lost message; fresh keys, and a packet of the epoch that they begin, with counter 9 and the connection id of the
packets before; and the shards that connection ids name.

"""


LIMITS = {
    "connection_window": 1 << 20, "stream_window": 1 << 19, "max_streams": 1024, "max_datagram": 65_000,
    "idle_timeout_ns": 30 * SECOND, "max_ack_delay_ns": 5 * MS, "receive_buffer": 1 << 18,
    "max_paths": 1,
}  # fmt: skip
"""What the parameters tell; fixed, so that another default does not make other vectors."""


def engine(seed: bytes, entropy: bytes, suite: int, **limits: int) -> Node:
    return Node(seed, network=NETWORK, suites=(control.SUITE_NAMES[suite],), entropy=entropy, **LIMITS | limits)


class Opener:
    """A third party that knows all secrets."""

    def __init__(self, init: bytes, response: bytes, suite: int) -> None:
        initiator, responder = ref.Identity(INITIATOR_SEED), ref.Identity(RESPONDER_SEED)
        reader = ref.Handshake(responder, RESPONDER_RANDOM[8:], init[:10], NETWORK)
        self.init_payload = reader.read(init[10:1168])
        writer = ref.Handshake(initiator, INITIATOR_RANDOM[8:], init[:10], NETWORK, responder.public)
        writer.write(self.init_payload)
        self.response_payload = writer.read(response[10:])
        self.secrets = writer.secrets()
        self.keys = [ref.PacketKeys(suite, secret) for secret in self.secrets]

    def packet(self, sender: int, packet: bytes) -> dict[str, Any]:
        opened = self.keys[sender].open(packet)
        return {
            "from": ("initiator", "responder")[sender], "epoch": opened.epoch, "counter": opened.counter,
            "payload": opened.payload.hex(), "packet": packet.hex(),
        }  # fmt: skip


def handshake(suite: int) -> dict[str, Any]:
    """Run a connection; return its messages, its first packets, and what they are made of."""
    a = engine(INITIATOR_SEED, INITIATOR_RANDOM, suite, key_update_packets=3)
    b = engine(RESPONDER_SEED, RESPONDER_RANDOM, suite)
    packets: list[tuple[int, bytes]] = []

    def exchange(sender: int) -> list[bytes]:
        source, target = ((a, b), (b, a))[sender]
        data = [sent.data for sent in source.say()]
        target.now_ns = source.now_ns = source.now_ns + 10 * MS
        target.hear(*data, source=(INITIATOR_AT, RESPONDER_AT)[sender])
        return data

    handle = control.connect(a.engine, b.identity.id, [RESPONDER_AT], PROTOCOL)
    (init,), (response,) = exchange(0), exchange(1)
    packets += [(0, data) for data in exchange(0)]
    other = b.incoming()
    stream = handle.open_stream()
    stream.write(b"hello")
    stream.finish()
    packets += [(0, data) for data in exchange(0)]
    accepted = other.accept_stream()
    accepted.write(b"world")
    packets += [(1, data) for data in exchange(1)]
    handle.send_datagram(b"last of epoch 0")
    packets += [(0, data) for data in exchange(0)]
    handle.send_datagram(b"first of epoch 1")
    packets += [(0, data) for data in exchange(0)]
    opener = Opener(init, response, suite)
    key, nonce = opener.keys[0].of_epoch(0, 0)
    return {
        "suite": suite, "name": control.SUITE_NAMES[suite], "network": NETWORK.hex(), "protocol": PROTOCOL.hex(),
        "initiator_random": INITIATOR_RANDOM.hex(), "responder_random": RESPONDER_RANDOM.hex(),
        "init_payload": opener.init_payload.hex(), "init": init.hex(),
        "response_payload": opener.response_payload.hex(), "response": response.hex(),
        "initiator_secret": opener.secrets[0].hex(), "responder_secret": opener.secrets[1].hex(),
        "initiator_mask_key": opener.keys[0].mask_key.hex(), "initiator_key_0": key.hex(), "initiator_iv_0": nonce.hex(),
        "packets": [opener.packet(*packet) for packet in packets],
    }  # fmt: skip


def replies() -> dict[str, Any]:
    """Return a cookie reply, the init that shows the cookie, a versions reply, and a stateless reset."""
    b = engine(RESPONDER_SEED, bytes(range(256)), ref.CHACHA20_POLY1305, max_half_open=1)
    identity = ref.Identity(INITIATOR_SEED)
    head = ref.header(ref.INIT, bytes.fromhex("8001020304050607"))
    first = ref.with_macs(head + bytes(1158), b.identity.public, NETWORK)
    filler = ref.Handshake(identity, bytes(range(1, 33)), head, NETWORK, b.identity.public)
    payload = identity.id + ref.parameter(ref.SUITE_LIST, b"\1") + ref.parameter(ref.PROTOCOL, PROTOCOL)
    payload += ref.parameter(ref.PADDING, bytes(1062 - len(payload) - 3))
    (answer,) = b.answers(ref.with_macs(head + filler.write(payload), b.identity.public, NETWORK), source=INITIATOR_AT)
    assert answer[0] == ref.RESPONSE, "from here on it is loaded"
    (cookie_reply,) = b.answers(first, source=INITIATOR_AT)
    cookie = ref.open_reply(cookie_reply, first[1168:1184], b.identity.public, NETWORK)
    other = ref.with_macs(ref.header(ref.INIT, head[2:], 2) + bytes(54), b.identity.public, NETWORK)
    (versions_reply,) = b.answers(other, source=INITIATOR_AT)
    stray = bytes.fromhex("8706050403020100") + bytes(33)
    (reset,) = b.answers(stray, source=INITIATOR_AT)
    return {
        "cookie": {
            "init": first.hex(), "cookie": cookie.hex(), "reply": cookie_reply.hex(),
            "init_with_cookie": ref.with_macs(first[:1168], b.identity.public, NETWORK, cookie).hex(),
        },
        "versions": {"init": other.hex(), "reply": versions_reply.hex()},
        "reset": {"packet": stray.hex(), "reset": reset.hex()},
    }  # fmt: skip


def identities() -> list[dict[str, str]]:
    found = []
    for seed in (INITIATOR_SEED, RESPONDER_SEED):
        identity = ref.Identity(seed)
        found.append({
            "seed": seed.hex(), "id": identity.id.hex(), "text": str(PeerId(identity.id)),
            "x25519_secret": identity.secret.hex(), "x25519_public": identity.public.hex(),
            "mac1_key": ref.mac1_key(identity.public, NETWORK).hex(),
            "sealing_key": ref.sealing_key(identity.public, NETWORK).hex(),
            "address": str(Address(f"{PeerId(identity.id)}@192.0.2.1:4433,[2001:db8::1]:4433")),
        })  # fmt: skip
    return found


def suites_here() -> list[int]:
    """Return the suites that this machine can do, in the order of their numbers."""
    return [number for number, name in control.SUITE_NAMES.items() if name in control.available_suites()]


def generate() -> dict[str, Any]:
    return {
        "identities": identities(),
        "handshakes": [handshake(suite) for suite in suites_here()],
        **replies(),
        **more.generate(),
    }


def block(name: str, value: str) -> str:
    return f"{name}\n" + textwrap.fill(value, 120, initial_indent="    ", subsequent_indent="    ") + "\n"


def render(vectors: dict[str, Any]) -> str:
    """Return chapter 13."""
    text = HEAD.format(initiator_random=INITIATOR_RANDOM[:2].hex() + ".." + INITIATOR_RANDOM[-1:].hex(),
                       responder_random=RESPONDER_RANDOM[:2].hex() + ".." + RESPONDER_RANDOM[-1:].hex())  # fmt: skip
    for role, identity in zip(("initiator", "responder"), vectors["identities"], strict=True):
        text += f"## Identity of the {role}\n\n```text\n"
        text += "\n".join(block(name, value) for name, value in identity.items()) + "```\n\n"
    for run in vectors["handshakes"]:
        text += f"## Handshake and packets with suite {run['suite']}, {run['name']}\n\n```text\n"
        names = [name for name in run if name not in ("suite", "name", "network", "protocol", "packets", "initiator_random",
                                                      "responder_random")]  # fmt: skip
        blocks = [block(name, run[name]) for name in names]
        for packet in run["packets"]:
            title = f"packet of the {packet['from']}, epoch {packet['epoch']}, counter {packet['counter']}: payload, packet"
            blocks.append(block(title, packet["payload"]).rstrip("\n") + block("", packet["packet"]))
        text += "\n".join(blocks) + "```\n\n"
    for title, name in (("Cookie", "cookie"), ("Versions reply", "versions"), ("Stateless reset", "reset")):
        text += f"## {title}\n\n```text\n" + "\n".join(block(*item) for item in vectors[name].items()) + "```\n\n"
    return text + more.render(vectors)


if __name__ == "__main__":
    made = generate()
    if len(made["handshakes"]) < len(control.SUITE_NAMES):
        raise SystemExit("this machine or its libsodium lacks a suite: the vectors are made where all four can be used")
    JSON_FILE.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")
    CHAPTER.write_text(render(made), encoding="utf-8")
