"""The Wireshark dissector, on captures of real sessions: what tshark reads is what both ends say in their qlog files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from interpeer._core import control
from tests.net import session as talk
from tests.net.namespaces import UNSHARE, are_available

pytestmark = pytest.mark.system("tshark")

CIPHERS = ("chacha20-poly1305", "aes-256-gcm", "aegis-128l", "aegis-256")
RECORD_BYTES = 16  # before each packet of a capture file; 24 before the first
IP_AND_UDP_BYTES = 14 + 20 + 8
CHANNEL_FRAMES = {  # what the dissector calls them and their fields, and what qlog does
    "interpeer_channel": (
        "CHANNEL",
        {"channel": "channel_id", "sequence": "sequence_number"}
        | {name: name for name in ("flags", "class", "deadline", "messages", "repairs")},
    ),
    "interpeer_max_channels": ("MAX_CHANNELS", {"limit": "maximum"}),
    "interpeer_channel_max_data": ("CHANNEL_MAX_DATA", {"channel": "channel_id", "limit": "maximum"}),
    "interpeer_channel_reset": ("CHANNEL_RESET", {"channel": "channel_id", "code": "error_code", "final": "final_size"}),
    "interpeer_channel_stop": ("CHANNEL_STOP", {"channel": "channel_id", "code": "error_code"}),
    "interpeer_dropped": (
        "DROPPED",
        {"channel": "channel_id"} | {name: name for name in ("offset", "within", "size", "number", "count")},
    ),
    "interpeer_repair": ("REPAIR", {"channel": "channel_id", "length": "length"}),
}
Packets = dict[tuple[str, int, int], list[str]]  # by direction (its first connection id), path and number: frames


@pytest.fixture(scope="module", autouse=True)
def _tools() -> None:
    if not are_available():
        pytest.skip("this user may not make network namespaces")


def make_session(folder: Path, cipher: str, root: Path, **environment: str) -> Path:
    """Let two processes talk; return the folder with capture, keys and qlog."""
    if cipher not in control.available_suites():
        pytest.skip(f"this machine does not offer {cipher}")
    path = os.pathsep.join(filter(None, (str(root / "src"), os.environ.get("PYTHONPATH"))))
    command = [*UNSHARE, sys.executable, str(root / "tests/net/session.py"), str(folder), cipher]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env=os.environ | {"PYTHONPATH": path} | environment
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session whose packets come one by one, as from a network card."""
    root = Path(__file__).parents[2]
    return make_session(tmp_path_factory.mktemp("session"), "chacha20-poly1305", root, INTERPEER_DISABLE="gso,gro")


def read_capture(root: Path, capture: Path, keys: Path | None) -> list[ET.Element]:
    """Return the dissector's trees, in order."""
    script = root / "tools/wireshark/interpeer.lua"
    command = ["tshark", "-r", str(capture), "-X", f"lua_script:{script}", "-T", "pdml", "-o", f"interpeer.keylog:{keys or ''}"]
    environment = {name: value for name, value in os.environ.items() if name != "INTERPEER_KEYLOG"}
    done = subprocess.run(command, check=False, capture_output=True, timeout=120, env=environment)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Lua" not in done.stderr, done.stderr.decode()
    return [tree for packet in ET.fromstring(done.stdout) for tree in packet.findall("proto[@name='interpeer']")]


def field(tree: ET.Element, name: str) -> str | None:
    found = tree.find(f".//field[@name='{name}']")
    return None if found is None else found.get("show")


def as_packets(trees: list[ET.Element]) -> Packets:
    """Return the packets that were opened."""
    packets: Packets = {}
    for tree in trees:
        number = field(tree, "interpeer.packet_number")
        if number is not None:
            texts = [f.get("show", "") for f in tree.findall(".//field[@name='interpeer.frame.text']")]
            direction = (field(tree, "interpeer.direction") or "").removeprefix("0x")
            key = direction, int(field(tree, "interpeer.path") or 0), int(number)
            assert key not in packets
            packets[key] = [text for text in texts if not text.startswith("PADDING")]
    return packets


def events(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().split("\x1e")[2:]:  # nothing, and the header
        yield json.loads(line)


def in_short(frame: dict[str, Any]) -> str:
    """Say of a frame in a qlog file what the dissector says of it."""
    f = frame
    kind = f["frame_type"]
    if kind == "ack":
        path = f"path {f['interpeer_path']} " if "interpeer_path" in f else ""
        return f"ACK {path}" + ",".join(f"{low}-{high}" for low, high in f["acked_ranges"])
    if kind == "stream":
        return f"STREAM {f['stream_id']} offset {f['offset']} length {f['length']}{' fin' if f['fin'] else ''}"
    if kind == "interpeer_messages":
        where = f"channel {f['channel_id']} offset {f['offset']} within {f['within']}"
        return f"MESSAGES {where} length {f['length']}{' fin' if f['fin'] else ''}"
    if kind in CHANNEL_FRAMES:
        name, fields = CHANNEL_FRAMES[kind]
        return f"{name} " + " ".join(f"{word} {f[field]}" for word, field in fields.items())
    if kind == "reset_stream":
        return f"RESET_STREAM stream {f['stream_id']} code {f['error_code']} final {f['final_size']}"
    if kind == "stop_sending":
        return f"STOP_SENDING stream {f['stream_id']} code {f['error_code']}"
    if kind == "connection_close":
        return f"CLOSE{'_APP' if f['error_space'] == 'application' else ''} code {f['error_code']}"
    if kind == "max_stream_data":
        return f"MAX_STREAM_DATA stream {f['stream_id']} limit {f['maximum']}"
    if kind in ("max_data", "max_streams"):
        return f"{kind.upper()} limit {f['maximum']}"
    if kind in ("new_connection_id", "retire_connection_id"):
        return f"{kind.upper()} path {f['interpeer_path']} sequence {f['sequence_number']}"
    if kind == "interpeer_path_abandon":
        return f"PATH_ABANDON path {f['interpeer_path']} code {f['error_code']}"
    if kind in ("interpeer_rekey", "interpeer_rekey_answer"):
        return f"{kind.removeprefix('interpeer_').upper()} epoch {f['epoch']}"
    return kind.upper() + (f" length {f['length']}" if "length" in f else "")


def told_packets(folder: Path, name: str, key: str) -> Packets:
    """Return the packets that one end says it has sent, or received."""
    packets: Packets = {}
    for file in (folder / "qlog").iterdir():
        cid = ""
        for event in events(file):
            if event["name"] == "connectivity:connection_started":
                cid = event["data"][key]
            elif event["name"] == name:
                data = event["data"]
                place = cid, data.get("interpeer_path", 0), data["header"]["packet_number"]
                packets[place] = [in_short(f) for f in data["frames"]]
    return packets


def without_reasons(packets: Packets) -> Packets:
    """Leave out what qlog does not have: how long the reason of a CLOSE is."""
    return {key: [text.partition(" length ")[0] if "CLOSE" in text else text for text in texts] for key, texts in packets.items()}


def experts(trees: list[ET.Element]) -> set[str]:
    names = ("no_key", "forged", "reserved", "short", "malformed", "unknown_frame", "other_version", "closed")
    return {name for tree in trees for name in names if tree.find(f".//field[@name='interpeer.{name}']") is not None}


@pytest.mark.parametrize("cipher", CIPHERS)
def test_a_capture_says_what_both_ends_say(cipher, root, tmp_path):
    folder = make_session(tmp_path / cipher, cipher, root)
    trees = read_capture(root, folder / "capture.pcap", folder / "keys")
    seen = without_reasons(as_packets(trees))
    assert seen == told_packets(folder, "transport:packet_sent", "dst_cid")
    assert seen == told_packets(folder, "transport:packet_received", "src_cid")
    assert not experts(trees)
    kinds = {text.split()[0] for texts in seen.values() for text in texts}
    assert kinds >= {
        *("PING", "ACK", "STREAM", "DATAGRAM", "RESET_STREAM", "STOP_SENDING", "CLOSE_APP", "REKEY", "REKEY_ANSWER"),
        *("NEW_CONNECTION_ID", "RETIRE_CONNECTION_ID", "PATH_CHALLENGE", "PATH_RESPONSE", "PATH_ABANDON"),
        *("MESSAGES", *(name for name, _ in CHANNEL_FRAMES.values())),
    }
    assert {field(tree, "interpeer.epoch") for tree in trees} >= {"0", "1"}  # keys have changed meanwhile
    assert [field(tree, "interpeer.type") for tree in trees][:2] == ["0x41", "0x42"]
    assert {field(tree, "interpeer.cipher").lower() for tree in trees[2:]} == {cipher}


def test_messages_and_repairs_are_taken_apart(session, root):
    trees = read_capture(root, session / "capture.pcap", session / "keys")
    messages = {
        tuple(field(node, f"interpeer.message.{name}") for name in ("number", "size", "unordered"))
        for tree in trees
        for node in tree.findall(".//field[@name='interpeer.message']")
    }
    protected = {(str(i), str(len(text)), "1") for i, text in enumerate(talk.PROTECTED_MESSAGES)}  # as the channel sends them
    others = {(str(i), str(len(text)), "0") for i, text in enumerate(talk.LATE_MESSAGES)}
    assert protected <= messages <= protected | others | {("0", str(len(talk.LAST_MESSAGE)), "0")}
    repairs = [
        tuple(int(field(tree, f"interpeer.repair.{name}") or -1) for name in ("oldest", "count", "seed"))
        for tree in trees
        if field(tree, "interpeer.repair.symbol") is not None
    ]
    assert {seed for _, _, seed in repairs} == set(range(max(seed for _, _, seed in repairs) + 1))
    assert all(count > 0 and oldest + count <= len(talk.PROTECTED_MESSAGES) for oldest, count, _ in repairs)


def test_packets_one_by_one_say_the_same(session, root):
    seen = without_reasons(as_packets(read_capture(root, session / "capture.pcap", session / "keys")))
    assert seen == told_packets(session, "transport:packet_sent", "dst_cid")


def test_without_keys_a_conversation_is_told_by_its_init(session, root):
    trees = read_capture(root, session / "capture.pcap", None)
    assert len(trees) > 10
    assert experts(trees) == {"no_key"}
    assert not as_packets(trees)


def records_of(capture: Path) -> tuple[bytes, list[bytearray]]:
    """Return the head of a capture file, and its packets with what stands before each."""
    data = capture.read_bytes()
    at, records = 24, []
    while at < len(data):
        size = RECORD_BYTES + int.from_bytes(data[at + 8 : at + 12], "little")
        records.append(bytearray(data[at : at + size]))
        at += size
    return data[:24], records


def test_a_capture_that_begins_late_is_read_by_its_keys(session, root, tmp_path):
    head, records = records_of(session / "capture.pcap")
    late = tmp_path / "late.pcap"
    late.write_bytes(head + b"".join(records[-20:]))
    trees = read_capture(root, late, session / "keys")
    assert len(as_packets(trees)) == 20
    assert "0" not in {field(tree, "interpeer.epoch") for tree in trees}
    assert not experts(trees)


def test_a_damaged_packet_is_told(session, root, tmp_path):
    head, records = records_of(session / "capture.pcap")
    records[-1][-1] ^= 1
    records[-2] = records[-2][:8] + bytes([60, 0, 0, 0]) * 2 + records[-2][RECORD_BYTES : RECORD_BYTES + 60]  # cut short
    records[-3][RECORD_BYTES + IP_AND_UDP_BYTES + 8] ^= 0x80
    damaged = tmp_path / "damaged.pcap"
    damaged.write_bytes(head + b"".join(records))
    trees = read_capture(root, damaged, session / "keys")
    assert experts(trees) == {"forged", "reserved", "short"}
    assert len(as_packets(trees)) == len(records) - 2 - 3  # but for the handshake and these


def test_no_secret_is_anywhere_but_in_the_key_log(session):
    secrets = [line.split()[5] for line in (session / "keys").read_text().splitlines() if line.startswith("INTERPEER_SECRET")]
    assert len(set(secrets)) > 2  # fresh ones have been agreed on
    for file in (session / "qlog").iterdir():
        text = file.read_text()
        assert not any(secret in text for secret in secrets)
    assert (session / "keys").stat().st_mode & 0o777 == 0o600
