"""Punching: facts of NATs as bytes, whatever anybody sends to a machine, two machines between any two NATs."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from interpeer._core.natfacts import ALLOCATIONS, BEHAVIOURS, NatFacts, plan
from interpeer._core.probe_punch import INPUT_COUNT, STATE_COUNT, step_punch
from interpeer._core.spray_budget import SprayBudget
from tests.fuzz.targets import punching
from tests.models.punching import ALL_KINDS, attempt

ports = st.integers(1, 65535)
SECOND = 10**9


@st.composite
def facts(draw):
    allocation, more = draw(st.sampled_from(ALLOCATIONS)), {}
    if allocation == "sequential":
        step = draw(st.integers(1, 32767)) * draw(st.sampled_from([1, -1]))
        more = {"step": step, "last_port": draw(ports), "age_ms": draw(st.integers(0, 2**32 - 1))}
    elif allocation == "block":
        more = {"block": tuple(sorted((draw(ports), draw(ports))))}
    behaviour = st.sampled_from(BEHAVIOURS)
    return NatFacts(draw(behaviour), draw(behaviour), allocation, is_udp_blocked=draw(st.booleans()), **more)


@given(facts(), st.binary(max_size=8))
def test_facts_survive_the_way(some, later):
    assert NatFacts.parse(some.to_bytes() + later) == some and len(some.to_bytes()) == 16


@given(st.binary(max_size=30) | st.binary(min_size=15, max_size=23).map(lambda rest: b"\1" + rest))
def test_any_bytes_are_facts_or_are_not(data):
    punching.read_facts(data)


@given(facts(), facts(), st.booleans())
def test_plans_of_both_sides_fit(ours, theirs, is_experimental):
    mine, why = plan(ours, theirs, is_experimental=is_experimental)
    assert plan(theirs, ours, is_experimental=is_experimental)[0] == punching.FITTING.get(mine, mine) and why


@given(st.lists(st.integers(0, INPUT_COUNT - 1), max_size=30))
def test_what_has_failed_stays_so_and_every_input_leads_somewhere(events):
    state = 0
    for event in events:
        after = step_punch(state, event)
        assert after is None or 0 <= after < STATE_COUNT
        assert state != STATE_COUNT - 1 or after in (None, STATE_COUNT - 1)
        state = state if after is None else after


@settings(max_examples=200)
@given(st.integers(0, 2**32))
def test_nothing_that_is_done_to_a_machine_makes_it_spin_amplify_or_fail(seed):
    punching.feed(random.Random(seed).randbytes(1500))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2048), st.integers(0, 2000)), max_size=40))
def test_no_host_gets_more_than_an_hours_share_in_any_hour(sprays):
    budget, now, sent = SprayBudget(), SECOND, []
    for host, wanted, pause_s in sprays:
        now += pause_s * SECOND
        spray, name = object(), b"%d" % host
        granted = budget.begin(spray, name, now)
        budget.spend(spray, min(granted, wanted))
        budget.end(spray, now)
        sent.append((now, host, min(granted, wanted)))
        assert sum(count for when, whom, count in sent if whom == host and when > now - 3600 * SECOND) <= 4096


@settings(max_examples=20)
@given(
    st.sampled_from(ALL_KINDS),
    st.sampled_from(ALL_KINDS),
    st.integers(0, 2**32),
    st.floats(0.0, 0.1),
    st.floats(0.0, 0.3),
    st.floats(-0.3, 2.0),
)
def test_both_sides_come_to_an_end_whatever_the_network_does(a, b, seed, delay_s, loss, late_s):
    outcome = attempt((a, b), seed, delay_s=delay_s, loss=loss, late_s=late_s, seconds=30.0)
    for side in (outcome.a, outcome.b):
        assert side.found or side.failed
        assert side.probes < 2048 + 24 * 24 * 2
