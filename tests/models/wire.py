"""Frames, transport parameters and variable-length integers, read and written one byte after the other.

Frames are tuples as the doors of the core give them: a name, then the fields.
"""

from __future__ import annotations

import itertools

STREAM_FIN, STREAM_LEN, STREAM_OFF = 1, 2, 4
MAX_VARINT = 2**62 - 1
MAX_ACK_RANGES = 64
IGNORABLE = 0x40
LEAST_UDP_PAYLOAD = 1200
MAX_ACK_DELAY_US = 16_384_000
MAX_IDLE_TIMEOUT_MS = 2**31 - 1

NUMBERS = {
    3: "max_data",
    4: "max_stream_data",
    5: "max_streams",
    6: "max_datagram",
    7: "idle_timeout_ms",
    8: "max_ack_delay_us",
    9: "max_udp_payload",
    13: "receive_buffer",
    14: "max_paths",
    16: "max_channels",
    17: "max_message",
}
PATH_FRAMES = {
    0x18: ("new_connection_id", 2, 24),
    0x19: ("retire_connection_id", 2, 0),
    0x1A: ("path_challenge", 0, 8),
    0x1B: ("path_response", 0, 8),
    0x1C: ("path_abandon", 2, 0),
    0x1D: ("path_status", 3, 0),
}
"""Frames about paths, by type: name, how many varints, and how many bytes of fixed size behind them."""
PATH_FRAME_TYPES = {name: kind for kind, (name, _, _) in PATH_FRAMES.items()}
CHANNEL_FRAMES = {
    0x20: ("channel", 7),
    0x21: ("max_channels", 1),
    0x22: ("channel_max_data", 2),
    0x23: ("channel_reset", 3),
    0x24: ("channel_stop", 2),
    0x25: ("dropped", 6),
}
"""Frames about channels that have nothing but varints, by type: name, and how many."""
CHANNEL_FRAME_TYPES = {name: kind for kind, (name, _) in CHANNEL_FRAMES.items()}
EMPTY = {
    "suites": b"",
    "protocol": b"",
    **dict.fromkeys(NUMBERS.values(), 0),
    "max_udp_payload": LEAST_UDP_PAYLOAD,
    "max_paths": 4,
    "max_channels": 4096,
    "max_message": 2**24,
    "reset_token": None,
    "connection_id": 0,
    "refusal": 0,
    "reason": b"",
}


class Malformed(Exception):
    """What was read is not what the specification has."""


def require(condition: bool) -> None:
    if not condition:
        raise Malformed


def varint(value: int, length: int | None = None) -> bytes:
    """Encode (RFC 9000, 16); `length` asks for a longer form than needed, which is not allowed on the wire."""
    shortest = next(n for n in (1, 2, 4, 8) if value < 1 << (8 * n - 2))
    length = length or shortest
    return (value | (length.bit_length() - 1) << (8 * length - 2)).to_bytes(length, "big")


class Text:
    """Bytes that are read from the front."""

    def __init__(self, content: bytes) -> None:
        self.left = content

    def take(self, n: int) -> bytes:
        require(n <= len(self.left))
        taken, self.left = self.left[:n], self.left[n:]
        return taken

    def varint(self) -> int:
        require(len(self.left) > 0)
        length = 1 << (self.left[0] >> 6)
        value = int.from_bytes(self.take(length), "big") & ((1 << (8 * length - 2)) - 1)
        require(length == 1 or value >= 1 << (4 * length - 2))
        return value

    def rest(self) -> bytes:
        return self.take(len(self.left))


# --- frames ---


def read_frames(payload: bytes) -> tuple[list[tuple], bool]:
    """Return the frames, and whether the payload could be read to its end."""
    text, frames = Text(payload), []
    try:
        while True:
            text.left = text.left.lstrip(b"\0")
            if not text.left:
                return frames, True
            frames.append(read_frame(text))
    except Malformed:
        return frames, False


def read_channel_frame(text: Text, kind: int) -> tuple:
    if kind >= 0x2C:
        channel, offset, within = text.varint(), text.varint(), text.varint()
        data = text.take(text.varint()) if kind & STREAM_LEN else text.rest()
        require(within <= offset and not 0 < within < 8 and offset + len(data) < 2**62)
        return "messages", channel, offset, within, data, bool(kind & STREAM_FIN)
    if kind == 0x26:
        return "repair", text.varint(), text.take(text.varint())
    require(kind in CHANNEL_FRAMES)
    name, numbers = CHANNEL_FRAMES[kind]
    frame = (name, *(text.varint() for _ in range(numbers)))
    if name == "channel":
        require(frame[3] < 8 and frame[4] < 8 and frame[6] <= 64 and frame[7] <= 64)
    elif name == "dropped":
        _, _, offset, within, size, number, count = frame
        if size:
            require(size >= 8 and count <= 1 and within <= offset and not 0 < within < 8)
        else:
            require(count > 0 and not offset and not within)
        require(offset + size < 2**62 and number + count < 2**62)
    return frame


def read_frame(text: Text) -> tuple:
    kind = text.varint()
    if kind == 0x01:
        return ("ping",)
    if kind in (0x02, 0x03):
        return read_ack(text, kind == 0x03)
    if kind == 0x04:
        return "reset_stream", text.varint(), text.varint(), text.varint()
    if kind == 0x05:
        return "stop_sending", text.varint(), text.varint()
    if kind in (0x06, 0x07):
        return "close" if kind == 0x06 else "close_app", text.varint(), text.take(text.varint())
    if 0x08 <= kind <= 0x0F:
        return read_stream(text, kind)
    if kind == 0x10:
        return "max_data", text.varint()
    if kind == 0x11:
        return "max_stream_data", text.varint(), text.varint()
    if kind == 0x12:
        return "max_streams", text.varint()
    if kind == 0x16:
        return "datagram", text.rest()
    if kind == 0x17:
        return "datagram", text.take(text.varint())
    if kind in PATH_FRAMES:
        name, numbers, size = PATH_FRAMES[kind]
        return (name, *(text.varint() for _ in range(numbers)), *split(name, text.take(size)))
    if kind in (0x1E, 0x1F):
        return "rekey" if kind == 0x1E else "rekey_answer", text.varint(), text.take(96 if kind == 0x1E else 48)
    if 0x20 <= kind < 0x30:
        return read_channel_frame(text, kind)
    require(kind >= IGNORABLE)
    return "ignorable", kind, text.take(text.varint())


def split(name: str, data: bytes) -> tuple[bytes, ...]:
    """Return the fields of fixed size at the end of a frame about paths."""
    if name == "new_connection_id":
        return data[:8], data[8:]
    return (data,) if data else ()


def read_stream(text: Text, kind: int) -> tuple:
    stream = text.varint()
    offset = text.varint() if kind & STREAM_OFF else 0
    data = text.take(text.varint()) if kind & STREAM_LEN else text.rest()
    require(offset + len(data) <= MAX_VARINT)
    return "stream", stream, offset, data, bool(kind & STREAM_FIN)


def read_ack(text: Text, has_ecn: bool) -> tuple:
    path, high, delay_us, more = text.varint(), text.varint(), text.varint(), text.varint()
    require(more < MAX_ACK_RANGES)
    ranges = []
    for i in range(more + 1):
        if i:
            high = ranges[-1][0] - text.varint() - 2
            require(high >= 0)
        low = high - text.varint()
        require(low >= 0)
        ranges.append((low, high))
    return "ack", path, delay_us, ranges, tuple(text.varint() for _ in range(3)) if has_ecn else None


def write_frame(frame: tuple, *, is_last: bool = False, has_offset: bool = True) -> bytes:
    """Encode a frame; the last one of a packet may leave out its length, and a stream's first one its offset."""
    name, *fields = frame
    if name == "ping":
        return varint(0x01)
    if name == "ack":
        return write_ack(*fields)
    if name == "stream":
        stream, offset, data, fin = fields
        has_offset = has_offset or offset > 0
        kind = 0x08 | (STREAM_FIN if fin else 0) | (0 if is_last else STREAM_LEN) | (STREAM_OFF if has_offset else 0)
        return (
            varint(kind)
            + varint(stream)
            + (varint(offset) if has_offset else b"")
            + (b"" if is_last else varint(len(data)))
            + data
        )
    if name == "datagram":
        return varint(0x16) + fields[0] if is_last else varint(0x17) + varint(len(fields[0])) + fields[0]
    if name in ("close", "close_app"):
        return varint(0x06 if name == "close" else 0x07) + varint(fields[0]) + varint(len(fields[1])) + fields[1]
    if name in ("rekey", "rekey_answer"):
        return varint(0x1E if name == "rekey" else 0x1F) + varint(fields[0]) + fields[1]
    if name == "ignorable":
        return varint(fields[0]) + varint(len(fields[1])) + fields[1]
    if name == "repair":
        return varint(0x26) + varint(fields[0]) + varint(len(fields[1])) + fields[1]
    if name == "messages":
        channel, offset, within, data, fin = fields
        kind = 0x2C | (STREAM_FIN if fin else 0) | (0 if is_last else STREAM_LEN)
        head = b"".join(map(varint, (kind, channel, offset, within)))
        return head + (b"" if is_last else varint(len(data))) + data
    if name in CHANNEL_FRAME_TYPES:
        return b"".join(map(varint, (CHANNEL_FRAME_TYPES[name], *fields)))
    if name in PATH_FRAME_TYPES:
        return varint(PATH_FRAME_TYPES[name]) + b"".join(f if isinstance(f, bytes) else varint(f) for f in fields)
    kinds = {"reset_stream": 0x04, "stop_sending": 0x05, "max_data": 0x10, "max_stream_data": 0x11, "max_streams": 0x12}
    return b"".join(map(varint, (kinds[name], *fields)))


def write_ack(path: int, delay_us: int, ranges: list[tuple[int, int]], ecn: tuple[int, int, int] | None) -> bytes:
    """Encode ranges (low, high), both included, the highest first."""
    numbers = [0x03 if ecn else 0x02, path, ranges[0][1], delay_us, len(ranges) - 1, ranges[0][1] - ranges[0][0]]
    for (above, _), (low, high) in itertools.pairwise(ranges):
        numbers += [above - high - 2, high - low]
    return b"".join(map(varint, (*numbers, *(ecn or ()))))


# --- transport parameters ---


def read_parameters(content: bytes) -> dict | None:
    """Return the parameters by name, or None."""
    text, found, seen = Text(content), dict(EMPTY), set()
    try:
        while text.left:
            kind, value = text.varint(), Text(text.take(text.varint()))
            if kind not in (*range(1, 0x0F), 0x10, 0x11):
                continue
            require(kind not in seen)
            seen.add(kind)
            read_parameter(kind, value, found)
    except Malformed:
        return None
    return found


def read_parameter(kind: int, value: Text, found: dict) -> None:
    n = len(value.left)
    if kind == 0x01:
        require(n > 0)
        found["suites"] = value.rest()[:8].replace(b"\0", b"")
    elif kind == 0x02:
        require(0 < n <= 64)
        found["protocol"] = value.rest()
    elif kind == 0x0A:
        require(n == 16)
        found["reset_token"] = value.rest()
    elif kind == 0x0B:
        found["refusal"] = value.varint()
        require(found["refusal"] > 0 and len(value.left) <= 256)
        found["reason"] = value.rest()
    elif kind == 0x0C:
        require(n == 8 and value.left[0] & 0x80)
        found["connection_id"] = int.from_bytes(value.rest(), "big")
    else:
        number = value.varint()
        require(not value.left)
        require(kind != 0x08 or number <= MAX_ACK_DELAY_US)
        require(kind != 0x09 or number >= LEAST_UDP_PAYLOAD)
        found[NUMBERS[kind]] = min(number, MAX_IDLE_TIMEOUT_MS) if kind == 0x07 else number


def parameter(kind: int, value: bytes) -> bytes:
    return varint(kind) + varint(len(value)) + value


def write_parameters(values: dict) -> bytes:
    """Encode what `values` has, in the order that the core writes it."""
    if values.get("refusal"):
        return parameter(0x0B, varint(values["refusal"]) + values.get("reason", b""))
    written = parameter(0x01, values["suites"])
    if values.get("protocol"):
        written += parameter(0x02, values["protocol"])
    for kind, name in NUMBERS.items():
        if values.get(name, 0) != EMPTY[name]:
            written += parameter(kind, varint(values.get(name, 0)))
    if values.get("reset_token") is not None:
        written += parameter(0x0A, values["reset_token"])
    if values.get("connection_id"):
        written += parameter(0x0C, values["connection_id"].to_bytes(8, "big"))
    return written
