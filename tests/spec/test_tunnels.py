"""Chapter 26 of the specification: tunnels."""

import pytest

from interpeer._core import control, tunnels
from tests.unit.test_tunnel import HEADER, INBOX, LARGEST, NUMBER, QUEUE, Side, carry, packets


@pytest.fixture
def pair():
    pair = Side(1), Side(2)
    yield pair
    for side in pair:
        side.close()


@pytest.mark.spec("TU-3")
@pytest.mark.parametrize("length", [0, LARGEST + 1, 0xFFFF])
def test_a_frame_of_another_length_makes_the_stream_senseless(pair, length):
    with pytest.raises(ValueError, match="from 1 to 1500"):
        tunnels.receive(pair[0].engine, NUMBER, length.to_bytes(HEADER, "big"))
    most = LARGEST.to_bytes(HEADER, "big") + bytes(LARGEST)
    assert tunnels.receive(pair[0].engine, NUMBER, most[:-1]) == 0
    assert tunnels.receive(pair[0].engine, NUMBER, most) == len(most)


@pytest.mark.spec("TU-4")
def test_no_frame_is_larger_than_allowed_though_the_path_is_searched_for_more(pair):
    a, b = pair
    handle = control.connect(a.engine, control.identity_of(bytes([2]) * 32), [tunnels.endpoint(NUMBER)], b"tunnel/1")
    carry(a, b)
    stream, reading = handle.open_stream(), None
    (other,) = b.incoming
    other.take()
    sizes = set()
    for _ in range(400):  # until the window is as large as jumbo frames want
        stream.write(bytes(100_000))
        reading = reading or other.accept_stream()
        while reading and reading.read(1 << 20):
            pass
        for writer, reader in ((a, b), (b, a)):
            for data in writer.turn()[1].values():
                sizes |= {len(packet) for packet in packets(data)}
                tunnels.receive(reader.engine, NUMBER, data)
        a.now += 1_000_000
        b.now += 1_000_000
    assert 1400 < max(sizes) <= LARGEST, "larger ones were refused, and smaller ones found to pass"


@pytest.mark.spec("TU-5")
def test_what_waits_has_limits_both_ways(pair):
    side = pair[0]
    fits = QUEUE // (1200 + HEADER)
    side.call(fits + 5)
    tunnels.hold(side.engine, NUMBER, True)
    for _ in range(40):
        side.turn()
    assert tunnels.figures(side.engine, NUMBER) == (fits * (1200 + HEADER), 5)
    frames = (LARGEST.to_bytes(HEADER, "big") + bytes(LARGEST)) * 100
    for _ in range(20):
        tunnels.receive(side.engine, NUMBER, frames)
    side.turn()
    assert control.counters(side.engine)["packets_received"] == INBOX // (16 + LARGEST)


@pytest.mark.spec("TU-12")
def test_a_socket_cannot_bring_what_only_a_tunnel_may(pair):
    side = pair[0]
    side.exchange.receive([(b"\x41" + bytes(1199), tunnels.endpoint(NUMBER), 0)], 1)
    counters = control.counters(side.engine)
    assert counters["dropped_virtual"] == 1 and counters["packets_received"] == 0
