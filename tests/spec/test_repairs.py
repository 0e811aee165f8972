"""Chapter 17 of the specification, from FE-16 on: repairs of channels."""

import pytest

from tests.models.wire import varint
from tests.spec import reference as ref
from tests.spec.channels import accepted, of_kind, opened, taken
from tests.spec.peer import MS, Node, Peer
from tests.spec.reference import FLOW_CONTROL, FRAME_ENCODING, channel_frame, dropped, message, messages
from tests.spec.test_fec import repair
from tests.spec.test_frames import connected

EVERY_FOURTH = (3, 3, 0, 4, 1)
TEXTS = [b"zero", b"one", b"", b"three" * 100]


def symbols(texts, *, ordered=True):
    """Return what the symbols of messages are made of, by number."""
    made, offset = {}, 0
    for number, text in enumerate(texts):
        written = message(number, text, ordered=ordered)
        made[number] = offset.to_bytes(8) + written
        offset += len(written)
    return made


def repair_frame(channel, data):
    return varint(ref.REPAIR) + varint(channel) + varint(len(data)) + data


def protected(peer, **options):
    """Let the peer open channel 0, which it protects, and return our end of it."""
    peer.send(channel_frame(0, fec=(4, 1), **options))
    (channel,) = accepted(peer)
    peer.node.say()
    return channel


def messages_but(missing, texts=TEXTS, *, ordered=True):
    return [
        messages(0, made[8:], int.from_bytes(made[:8]))
        for number, made in symbols(texts, ordered=ordered).items()
        if number not in missing
    ]


# --- sending ---


@pytest.mark.spec("FE-17", "FE-16")
def test_a_repair_follows_so_many_messages_in_a_packet_of_its_own():
    peer = connected()
    channel = peer.handle.open_channel(EVERY_FOURTH)
    peer.node.say()
    texts = [b"zero", bytes(2000), b"two", b"three", bytes(1100)]
    for text in texts[:4]:
        channel.send(text)
        assert of_kind(ref.REPAIR, peer.frames()) == []
    channel.send(texts[4])
    packets = [ref.read_frames(opened.payload) for opened in peer.packets()]
    assert [[frame.kind & ~3 if frame.kind >= ref.MESSAGES else frame.kind for frame in frames] for frames in packets[-1:]] == [
        [ref.REPAIR]
    ]
    covered = symbols(texts)
    covered[1] = b""
    assert packets[-1][0].data == repair(covered, 0) and packets[-1][0].id == channel.id


@pytest.mark.spec("FE-17")
@pytest.mark.parametrize("fec", [(0, 0), (0, 5), (5, 0)])
def test_no_repair_is_sent_that_was_not_asked_for(fec):
    peer = connected()
    channel = peer.handle.open_channel((3, 3, 0, *fec))
    for _ in range(100):
        channel.send(b"text")
    assert of_kind(ref.REPAIR, peer.exchange()) == []


@pytest.mark.spec("FE-18")
def test_a_repair_covers_the_last_messages_in_a_pause():
    peer = connected()
    channel = peer.handle.open_channel(EVERY_FOURTH)
    for text in TEXTS[:2]:
        channel.send(text)
        assert of_kind(ref.REPAIR, peer.frames()) == []
    assert of_kind(ref.REPAIR, peer.frames(peer.node.wait(9 * MS))) == []
    (frame,) = of_kind(ref.REPAIR, peer.frames(peer.node.wait(91 * MS)))
    assert frame.data == repair(symbols(TEXTS[:2]), 0)


@pytest.mark.spec("FE-18")
def test_what_comes_at_a_steady_pace_does_not_pause():
    peer = connected()
    channel = peer.handle.open_channel((3, 3, 0, 50, 1))
    seen = []
    for _ in range(40):
        channel.send(b"text")
        seen += of_kind(ref.REPAIR, peer.frames(peer.node.wait(30 * MS)))
        peer.acknowledge()
    assert len(seen) <= 1


@pytest.mark.spec("FE-19")
def test_a_repair_leaves_out_what_the_peer_has():
    peer = connected()
    channel = peer.handle.open_channel(EVERY_FOURTH)
    for text in TEXTS[:2]:
        channel.send(text)
    peer.frames()
    peer.acknowledge()
    for text in TEXTS[2:]:
        channel.send(text)
    (frame,) = of_kind(ref.REPAIR, peer.frames())
    made = symbols(TEXTS)
    assert frame.data == repair({2: made[2], 3: made[3]}, 0)


# --- receiving ---


@pytest.mark.spec("FE-20")
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("missing", range(4))
def test_a_lost_message_is_recovered_and_delivered_once(missing, ordered):
    peer = connected()
    channel = protected(peer)
    peer.send(*messages_but({missing}, ordered=ordered))
    early = taken(channel)
    assert early == (TEXTS[:missing] if ordered else TEXTS[:missing] + TEXTS[missing + 1 :])
    made = symbols(TEXTS, ordered=ordered)
    peer.send(repair_frame(0, repair(made, 0)))
    offset, size = int.from_bytes(made[missing][:8]), len(made[missing]) - 8
    for _ in range(2):
        peer.send(dropped(0, offset, 0, size, missing))
        peer.send(*messages_but(set(), ordered=ordered))
    assert sorted(early + taken(channel)) == sorted(TEXTS) and taken(channel) == []
    assert channel.dropped() == (0, 0, ()) and channel.stats()["repaired"] == 1
    assert peer.handle.is_open


@pytest.mark.spec("FE-20")
def test_what_was_given_up_is_not_recovered():
    peer = connected()
    channel = protected(peer)
    made = symbols(TEXTS)
    peer.send(*messages_but({1}), dropped(0, int.from_bytes(made[1][:8]), 0, len(made[1]) - 8, 1))
    peer.send(repair_frame(0, repair(made, 0)))
    assert taken(channel) == [TEXTS[0], *TEXTS[2:]] and channel.dropped()[1] == 1 and channel.stats()["repaired"] == 0


@pytest.mark.spec("FE-20")
def test_a_recovered_message_keeps_to_the_limits():
    peer = Peer(Node(stream_window=1000)).call()
    protected(peer)
    peer.send(repair_frame(0, repair({0: (990).to_bytes(8) + message(0, b"beyond")}, 0)))
    assert peer.closed_with() == FLOW_CONTROL


@pytest.mark.spec("FE-21")
@pytest.mark.parametrize(
    "data",
    [
        b"", repair(symbols(TEXTS), 0, count=0), repair(symbols(TEXTS), 0, count=65), repair(symbols(TEXTS), 0)[:5],
        repair({0: bytes(1117)}, 0), b"\x40" + repair(symbols(TEXTS), 0),
        repair({0: bytes(8) + message(1, b"number")}, 0), repair({0: bytes(8) + message(0, b"size") + b"?"}, 0),
        repair({0: b"\xff" * 8 + message(0, b"place")}, 0), repair({0: bytes(8) + b"\x40" + message(0, b"bits")[1:]}, 0),
    ],
    ids=lambda data: data.hex()[:40],
)  # fmt: skip
def test_a_repair_that_cannot_be_ends_the_connection(data):
    peer = connected()
    protected(peer)
    peer.send(repair_frame(0, data))
    assert peer.closed_with() == FRAME_ENCODING


@pytest.mark.spec("FE-21", "FE-16")
def test_large_messages_are_empty_in_repairs():
    peer = connected()
    channel = protected(peer)
    texts = [b"zero", bytes(1101), b"two", bytes(1100)]
    made = symbols(texts)
    covered = {**made, 1: b""}
    peer.send(*messages_but({1, 2, 3}, texts))
    peer.send(messages(0, made[1][8:1000], int.from_bytes(made[1][:8])))
    peer.send(messages(0, made[1][1000:], int.from_bytes(made[1][:8]) + 992, 992))
    peer.send(messages(0, made[3][8:], int.from_bytes(made[3][:8])))
    peer.send(repair_frame(0, repair(covered, 7)))
    assert taken(channel) == texts
    peer.send(repair_frame(0, repair({4: b""}, 8)))
    assert peer.handle.is_open


@pytest.mark.spec("FE-22")
def test_repairs_of_a_channel_that_has_none_are_ignored():
    peer = connected()
    channel = opened(peer)
    peer.send(repair_frame(0, repair(symbols(TEXTS[:1]), 0)))
    assert taken(channel) == [] and peer.handle.is_open
    peer.send(channel_frame(0, 1, fec=(4, 1)), repair_frame(0, repair(symbols(TEXTS[:1]), 1)))
    assert taken(channel) == TEXTS[:1]


@pytest.mark.spec("FE-22")
def test_who_accepts_a_protected_channel_may_send_repairs_at_once():
    peer = connected()
    channel = peer.handle.open_channel(EVERY_FOURTH)
    peer.node.say()
    peer.send(repair_frame(channel.id, repair(symbols(TEXTS[:1]), 0)))
    assert taken(channel) == TEXTS[:1]


@pytest.mark.spec("FE-22")
def test_no_more_than_sixteen_channels_of_a_connection_are_decoded():
    peer = connected()
    peer.send(*(channel_frame(2 * n, fec=(4, 1)) for n in range(17)))
    channels = accepted(peer)
    data = repair(symbols(TEXTS[:1]), 0)
    peer.send(*(repair_frame(2 * n, data) for n in range(17)))
    assert [taken(channel) for channel in channels] == [TEXTS[:1]] * 16 + [[]]
    peer.send(channel_frame(0, 1), channel_frame(32, 1, fec=(4, 1)), repair_frame(32, data))
    assert taken(channels[16]) == TEXTS[:1]
