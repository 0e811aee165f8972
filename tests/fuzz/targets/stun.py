"""STUN: messages of noise, and those that are right up to the attributes; what a node answers, and what a client believes."""

from interpeer._core import control, stun
from interpeer._nat import State, Transactions
from tests.fuzz.source import Source
from tests.models import stun as model
from tests.spec.peer import ELSEWHERE, NODES, PEER_AT, Node

KINDS = (model.REQUEST, model.REQUEST, model.REQUEST, model.INDICATION, model.SUCCESS, model.ERROR, 0x003, 0x3FFF)
CODES = (
    model.MAPPED_ADDRESS, model.CHANGE_REQUEST, model.USERNAME, model.INTEGRITY, model.ERROR_CODE, model.UNKNOWN_ATTRIBUTES,
    model.REALM, model.NONCE, model.INTEGRITY_SHA256, model.XOR_MAPPED_ADDRESS, model.PADDING, model.RESPONSE_PORT,
    model.SOFTWARE, model.ALTERNATE_SERVER, model.FINGERPRINT, model.RESPONSE_ORIGIN, model.OTHER_ADDRESS,
)  # fmt: skip
PLACES = (PEER_AT, ELSEWHERE, model.endpoint("2001:db8::7", 9))
SERVER = model.endpoint("192.0.2.1", 3478)
ID = bytes(range(12))


def feed(data: bytes) -> None:
    source = Source(data)
    (parse, answer, ask)[source.byte(3)](source)


def message(source: Source) -> bytes:
    """Write a message whose header is right; lengths in its attributes may be wrong, and what seals it may be right."""
    attributes: list[tuple[int, bytes]] = []
    for _ in range(source.byte(8)):
        kind = source.byte(len(CODES) + 1)
        code = CODES[kind] if kind < len(CODES) else source.byte() << 8 | source.byte()
        value = source.take(source.byte(40))
        if code == model.XOR_MAPPED_ADDRESS and kind & 1:
            value = model.xored(value, ID)
        attributes.append((code, value))
    made = model.message(KINDS[source.byte(len(KINDS))], ID, *attributes)
    seals = source.byte(8)
    if seals & 1:
        made = model.with_integrity(made, b"key", model.INTEGRITY)
    if seals & 2:
        made = model.with_integrity(made, b"key", model.INTEGRITY_SHA256)
    return model.with_fingerprint(made) if seals & 4 else made


def parse(source: Source) -> None:
    """Read noise behind a header that is right, or not."""
    body = source.rest()
    for data in (body, model.message(body[0] & 0x3F if body else 1, ID, length=len(body)) + body):
        read = stun.parse(data)
        is_verified = stun.verify(data, b"key")
        assert read is None or (read.transaction == data[8:20] and len(data) % 4 == 0)
        assert not is_verified or (read is not None and read.has_integrity)


def answer(source: Source) -> None:
    """Say messages from several places: none of them is ever sent more than came from it, and only to it."""
    node = Node()
    NODES.clear()  # it is kept for tests, and there are many here
    paid = dict.fromkeys((place[0] for place in PLACES), 0)
    while source:
        place, data = PLACES[source.byte(len(PLACES))], message(source)
        node.hear(data, source=place)
        paid[place[0]] += len(data)
        for sent in node.say():
            paid[sent.to[0]] -= len(sent.data)
            assert paid[sent.to[0]] >= 0 and sent.to[0] == place[0]
            said = stun.parse(sent.data)
            assert said is not None and said.kind in (stun.SUCCESS, stun.ERROR) and said.transaction == ID
            assert said.mapped in (None, place)
    assert not any(control.live_objects(node.engine).values())


def ask(source: Source) -> None:
    """Answer a client anything: it ends once at the most, and believes only what can be."""
    key = b"key" if source.byte(2) else None
    client = Transactions()
    client.start(SERVER, ID, 0, key=key)
    client.poll_transmit(0)
    ended = 0
    while source:
        data = message(source)
        client.handle_datagram(data, SERVER if source.byte(4) else ELSEWHERE, 1)
        for result in client.poll_results():
            ended += 1
            assert result.source == SERVER and (key is None or stun.verify(data, key))
            assert (result.state is State.ANSWERED) == (result.mapped is not None)
    assert ended <= 1 and ended + len(client) == 1
