"""Chapter 22 of the specification: STUN transactions, as every node asks."""

from __future__ import annotations

import asyncio

import pytest

from interpeer._core import stun
from interpeer._nat import RoundTrips, State, Transactions
from interpeer._nat._client import StunClient
from interpeer._nat._transactions import FIRST_RTO_NS, MAX_RTTS, MAX_TRANSACTIONS, TABLE, Input
from interpeer.testing import run
from tests.models import stun as model
from tests.models.nat import Net
from tests.spec.document import paragraph

MS, SECOND = 1_000_000, 1_000_000_000
ID, OTHER_ID = bytes(range(12)), bytes(range(1, 13))
SERVER, ELSEWHERE = model.endpoint("192.0.2.1", 3478), model.endpoint("198.51.100.1", 3478)
OURS = model.endpoint("203.0.113.5", 40_000)
ANSWER = model.message(model.SUCCESS, ID, model.xor_mapped(OURS, ID))


class Asking:
    """One transaction, and a clock."""

    def __init__(self, remote=SERVER, transaction=ID, round_trips=None, **details):
        self.now_ns = 1000 * SECOND
        self.machine = Transactions(round_trips)
        self.machine.start(remote, transaction, self.now_ns, tag="tag", **details)
        self.sent = self.machine.poll_transmit(self.now_ns)

    def hear(self, data, source=SERVER):
        return self.machine.handle_datagram(data, source, self.now_ns)

    def result(self):
        (result,) = self.machine.poll_results()
        assert self.machine.poll_timeout() is None and result.tag == "tag"
        return result

    def wait(self, ns):
        """Let time pass; return when how many requests were sent, in milliseconds from the start."""
        sent, start_ns, end_ns = [], self.now_ns, self.now_ns + ns
        while (due := self.machine.poll_timeout()) is not None and due <= end_ns:
            self.now_ns = due
            self.machine.handle_timeout(due)
            sent += [(due - start_ns) // MS] * len(self.machine.poll_transmit(due))
        self.now_ns = end_ns
        return sent


@pytest.mark.spec("SN-15")
def test_the_table_is_that_of_the_source():
    head, *rows = paragraph("SN-15").tables()[0]
    assert head[1:] == [one.name for one in Input] and [row[0] for row in rows] == [one.name for one in State]
    source = [[f"{state.name}, {action.name}" for state, action in row] for row in TABLE]
    assert [row[1:] for row in rows] == source


@pytest.mark.spec("SN-14", "SN-16")
def test_a_request_is_sent_at_once_and_leaves_room_for_every_answer():
    asking = Asking()
    ((data, remote, tag),) = asking.sent
    assert (data, remote, tag) == (stun.binding_request(ID), SERVER, "tag")
    mapped = model.endpoint("2001:db8::1", 1)
    assert len(data) >= len(model.with_fingerprint(model.message(model.SUCCESS, ID, model.xor_mapped(mapped, ID))))


@pytest.mark.spec("SN-14")
def test_every_transaction_has_an_id_of_its_own():
    async def main():
        net = Net()
        server = net.add_server("20.0.1.1")
        with StunClient(net) as client:
            socket = client.open()
            await asyncio.gather(*[client.ask(socket, server) for _ in range(20)])
        ids = [stun.parse(data).transaction for data, _ in net.sent]
        assert len(ids) == len(set(ids)) == 20 and all(len(one) == 12 for one in ids)

    run(main(), seed=1)


@pytest.mark.spec("SN-16")
def test_a_silent_server_is_asked_seven_times_and_given_up_after_39_and_a_half_seconds():
    asking = Asking()
    assert asking.wait(39_499 * MS) == [500, 1500, 3500, 7500, 15_500, 31_500]
    assert asking.machine.poll_results() == [] and len(asking.machine) == 1
    assert asking.wait(MS) == []
    result = asking.result()
    assert (result.state, result.message, result.mapped) == (State.TIMED_OUT, None, None)


@pytest.mark.row("N8")
@pytest.mark.spec("SN-16")
def test_what_is_received_hurries_nothing():
    asking = Asking()
    for data in (b"", model.message(model.SUCCESS, OTHER_ID), model.message(model.INDICATION, ID), ANSWER):
        assert not asking.hear(data, source=ELSEWHERE)
    assert asking.machine.poll_transmit(asking.now_ns) == [] and asking.machine.dropped == 4
    assert asking.wait(4 * SECOND) == [500, 1500, 3500]


@pytest.mark.spec("SN-15")
@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (ANSWER, State.ANSWERED),
        (model.message(model.SUCCESS, ID, (model.MAPPED_ADDRESS, model.address(OURS))), State.ANSWERED),
        (model.message(model.ERROR, ID, model.error_code(500, b"no")), State.REFUSED),
        (model.message(model.SUCCESS, ID), State.UNUSABLE),
        (model.message(model.SUCCESS, ID, model.xor_mapped(OURS, ID), (0x7FFF, b"")), State.UNUSABLE),
        (model.message(model.ERROR, ID, model.error_code(420), (0x0025, b"")), State.UNUSABLE),
    ],
)
def test_an_answer_ends_a_transaction(answer, state):
    asking = Asking()
    assert asking.hear(answer) and not asking.hear(answer), "a second answer is none"
    result = asking.result()
    assert (result.state, result.mapped) == (state, OURS if state is State.ANSWERED else None)
    assert asking.wait(60 * SECOND) == []


@pytest.mark.row("N8")
@pytest.mark.spec("SN-18")
def test_only_the_server_that_was_asked_is_believed():
    asking = Asking()
    assert not asking.hear(ANSWER, source=ELSEWHERE) and not asking.hear(ANSWER, source=(SERVER[0], 3479, 0))
    assert not asking.hear(model.message(model.SUCCESS, OTHER_ID, model.xor_mapped(OURS, OTHER_ID)))
    assert asking.hear(ANSWER)


@pytest.mark.spec("SN-18")
def test_an_answer_that_shall_come_from_elsewhere_comes_from_there():
    asking = Asking(change=stun.CHANGES_ADDRESS, answers_from=ELSEWHERE)
    assert stun.parse(asking.sent[0][0]).change == stun.CHANGES_ADDRESS
    assert not asking.hear(ANSWER, source=SERVER)
    assert asking.hear(ANSWER, source=ELSEWHERE)


@pytest.mark.parametrize("kind", [model.REQUEST, model.INDICATION])
def test_what_is_no_response_answers_nothing(kind):
    asking = Asking()
    assert not asking.hear(model.message(kind, ID, model.xor_mapped(OURS, ID)))
    assert not asking.hear(model.message(0x103, ID, model.xor_mapped(OURS, ID))), "a response of another method"


@pytest.mark.spec("SN-19")
@pytest.mark.parametrize("with_sha1", [False, True])
def test_with_a_key_only_answers_that_know_it_are_believed(with_sha1):
    code = model.INTEGRITY if with_sha1 else model.INTEGRITY_SHA256
    asking = Asking(username=b"me", key=b"key", with_sha1=with_sha1)
    (request, *_), *_ = asking.sent
    assert stun.verify(request, b"key") and stun.parse(request).username == b"me"
    assert not asking.hear(ANSWER)
    assert not asking.hear(model.with_integrity(ANSWER, b"other", code))
    forged = model.with_integrity(model.with_integrity(ANSWER, b"key", model.INTEGRITY), b"other")
    assert not asking.hear(forged), "the stronger of two counts"
    assert asking.hear(model.with_integrity(ANSWER, b"key", code))


@pytest.mark.spec("SN-20")
def test_nobody_is_called_whom_an_error_names():
    async def main():
        net = Net()
        server = net.add_server("20.0.1.1")
        alternate = (model.ALTERNATE_SERVER, model.address(ELSEWHERE))
        net.servers[server] = lambda data, source: [
            (model.message(model.ERROR, data[8:20], model.error_code(300), alternate), server, source)
        ]
        with StunClient(net) as client:
            result = await client.ask(client.open(), server)
            await asyncio.sleep(10)
        assert result.state is State.REFUSED and result.message is not None and result.message.alternate == ELSEWHERE
        assert {remote for _, remote in net.sent} == {server}

    run(main(), seed=1)


# --- round trips ---


@pytest.mark.spec("SN-17")
def test_a_known_server_is_asked_again_when_its_answer_is_late():
    trips = RoundTrips()
    asking = Asking(round_trips=trips)
    asking.now_ns += 40 * MS
    asking.hear(ANSWER)
    assert trips.rto_ns(SERVER, asking.now_ns) == 120 * MS
    assert trips.rto_ns(ELSEWHERE, asking.now_ns) == FIRST_RTO_NS
    asking.machine.start(SERVER, OTHER_ID, asking.now_ns)
    asking.machine.poll_transmit(asking.now_ns)
    assert asking.wait(SECOND) == [120, 360, 840]


@pytest.mark.spec("SN-17")
def test_round_trips_are_believed_for_ten_minutes_and_not_below_100_ms():
    trips = RoundTrips()
    trips.learn(SERVER, MS, SECOND)
    assert trips.rto_ns(SERVER, SECOND) == 100 * MS
    assert trips.rto_ns(SERVER, 601 * SECOND) == 100 * MS and trips.rto_ns(SERVER, 601 * SECOND + 1) == FIRST_RTO_NS


@pytest.mark.spec("SN-17")
def test_no_round_trip_is_measured_by_a_request_that_was_repeated():
    trips = RoundTrips()
    asking = Asking(round_trips=trips)
    asking.wait(600 * MS)
    assert asking.hear(ANSWER) and len(trips) == 0


def test_few_servers_are_remembered():
    trips = RoundTrips()
    for i in range(MAX_RTTS + 10):
        trips.learn(model.endpoint("192.0.2.1", 1 + i), MS, SECOND)
    assert len(trips) == MAX_RTTS and trips.rto_ns(model.endpoint("192.0.2.1", 1), SECOND) == FIRST_RTO_NS


# --- misuse ---


def test_there_are_limits_to_what_is_asked_at_once():
    machine = Transactions()
    for i in range(MAX_TRANSACTIONS):
        machine.start(SERVER, i.to_bytes(12), 0)
    with pytest.raises(ValueError, match="at most 256"):
        machine.start(SERVER, bytes([1]) * 12, 0)
    machine.cancel(bytes(12))
    machine.cancel(bytes(12))
    with pytest.raises(ValueError, match="in use"):
        machine.start(SERVER, (1).to_bytes(12), 0)
    with pytest.raises(ValueError, match="at least one"):
        machine.start(SERVER, bytes([2]) * 12, 0, tries=0)


def test_an_answer_to_what_was_not_sent_yet_is_none():
    machine = Transactions()
    machine.start(SERVER, ID, 0)
    assert not machine.handle_datagram(ANSWER, SERVER, 0)


def test_a_transaction_that_is_cancelled_is_forgotten():
    async def main():
        net = Net()
        with StunClient(net) as client:
            task = asyncio.ensure_future(client.ask(client.open(), SERVER))
            await asyncio.sleep(1)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            sent = len(net.sent)
            await asyncio.sleep(60)
            assert len(net.sent) == sent and not net.expected

    run(main(), seed=1)
