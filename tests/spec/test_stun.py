"""Chapter 22 of the specification: STUN, as every node answers it."""

import pytest

from interpeer._core import stun
from tests.models import stun as model
from tests.spec.peer import MS, NODE_AT, PEER_AT, SECOND, Node, endpoint

ID = bytes(range(20, 32))
LEG = (bytes([1, 0, 0, 0, 0, 0, 0, 1]) + bytes([0x80] * 8), 1, 0)
V6_AT = model.endpoint("2001:db8::7", 2002)
BARE = model.message(model.REQUEST, ID)
FILLED = model.message(model.REQUEST, ID, (model.SOFTWARE, bytes(100)))


def request(*attributes):
    return model.message(model.REQUEST, ID, *attributes, (model.SOFTWARE, bytes(100)))


@pytest.mark.spec("SN-4", "SN-5")
@pytest.mark.parametrize("source", [PEER_AT, V6_AT], ids=["IPv4", "IPv6"])
def test_a_node_tells_where_a_request_came_from(source):
    node = Node()
    node.hear(FILLED, source=source, at=NODE_AT)
    (sent,) = node.say()
    assert sent.data == model.message(model.SUCCESS, ID, model.xor_mapped(source, ID))
    assert (sent.to, sent.local) == (source, NODE_AT[0])
    assert node.counter("stun_answered") == 1


@pytest.mark.spec("SN-5")
def test_a_fingerprint_is_answered_by_one():
    (answer,) = Node().answers(model.with_fingerprint(FILLED))
    assert answer == model.with_fingerprint(model.message(model.SUCCESS, ID, model.xor_mapped(PEER_AT, ID)))


@pytest.mark.spec("SN-4")
def test_a_node_that_was_told_not_to_answers_nobody():
    node = Node(answers_stun=0)
    assert node.answers(FILLED) == [] and node.counter("dropped_stun") == 1


@pytest.mark.spec("SN-3", "SN-6")
def test_all_that_is_no_sound_request_is_dropped_and_counted():
    node = Node()
    with_wrong_fingerprint = model.add(FILLED, model.FINGERPRINT, bytes(4))
    cut = model.message(model.REQUEST, ID, length=4)
    empty_address = model.message(model.REQUEST, ID, (model.XOR_MAPPED_ADDRESS, b""), (model.SOFTWARE, bytes(100)))
    kinds = [model.message(kind, ID, (model.SOFTWARE, bytes(100))) for kind in (model.INDICATION, model.SUCCESS, model.ERROR)]
    other_method = model.message(0x003, ID, (model.SOFTWARE, bytes(100)))
    bad = [with_wrong_fingerprint, cut, empty_address, *kinds, other_method]
    assert node.answers(*bad) == []
    assert node.counter("dropped_stun") == len(bad)
    assert node.answers(FILLED, source=LEG) == [] and node.counter("dropped_virtual") == 1


@pytest.mark.row("N8")
@pytest.mark.spec("SN-3")
@pytest.mark.parametrize("asked", [FILLED, request((0x7ABC, b""))], ids=["a success", "an error"])
def test_servers_that_are_set_on_each_other_or_on_themselves_answer_once(asked):
    """The request has another server's address as its source, and its answer goes there."""
    first, second = Node(), Node()
    (answer,) = first.answers(asked)
    assert second.answers(answer) == first.answers(answer) == []
    assert second.counter("dropped_stun") == first.counter("dropped_stun") == 1


# --- what it costs ---


@pytest.mark.spec("SN-7")
def test_a_bare_request_is_answered_when_its_address_has_paid_for_it():
    node = Node()
    assert node.answers(BARE) == [] and node.counter("dropped_stun") == 1
    node.now_ns += 500 * MS
    (answer,) = node.answers(BARE)
    assert model.mapped_in(answer) == PEER_AT and len(answer) <= 2 * len(BARE)
    assert node.answers(BARE) == [], "what was paid was used up"


@pytest.mark.spec("SN-7")
@pytest.mark.parametrize("source", [PEER_AT, V6_AT], ids=["IPv4", "IPv6"])
@pytest.mark.parametrize("filling", range(0, 60, 4))
def test_no_address_is_sent_more_than_came_from_it(source, filling):
    node = Node()
    attributes = [(model.SOFTWARE, bytes(filling - 4))] if filling else []
    unknown = [(0x0001 + 0x7000, b"")]
    got = given = 0
    for i in range(60):
        data = model.message(model.REQUEST, ID, *(unknown if i % 3 == 0 else []), *attributes)
        got += len(data)
        given += sum(map(len, node.answers(model.with_fingerprint(data) if i % 2 else data, source=source)))
        got += 8 * (i % 2)
        assert given <= got
    assert given, "in the end everybody is answered"


@pytest.mark.spec("SN-7")
def test_one_address_does_not_pay_for_another():
    node = Node()
    node.answers(BARE, source=PEER_AT)
    for i in range(1, 255):
        assert node.answers(BARE, source=endpoint(f"198.51.100.{i}", 2002)) == [] or i == 7
    assert node.counter("stun_answered") <= 1


@pytest.mark.spec("SN-7")
def test_what_an_address_has_paid_is_not_kept_without_end():
    node = Node()
    node.answers(*[model.message(model.REQUEST, ID, (model.SOFTWARE, bytes(400)))] * 10)
    answered = node.counter("stun_answered")
    node.answers(*[BARE] * 30)
    assert node.counter("stun_answered") - answered <= (128 + 30 * 20) // 32


@pytest.mark.spec("SN-8")
def test_no_more_is_answered_than_the_rate_allows():
    node = Node()
    for _ in range(100):
        node.answers(*[FILLED] * 20)
    assert node.counter("stun_answered") == 1000 and node.counter("dropped_limited") == 1000
    node.now_ns += SECOND // 100
    assert len(node.answers(*[FILLED] * 20)) == 10


@pytest.mark.spec("SN-8")
def test_a_flood_leaves_room_for_calls():
    node = Node()
    assert len(node.answers(*[FILLED] * 100)) == 32
    assert node.counter("dropped_limited") == 68


# --- what else may stand in a request ---


@pytest.mark.spec("SN-9")
def test_attributes_that_a_node_does_not_know_are_named():
    (answer,) = Node().answers(request((0x0024, bytes(4)), (0x7ABC, b""), (0x0002, bytes(8)), (0xABCD, b"x")))
    found = stun.parse(answer)
    assert (found.kind, found.error, found.listed, found.mapped) == (stun.ERROR, 420, (0x0024, 0x7ABC, 0x0002), None)
    assert stun.parse(answer).transaction == ID
    (answer,) = Node().answers(request((0x7ABC, b"")))
    assert stun.parse(answer).listed == (0x7ABC,)


@pytest.mark.spec("SN-7", "SN-9")
def test_as_many_are_named_as_there_is_room_for():
    node = Node()
    data = model.message(model.REQUEST, ID, *[(0x7000 + i, b"") for i in range(4)])
    assert len(data) == 36
    (answer,) = node.answers(data)
    assert len(answer) <= len(data) and stun.parse(answer).listed == (0x7000, 0x7001)
    assert node.answers(model.message(model.REQUEST, ID, (0x7000, b""))) == []


@pytest.mark.spec("SN-10")
def test_an_answer_goes_to_another_port_of_the_same_address_where_it_is_wanted():
    node = Node()
    node.hear(request((model.RESPONSE_PORT, b"\x12\x34")))
    (sent,) = node.say()
    assert sent.to == (PEER_AT[0], 0x1234, 0)
    assert model.mapped_in(sent.data) == PEER_AT


@pytest.mark.spec("SN-11")
@pytest.mark.parametrize("change", [0x02, 0x04, 0x06])
def test_a_node_has_no_other_address_to_answer_from(change):
    (answer,) = Node().answers(request((model.CHANGE_REQUEST, bytes([0, 0, 0, change]))))
    assert (stun.parse(answer).error, stun.parse(answer).listed) == (420, (model.CHANGE_REQUEST,))


@pytest.mark.spec("SN-11")
def test_a_change_of_nothing_changes_nothing():
    (answer,) = Node().answers(request((model.CHANGE_REQUEST, bytes(4))))
    assert model.mapped_in(answer) == PEER_AT


@pytest.mark.spec("SN-12")
def test_padding_makes_a_request_longer_and_no_answer():
    (answer,) = Node().answers(model.message(model.REQUEST, ID, (model.PADDING, bytes(1400))))
    assert answer == model.message(model.SUCCESS, ID, model.xor_mapped(PEER_AT, ID))


@pytest.mark.spec("SN-13")
def test_an_integrity_is_neither_wanted_nor_given():
    (answer,) = Node().answers(model.with_integrity(model.message(model.REQUEST, ID, (model.USERNAME, b"me")), b"key"))
    assert answer == model.message(model.SUCCESS, ID, model.xor_mapped(PEER_AT, ID))
