"""Write what a node's trace has seen as qlog, one file for each connection, as qvis and other tools read it.

The format is qlog 0.3 in JSON text sequences (RFC 7464): a header, then an event for each line, so that a file may be read
while it grows. Names are those of the schema for QUIC where the meaning is the same, and start with `interpeer` where it
is ours. Nothing here is on a packet's way: records come in batches, on a thread of the tracer's.
"""

from __future__ import annotations

import ipaddress
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, final

from interpeer._path import KINDS, REASONS
from interpeer._version import __version__

MAX_OPEN_FILES = 256
"""Connections that have a file at once; each costs a descriptor, and many systems allow a process 1024 of them."""

_RECORD = struct.Struct("=QIIQ12Q")  # TraceRecord in trace.pxd
_STARTED, _SENT, _RECEIVED, _FRAME, _RANGES, _ECN, _LOST, _DROPPED, _METRICS, _KEY, _STATE, _PATH_EVENT = range(1, 13)
_CIPHERS = {1: "chacha20-poly1305", 2: "aes-256-gcm", 3: "aegis-128l", 4: "aegis-256"}
_PHASES = ("slow_start", "congestion_avoidance", "recovery")
_ECN_STATES = ("testing", "capable", "failed")
_STATES = {0: "attempted", 1: "handshake_complete", 2: "closing", 3: "draining", 4: "closed"}
_WHY_DROPPED = {1: "header_parse_error", 2: "duplicate", 3: "payload_decrypt_error", 4: "header_parse_error"}
_WHY_CLOSED = {
    1: ("local", "application"),
    2: ("remote", "application"),
    3: ("local", "error"),
    4: ("remote", "error"),
    5: ("remote", "stateless_reset"),
    6: ("local", "idle_timeout"),
    7: ("remote", "error"),
}  # by Conn.closed_by

Record = tuple[int, ...]
Event = tuple[int, str, dict[str, Any]]

# --- frames ---

# What the parser's numbers are called in a frame: name in qlog, and the index of the number among a record's values.
_ID, _VALUE, _OFFSET, _BYTES, _PATH, _DELAY, _, _FIN, _WITHIN, _COUNT = range(1, 11)
_FLAGS, _CLASS, _DEADLINE, _MESSAGES, _REPAIRS = range(3, 8)  # in CHANNEL
_MESSAGES_FIELDS = {"channel_id": _ID, "offset": _OFFSET, "within": _WITHIN, "length": _BYTES}
FRAMES: dict[int, tuple[str, dict[str, int]]] = {
    0x01: ("ping", {}),
    0x02: ("ack", {}),
    0x03: ("ack", {}),
    0x04: ("reset_stream", {"stream_id": _ID, "error_code": _VALUE, "final_size": _OFFSET}),
    0x05: ("stop_sending", {"stream_id": _ID, "error_code": _VALUE}),
    0x06: ("connection_close", {"error_code": _VALUE, "raw_error_code": _VALUE}),
    0x07: ("connection_close", {"error_code": _VALUE, "raw_error_code": _VALUE}),
    **dict.fromkeys(range(0x08, 0x10), ("stream", {"stream_id": _ID, "offset": _OFFSET, "length": _BYTES})),
    0x10: ("max_data", {"maximum": _VALUE}),
    0x11: ("max_stream_data", {"stream_id": _ID, "maximum": _VALUE}),
    0x12: ("max_streams", {"maximum": _VALUE}),
    0x16: ("datagram", {"length": _BYTES}),
    0x17: ("datagram", {"length": _BYTES}),
    0x18: ("new_connection_id", {"sequence_number": _ID, "interpeer_path": _PATH}),
    0x19: ("retire_connection_id", {"sequence_number": _ID, "interpeer_path": _PATH}),
    0x1A: ("path_challenge", {}),
    0x1B: ("path_response", {}),
    0x1C: ("interpeer_path_abandon", {"interpeer_path": _PATH, "error_code": _VALUE}),
    0x1D: ("interpeer_path_status", {"interpeer_path": _PATH, "sequence_number": _ID, "status": _VALUE}),
    0x1E: ("interpeer_rekey", {"epoch": _VALUE}),
    0x1F: ("interpeer_rekey_answer", {"epoch": _VALUE}),
    0x20: (
        "interpeer_channel",
        {
            "channel_id": _ID,
            "sequence_number": _VALUE,
            "flags": _FLAGS,
            "class": _CLASS,
            "deadline": _DEADLINE,
            "messages": _MESSAGES,
            "repairs": _REPAIRS,
        },
    ),
    0x21: ("interpeer_max_channels", {"maximum": _VALUE}),
    0x22: ("interpeer_channel_max_data", {"channel_id": _ID, "maximum": _VALUE}),
    0x23: ("interpeer_channel_reset", {"channel_id": _ID, "error_code": _VALUE, "final_size": _OFFSET}),
    0x24: ("interpeer_channel_stop", {"channel_id": _ID, "error_code": _VALUE}),
    0x25: (
        "interpeer_dropped",
        {"channel_id": _ID, "offset": _OFFSET, "within": _WITHIN, "size": _BYTES, "number": _VALUE, "count": _COUNT},
    ),
    0x26: ("interpeer_repair", {"channel_id": _ID, "length": _BYTES}),
    **dict.fromkeys(range(0x2C, 0x30), ("interpeer_messages", _MESSAGES_FIELDS)),
}
_FALLBACK = {"id": _ID, "value": _VALUE, "offset": _OFFSET, "length": _BYTES, "path": _PATH}


def _frame(values: Record) -> dict[str, Any]:
    """Return a frame as qlog has it; one of a type that FRAMES does not name, with those of its numbers that are not 0."""
    kind = values[0]
    known = FRAMES.get(kind)
    if known is None:
        numbers = {name: values[i] for name, i in _FALLBACK.items() if values[i]}
        return {"frame_type": "unknown", "raw_frame_type": kind, **numbers}
    name, fields = known
    frame: dict[str, Any] = {"frame_type": name}
    for field, i in fields.items():
        frame[field] = values[i]
    if name in ("stream", "interpeer_messages"):
        frame["fin"] = bool(values[_FIN])
    elif name == "ack":
        frame["ack_delay"] = values[_DELAY] / 1000
        frame["acked_ranges"] = []
        if values[_PATH]:
            frame["interpeer_path"] = values[_PATH]
    elif name == "connection_close":
        frame["error_space"] = "application" if kind == 0x07 else "transport"
    elif name == "max_streams":
        frame["stream_type"] = "bidirectional"
    return frame


def _frames(records: Iterator[Record], count: int) -> list[dict[str, Any]]:
    """Read the records of a packet's frames, those that belong to an ACK frame included."""
    frames: list[dict[str, Any]] = []
    for _ in range(count):
        _, _, _, kind, *values = next(records)
        if kind == _FRAME:
            frames.append(_frame(tuple(values)))
        elif kind == _RANGES:
            ranges = frames[-1]["acked_ranges"]
            ranges += [[low, high] for low, high in zip(values[::2], values[1::2], strict=True) if low <= high]
        else:
            frames[-1].update(ect0=values[0], ect1=values[1], ce=values[2])
    return frames


# --- one connection ---


@final
class ConnectionLog:
    """Turn the records of one connection into lines of its file."""

    def __init__(self, started: Record, wall_ms: Callable[[int], float]) -> None:
        self.start_ns, _, _, _, self._cid, self._peer_cid, self._suite, is_initiator, *where = started
        self._where = where[:5]
        self.is_initiator = bool(is_initiator)
        self.last_ns = self.start_ns
        self._reference_ms = wall_ms(self.start_ns)
        self._metrics: dict[int, dict[str, Any]] = {}  # of each path, as told last
        self._is_over = False

    @property
    def name(self) -> str:
        """The file's name: both ends' begin alike."""
        return f"{self._initial_cid}_{'initiator' if self.is_initiator else 'responder'}.sqlog"

    @property
    def _initial_cid(self) -> str:
        return f"{self._cid if self.is_initiator else self._peer_cid:016x}"

    def header(self) -> str:
        """Return the file's first line."""
        vantage_point = {"name": f"interpeer {__version__}", "type": "client" if self.is_initiator else "server"}
        common = {
            "ODCID": self._initial_cid,
            "group_id": self._initial_cid,
            "time_format": "relative",
            "reference_time": self._reference_ms,
        }
        trace = {"title": self.name, "vantage_point": vantage_point, "common_fields": common}
        return _line({"qlog_version": "0.3", "qlog_format": "JSON-SEQ", "title": "interpeer", "trace": trace})

    def line(self, time_ns: int, name: str, data: dict[str, Any]) -> str:
        """Return an event as a line; times are in milliseconds."""
        self.last_ns = time_ns
        return _line({"time": round((time_ns - self.start_ns) / 1e6, 6), "name": name, "data": data})

    def events(self, record: Record, rest: Iterator[Record]) -> Iterator[Event]:
        """Turn a record, with those that belong to it, into events."""
        time_ns, _, path, kind, *values = record
        if kind in (_SENT, _RECEIVED):
            frames = _frames(rest, values[3])
            packet = self._packet(path, values, frames)
            if kind == _SENT and values[5]:
                packet["is_mtu_probe_packet"] = True
            yield time_ns, f"transport:packet_{'sent' if kind == _SENT else 'received'}", packet
        elif kind == _STARTED:
            yield time_ns, "connectivity:connection_started", self._started()
            yield time_ns, "connectivity:connection_state_updated", {"old": "attempted", "new": "handshake_complete"}
        elif kind == _LOST:
            trigger = "time_threshold" if values[2] else "reordering_threshold"
            header = {"packet_type": "1RTT", "packet_number": values[0]}
            lost: dict[str, Any] = {"header": header, "raw": {"length": values[1]}, "trigger": trigger}
            yield time_ns, "recovery:packet_lost", {**lost, "is_mtu_probe_packet": True} if values[3] else lost
        elif kind == _DROPPED:
            trigger = _WHY_DROPPED.get(values[0], "invalid")
            yield time_ns, "transport:packet_dropped", {"raw": {"length": values[1]}, "trigger": trigger}
        elif kind == _METRICS:
            yield from ((time_ns, *event) for event in self._measured(path, values))
        elif kind == _KEY:
            is_of_initiator = bool(values[0]) == self.is_initiator
            key = {"key_type": "client_1rtt_secret" if is_of_initiator else "server_1rtt_secret", "generation": values[1]}
            yield time_ns, "security:key_updated", {**key, "trigger": "local_update" if values[0] else "remote_update"}
        elif kind == _STATE:
            yield from ((time_ns, *event) for event in self._changed(values))
        elif kind == _PATH_EVENT:
            where = f"{_address(values[2], values[3])} port {values[4]}"
            what: dict[str, Any] = {"interpeer_path": path, "new": KINDS[values[0]], "remote": where}
            yield time_ns, "interpeer:path_updated", {**what, "reason": REASONS[values[1]]} if values[1] else what

    def _started(self) -> dict[str, Any]:
        high, low, port, local_high, local_low = self._where
        remote, local = _address(high, low), _address(local_high, local_low)
        return {
            "ip_version": f"ipv{remote.version}",
            "src_ip": str(local),
            "dst_ip": str(remote),
            "dst_port": port,
            "protocol": "interpeer",
            "src_cid": f"{self._cid:016x}",
            "dst_cid": f"{self._peer_cid:016x}",
            "interpeer_cipher": _CIPHERS.get(self._suite, str(self._suite)),
        }

    def _packet(self, path: int, values: list[int], frames: list[dict[str, Any]]) -> dict[str, Any]:
        number, size, epoch, _, is_cut, *_ = values
        header = {"packet_type": "1RTT", "packet_number": number, "interpeer_epoch": epoch}
        data: dict[str, Any] = {"header": header, "raw": {"length": size}, "frames": frames}
        if path:
            data["interpeer_path"] = path
        if is_cut:
            data["interpeer_more_frames"] = True
        return data

    def _measured(self, path: int, values: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Tell which figures have changed since they were told last."""
        before = self._metrics.get(path, {})
        now: dict[str, Any] = {
            "congestion_window": values[0],
            "bytes_in_flight": values[1],
            "smoothed_rtt": values[2] / 1e6,
            "min_rtt": values[3] / 1e6,
            "latest_rtt": values[4] / 1e6,
            "rtt_variance": values[5] / 1e6,
            "pacing_rate": values[6] * 8,
            "pto_count": values[7],
        }
        where = {"interpeer_path": path} if path else {}
        changed = {name: value for name, value in now.items() if before.get(name) != value}
        if changed:
            yield "recovery:metrics_updated", {**changed, **where}
        phase, ecn = _PHASES[values[9] >> 8], _ECN_STATES[values[9] & 0xFF]
        if before.get("phase") != phase:
            yield "recovery:congestion_state_updated", {**_change(before.get("phase"), phase), **where}
        if before.get("ecn", _ECN_STATES[0]) != ecn:
            yield "recovery:ecn_state_updated", {**_change(before.get("ecn"), ecn), **where}
        if before.get("mtu") != values[8]:
            yield "connectivity:mtu_updated", {**_change(before.get("mtu"), values[8]), **where}
        self._metrics[path] = {**now, "phase": phase, "ecn": ecn, "mtu": values[8]}

    def _changed(self, values: list[int]) -> Iterator[tuple[str, dict[str, Any]]]:
        before, after, _, closed_by, code, is_app, *_ = values
        if not self._is_over and closed_by:
            self._is_over = True
            owner, trigger = _WHY_CLOSED.get(closed_by, ("local", "error"))
            yield (
                "connectivity:connection_closed",
                {
                    "owner": owner,
                    "application_code" if is_app else "connection_code": code,
                    "trigger": trigger,
                },
            )
        if after in _STATES and before != 0:
            yield "connectivity:connection_state_updated", _change(_STATES[before], _STATES[after])


def _change(old: object, new: object) -> dict[str, Any]:
    return {"new": new} if old is None else {"old": old, "new": new}


def _address(high: int, low: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.IPv6Address(high << 64 | low)
    return address.ipv4_mapped or address


def _line(thing: dict[str, Any]) -> str:
    return f"\x1e{json.dumps(thing, separators=(',', ':'))}\n"


# --- a folder of files ---


@final
class QlogWriter:
    """Write the files of a folder. What cannot be written is counted, and told once; it never stops anything else.

    wall_ms: turns the trace's nanoseconds into milliseconds since 1970. on_trouble: is told the first reason."""

    def __init__(self, folder: Path, max_bytes: int, wall_ms: Callable[[int], float], on_trouble: Callable[[str], None]) -> None:
        self._folder = folder
        self._max_bytes = max_bytes
        self._wall_ms = wall_ms
        self._on_trouble = on_trouble
        self._logs: dict[int, tuple[ConnectionLog, int]] = {}  # by number: the log and its file's descriptor
        self._room: dict[int, int] = {}  # bytes that its file may still grow
        self.failures = 0

    def write(self, records: bytes, left_out: int) -> None:
        """Write a batch of records; `left_out` are those that found no room before it."""
        lines: dict[int, list[str]] = {}
        over: list[int] = []
        rest: Iterator[Record] = _RECORD.iter_unpack(records)
        for record in rest:
            number, kind = record[1], record[3]
            if kind == _STARTED:
                self._open(number, record)
            if number not in self._logs:
                if kind in (_SENT, _RECEIVED):  # its frames go with it
                    for _ in range(record[7]):
                        next(rest)
                continue
            log = self._logs[number][0]
            mine = lines.setdefault(number, [])
            if left_out:
                mine.append(log.line(record[0], "interpeer:left_out", {"events": left_out}))
                left_out = 0
            mine += [log.line(*event) for event in log.events(record, rest)]
            if kind == _STATE and record[5] == 4:
                over.append(number)
        for number, mine in lines.items():
            self._append(number, mine)
        for number in over:
            self._close(number)

    def _open(self, number: int, started: Record) -> None:
        if len(self._logs) == MAX_OPEN_FILES:
            self._fail(f"{MAX_OPEN_FILES} connections have a qlog file at once: others get none")
            return
        log = ConnectionLog(started, self._wall_ms)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
            descriptor = os.open(self._folder / log.name, flags, 0o600)
        except OSError as error:
            self._fail(f"no qlog file {self._folder / log.name}: {error.strerror}")
            return
        self._logs[number] = log, descriptor
        self._room[number] = self._max_bytes
        self._append(number, [log.header()])

    def _append(self, number: int, lines: list[str]) -> None:
        """Write lines to a file, up to its greatest size."""
        if number not in self._logs:
            return
        log, descriptor = self._logs[number]
        data = "".join(lines).encode()
        if len(data) > self._room[number]:
            data = log.line(log.last_ns, "interpeer:log_is_full", {"max_bytes": self._max_bytes}).encode()
            self._fail(f"{log.name} has its greatest size of {self._max_bytes} bytes: the rest is left out")
            self._room[number] = 0
        self._room[number] -= min(len(data), self._room[number])
        is_full = self._room[number] == 0
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:
            self._fail(f"cannot write {log.name}: {error.strerror}")
            is_full = True
        if is_full:
            self._close(number)

    def _close(self, number: int) -> None:
        _, descriptor = self._logs.pop(number, (None, -1))
        self._room.pop(number, None)
        if descriptor >= 0:
            os.close(descriptor)

    def _fail(self, why: str) -> None:
        self.failures += 1
        if self.failures == 1:
            self._on_trouble(why)

    def close(self) -> None:
        """Close every file."""
        for number in list(self._logs):
            self._close(number)
