"""Variable-length integers, frames and transport parameters: what is read, and what is refused."""

import pytest

from interpeer._core import probe_wire
from tests.models import wire

EDGES = [0, 1, 63, 64, 16383, 16384, 2**30 - 1, 2**30, 2**62 - 1]

FRAMES = [
    ("ping",),
    ("ack", 0, 25, [(7, 9)], None),
    ("ack", 3, 2**20, [(100, 120), (98, 98), (0, 3)], (5, 0, 2**40)),
    ("reset_stream", 4, 17, 2**40),
    ("stop_sending", 5, 0),
    ("close", 7, b"a rule is broken"),
    ("close_app", 2**62 - 1, b""),
    ("stream", 0, 0, b"", False),
    ("stream", 9, 2**50, b"some data", True),
    ("max_data", 2**62 - 1),
    ("max_stream_data", 1, 64),
    ("max_streams", 1024),
    ("datagram", b""),
    ("datagram", b"x" * 100),
    ("new_connection_id", 3, 2**30, b"\x80conn-id", bytes(range(16))),
    ("retire_connection_id", 2**31 - 1, 64),
    ("path_challenge", b"question"),
    ("path_response", b"question"),
    ("path_abandon", 1, 0),
    ("path_status", 2, 7, 1),
    ("rekey", 1, bytes(range(96))),
    ("rekey_answer", 2**62 - 1, bytes(48)),
    ("channel", 3, 2**20, 5, 7, 40_000, 64, 1),
    ("max_channels", 4096),
    ("channel_max_data", 1, 2**40),
    ("channel_reset", 5, 9, 2**31),
    ("channel_stop", 4, 0),
    ("dropped", 2, 0, 0, 0, 17, 3),
    ("dropped", 2, 4000, 1000, 8, 17, 0),
    ("repair", 6, b"what makes up for a loss"),
    ("messages", 2**62 - 1, 0, 0, b"\0\0\0\1\0\0\0\0x", True),
    ("messages", 3, 1008, 1008, b"more of one", False),
    ("ignorable", 0x40, b"what a later version says"),
    ("ignorable", 2**62 - 1, b""),
]


# --- variable-length integers ---


@pytest.mark.parametrize("value", EDGES)
def test_varint_takes_the_shortest_form_and_is_read_back(value):
    written = probe_wire.write_varint(value)
    assert written == wire.varint(value)
    assert probe_wire.read_varint(written) == (value, len(written))
    assert probe_wire.read_varint(written + b"more") == (value, len(written))


@pytest.mark.parametrize("text", ["25", "7bbd", "9d7f3e7d", "c2197c5eff14e88c"])
def test_published_examples_of_varints_are_read(text):
    """RFC 9000, A.1."""
    values = {"25": 37, "7bbd": 15293, "9d7f3e7d": 494878333, "c2197c5eff14e88c": 151288809941952652}
    assert probe_wire.read_varint(bytes.fromhex(text)) == (values[text], len(text) // 2)


@pytest.mark.row("P9")
@pytest.mark.parametrize(("value", "length"), [(v, n) for v in EDGES for n in (2, 4, 8) if v < 1 << (4 * n - 2)])
def test_longer_form_than_needed_is_refused(value, length):
    assert probe_wire.read_varint(wire.varint(value, length)) is None


@pytest.mark.row("P9")
@pytest.mark.parametrize("value", EDGES)
def test_truncated_varint_is_refused_at_every_length(value):
    written = probe_wire.write_varint(value)
    for n in range(len(written)):
        assert probe_wire.read_varint(written[:n]) is None


# --- frames ---


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame[0])
def test_frame_is_read_as_it_was_written(frame):
    assert probe_wire.parse(wire.write_frame(frame)) == ([frame], True)


def test_frames_follow_each_other_and_padding_lies_anywhere():
    payload = b"\0\0".join(wire.write_frame(frame) for frame in FRAMES)
    assert probe_wire.parse(b"\0" + payload + bytes(500)) == (FRAMES, True)
    assert probe_wire.parse(b"") == ([], True)
    assert probe_wire.parse(bytes(1)) == ([], True)


LAST = [frame for frame in FRAMES if frame[0] in ("stream", "datagram", "messages")]


@pytest.mark.parametrize("frame", LAST, ids=lambda frame: frame[0])
def test_last_frame_may_leave_out_its_length(frame):
    payload = b"\x01" + wire.write_frame(frame, is_last=True)
    assert probe_wire.parse(payload) == ([("ping",), frame], True)


def test_first_stream_frame_may_leave_out_its_offset():
    assert probe_wire.parse(wire.write_frame(("stream", 8, 0, b"first", False), has_offset=False))[0] == [
        ("stream", 8, 0, b"first", False)
    ]


@pytest.mark.row("P9")
@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: frame[0])
def test_frame_cut_anywhere_is_refused_and_those_before_it_stand(frame):
    written = wire.write_frame(frame)
    for n in range(1, len(written)):
        assert probe_wire.parse(b"\x01" + written[:n]) == ([("ping",)], False), n


@pytest.mark.row("P8")
def test_unknown_frame_below_the_ignorable_ones_is_refused():
    known = {0x00, *range(0x01, 0x13), *range(0x16, 0x27), *range(0x2C, 0x30)}
    for kind in set(range(wire.IGNORABLE)) - known:
        assert probe_wire.parse(bytes([kind]) + bytes(20)) == ([], False), kind


@pytest.mark.row("P8")
@pytest.mark.parametrize("kind", [0x40, 0x41, 0x3FFF, 0x4000, 2**62 - 1])
def test_unknown_ignorable_frame_is_skipped_by_its_length(kind):
    payload = wire.write_frame(("ignorable", kind, b"\xff" * 70)) + b"\x01"
    assert probe_wire.parse(payload) == ([("ignorable", kind, b"\xff" * 70), ("ping",)], True)


@pytest.mark.row("P9")
@pytest.mark.parametrize("length", [2, 65536, 2**32, 2**62 - 1])
@pytest.mark.parametrize("head", [b"\x17", b"\x06\x00", b"\x40\x40", b"\x0a\x00", b"\x0e\x00\x00"], ids=bytes.hex)
def test_length_beyond_the_packet_is_refused(head, length):
    assert probe_wire.parse(head + wire.varint(length) + b"x") == ([], False)


@pytest.mark.row("S5")
def test_stream_data_end_below_two_to_the_62():
    last = 2**62 - 1
    assert probe_wire.parse(wire.write_frame(("stream", 0, last - 1, b"x", True)))[1]
    assert probe_wire.parse(wire.write_frame(("stream", 0, last, b"", True)))[1]
    for data in (b"x", b"xx"):
        assert probe_wire.parse(wire.write_frame(("stream", 0, last, data, False))) == ([], False)
        assert probe_wire.parse(wire.write_frame(("stream", 0, last, data, False), is_last=True)) == ([], False)


@pytest.mark.row("C2")
def test_acknowledgement_has_64_ranges_at_most():
    ranges = [(2 * i, 2 * i) for i in reversed(range(64))]
    assert probe_wire.parse(wire.write_ack(0, 0, ranges, None)) == ([("ack", 0, 0, ranges, None)], True)
    assert probe_wire.parse(wire.write_ack(0, 0, [(128, 128), *ranges], None)) == ([], False)
    for count in (64, 10_000, 2**62 - 1):
        assert probe_wire.parse(b"\x02\x00\x05\x00" + wire.varint(count) + bytes(200)) == ([], False)


@pytest.mark.row("C2")
@pytest.mark.parametrize(
    "numbers",
    [
        (5, 0, 0, 6),  # first range: numbers -1 to 5
        (5, 0, 1, 0, 4, 0),  # gap below 0
        (5, 0, 1, 0, 3, 1),  # second range below 0
        (5, 0, 1, 0, 2**62 - 1, 0),
        (2**62 - 1, 0, 1, 0, 2**62 - 3, 2**62 - 1),
    ],
)
def test_acknowledgement_of_numbers_below_zero_is_refused(numbers):
    assert probe_wire.parse(b"\x02\x00" + b"".join(map(wire.varint, numbers))) == ([], False)


def test_acknowledgement_reaches_from_zero_to_the_greatest_number():
    for ranges in ([(0, 2**62 - 1)], [(2**62 - 1, 2**62 - 1), (0, 2**62 - 3)], [(2, 2), (0, 0)]):
        assert probe_wire.parse(wire.write_ack(1, 2**62 - 1, ranges, None)) == ([("ack", 1, 2**62 - 1, ranges, None)], True)


# --- transport parameters ---

PARAMETERS = {
    "suites": bytes([4, 3, 2, 1]),
    "protocol": b"interpeer/1",
    "max_data": 2**62 - 1,
    "max_stream_data": 2**30,
    "max_streams": 1,
    "max_datagram": 65000,
    "idle_timeout_ms": 30000,
    "max_ack_delay_us": 5000,
    "max_udp_payload": 1201,
    "receive_buffer": 2**17,
    "max_paths": 0,
    "max_channels": 4095,
    "max_message": 2**24 + 1,
    "reset_token": bytes(range(16)),
    "connection_id": 1 << 63 | 12345,
}


def test_parameters_are_written_as_specified_and_read_back():
    written = probe_wire.encode_parameters(PARAMETERS)
    assert written == wire.write_parameters(PARAMETERS)
    assert probe_wire.read_parameters(written) == {**wire.EMPTY, **PARAMETERS}


def test_numbers_that_absence_says_are_not_written():
    absent = {name: wire.EMPTY[name] for name in wire.NUMBERS.values()}
    assert absent["max_paths"] == 4 and absent["max_channels"] == 4096 and absent["max_message"] == 2**24
    written = probe_wire.encode_parameters({**PARAMETERS, **absent})
    assert written == wire.write_parameters({**PARAMETERS, **absent})
    assert len(written) == 2 + 4 + 2 + 11 + 2 + 16 + 2 + 8  # suites, protocol, token, connection id
    for name in absent:  # each is written when it is another
        for value in {0, absent[name] + 1} - {absent[name]}:
            one = probe_wire.encode_parameters({**PARAMETERS, **absent, name: value})
            assert len(one) > len(written)
            if name != "max_udp_payload" or value:
                assert probe_wire.read_parameters(one)[name] == value


def test_refusal_stands_alone():
    values = {**PARAMETERS, "refusal": 0x10, "reason": b"r" * 256}
    written = probe_wire.encode_parameters(values)
    assert written == wire.write_parameters(values)
    assert probe_wire.read_parameters(written) == {**wire.EMPTY, "refusal": 0x10, "reason": b"r" * 256}


def test_parameters_are_not_written_where_room_might_be_missing():
    full = {**PARAMETERS, "protocol": b"p" * 64, **dict.fromkeys(wire.NUMBERS.values(), 2**62 - 1)}
    assert probe_wire.encode_parameters(full, 200 + 63) is None
    assert len(probe_wire.encode_parameters(full, 200 + 64)) <= 200 + 64
    assert probe_wire.encode_parameters({"refusal": 1, "reason": b"r" * 256}, 200 + 255) is None


@pytest.mark.row("H21")
def test_unknown_parameters_are_skipped_and_padding_may_be_repeated():
    written = wire.write_parameters(PARAMETERS)
    extra = wire.parameter(0x3F, b"new") + wire.parameter(2**62 - 1, b"") + wire.parameter(0, bytes(9)) + wire.parameter(0, b"")
    assert probe_wire.read_parameters(extra + written + extra) == {**wire.EMPTY, **PARAMETERS}


@pytest.mark.row("H21")
def test_parameters_cut_anywhere_are_refused_or_end_between_two():
    written = probe_wire.encode_parameters(PARAMETERS)
    whole = 0
    for n in range(len(written)):
        found = probe_wire.read_parameters(written[:n])
        assert found == wire.read_parameters(written[:n])
        whole += found is not None
    assert whole == 15  # of the fifteen parameters none, one, ..., fourteen


@pytest.mark.row("H21")
@pytest.mark.parametrize("kind", range(1, 15))
def test_repeated_parameter_is_refused(kind):
    values = {1: b"\1", 2: b"p", 9: wire.varint(1200), 10: bytes(16), 11: b"\1", 12: b"\x80" + bytes(7)}
    one = wire.parameter(kind, values.get(kind, b"\5"))
    assert probe_wire.read_parameters(one) is not None
    assert probe_wire.read_parameters(one + one) is None
    assert probe_wire.read_parameters(one + wire.parameter(0, b"") + one) is None


@pytest.mark.row("H21")
@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (0x01, b""),
        (0x02, b""),
        (0x02, b"p" * 65),
        (0x03, b""),
        (0x03, b"\x40\x05"),  # 5 in a longer form than needed
        (0x03, b"\x05\x05"),
        (0x04, b"\xc0"),
        (0x08, wire.varint(16_384_001)),
        (0x09, wire.varint(1199)),
        (0x0A, bytes(15)),
        (0x0A, bytes(17)),
        (0x0B, b""),
        (0x0B, b"\0"),
        (0x0B, b"\1" + bytes(257)),
        (0x0C, bytes(8)),
        (0x0C, b"\x7f" + bytes(7)),
        (0x0C, b"\x80" + bytes(6)),
        (0x0C, b"\x80" + bytes(8)),
    ],
)
def test_malformed_parameter_is_refused(kind, value):
    assert probe_wire.read_parameters(wire.parameter(kind, value)) is None


@pytest.mark.row("P9")
@pytest.mark.parametrize("length", [1, 64, 2**32 + 1, 2**62 - 1])
def test_parameter_longer_than_the_message_is_refused(length):
    for kind in (0, 1, 0x0E, 2**62 - 1):
        assert probe_wire.read_parameters(wire.varint(kind) + wire.varint(length)) is None


def test_absurd_idle_timeout_counts_as_the_largest():
    for value in (2**31 - 1, 2**31, 2**62 - 1):
        found = probe_wire.read_parameters(wire.parameter(0x07, wire.varint(value)))
        assert found == {**wire.EMPTY, "idle_timeout_ms": 2**31 - 1}


def test_suites_beyond_the_eighth_are_left_out():
    assert probe_wire.read_parameters(wire.parameter(1, bytes(range(1, 13))))["suites"] == bytes(range(1, 9))
