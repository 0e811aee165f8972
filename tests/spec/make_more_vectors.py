"""The vectors of chapter 13 that need no handshake: frames, packets of other paths, repairs, fresh keys, ids of shards.

Frames are written by the twin of the parser, for the library has no place where it writes them alone; test_vectors.py has the
library and reference.py read them. The rest is made by the library, as in make_vectors.py.
"""

from __future__ import annotations

from typing import Any

from interpeer._core import control, probe_fec, probe_shards
from interpeer._core.probe_fec import Encoder
from interpeer._core.probe_rekey import Machine
from interpeer._core.probe_wire import Sealer
from tests.models.wire import write_frame
from tests.spec import reference as ref

TOKEN, CID = bytes(range(16)), bytes.fromhex("8001020304050607")

FRAMES = [
    ("PING", "", ("ping",)),
    ("ACK", "path delay ranges", ("ack", 2, 25, [(100, 120), (98, 98), (0, 3)], None)),
    ("ACK_ECN", "path delay ranges ecn", ("ack", 0, 16384, [(7, 9)], (5, 0, 2**40))),
    ("RESET_STREAM", "stream code size", ("reset_stream", 4, 17, 2**40)),
    ("STOP_SENDING", "stream code", ("stop_sending", 5, 0)),
    ("CLOSE", "code reason", ("close", 7, b"a rule is broken")),
    ("CLOSE_APP", "code reason", ("close_app", 2**62 - 1, b"")),
    ("STREAM", "stream offset data fin", ("stream", 9, 2**30, b"some data", True)),
    ("MAX_DATA", "limit", ("max_data", 2**62 - 1)),
    ("MAX_STREAM_DATA", "stream limit", ("max_stream_data", 1, 64)),
    ("MAX_STREAMS", "limit", ("max_streams", 1024)),
    ("DATAGRAM_LEN", "data", ("datagram", b"a message")),
    ("NEW_CONNECTION_ID", "path number id token", ("new_connection_id", 2, 1, CID, TOKEN)),
    ("RETIRE_CONNECTION_ID", "path number", ("retire_connection_id", 2**31 - 1, 64)),
    ("PATH_CHALLENGE", "data", ("path_challenge", b"question")),
    ("PATH_RESPONSE", "data", ("path_response", b"question")),
    ("PATH_ABANDON", "path code", ("path_abandon", 2, 0)),
    ("PATH_STATUS", "path number status", ("path_status", 2, 7, 1)),
    ("REKEY", "epoch message", ("rekey", 1, bytes(range(96)))),
    ("REKEY_ANSWER", "epoch message", ("rekey_answer", 2**30, bytes(range(48)))),
    ("CHANNEL", "channel sequence flags class deadline messages repairs", ("channel", 3, 1, 2, 1, 40_000, 5, 2)),
    ("MAX_CHANNELS", "limit", ("max_channels", 4096)),
    ("CHANNEL_MAX_DATA", "channel limit", ("channel_max_data", 1, 2**40)),
    ("CHANNEL_RESET", "channel code size", ("channel_reset", 5, 2**62 - 1, 1008)),
    ("CHANNEL_STOP", "channel code", ("channel_stop", 4, 9)),
    ("DROPPED", "channel offset within size number count", ("dropped", 2, 0, 0, 0, 17, 3)),
    ("DROPPED", "channel offset within size number count", ("dropped", 2, 4000, 1000, 208, 17, 1)),
    ("REPAIR", "channel body", ("repair", 6, bytes.fromhex("050301030076f377c08476503a1cc3e5"))),
    ("MESSAGES", "channel offset within data fin", ("messages", 2, 0, 0, ref.message(0, b"one") + ref.message(1, b""), False)),
    ("MESSAGES", "channel offset within data fin", ("messages", 2, 1008, 900, b"the end of one", True)),
]  # fmt: skip
"""Names and fields as the chapters have them, and what the twin makes of it."""


def frames() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "fields": {field: plain(value) for field, value in zip(fields.split(), values[1:], strict=False)},
            "frame": write_frame(values).hex(),
        }
        for name, fields, values in FRAMES
    ]


def plain(value: Any) -> Any:
    """Return what JSON has for a field: bytes in hexadecimal, and lists."""
    if isinstance(value, bytes):
        return value.hex()
    return [plain(each) for each in value] if isinstance(value, list | tuple) else value


def path_packets() -> list[dict[str, Any]]:
    """Seal the same payload with the same secret and counter on several paths: the path is in the nonce."""
    secret, payload = bytes(range(64, 96)), ref.path_challenge(b"question") + bytes(8)
    return [
        {
            "suite": ref.CHACHA20_POLY1305, "secret": secret.hex(), "connection_id": CID.hex(), "path": path, "counter": 2**40,
            "payload": payload.hex(),
            "packet": Sealer(ref.CHACHA20_POLY1305, secret).protect(payload, int.from_bytes(CID), path, 2**40).hex(),
        }
        for path in (0, 1, 2, 2**31 - 1)
    ]  # fmt: skip


def repairs() -> dict[str, Any]:
    """Return products and factors, and a channel of which one message is lost and brought back by a repair."""
    products = [(0x53, 0xCA), (0x80, 2), (255, 255), (1, 0x1D)]
    factors = [(0, 0), (1, 0), (259, 5), (259, 6), (259, 7), (65535, 2**62 - 1)]
    texts = [b"the first", b"is lost", b"", b"the fourth"]
    encoder, sent, at = Encoder(32, 1118), [], 0
    for number, text in enumerate(texts):
        whole = ref.message(number, text, ordered=False)
        encoder.add(at.to_bytes(8) + whole)
        sent.append({"number": number, "offset": at, "message": text.hex(), "frame": ref.messages(0, whole, at).hex()})
        at += len(whole)
    encoder.repair()
    return {
        "products": [[a, b, probe_fec.multiply(a, b)] for a, b in products],
        "factors": [[seed, number, probe_fec.factor(seed, number)] for seed, number in factors],
        "messages": sent,
        "lost": 1,
        "repair": write_frame(("repair", 0, encoder.repair())).hex(),
    }


def fresh_keys() -> dict[str, str]:
    """Agree on fresh keys between two machines, and seal a packet of the fresh epoch."""
    seeds, secrets, ephemerals = ([bytes(range(n, n + 32)) for n in (start, start + 32)] for start in (0, 0x40, 0x80))
    a, b = (Machine(seed, not side, secrets[side], secrets[not side]) for side, seed in enumerate(seeds))
    first_chain = a.secrets[2]
    a.ask(b.static, ephemerals[0])
    question = a.write()
    b.handle_init(1, question[2:])
    b.answer(a.static, ephemerals[1])
    answer = b.write()
    a.handle_answer(1, answer[2:])
    a.turn()
    b.follow()
    b.turn()
    payload = ref.ping() + bytes(20)
    found = {
        "initiator_seed": seeds[0], "responder_seed": seeds[1],
        "initiator_secret_0": secrets[0], "responder_secret_0": secrets[1],
        "initiator_ephemeral": ephemerals[0], "responder_ephemeral": ephemerals[1], "first_chain": first_chain,
        "rekey": question, "rekey_answer": answer,
        "initiator_secret_1": a.secrets[0], "responder_secret_1": b.secrets[0],
        "next_chain": a.secrets[2], "payload": payload, "packet": a.protect(payload, int.from_bytes(CID), 0, 9),
    }  # fmt: skip
    return {name: value.hex() for name, value in found.items()}


def shards() -> list[dict[str, Any]]:
    """Return connection ids and the shards that they name, of as many as there can be."""
    ids = ("8080010203040506", "8001020304050607", "fffe010203040506", "a5ba010203040506")
    return [{"connection_id": cid, "shard": probe_shards.shard_of(bytes.fromhex(cid), control.MOST_SHARDS)} for cid in ids]


def generate() -> dict[str, Any]:
    return {
        "frames": frames(), "path_packets": path_packets(), "repairs": repairs(), "fresh_keys": fresh_keys(), "shards": shards(),
    }  # fmt: skip


def render(vectors: dict[str, Any]) -> str:
    """Return the sections of chapter 13 for these."""
    text = "## Frames\n\n| frame | fields | bytes |\n|---|---|---|\n"
    for frame in vectors["frames"]:
        fields = ", ".join(f"{name} {shown(value)}" for name, value in frame["fields"].items())
        text += f"| {frame['name']} | {fields} | {frame['frame']} |\n"
    text += "\n## Packets of other paths\n\n"
    for name in ("suite", "secret", "connection_id", "counter", "payload"):
        text += f"- {name}: {vectors['path_packets'][0][name]}\n"
    text += "\n| path | packet |\n|---|---|\n"
    text += "".join(f"| {each['path']} | {each['packet']} |\n" for each in vectors["path_packets"])
    found = vectors["repairs"]
    text += "\n## Repairs\n\n| product | |\n|---|---|\n"
    text += "".join(f"| {a:02x} and {b:02x} | {product:02x} |\n" for a, b, product in found["products"])
    text += "\n| factor with seed | of message | |\n|---|---|---|\n"
    text += "".join(f"| {seed} | {number} | {factor:02x} |\n" for seed, number, factor in found["factors"])
    text += "\nOn channel 0, whose messages are not ordered, message 1 is lost; the REPAIR frame, of seed 1, brings it.\n\n"
    text += "| message | offset | data | MESSAGES frame |\n|---|---|---|---|\n"
    for each in found["messages"]:
        text += f"| {each['number']} | {each['offset']} | {each['message']} | {each['frame']} |\n"
    text += f"\n```text\n{found['repair']}\n```\n\n## Fresh keys\n\n| what | value |\n|---|---|\n"
    text += "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in vectors["fresh_keys"].items())
    text += "\n## Shards of connection ids\n\n| connection id | shard |\n|---|---|\n"
    return text + "".join(f"| {each['connection_id']} | {each['shard']} |\n" for each in vectors["shards"])


def shown(value: Any) -> str:
    """Return a field as the table has it."""
    if isinstance(value, list):
        return " ".join(shown(each) if not isinstance(each, list) else "-".join(map(str, each)) for each in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
