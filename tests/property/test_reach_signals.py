"""What nodes say to each other: every signal comes back as it was, and no bytes do harm."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer._address import is_virtual
from interpeer._reach import signals

NUMBERS = {
    "leg": st.integers(0, 2**64 - 1),
    "shard": st.integers(0, 127),
    "status": st.integers(0, 255),
    "bytes_per_s": st.integers(0, 2**64 - 1),
    "attempt": st.integers(0, 2**32 - 1),
    "origin": st.integers(0, 255),
    "delay_ms": st.integers(0, 2**32 - 1),
    "port": st.integers(0, 65535),
}
BYTES = {"target": 32, "caller": 32, "token": 8, "cookie": 8, "own_token": 8, "peer_token": 8, "own_key": 32, "peer_key": 32}
packed = st.one_of(
    st.binary(min_size=4, max_size=4).map(lambda b: b"\0" * 10 + b"\xff\xff" + b),
    st.binary(min_size=16, max_size=16).filter(lambda b: not is_virtual(b)),
)
endpoints = st.tuples(packed, st.integers(1, 65535), st.just(0))


@st.composite
def a_signal(draw):
    kind = draw(st.sampled_from(sorted(signals._KINDS.values(), key=lambda kind: kind.KIND)))
    values = {}
    for field in dataclasses.fields(kind):
        name = field.name
        if name in NUMBERS:
            values[name] = draw(NUMBERS[name])
        elif name in BYTES:
            values[name] = draw(st.binary(min_size=BYTES[name], max_size=BYTES[name]))
        elif name == "facts":
            values[name] = draw(st.binary(max_size=signals.MAX_FACTS_BYTES))
        elif name == "attested":
            values[name] = draw(st.none() | endpoints)
        elif name == "is_controlling":
            values[name] = draw(st.booleans())
        else:
            assert name == "endpoints"
            values[name] = tuple(draw(st.lists(st.tuples(st.integers(0, 255), endpoints), max_size=signals.MAX_CANDIDATES)))
    if kind is signals.ProbeOrder:
        values["target"] = draw(endpoints)
    if kind is signals.Candidates and not values["is_controlling"]:
        values.update(own_token=b"", peer_token=b"", own_key=b"", peer_key=b"")
    return kind(**values)


@given(a_signal())
def test_a_signal_comes_back_as_it_was_and_fits(signal):
    assert len(signal.pack()) <= 1024
    assert signals.parse(signal.pack()) == signal


@given(a_signal(), st.binary(min_size=1, max_size=20))
def test_what_follows_the_last_field_is_for_later_versions(signal, more):
    assert signals.parse(signal.pack() + more) == signal


@given(a_signal(), st.data())
def test_a_signal_that_was_cut_is_malformed(signal, data):
    whole = signal.pack()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(signals.MalformedSignalError):
        signals.parse(whole[:cut])


@given(st.binary(max_size=1024))
def test_any_bytes_are_a_signal_an_unknown_kind_or_malformed(data):
    try:
        signal = signals.parse(data)
    except signals.MalformedSignalError:
        return
    assert signal is None or signals.parse(signal.pack()) == signal


def test_no_more_than_sixteen_candidates_are_taken():
    one = (signals.HOST, (b"\0" * 10 + b"\xff\xff" + bytes([192, 0, 2, 1]), 1, 0))
    told = signals.Candidates(1, False, b"", b"", b"", b"", b"", (one,) * 200)
    taken = signals.parse(told.pack())
    assert isinstance(taken, signals.Candidates) and len(taken.endpoints) == 16
