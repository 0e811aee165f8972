"""Acknowledgements, both ways: of packets that a sender remembers, and of those that a receiver has seen."""

from interpeer._core.probe_memory import Ranges
from interpeer._core.probe_transport import Acknowledger, Recoverer
from interpeer._core.probe_wire import parse
from tests.fuzz.source import Source
from tests.models import wire

MS = 1_000_000


def feed(data: bytes) -> None:
    source = Source(data)
    {0: send, 1: receive, 2: remember}[source.byte(3)](source)


def send(source: Source) -> None:
    """Send packets; the peer acknowledges what it likes."""
    recovery, now_ns, sent = Recoverer(), MS, 0
    while source and sent < 500:
        match source.byte(6):
            case 0 | 1:
                sent = recovery.send(now_ns, 1200, bool(source.byte(4))) + 1
            case 2:
                recovery.skip()
                sent += 1
            case 3 | 4:
                recovery.ack(acknowledgement(source, sent), now_ns, source.number(1 << 30))
            case 5:
                now_ns += source.number(1 << 36)
                recovery.timeout(now_ns)
        assert (recovery.state["largest_acked"] + 1) % (1 << 64) <= sent and recovery.kept[0] <= sent
        assert recovery.state["bytes_in_flight"] <= 1200 * sent
    fated = [number for _, number in recovery.fates]
    assert len(fated) == len(set(fated)) <= sent, "a packet was both acknowledged and lost, or one of them twice"


def acknowledgement(source: Source, sent: int) -> bytes:
    """Write an ACK frame, of numbers near those that were sent or far from them."""
    high = source.number() if source.byte(8) == 0 else source.byte(sent + 1)
    ranges: list[tuple[int, int]] = []
    for _ in range(1 + source.byte(8)):
        low = high - min(high, source.byte(16))
        ranges.append((low, high))
        if low < 2:
            break
        high = low - 2 - min(low - 2, source.byte(8))
    ecn = (source.byte(), source.byte(), source.byte()) if source.byte(2) else None
    return wire.write_frame(("ack", 0, source.number(), ranges, ecn))


def receive(source: Source) -> None:
    """Acknowledge numbers in the order of the input; nothing else may be in what is said."""
    path, got, now_ns = Acknowledger(), set[int](), MS
    while source and len(got) < 500:
        number = source.number() if source.byte(16) == 0 else source.byte()
        path.got(number, eliciting=bool(source.byte(4)), ecn=source.byte(4), now_ns=now_ns)
        got.add(number)
        now_ns += source.byte() * MS // 16
        frames, is_complete = parse(path.write_ack(source.byte(128), now_ns))
        assert is_complete
        for _, _, _, ranges, _ in frames:
            assert sum(high - low + 1 for low, high in ranges) <= len(got)
            assert all(n in got for low, high in ranges for n in range(low, high + 1))
            path.ack_acked(source.byte() if source.byte(4) == 0 else 0)


def remember(source: Source) -> None:
    """Add and remove ranges, beside a set; what does not fit changes nothing."""
    limit = 1 + source.byte(8)
    ranges, model = Ranges(limit), set[int]()
    while source:
        start = source.byte()
        numbers = set(range(start, start + source.byte(16)))
        is_added = source.byte(2)
        after = model | numbers if is_added else model - numbers
        has_room = (ranges.add if is_added else ranges.remove)(start, start + len(numbers))
        model = after if has_room else model
        assert {n for low, high in ranges for n in range(low, high)} == model and len(list(ranges)) <= limit
