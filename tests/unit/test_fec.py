"""Forward error correction: the arithmetic of GF(256), the encoder and the decoder, beside a slow twin."""

import random

import pytest

from interpeer._core import probe_fec
from interpeer._core.probe_fec import Decoder, Encoder
from tests.models import gf256, wire

SIZE = 40


@pytest.fixture(params=probe_fec.available_variants())
def variant(request):
    """Compute with each variant that this processor has."""
    before = probe_fec.chosen()
    probe_fec.choose(request.param)
    yield request.param
    probe_fec.choose(before)


def messages_of(seed, count, size=SIZE):
    draw = random.Random(seed)
    return [draw.randbytes(draw.randrange(size - 1)) for _ in range(count)]


# --- arithmetic ---


def test_every_product_is_that_of_the_twin():
    assert [bytes(probe_fec.multiply(a, b) for b in range(256)) for a in range(256)] == gf256.TIMES


def test_the_portable_variant_is_always_there_and_the_fastest_is_chosen():
    assert probe_fec.available_variants()[0] == "portable"
    assert probe_fec.chosen() == probe_fec.available_variants()[-1]


def test_every_factor_multiplies_a_buffer(variant, seed):
    draw = random.Random(seed)
    for factor in range(256):
        total, source = draw.randbytes(97), draw.randbytes(97)
        assert probe_fec.muladd(total, source, factor) == gf256.add(total, gf256.scale(source, factor)), factor


def test_lengths_and_alignments_make_no_difference(variant, seed):
    draw = random.Random(seed)
    for n in (*range(131), 1199, 1200, 4096):
        total, source, factor = draw.randbytes(n), draw.randbytes(n), draw.randrange(256)
        expected = gf256.add(total, gf256.scale(source, factor))
        for shift in range(16 if n < 131 else 3):
            assert probe_fec.muladd(total, source, factor, shift) == expected, (n, shift)


def test_factors_are_those_of_the_twin_and_never_zero():
    factors = [probe_fec.factor(seed, number) for seed in (0, 1, 65535) for number in (*range(3000), 2**62 - 1)]
    assert factors == [gf256.factor(seed, number) for seed in (0, 1, 65535) for number in (*range(3000), 2**62 - 1)]
    assert set(factors) == set(range(1, 256))


# --- encoder ---


def test_a_repair_is_the_twins_sum_over_the_window(variant):
    encoder, messages = Encoder(5, SIZE, 1000), messages_of(1, 12)
    assert encoder.repair() is None and not encoder.has_memory
    for i, message in enumerate(messages):
        assert encoder.add(message) == 1000 + i
        first = max(0, i - 4)
        covered = {1000 + j: messages[j] for j in range(first, i + 1)}
        assert probe_fec.parse_repair(encoder.repair()) == (1000 + first, len(covered), i, gf256.repair(covered, i))


def test_a_message_that_does_not_fit_is_refused():
    encoder = Encoder(4, SIZE)
    assert encoder.add(bytes(SIZE - 1)) is None and encoder.covered == (0, 0)
    assert encoder.add(bytes(SIZE - 2)) == 0


def test_what_the_peer_has_is_covered_no_longer():
    encoder = Encoder(4, SIZE)
    for i in range(6):
        encoder.add(bytes([i]))
    assert encoder.covered == (2, 6)
    encoder.forget(1)
    assert encoder.covered == (2, 6)
    encoder.forget(5)
    assert encoder.covered == (5, 6) and probe_fec.parse_repair(encoder.repair())[:2] == (5, 1)
    encoder.forget(1000)
    assert encoder.covered == (6, 6) and encoder.repair() is None


def test_seeds_go_round():
    encoder = Encoder(1, SIZE)
    encoder.add(b"x")
    seeds = [probe_fec.parse_repair(encoder.repair())[2] for _ in range(65538)]
    assert seeds == [*range(65536), 0, 1]


# --- decoder ---


def test_each_lost_message_is_recovered_by_one_repair(variant):
    messages = messages_of(2, 8)
    for lost in range(8):
        encoder, decoder = Encoder(8, SIZE), Decoder(8, SIZE)
        for message in messages:
            number = encoder.add(message)
            if number != lost:
                assert decoder.add(number, message) == "new"
        assert not decoder.state["has_rows"]
        assert decoder.repair(encoder.repair()) == "new"
        assert decoder.poll() == [(lost, messages[lost])] and decoder.poll() == []
        assert decoder.add(lost, messages[lost]) == "known"
        assert decoder.repair(encoder.repair()) == "known"


def test_a_window_that_is_wholly_lost_comes_back():
    encoder, decoder, messages = Encoder(16, SIZE), Decoder(16, SIZE), messages_of(3, 16)
    for message in messages:
        encoder.add(message)
    results = [decoder.repair(encoder.repair()) for _ in range(16)]
    assert results == ["new"] * 16 and decoder.poll() == list(enumerate(messages))


def test_repairs_are_of_use_before_the_messages_and_between_them():
    encoder, decoder, messages = Encoder(4, SIZE), Decoder(8, SIZE), messages_of(4, 4)
    for message in messages:
        encoder.add(message)
    assert decoder.repair(encoder.repair()) == "new" and decoder.equations == [[0, 1, 2, 3]]
    assert decoder.repair(encoder.repair()) == "new" and decoder.equations == [[0, 2, 3], [1, 2, 3]]
    assert decoder.add(0, messages[0]) == "new" and sorted(decoder.equations) == [[1, 3], [2, 3]]
    assert decoder.poll() == []
    assert decoder.add(2, messages[2]) == "new"
    assert decoder.poll() == [(1, messages[1]), (3, messages[3])] and decoder.equations == []


def test_an_arrived_pivot_leaves_the_equation_to_the_others():
    encoder, decoder, messages = Encoder(3, SIZE), Decoder(3, SIZE), messages_of(5, 3)
    for message in messages:
        encoder.add(message)
    decoder.repair(encoder.repair())
    decoder.add(0, messages[0])
    assert decoder.equations == [[1, 2]]
    decoder.add(1, messages[1])
    assert decoder.poll() == [(2, messages[2])]


def test_a_message_that_the_window_passes_takes_one_equation_with_it():
    encoder, decoder, messages = Encoder(4, SIZE), Decoder(4, SIZE), messages_of(6, 6)
    for message in messages[:4]:
        encoder.add(message)
    decoder.repair(encoder.repair())
    decoder.repair(encoder.repair())
    assert decoder.equations == [[0, 2, 3], [1, 2, 3]]
    decoder.add(4, messages[4])
    assert decoder.state["base"] == 1 and decoder.equations == [[1, 2, 3]]
    assert decoder.add(0, messages[0]) == "old"
    decoder.add(3, messages[3])
    decoder.add(2, messages[2])
    assert decoder.poll() == [(1, messages[1])]


def test_a_leap_forward_leaves_everything_behind():
    encoder, decoder = Encoder(4, SIZE), Decoder(4, SIZE)
    for message in messages_of(7, 4):
        encoder.add(message)
    early = encoder.repair()
    decoder.repair(early)
    assert decoder.add(10**15, b"far") == "new"
    assert decoder.state["base"] == 10**15 - 3 and decoder.equations == []
    assert decoder.repair(early) == "old" and decoder.add(3, b"") == "old"


def test_empty_messages_and_the_longest_are_recovered():
    for message in (b"", bytes(SIZE - 2), b"\xff" * (SIZE - 2)):
        encoder, decoder = Encoder(2, SIZE), Decoder(2, SIZE)
        encoder.add(message)
        encoder.add(b"\1")
        decoder.add(1, b"\1")
        decoder.repair(encoder.repair())
        assert decoder.poll() == [(0, message)]


def body(first, count, seed, symbol):
    return first.to_bytes(1, "big") + bytes([count]) + seed.to_bytes(2, "big") + symbol


def test_a_symbol_that_is_no_message_is_dropped_and_counted():
    for symbol in (b"\0\x27" + bytes(38), b"\0\1xy", b"\0\0\0\1", b"\xff\xff"):
        decoder = Decoder(4, SIZE)
        unscaled = gf256.INVERSE[gf256.factor(9, 0)]
        good = gf256.scale(gf256.symbol(b"good"), gf256.factor(9, 0))
        assert gf256.scale(good, unscaled) == gf256.symbol(b"good")
        assert decoder.repair(body(0, 1, 9, gf256.scale(symbol, gf256.factor(9, 0)))) == "new"
        assert decoder.poll() == [] and decoder.state["invalid"] == 1 and decoder.equations == []
        assert decoder.repair(body(0, 1, 9, good)) == "new" and decoder.poll() == [(0, b"good")]


def test_a_repair_that_breaks_a_rule_is_refused_before_anything_is_kept():
    decoder = Decoder(4, SIZE)
    bad = [b"", b"\0", body(0, 1, 0, b"x"), body(0, 0, 0, b"\0\0"), body(0, 5, 0, b"\0\0"), body(0, 65, 0, b"\0\0"),
           body(0, 1, 0, bytes(SIZE + 1)), b"\x40\0" + body(0, 1, 0, b"\0\0")]  # fmt: skip
    assert [decoder.repair(one) for one in bad] == ["invalid"] * len(bad)
    assert decoder.add(0, bytes(SIZE - 1)) == "invalid"
    assert not decoder.state["has_symbols"] and not decoder.state["has_rows"]


def test_equations_that_contradict_each_other_do_no_harm(seed):
    draw = random.Random(seed)
    decoder = Decoder(8, SIZE)
    for _ in range(300):
        decoder.repair(body(draw.randrange(60), 1 + draw.randrange(8), draw.randrange(3), draw.randbytes(2 + draw.randrange(38))))
        assert len(decoder.equations) < 8
        for _, message in decoder.poll():
            assert len(message) <= SIZE - 2


def test_work_is_bounded_whatever_is_sent(seed):
    """One pass over at most as many symbols and equations as the window has places, and one more for the equation itself."""
    draw = random.Random(seed)
    decoder, window, before = Decoder(64, SIZE), 64, 0
    for _ in range(3000):
        number = decoder.state["base"] + draw.randrange(66)
        if draw.random() < 0.1:
            decoder.add(number, bytes(draw.randrange(SIZE - 1)))
        else:
            decoder.repair(wire.varint(number) + bytes([64 - draw.randrange(3)]) + draw.randbytes(2 + SIZE))
        decoder.poll()
        after = decoder.state["multiplied"]
        assert after - before <= (2 * window + 1) * SIZE
        before = after
