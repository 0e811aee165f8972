"""Chapter 17 of the specification: forward error correction. The other implementation is the twin in tests/models."""

import random

import pytest

from interpeer._core import probe_fec
from interpeer._core.probe_fec import Decoder, Encoder
from tests.models import gf256
from tests.models.wire import varint
from tests.spec.document import paragraph

SIZE = 32
VECTORS = {name: bytes.fromhex(value) for name, value in paragraph("FE-14").tables()[0][1:]}


def repair(messages, seed, *, first=None, count=None):
    """Write a repair with the twin: messages by number."""
    first = min(messages) if first is None else first
    return varint(first) + bytes([len(messages) if count is None else count]) + seed.to_bytes(2) + gf256.repair(messages, seed)


def numbered(*messages, first=0):
    return dict(enumerate(messages, first))


def test_vectors_are_those_of_both_implementations():
    encoder = Encoder(3, SIZE, 5)
    messages = numbered(b"six", b"", b"0123456789", first=5)
    for message in messages.values():
        encoder.add(message)
    made = [encoder.repair() for _ in range(260)][259]
    assert VECTORS["repair"] == made == repair(messages, 259)
    for name, value in VECTORS.items():
        match name.split():
            case ["product", _, a, _, b]:
                a, b = int(a, 16), int(b, 16)
                assert value[0] == probe_fec.multiply(a, b) == gf256.multiply(a, b)
            case ["factor", _, _, seed, _, _, number]:
                assert value[0] == probe_fec.factor(int(seed), int(number)) == gf256.factor(int(seed), int(number))
            case other:
                assert other == ["repair"]


@pytest.mark.spec("FE-6")
def test_a_repair_is_the_sum_of_symbols_times_factors():
    encoder = Encoder(8, SIZE, 100)
    messages = numbered(b"one", b"", b"\xff" * 30, b"four", first=100)
    for message in messages.values():
        encoder.add(message)
    for seed in range(3):
        assert encoder.repair() == repair(messages, seed)


@pytest.mark.spec("FE-7")
def test_seeds_are_counted_up():
    encoder = Encoder(8, SIZE)
    encoder.add(b"x")
    assert [probe_fec.parse_repair(encoder.repair())[2] for _ in range(65540)] == [*range(65536), 0, 1, 2, 3]


@pytest.mark.spec("FE-8")
@pytest.mark.parametrize("window", [1, 2, 31, 64])
def test_a_repair_covers_no_more_than_the_window(window):
    encoder = Encoder(window, SIZE)
    for number in range(200):
        encoder.add(b"x")
        covered = min(window, number + 1)
        assert probe_fec.parse_repair(encoder.repair())[:2] == (number + 1 - covered, covered)


@pytest.mark.spec("FE-9")
def test_a_repair_that_breaks_a_rule_is_refused_as_a_whole():
    good = numbered(b"lost")
    for bad in (
        b"\x40\x00" + repair(good, 0)[1:],
        repair(good, 0, count=0),
        repair(good, 0, count=9),
        repair(good, 0, count=65),
        repair({}, 0, first=0, count=1) + b"\x01",
        repair(good, 0) + bytes(SIZE - 5),
        b"",
    ):
        decoder = Decoder(8, SIZE)
        assert decoder.repair(bad) == "invalid" and decoder.poll() == [] and decoder.equations == []
        assert not decoder.state["has_symbols"]
        assert decoder.repair(repair(good, 0)) == "new" and decoder.poll() == [(0, b"lost")]
    assert Decoder(8, SIZE).repair(repair(good, 0) + bytes(SIZE - 6)) == "new"
    assert Decoder(8, SIZE).repair(repair(good, 0, count=8)) == "new"


@pytest.mark.spec("FE-10")
def test_what_is_behind_the_window_is_ignored():
    messages = numbered(*(bytes([i]) * 9 for i in range(12)))
    for is_moved_by_repair in (False, True):
        decoder = Decoder(8, SIZE)
        if is_moved_by_repair:
            assert decoder.repair(repair({9: messages[9]}, 7)) == "new" and decoder.poll() == [(9, messages[9])]
        else:
            assert decoder.add(9, messages[9]) == "new"
        assert decoder.add(1, messages[1]) == "old" and decoder.repair(repair({1: messages[1], 2: messages[2]}, 1)) == "old"
        assert decoder.add(3, messages[3]) == "new"
        assert decoder.repair(repair({2: messages[2], 3: messages[3]}, 2)) == "new"
        assert decoder.poll() == [(2, messages[2])]


@pytest.mark.spec("FE-11")
def test_a_message_comes_as_soon_as_it_is_determined_and_once(seed):
    draw = random.Random(seed)
    for _ in range(100):
        messages = numbered(*(draw.randbytes(draw.randrange(SIZE - 1)) for _ in range(8)))
        order = [("message", n) for n in range(8) if draw.random() < 0.6]
        order += [("repair", n) for n in range(draw.randrange(9))]
        draw.shuffle(order)
        decoder, known, equations = Decoder(8, SIZE), dict[int, bytes](), list[gf256.Equation]()
        for kind, n in order:
            if kind == "message":
                assert decoder.add(n, messages[n]) == ("known" if n in known else "new")
                known[n] = messages[n]
            else:
                decoder.repair(repair(messages, n))
                equations.append(({m: gf256.factor(n, m) for m in messages}, gf256.repair(messages, n)))
            unit = [({m: 1}, gf256.symbol(messages[m])) for m in known]
            due = {m: gf256.message(padded) for m, padded in gf256.solve(unit + equations).items() if m not in known}
            assert decoder.poll() == sorted(due.items()) and decoder.poll() == []
            known |= due


@pytest.mark.spec("FE-11")
def test_an_equation_tells_of_the_others_what_it_can_when_a_message_is_given_up():
    decoder, messages = Decoder(4, SIZE), numbered(*(bytes([i]) * i for i in range(5)))
    covered = {n: messages[n] for n in range(4)}
    for seed in range(2):
        decoder.repair(repair(covered, seed))
    decoder.add(4, messages[4])
    for n in (1, 2):
        assert decoder.poll() == []
        decoder.add(n, messages[n])
    assert decoder.poll() == [(3, messages[3])]


@pytest.mark.spec("FE-12")
@pytest.mark.parametrize("symbol", [b"\x00\x1f" + bytes(30), b"\x00\x01xy", b"\xff\xff", b"\x00\x00\x00\x01"])
def test_a_recovered_symbol_that_is_no_message_is_not_handed_over(symbol):
    decoder = Decoder(4, SIZE)
    decoder.repair(b"\x00\x01\x00\x05" + gf256.scale(symbol, gf256.factor(5, 0)))
    assert decoder.poll() == [] and decoder.state["invalid"] == 1
    decoder.repair(repair(numbered(b"right"), 6))
    assert decoder.poll() == [(0, b"right")]


@pytest.mark.spec("FE-13")
@pytest.mark.parametrize("window", [1, 5, 64])
def test_whatever_is_sent_memory_and_work_are_bounded(window, seed):
    draw = random.Random(seed)
    decoder, before = Decoder(window, SIZE), 0
    for _ in range(2000):
        number = decoder.state["base"] + draw.randrange(window + 1)
        if draw.random() < 0.1:
            decoder.add(number, draw.randbytes(draw.randrange(SIZE - 1)))
        else:
            decoder.repair(varint(number) + bytes([1 + draw.randrange(window)]) + draw.randbytes(2 + SIZE))
        decoder.poll()
        after = decoder.state["multiplied"]
        assert after - before <= (2 * window + 1) * SIZE and len(decoder.equations) < max(window, 2)
        before = after


def lost_for_good(draw, loss, every, run, count=6000):
    """Return the percentage of messages that a repair after every `every` does not bring back; see FE-15."""
    encoder, decoder, recovered, left_of_run = Encoder(32, SIZE), Decoder(64, SIZE), 0, 0

    def is_lost():
        nonlocal left_of_run
        if left_of_run:
            left_of_run -= 1
            return True
        if draw.random() < loss / run:
            left_of_run = run - 1
            return True
        return False

    for number in range(count):
        encoder.add(b"message")
        if not is_lost():
            recovered += decoder.add(number, b"message") == "new"
        if number % every == every - 1:
            repair_made = encoder.repair()
            if not is_lost():
                decoder.repair(repair_made)
        recovered += len(decoder.poll())
    return 100 - 100 * recovered / count


def test_what_is_lost_for_good_is_what_the_table_tells(seed):
    draw = random.Random(seed)
    head, *rows = paragraph("FE-15").tables()[0]
    for name, *cells in rows:
        loss, run = int(name.split()[0]) / 100, 3 if name.endswith("b") else 1
        for column, cell in zip(head[1:], cells, strict=True):
            percentage = lost_for_good(draw, loss, int(column.removeprefix("n = ")), run)
            assert abs(percentage - float(cell)) <= 1 + 0.5 * float(cell), f"{name}, {column}"
