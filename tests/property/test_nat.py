"""What is concluded from observations, whoever makes them: never more than they show."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from interpeer._core import stun
from interpeer._nat._judge import Observation, filtering, mapping, port_block, port_step, prefix, reflexive, trusted
from interpeer._nat._lifetime import FIRST_S, LifetimeSearch
from tests.models import stun as model

ports = st.integers(1, 65_535)
hosts = st.sampled_from(["20.0.1.1", "20.0.1.2", "20.0.2.1", "20.0.3.1", "20.0.4.1", "2001:db8::1", "2001:db8:1::1"])
endpoints = st.builds(model.endpoint, hosts, st.sampled_from([3478, 3479, 40_000]))
observations = st.lists(st.builds(Observation, endpoints, endpoints, st.just(0)), max_size=8)
TRUE, LIES = model.endpoint("203.0.113.1", 40_000), model.endpoint("198.51.100.66", 666)
SERVERS = [model.endpoint(f"20.0.{i}.1", 3478) for i in range(1, 8)]


@given(observations, st.lists(endpoints, max_size=2))
def test_whatever_is_observed_something_is_concluded(seen, own):
    words = {"none", "endpoint-independent", "address-dependent", "address-and-port-dependent", "unknown"}
    assert mapping(seen, own)[0] in words
    assert set(reflexive(seen)) <= {one.mapped for one in seen}
    assert trusted(seen) <= {one.server for one in seen} and bool(trusted(seen)) == bool(seen)


@given(observations)
def test_nothing_good_is_said_on_the_word_of_one_prefix(seen):
    first = [one for one in seen if prefix(one.server[0]) == prefix(seen[0].server[0])]
    assert mapping(first, ())[0] != "endpoint-independent"


@given(st.integers(3, 7), st.integers(0, 6), st.randoms())
def test_less_liars_than_half_change_nothing(count, liars, random):
    liars = min(liars, (count - 1) // 2)
    seen = [Observation(server, LIES if i < liars else TRUE) for i, server in enumerate(SERVERS[:count])]
    random.shuffle(seen)
    assert mapping(seen, ())[0] == "endpoint-independent"
    assert reflexive(seen)[0] == TRUE
    assert mapping(seen, [TRUE])[0] == "none"


@given(st.permutations(range(3)), endpoints)
def test_the_order_of_observers_does_not_matter(order, lie):
    seen = [Observation(SERVERS[0], TRUE), Observation(SERVERS[1], TRUE), Observation(SERVERS[2], lie)]
    shuffled = [seen[i] for i in order]
    assert mapping(shuffled, ()) == mapping(seen, ()) and reflexive(shuffled)[0] == TRUE


@given(st.sampled_from([None, True, False]), st.sampled_from([None, True, False]), st.sampled_from([None, True, False]))
def test_filtering_is_never_thought_more_open_than_was_seen(natted, address, port):
    found = filtering(natted, address, port)
    assert (found in ("endpoint-independent", "none")) == (address is True)
    assert found != "address-dependent" or port is True


@given(ports, st.integers(1, 16), st.lists(st.integers(1, 8), min_size=3, max_size=12), st.sampled_from([1, -1]))
def test_a_step_is_found_though_others_make_mappings_in_between(start, step, gaps, sign):
    made = [30_000 + start % 1000]
    for gap in [1, *gaps]:
        made.append(made[-1] + sign * step * gap)
    assert port_step(made) == sign * step


@given(st.lists(ports, max_size=20, unique=True))
def test_a_step_that_is_found_explains_every_port_but_one(made):
    step = port_step(made)
    if step is not None:
        apart = [after - before for before, after in itertools.pairwise(made)]
        assert sum(one % step == 0 and one * step > 0 for one in apart) >= len(apart) - 1


@given(st.integers(1024, 65_024), st.lists(st.integers(0, 511), min_size=6, max_size=16, unique=True))
def test_a_block_holds_all_that_was_seen(low, offsets):
    made = [min(low + one, 65_535) for one in offsets]
    found = port_block(made)
    assert found is not None and found[0] <= min(made) and max(made) <= found[1]


@pytest.mark.spec("NB-7")
@given(st.lists(ports, max_size=3))
@example([5000, 5001, 5002])
def test_nothing_is_guessed_from_few(made):
    assert port_step(made) is None and port_block(made) is None


@given(st.floats(1, 600), st.floats(0, 1000))
def test_the_search_ends_in_time_and_believes_only_what_has_lived(lifetime_s, budget_s):
    search, spent = LifetimeSearch(budget_s), 0.0
    for _ in range(100):
        silences = search.next_round()
        if not silences:
            break
        assert silences == sorted(set(silences)) and silences[0] >= FIRST_S
        for silence_s in silences:
            took = silence_s
            search.handle(silence_s, silence_s <= lifetime_s)
            if silence_s > lifetime_s:
                break
        spent += took
        search.handle_round(took)
    else:
        raise AssertionError("it never ends")
    assert spent <= budget_s * 1.001
    assert search.alive_s is None or search.alive_s <= lifetime_s
    if lifetime_s * 3 <= budget_s and lifetime_s > FIRST_S:
        assert search.alive_s is not None and lifetime_s <= 1.5 * search.alive_s


@given(st.binary(max_size=200))
def test_noise_is_parsed_without_harm(data):
    assert stun.parse(data) is None or data[4:8] == model.MAGIC.to_bytes(4)


attributes = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 0xFFFF).filter(lambda code: code != model.FINGERPRINT), st.binary(max_size=40)),
        st.tuples(st.sampled_from([1, 0x20, 0x802B, 0x802C, 0x8023]), st.binary(max_size=24)),
    ),
    max_size=8,
)


@given(st.integers(0, 0x3FFF), st.binary(min_size=12, max_size=12), attributes, st.binary(max_size=4))
def test_made_up_messages_are_read_or_refused_whole(kind, transaction, some, tail):
    data = model.message(kind, transaction, *some)
    message = stun.parse(data)
    assert message is None or message.transaction == transaction
    assert stun.parse(data + tail) is None or not tail
    assert stun.verify(data, b"key") is False or message is not None
