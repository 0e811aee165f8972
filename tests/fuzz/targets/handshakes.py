"""What a node hears from strangers. Macs and seals are right where the input says so: what is behind them is fed, too."""

from interpeer._core import control
from tests.fuzz.source import Source
from tests.spec import reference as ref
from tests.spec.peer import ELSEWHERE, NODES, PEER_AT, SECOND, Node, Peer


def feed(data: bytes) -> None:
    source = Source(data)
    node = Node()
    NODES.clear()  # it is kept for tests, and there are many here
    peer = Peer(node)
    (call, be_called, be_told, talk)[source.byte(4)](source, peer)
    node.events()
    del peer
    node.wait(120 * SECOND)
    left = {name: count for name, count in control.live_objects(node.engine).items() if count}
    assert not left, f"left behind: {left}"


def call(source: Source, peer: Peer) -> None:
    """Say init: sound ones with any parameters, bodies of noise with a right mac, twice, and from elsewhere."""
    kind = source.byte()
    claim = source.take(32).ljust(32, b"\0") if kind & 1 else None
    if kind & 2:
        body = (ref.header(ref.INIT, peer.cid, 1 + source.byte(2)) + source.rest()).ljust(1168, b"\0")[:1168]
        init = ref.with_macs(body, peer.node.identity.public, b"", source.take(16) if kind & 4 else None)
    else:
        init = peer.init(parameters=source.take(1040), claim=claim)
    responses: list[bytes] = []
    for at in (PEER_AT, ELSEWHERE) if kind & 8 else (PEER_AT, PEER_AT):
        for answer in peer.node.answers(init, source=at):
            assert len(answer) <= 3 * len(init)
            if answer[0] == ref.RESPONSE:
                responses.append(answer)
    if responses:  # a refusal is not remembered, so the second may be another one
        peer.read_response(responses[0])


def be_called(source: Source, peer: Peer) -> None:
    """Answer a node's init with any parameters, or with noise that has the right header."""
    handle, init = dial(peer)
    if source.byte(2):
        peer.node.hear(peer.answer(init, parameters=source.rest()), source=peer.at)
    else:
        peer.node.hear(ref.header(ref.RESPONSE, init[2:10]) + source.rest(), source=peer.at)
    handle.close(0, b"")


def be_told(source: Source, peer: Peer) -> None:
    """Answer with sealed cookies and versions, which may be of any size, and more than once."""
    handle, init = dial(peer)
    while source:
        kind = source.byte()
        head = ref.header((ref.COOKIE, ref.VERSIONS)[kind & 1], init[2:10], kind >> 1 & 3)
        reply = ref.seal_reply(head, source.take(source.byte()), bytes(24), init[1168:1184], peer.identity.public, b"")
        peer.node.hear(reply, source=ELSEWHERE if kind & 8 else peer.at)
        peer.node.wait(SECOND)
    handle.close(0, b"")


def talk(source: Source, peer: Peer) -> None:
    """Say anything to a node that dials."""
    handle, init = dial(peer)
    while source:
        kind = source.byte()
        data = source.piece()
        if kind & 1:
            data = bytes([0x41 + (kind >> 1 & 3), 1]) + init[2:10] + data
        peer.node.hear(data, source=ELSEWHERE if kind & 8 else peer.at, ecn=kind >> 4 & 3)
        peer.node.say()
    handle.close(0, b"")


def dial(peer: Peer):
    """Let the node call; return the handle and its init."""
    handle = peer.node.connect(peer)
    (init,) = peer.node.say()
    return handle, init.data
