"""Forward error correction: a decoder takes messages and repairs as they come, right ones and made-up ones."""

from interpeer._core import probe_fec
from interpeer._core.probe_fec import Decoder, Encoder
from tests.fuzz.source import Source
from tests.models.wire import varint

SIZE = 40


def feed(data: bytes) -> None:
    source = Source(data)
    {0: parse, 1: invent, 2: lose}[source.byte(3)](source)


def parse(source: Source) -> None:
    body = source.rest()
    repair = probe_fec.parse_repair(body)
    if repair is not None:
        first, count, seed, symbol = repair
        assert varint(first) + bytes([count]) + seed.to_bytes(2) + symbol == body
        assert 1 <= count <= 64 and len(symbol) >= 2


def invent(source: Source) -> None:
    """Let a hostile sender say what it likes: work and memory stay bounded, and what comes out fits."""
    window = 1 + source.byte(64)
    decoder, before = Decoder(window, SIZE, source.number() if source.byte(8) == 0 else 0), 0
    for _ in range(300):
        if not source:
            break
        number = decoder.state["base"] + source.byte() if source.byte(4) else source.number()
        if source.byte(3) == 0:
            decoder.add(number, source.take(source.byte(SIZE)))
        else:
            body = bytes([1 + source.byte(window + 1)]) + source.take(2) + source.take(source.byte(SIZE + 2))
            decoder.repair(varint(number % (1 << 62)) + body)
        found = decoder.poll()
        assert all(len(message) <= SIZE - 2 for _, message in found)
        assert [n for n, _ in found] == sorted({n for n, _ in found})
        after = decoder.state["multiplied"]
        assert after - before <= (2 * window + 1) * SIZE and len(decoder.equations) < max(window, 2)
        before = after


def lose(source: Source) -> None:
    """Lose, repeat and delay what an honest sender says: nothing comes out but what it has said."""
    encoder, decoder = Encoder(1 + source.byte(32), SIZE), Decoder(1 + source.byte(64), SIZE)
    sent: dict[int, bytes] = {}
    received: dict[int, bytes] = {}
    waiting: list[tuple[int | None, bytes]] = []
    for _ in range(300):
        if not source:
            break
        match source.byte(5):
            case 0 | 1:
                message = source.take(source.byte(SIZE - 1))
                number = encoder.add(message)
                assert number == len(sent)
                sent[number] = message
                waiting.append((number, message))
            case 2:
                if (body := encoder.repair()) is not None:
                    waiting.append((None, body))
            case 3 if waiting:
                number, content = waiting.pop(source.byte(len(waiting)))
                if number is None:
                    assert decoder.repair(content) != "no memory"
                elif decoder.add(number, content) == "new":
                    assert number not in received
                    received[number] = content
            case 4 if waiting:
                del waiting[source.byte(len(waiting))]
        for number, message in decoder.poll():
            assert number not in received and sent[number] == message
            received[number] = message
    assert decoder.state["invalid"] == 0
