"""The core's parsers and writers beside their plain twins: on what is well-formed, on what is damaged, on noise."""

from hypothesis import given
from hypothesis import strategies as st

from interpeer._core import probe_wire
from tests.models import wire

varints = st.one_of(st.integers(0, 70), st.integers(0, 2**62 - 1), st.sampled_from([2**14, 2**30, 2**62 - 1]))
texts = st.binary(max_size=80)
eight = st.binary(min_size=8, max_size=8)


@st.composite
def range_lists(draw):
    """Ranges of an ACK frame: the highest first, with at least one number missing between two."""
    high = draw(varints)
    ranges = []
    for _ in range(draw(st.integers(1, 64))):
        low = high - draw(st.integers(0, min(high, draw(st.sampled_from([0, 3, 2**40])))))
        ranges.append((low, high))
        if low < 2:
            break
        high = low - 2 - draw(st.integers(0, min(low - 2, draw(st.sampled_from([0, 5, 2**40])))))
    return ranges


@st.composite
def drops(draw):
    """DROPPED frames: several messages that were not begun, or a piece of one that was."""
    channel, number = draw(varints), draw(st.integers(0, 2**62 - 2**20))
    if draw(st.booleans()):
        return "dropped", channel, 0, 0, 0, number, draw(st.integers(1, 2**20 - 1))
    offset, size = draw(st.integers(0, 2**62 - 2**20)), draw(st.integers(8, 2**20 - 1))
    return "dropped", channel, offset, draw(within(offset)), size, number, draw(st.integers(0, 1))


def within(offset):
    """How far behind a message's header a piece begins: nowhere inside of the header, nor before the channel."""
    return st.just(0) if offset < 8 else st.just(0) | st.integers(8, offset)


@st.composite
def messages(draw):
    offset = draw(st.integers(0, 2**62 - 100))
    return "messages", draw(varints), offset, draw(within(offset)), draw(texts), draw(st.booleans())


frames = st.one_of(
    st.just(("ping",)),
    st.tuples(st.just("ack"), varints, varints, range_lists(), st.none() | st.tuples(varints, varints, varints)),
    st.tuples(st.just("reset_stream"), varints, varints, varints),
    st.tuples(st.just("stop_sending"), varints, varints),
    st.tuples(st.sampled_from(["close", "close_app"]), varints, texts),
    st.tuples(st.just("stream"), varints, st.integers(0, 2**62 - 100), texts, st.booleans()),
    st.tuples(st.sampled_from(["max_data", "max_streams"]), varints),
    st.tuples(st.just("max_stream_data"), varints, varints),
    st.tuples(st.just("datagram"), texts),
    st.tuples(st.just("new_connection_id"), varints, varints, eight, st.binary(min_size=16, max_size=16)),
    st.tuples(st.sampled_from(["retire_connection_id", "path_abandon"]), varints, varints),
    st.tuples(st.sampled_from(["path_challenge", "path_response"]), eight),
    st.tuples(st.just("path_status"), varints, varints, varints),
    st.tuples(st.just("rekey"), varints, st.binary(min_size=96, max_size=96)),
    st.tuples(st.just("rekey_answer"), varints, st.binary(min_size=48, max_size=48)),
    st.tuples(st.just("channel"), varints, varints, st.integers(0, 7), st.integers(0, 7), varints, *[st.integers(0, 64)] * 2),
    st.tuples(st.just("max_channels"), varints),
    st.tuples(st.sampled_from(["channel_max_data", "channel_stop"]), varints, varints),
    st.tuples(st.just("channel_reset"), varints, varints, varints),
    drops(),
    st.tuples(st.just("repair"), varints, texts),
    messages(),
    st.tuples(st.just("ignorable"), st.integers(0x40, 2**62 - 1), texts),
)


@st.composite
def payloads(draw):
    """Frames with padding between them; and their bytes."""
    chosen = draw(st.lists(frames, max_size=8))
    written = b""
    for i, frame in enumerate(chosen):
        is_last = i + 1 == len(chosen) and frame[0] in ("stream", "datagram", "messages") and draw(st.booleans())
        written += bytes(draw(st.integers(0, 3))) + wire.write_frame(frame, is_last=is_last, has_offset=draw(st.booleans()))
    return chosen, written


@st.composite
def damaged(draw, sound):
    """Bytes of something sound: cut, with other bytes in them, or with bytes gone."""
    content = bytearray(draw(sound))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(content)))
        content[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@given(varints)
def test_varint_goes_there_and_back(value):
    assert probe_wire.read_varint(probe_wire.write_varint(value)) == (value, len(wire.varint(value)))


@given(payloads())
def test_frames_are_read_as_they_were_written(case):
    chosen, written = case
    assert probe_wire.parse(written) == (chosen, True)


@given(damaged(payloads().map(lambda case: case[1])))
def test_damaged_frames_are_read_as_the_twin_reads_them(payload):
    assert probe_wire.parse(payload) == wire.read_frames(payload)


@given(st.binary(max_size=200))
def test_noise_is_read_as_the_twin_reads_it(payload):
    assert probe_wire.parse(payload) == wire.read_frames(payload)


@given(st.sampled_from(range(0x41)), st.lists(varints, max_size=8), texts)
def test_each_type_with_any_numbers_is_read_as_the_twin_reads_it(kind, numbers, rest):
    payload = b"".join(map(wire.varint, [kind, *numbers])) + rest
    assert probe_wire.parse(payload) == wire.read_frames(payload)


parameters = st.fixed_dictionaries(
    {
        "suites": st.binary(min_size=1, max_size=8).map(lambda text: bytes(byte or 1 for byte in text)),
        "protocol": st.binary(max_size=64),
        **dict.fromkeys(wire.NUMBERS.values(), varints),
        "idle_timeout_ms": st.integers(0, wire.MAX_IDLE_TIMEOUT_MS),
        "max_ack_delay_us": st.integers(0, wire.MAX_ACK_DELAY_US),
        "max_udp_payload": st.integers(wire.LEAST_UDP_PAYLOAD, 2**62 - 1),
        "reset_token": st.none() | st.binary(min_size=16, max_size=16),
        "connection_id": st.just(0) | st.integers(2**63, 2**64 - 1),
    }
)
refusals = st.fixed_dictionaries({"refusal": st.integers(1, 2**62 - 1), "reason": st.binary(max_size=256)})


@given(parameters | refusals)
def test_parameters_are_read_as_they_were_written(values):
    written = probe_wire.encode_parameters(values)
    assert written == wire.write_parameters(values)
    assert probe_wire.read_parameters(written) == {**wire.EMPTY, **values}


@given(damaged((parameters | refusals).map(wire.write_parameters)))
def test_damaged_parameters_are_read_as_the_twin_reads_them(content):
    assert probe_wire.read_parameters(content) == wire.read_parameters(content)


@given(st.lists(st.tuples(st.integers(0, 16) | varints, st.binary(max_size=20)), max_size=6), st.binary(max_size=4))
def test_any_parameters_are_read_as_the_twin_reads_them(entries, rest):
    content = b"".join(wire.parameter(kind, value) for kind, value in entries) + rest
    assert probe_wire.read_parameters(content) == wire.read_parameters(content)


@given(st.binary(max_size=100))
def test_noise_in_place_of_parameters_is_read_as_the_twin_reads_it(content):
    assert probe_wire.read_parameters(content) == wire.read_parameters(content)
