"""Port mapping (docs/spec, chapter 25), but for UPnP: one machine by itself, and a mapper with a gateway by script.

One chapter, one file."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from interpeer._core import portmap
from interpeer._portmap import Gateway, mapper
from interpeer._portmap.answers import Answer, Kind, Wish
from interpeer._portmap.datagrams import Datagrams
from interpeer._portmap.dialects import NatPmp, Pcp
from interpeer._portmap.epoch import Epoch
from interpeer._portmap.machine import TABLE, Input, State
from tests.models import portmap as model
from tests.models.gateway import EXTERNAL_HOST, GATEWAY_HOST, OWN_HOST
from tests.spec.document import paragraph
from tests.spec.mapping import PORT, Held, play, until

NONCE = bytes(range(12))
WISH = Wish(PORT, PORT, None, 7200, NONCE)
REQUEST = model.PcpRequest(1, 7200, OWN_HOST, NONCE, 17, PORT, PORT, "0.0.0.0")


def pcp(own_host: str = OWN_HOST) -> Pcp:
    dialect = Pcp(own_host)
    dialect.requests(WISH)
    return dialect


def natpmp() -> NatPmp:
    dialect = NatPmp()
    dialect.requests(WISH)
    dialect.parse(model.natpmp_address_answer(EXTERNAL_HOST))
    return dialect


# --- whom ---


@pytest.mark.spec("PM-2")
def test_what_comes_from_another_address_is_ignored(monkeypatch, seed):
    async def script(scene):
        await asyncio.sleep(30)
        assert scene.mapped == () and scene.mapper.report()["ignored"] > 0
        scene.wire.source = GATEWAY_HOST, 5351
        await until(lambda: scene.mapped)

    def prepare(scene):
        scene.wire.source = "192.168.1.66", 5351

    play(monkeypatch, seed, script, prepare=prepare)


@pytest.mark.spec("PM-3")
@pytest.mark.parametrize(("speaks", "used"), [("pcp nat-pmp", "pcp"), ("pcp", "pcp"), ("nat-pmp", "nat-pmp")])
def test_best_protocol_that_answers_is_used_and_no_other(monkeypatch, seed, speaks, used):
    async def script(scene):
        await until(lambda: scene.mapped)
        await asyncio.sleep(20)
        assert scene.mapped == (f"{used} {EXTERNAL_HOST}:{PORT}",)
        assert {type(request) for request in scene.gateway.maps} == {
            "pcp": {model.PcpRequest}, "nat-pmp": {model.NatpmpRequest}
        }[used]  # fmt: skip

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "speaks", set(speaks.split())))


def answer_late(monkeypatch, scene, late_s, is_late):
    """Let the gateway take its time for those requests that `is_late` picks."""
    answer = scene.gateway.answer

    def late(asked):
        answers = answer(asked)
        if not is_late(asked):
            return answers
        for found in answers:
            scene.wire.loop.call_later(late_s, scene.announce, found)
        return []

    monkeypatch.setattr(scene.gateway, "answer", late)


@pytest.mark.spec("PM-3")
def test_better_protocol_has_a_moment_longer(monkeypatch, seed):
    """PCP's answer comes 200 ms after NAT-PMP's."""

    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapped == (f"pcp {EXTERNAL_HOST}:{PORT}",)

    def prepare(scene):
        answer_late(monkeypatch, scene, 0.2, lambda asked: asked[0] == 2 and asked[1] == 0)

    play(monkeypatch, seed, script, prepare=prepare)


@pytest.mark.spec("PM-4")
def test_next_protocol_is_tried_when_the_best_refuses(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapped == (f"nat-pmp {EXTERNAL_HOST}:{PORT}",)
        assert any("pcp" in reason and "not authorised" in reason for reason in scene.mapper.report()["reasons"])

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "pcp_error", 2))


@pytest.mark.spec("PM-4")
@pytest.mark.parametrize("late_s", [0.02, 0.5])
def test_protocol_that_answers_later_is_tried_when_the_best_refuses(monkeypatch, seed, late_s):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapped == (f"nat-pmp {EXTERNAL_HOST}:{PORT}",)

    def prepare(scene):
        scene.gateway.pcp_error = 8
        answer_late(monkeypatch, scene, late_s, lambda asked: asked[0] == 0)

    play(monkeypatch, seed, script, prepare=prepare)


@pytest.mark.spec("PM-13")
def test_pauses_double_though_all_are_asked_again_who_is_there(monkeypatch, seed):
    async def script(scene):
        await asyncio.sleep(10_000)
        gaps = [b - a for a, b in pairwise(scene.gateway.maps_at)]
        for gap, pause_s in zip(gaps, (3, 6, 12, 24, 48, 96, 192, 384, 768, 1024, 1024), strict=False):
            assert 0.89 * pause_s <= gap <= 1.11 * pause_s + 10
        assert len(gaps) >= 11
        scene.gateway.pcp_error = 0
        await until(lambda: scene.mapped, limit_s=1200)

    def prepare(scene):
        scene.gateway.speaks, scene.gateway.pcp_error = {"pcp"}, 8

    play(monkeypatch, seed, script, prepare=prepare)


@pytest.mark.spec("PM-4")
def test_next_protocol_is_tried_when_the_best_falls_silent(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapped == (f"nat-pmp {EXTERNAL_HOST}:{PORT}",)

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "loses", lambda data: data[:2] == b"\x02\x01"))


def test_mapper_goes_on_when_the_system_fails_for_a_while(monkeypatch, seed):
    async def script(scene):
        await asyncio.sleep(40)
        assert scene.mapped == () and any("cannot assign" in reason for reason in scene.mapper.report()["reasons"])
        monkeypatch.setattr(Datagrams, "probe", probe)
        await until(lambda: scene.mapped)

    def prepare(scene):
        find = scene.mapper.find_gateway
        failures = [OSError("no such family"), RuntimeError("no such library")]

        def fail_at_first(version):
            if failures:
                raise failures.pop()
            return find(version)

        scene.mapper.find_gateway = fail_at_first

    async def fail(method):
        raise OSError("cannot assign requested address")

    probe = Datagrams.probe
    monkeypatch.setattr(Datagrams, "probe", fail)
    play(monkeypatch, seed, script, prepare=prepare)


def test_mapper_begins_anew_when_serving_a_gateway_has_failed(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)

    contest = mapper._Family._contest

    async def fail_once(family, gateway, **options):
        monkeypatch.setattr(mapper._Family, "_contest", contest)
        raise RuntimeError("what nobody has thought of")

    monkeypatch.setattr(mapper._Family, "_contest", fail_once)
    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-5")
@pytest.mark.parametrize("moved", [Gateway("10.0.0.1", "10.0.0.9"), Gateway(GATEWAY_HOST, "192.168.1.77")])
def test_another_gateway_or_own_address_is_asked_anew(monkeypatch, seed, moved):
    async def script(scene):
        await until(lambda: scene.mapped)
        scene.wire.address, scene.wire.source = moved, (moved.host, 5351)
        scene.gateway.host = "20.0.0.2"
        scene.mapper.handle_network_change()
        await until(lambda: scene.mapped == (f"pcp 20.0.0.2:{PORT}",))
        assert scene.gateway.maps[-1].client == moved.own_host
        scene.wire.address = None
        scene.mapper.handle_network_change()
        await until(lambda: not scene.mapped)
        assert scene.mapper.report()["reasons"] == ["IPv4: no gateway: there is no default route"]

    play(monkeypatch, seed, script)


# --- what an answer is worth ---


@pytest.mark.spec("PM-6")
def test_answers_of_another_size_are_ignored():
    whole = model.pcp_answer(REQUEST, EXTERNAL_HOST, PORT)
    assert pcp().parse(whole)
    filler = model.pcp_option(0x80, bytes(1100 - 64))
    assert pcp().parse(whole + filler)
    for data in (*(whole[:n] for n in range(60)), whole + b"\0", whole + filler + model.pcp_option(0x80, b"")):
        assert pcp().parse(data) is None
    for data in (*(model.natpmp_address_answer(EXTERNAL_HOST)[:n] for n in range(12)), bytes.fromhex("0081")):
        assert natpmp().parse(data) is None
    whole = model.natpmp_map_answer(PORT, PORT, 7200)
    assert natpmp().parse(whole) and not any(natpmp().parse(whole[:n]) for n in range(16))


@pytest.mark.spec("PM-6")
@pytest.mark.parametrize("option", ["80000001", "80000004ff", "8000ffff00000000", "80"])
def test_option_that_ends_behind_the_datagram_spoils_it(option):
    data = model.pcp_answer(REQUEST, EXTERNAL_HOST, PORT) + bytes.fromhex(option)
    assert portmap.parse_pcp(data) is None and pcp().parse(data) is None


@pytest.mark.spec("PM-7")
@pytest.mark.parametrize(
    "other",
    [
        replace(REQUEST, nonce=NONCE[::-1]),
        replace(REQUEST, protocol=6),
        replace(REQUEST, internal_port=PORT + 1),
    ],
)
def test_answer_to_something_else_is_ignored(other):
    assert pcp().parse(model.pcp_answer(REQUEST, EXTERNAL_HOST, PORT))
    assert pcp().parse(model.pcp_answer(other, EXTERNAL_HOST, PORT)) is None
    assert pcp().parse(model.pcp_answer(other, EXTERNAL_HOST, PORT, result=2)) is None
    assert natpmp().parse(model.natpmp_map_answer(PORT + 1, PORT, 7200)) is None


@pytest.mark.spec("PM-7")
@pytest.mark.parametrize("option", [(1, model.mapped("192.168.1.9")), (3, bytes([0, 128, 0, 0]) + model.mapped("20.0.0.9"))])
def test_answer_with_options_that_nobody_asked_for_is_ignored(option):
    assert pcp().parse(model.pcp_answer(REQUEST, EXTERNAL_HOST, PORT, options=model.pcp_option(2, b"")))
    assert pcp().parse(model.pcp_answer(REQUEST, EXTERNAL_HOST, PORT, options=model.pcp_option(*option))) is None


@pytest.mark.spec("PM-8")
@pytest.mark.parametrize("host", ["0.0.0.0", "224.0.0.1", "127.0.0.1", "169.254.1.1", "2a00::1"])
def test_grant_of_no_use_is_a_refusal(host):
    answer = pcp().parse(model.pcp_answer(REQUEST, host, PORT))
    assert answer and answer.kind is Kind.REFUSED and host in answer.reason
    answer = pcp().parse(model.pcp_answer(REQUEST, EXTERNAL_HOST, 0))
    assert answer and answer.kind is Kind.REFUSED and "port 0" in answer.reason
    answer = natpmp().parse(model.natpmp_map_answer(PORT, 0, 7200))
    assert answer and answer.kind is Kind.REFUSED


@pytest.mark.spec("PM-9", "PM-27")
def test_lifetimes_are_believed_between_ten_seconds_and_two_hours():
    for lifetime_s, believed in ((10, 10), (3600, 3600), (7200, 7200), (7201, 7200), (2**32 - 1, 7200)):
        held = Held()
        held.grant(lifetime_s=lifetime_s)
        assert held.machine.grant and held.machine.grant.lifetime_s == believed
    held = Held()
    held.grant(lifetime_s=9)
    assert held.machine.grant is None and held.machine.state is State.WAITING and "9 s" in held.machine.reason


# --- states ---


@pytest.mark.spec("PM-11")
def test_table_of_states_is_that_of_the_source():
    head, *rows = paragraph("PM-10").tables()[0]
    assert head[1:] == [event.name for event in Input] and [row[0] for row in rows] == [state.name for state in State]
    assert [row[1:] for row in rows] == [["-" if after is None else after.name for after in row] for row in TABLE]


@pytest.mark.spec("PM-11")
@pytest.mark.parametrize("state", State)
def test_answers_that_the_table_does_not_have_do_nothing(state):
    answers = {
        Input.GRANTED: Answer(Kind.GRANTED, host="20.0.0.9", port=9, lifetime_s=600),
        Input.REFUSED: Answer(Kind.REFUSED, reason="no"),
        Input.GONE: Answer(Kind.GONE),
    }
    for event, answer in answers.items():
        held = Held.in_state(state)
        machine = held.machine
        before = (machine.state, machine.grant, machine.poll_timeout())
        held.say(answer)
        after = TABLE[state][event]
        if after is None:
            assert (machine.state, machine.grant, machine.poll_timeout()) == before
        else:
            assert machine.state is after


def test_request_is_sent_five_times_and_then_waited():
    held = Held()
    sent = held.pass_to(7.7)
    assert [round(when, 3) for when, _ in sent] == [0, 0.25, 0.75, 1.75, 3.75] and {wish for _, wish in sent} == {sent[0][1]}
    assert held.machine.state is State.REQUESTING
    held.pass_to(7.8)
    assert held.machine.state is State.WAITING and held.machine.reason == "no answer"


@pytest.mark.spec("PM-13")
def test_pauses_double_until_something_is_granted():
    held, pauses = Held(), []
    for _ in range(12):
        held.say(Answer(Kind.REFUSED, reason="no"))
        began_s = held.now_s
        pauses.append(held.machine.poll_timeout() - began_s)
        next(held.wishes(1e9))
    assert [round(pause) for pause in pauses] == [3, 6, 12, 24, 48, 96, 192, 384, 768, 1024, 1024, 1024]
    held.grant()
    held.machine.handle_timeout(1e7)
    held.now_s = 1e7
    held.say(Answer(Kind.REFUSED, reason="no"))
    assert round(held.machine.poll_timeout() - held.now_s) == 3


@pytest.mark.spec("PM-13")
@pytest.mark.parametrize(("told_s", "kept_s"), [(0, 3), (600, 600), (1801, 1800), (2**32 - 1, 1800)])
def test_pause_is_as_long_as_an_error_lasts(told_s, kept_s):
    held = Held()
    held.say(Answer(Kind.REFUSED, reason="no", lifetime_s=told_s))
    assert round(held.machine.poll_timeout()) == kept_s


@pytest.mark.spec("PM-14")
def test_renewals_are_spread_over_what_is_left():
    for chance, fractions in ((0x00, (1 / 2, 3 / 4, 7 / 8)), (0xFF, (5 / 8, 13 / 16, 29 / 32))):
        held = Held(chance=chance)
        next(held.wishes(0.0))
        held.grant(lifetime_s=7200)
        sent = [when for when, _ in held.wishes(7199)]
        assert [when / 7200 for when in sent[:3]] == pytest.approx(fractions, abs=0.002)
        assert min(b - a for a, b in pairwise(sent)) >= 4


@pytest.mark.spec("PM-14")
def test_renewals_of_a_short_mapping_are_four_seconds_apart():
    held = Held(chance=0)
    next(held.wishes(0.0))
    held.grant(lifetime_s=10)
    assert [when for when, _ in held.wishes(9.99)] == [5, 9]


@pytest.mark.spec("PM-28")
def test_mapping_that_was_not_renewed_ends_with_its_lifetime(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        granted_s = scene.time()
        scene.gateway.loses = lambda data: True
        await until(lambda: not scene.mapped, limit_s=700)
        assert 599 < scene.time() - granted_s <= 600.1

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "lifetime_s", 600))


@pytest.mark.spec("PM-15")
def test_renewal_and_deletion_carry_the_nonce_of_the_mapping(monkeypatch, seed):
    async def script(scene):
        scene.outside.verdict = True
        await asyncio.sleep(6000)
        await scene.mapper.close()
        asked = scene.gateway.maps
        assert len(asked) >= 3 and len({request.nonce for request in asked}) == 1
        assert asked[-1].lifetime_s == 0 and scene.gateway.table == {}

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-15")
def test_mapping_made_anew_has_a_new_nonce():
    held = Held.in_state(State.DELETING)
    (_, end), *_ = held.wishes(held.now_s)
    held.say(Answer(Kind.GONE))
    (_, anew), *_ = held.wishes(held.now_s)
    assert end.lifetime_s == 0 and anew.lifetime_s == 7200 and end.nonce != anew.nonce


# --- gateways that forget ---


@pytest.mark.spec("PM-16")
@pytest.mark.parametrize(
    ("is_exact", "elapsed_s", "server_s", "kept"),
    [
        (True, 0, 1000, True),
        (True, 100, 1100, True),
        (True, 0, 999, True),
        (True, 0, 998, False),
        (True, 100, 0, False),
        (True, 100, 1092, True),
        (True, 100, 1091, False),
        (True, 100, 1108, True),
        (True, 100, 1110, False),
        (False, 100, 1500, True),
        (False, 100, 1085, False),
    ],
)
def test_epoch_shows_whether_the_gateway_has_kept_its_mappings(is_exact, elapsed_s, server_s, kept):
    epoch = Epoch(is_exact=is_exact)
    assert epoch.has_kept(1000, 50.0)
    assert epoch.has_kept(server_s, 50.0 + elapsed_s) is kept


@pytest.mark.spec("PM-16")
@pytest.mark.parametrize("speaks", ["pcp", "nat-pmp"])
def test_mapping_is_made_anew_as_soon_as_the_gateway_has_restarted(monkeypatch, seed, speaks):
    async def script(scene):
        await until(lambda: scene.mapped)
        await asyncio.sleep(100)
        announcement = scene.gateway.reboot()
        said_s = scene.time()
        scene.announce(announcement)
        await until(lambda: scene.gateway.table and scene.mapped)
        assert scene.time() - said_s < 0.1

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "speaks", {speaks}))


@pytest.mark.spec("PM-16")
def test_forged_announcements_make_few_requests(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        await asyncio.sleep(100)
        before = len(scene.gateway.maps)
        for i in range(2000):
            scene.announce(model.pcp_header(0, epoch_s=1_000_000 * (i % 2)))
            await asyncio.sleep(0.01)
        assert 5 <= len(scene.gateway.maps) - before <= 7

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-16", "PM-18")
def test_grant_by_a_restarted_gateway_is_another_mapping():
    held = Held(epoch=Epoch(is_exact=True))
    next(held.wishes(0.0))
    held.grant(epoch_s=1000)
    machine = held.machine
    grant = machine.poll_verification(0.0)
    assert grant is not None
    machine.handle_verdict(grant, True, 0.0)
    held.pass_to(4600)
    assert machine.is_verified and machine.state is State.RENEWING
    held.grant(epoch_s=3)
    assert machine.state is State.MAPPED and machine.reboots == 1 and machine.is_verified is None
    assert machine.poll_verification(held.now_s) is not None


# --- gateways that lie ---


@pytest.mark.spec("PM-17", "PM-20")
@pytest.mark.parametrize("host", ["10.1.2.3", "192.168.100.2", "172.16.0.9", "100.64.3.4"])
def test_nobody_is_asked_to_try_an_address_that_is_not_public(monkeypatch, seed, host):
    async def script(scene):
        await until(lambda: scene.mapped)
        await asyncio.sleep(10_000)
        assert scene.outside.asked == []
        (mapping,) = scene.mapper.mappings
        report = scene.mapper.report()
        assert not mapping.is_public and mapping.is_verified is None and "double NAT" in mapping.note
        assert report["double_nat"] is True and any("double NAT" in reason for reason in report["reasons"])

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "host", host))


@pytest.mark.spec("PM-17", "PM-18")
def test_mapping_is_verified_once_somebody_has_come_through(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapper.mappings[0].is_verified is None and scene.mapper.report()["is_verified"] == [None]
        await asyncio.sleep(30)
        assert scene.mapper.mappings[0].is_verified is None
        scene.outside.verdict = True
        await until(lambda: scene.mapper.mappings[0].is_verified, limit_s=61)
        assert scene.mapper.report()["double_nat"] is False and scene.mapper.report()["is_verified"] == [True]
        await asyncio.sleep(2000)
        asked = [when for when, _ in scene.outside.asked]
        pauses = [round(b - a) for a, b in pairwise(asked)]
        assert pauses[:3] == [60, 900, 900] and {where for _, where in scene.outside.asked} == {f"{EXTERNAL_HOST}:{PORT}"}

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-17")
def test_mapping_is_tried_again_when_asking_has_failed(monkeypatch, seed):
    async def script(scene):
        def fail():
            raise RuntimeError("no connection to ask over")

        scene.outside.verdict = fail
        await until(lambda: scene.outside.asked)
        await asyncio.sleep(1)
        scene.outside.verdict = True
        await until(lambda: scene.mapper.mappings[0].is_verified, limit_s=61)

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-18")
def test_verdict_on_an_earlier_mapping_says_nothing_of_this_one():
    held = Held.in_state(State.MAPPED)
    machine, old = held.machine, held.machine.grant
    assert old is not None
    machine.handle_verdict(old, False, held.now_s)
    held.say(Answer(Kind.GONE))
    held.grant()
    machine.handle_verdict(old, True, held.now_s)
    assert machine.is_verified is None


@pytest.mark.spec("PM-19")
def test_mapping_through_which_nobody_comes_is_made_anew(monkeypatch, seed):
    async def script(scene):
        broken = True

        def come_in():
            return not broken and bool(scene.gateway.table)

        scene.outside.verdict = come_in
        await until(lambda: len(scene.gateway.maps) == 3)
        first, end, anew = scene.gateway.maps
        assert (first.nonce, 0) == (end.nonce, end.lifetime_s) and anew.nonce != first.nonce
        await asyncio.sleep(1)
        assert scene.mapper.mappings[0].is_verified is False and scene.mapper.report()["is_verified"] == [False]
        assert any("nothing comes through" in reason for reason in scene.mapper.report()["reasons"])
        broken = False
        await until(lambda: scene.mapper.mappings and scene.mapper.mappings[0].is_verified, limit_s=70)
        assert len(scene.gateway.maps) == 3 and scene.mapper.report()["reasons"] == []

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-29")
def test_attempts_to_mend_a_mapping_become_rare(monkeypatch, seed):
    async def script(scene):
        scene.outside.verdict = False
        await asyncio.sleep(20_000)
        ends = [when for request, when in zip(scene.gateway.maps, scene.gateway.maps_at, strict=True) if request.lifetime_s == 0]
        pauses = [round(b - a) for a, b in pairwise(ends)]
        assert pauses[:8] == [60, 120, 240, 480, 960, 1920, 3600, 3600]
        assert scene.mapped == (f"pcp {EXTERNAL_HOST}:{PORT}",)

    play(monkeypatch, seed, script)


# --- gateways that talk ---


@pytest.mark.spec("PM-32")
@pytest.mark.parametrize("hosts", [("20.0.0.1",), ("20.0.0.1", "20.0.0.2")])
@pytest.mark.parametrize("kind", [Kind.GRANTED, Kind.HEARD])
def test_what_a_gateway_says_unasked_makes_few_come_in(hosts, kind):
    held, asked = Held.in_state(State.MAPPED), []
    machine = held.machine
    for i in range(1000):
        held.say(Answer(kind, host=hosts[i % len(hosts)], port=PORT, lifetime_s=7200))
        grant = machine.poll_verification(held.now_s)
        if grant is not None:
            asked.append(held.now_s)
            machine.handle_verdict(grant, True, held.now_s)
        held.now_s += 0.01
        machine.handle_timeout(held.now_s)
    assert 1 <= len(asked) <= 3 and all(b - a >= 4 for a, b in pairwise(asked))


@pytest.mark.spec("PM-32")
def test_grants_that_nobody_has_asked_for_make_few_come_in():
    held, asked = Held.in_state(State.MAPPED), []
    for _ in range(1000):
        held.say(Answer(Kind.GONE))
        held.grant()
        while held.machine.poll_verification(held.now_s) is not None:
            asked.append(held.now_s)
        held.now_s += 0.01
    assert len(asked) <= 3 and all(b - a >= 4 for a, b in pairwise(asked))


@pytest.mark.spec("PM-32")
def test_mapping_that_somebody_is_trying_is_not_tried_once_more():
    held = Held.in_state(State.MAPPED)
    machine = held.machine
    grant = machine.poll_verification(held.now_s)
    assert grant is not None
    for _ in range(3):
        held.now_s += 5
        held.grant()
        assert machine.poll_verification(held.now_s) is None and machine.poll_timeout() > held.now_s + 60
    machine.handle_verdict(grant, True, held.now_s)
    assert machine.is_verified and machine.poll_timeout() <= held.now_s + 900


@pytest.mark.spec("PM-32")
def test_doubts_make_few_come_in():
    held, asked = Held.in_state(State.MAPPED), []
    for _ in range(1000):
        held.machine.handle_doubt(held.now_s)
        grant = held.machine.poll_verification(held.now_s)
        if grant is not None:
            asked.append(held.now_s)
            held.machine.handle_verdict(grant, True, held.now_s)
        held.now_s += 0.01
    assert 2 <= len(asked) <= 3


@pytest.mark.spec("PM-33")
def test_gateway_that_takes_back_what_it_grants_is_asked_rarely():
    held, asked = Held.in_state(State.MAPPED), []
    for _ in range(1000):
        held.say(Answer(Kind.GONE))
        while held.machine.poll_request(held.now_s) is not None:
            asked.append(held.now_s)
        held.grant()
        held.now_s += 0.01
        held.machine.handle_timeout(held.now_s)
    assert len(asked) == 2 and all(b - a >= 4 for a, b in pairwise([0, *asked]))


@pytest.mark.spec("PM-20")
def test_gateway_whose_address_nobody_sees_is_not_the_last(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.mapper.mappings[0].is_public and scene.mapper.report()["double_nat"] is None
        scene.mapper.set_reflexive(["20.0.0.77", "2a00::1"])
        assert not scene.mapper.mappings[0].is_public and "others see 20.0.0.77" in scene.mapper.mappings[0].note
        assert scene.mapper.report()["double_nat"] is True
        scene.mapper.set_reflexive([EXTERNAL_HOST])
        assert scene.mapper.mappings[0].is_public and scene.mapper.report()["double_nat"] is False

    play(monkeypatch, seed, script)


# --- the end ---


@pytest.mark.spec("PM-21", "PM-30")
def test_end_deletes_and_does_not_wait_for_a_gateway_that_is_silent(monkeypatch, seed):
    async def script(scene):
        await until(lambda: scene.mapped)
        began_s, ends = scene.time(), []
        scene.gateway.loses = lambda data: ends.append(data) or True
        await scene.mapper.close()
        assert scene.time() - began_s <= 1.5
        assert [model.read_pcp_request(data).lifetime_s for data in ends] == [0, 0, 0]

    play(monkeypatch, seed, script)


@pytest.mark.spec("PM-21")
@pytest.mark.parametrize("speaks", ["pcp", "nat-pmp"])
def test_end_leaves_nothing_in_the_gateways_table(monkeypatch, seed, speaks):
    async def script(scene):
        await until(lambda: scene.mapped)
        assert scene.gateway.table
        began_s = scene.time()
        await scene.mapper.close()
        assert scene.gateway.table == {} and scene.time() - began_s < 0.1

    play(monkeypatch, seed, script, prepare=lambda scene: setattr(scene.gateway, "speaks", {speaks}))
