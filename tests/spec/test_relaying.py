"""Chapter 21 of the specification: relaying."""

import pytest

from interpeer._core import control, legs, path_handle
from tests.spec import reference as ref
from tests.spec.paths import QUESTION, accepted, challenge_in, opening, paths, states
from tests.spec.peer import ELSEWHERE, MS, OPEN, PEER_AT, SECOND, Node, Peer, ack_of, endpoint
from tests.spec.relays import INNER, LEG, OTHER, Through, behind, number, relaying

THIRD = endpoint("203.0.113.77", 7007)
OURS, ALSO_OURS = endpoint("192.0.2.1", 1001), endpoint("192.0.2.2", 1001)


def forwarded(node):
    """Return what the node passes on now, and to whom."""
    return [(sent.data, sent.to) for sent in node.say() if sent.data[:8] in (LEG, OTHER)]


# --- ids ---


@pytest.mark.spec("RE-2")
def test_an_id_that_is_in_use_is_no_legs():
    node, a, _b = relaying()
    own_cid = int.from_bytes(a.remote_cid)
    for taken in (number(LEG), number(OTHER), own_cid, number(LEG) & ~(1 << 63)):
        with pytest.raises(ValueError, match="leg's id"):
            legs.add(a.handle, taken)
    half_open = Peer(node, bytes([4]) * 32, at=THIRD)
    (response,) = node.answers(half_open.init(), source=THIRD)
    half_open.read_response(response)
    with pytest.raises(ValueError, match="leg's id"):
        legs.add(a.handle, int.from_bytes(half_open.remote_cid))


@pytest.mark.spec("RE-20")
def test_no_connection_id_is_issued_that_is_a_legs():
    """Random bytes are the same each time, and so the id that comes next."""

    def next_id(leg=None):
        node = Node()
        peer = Peer(node).call()
        peer.exchange()
        if leg is not None:
            legs.add(peer.handle, int.from_bytes(leg))
        stranger = Peer(node, bytes([5]) * 32, at=THIRD)
        said = node.answers(stranger.init(), source=THIRD)
        return stranger.read_response(said[0])[ref.CONNECTION_ID] if said else None

    foreseen = next_id()
    assert next_id() == foreseen
    assert next_id(foreseen) != foreseen


# --- at the relay ---


@pytest.mark.spec("RE-8")
@pytest.mark.parametrize("ecn", [0, 1, 2, 3])
def test_what_comes_on_a_leg_goes_out_on_the_other_one_otherwise_unchanged(ecn):
    node, a, b = relaying()
    node.hear(LEG + INNER, source=a.at, ecn=ecn)
    (sent,) = node.say()
    assert (sent.data, sent.to, sent.ecn) == (OTHER + INNER, b.at, ecn)
    node.hear(OTHER + INNER[:50], source=b.at)
    assert forwarded(node) == [(LEG + INNER[:50], a.at)]
    assert forwarded(node) == []


@pytest.mark.spec("RE-8")
def test_packets_of_many_sizes_pass_in_their_order():
    node, a, b = relaying()
    inner = [b"\x80" + bytes([size % 256]) * size for size in (100, 100, 100, 50, 200, 200, 30, 1400, 1400, 10)]
    node.hear(*(LEG + data for data in inner), source=a.at)
    assert forwarded(node) == [(OTHER + data, b.at) for data in inner]


@pytest.mark.spec("RE-4")
def test_a_relayed_datagram_counts_only_from_where_its_carrier_has_a_path():
    node, a, b = relaying()
    for source in (b.at, THIRD, (a.at[0], a.at[1] + 1, 0)):
        node.hear(LEG + INNER, source=source)
    assert forwarded(node) == []
    assert node.counter("dropped_leg") == 3


@pytest.mark.spec("RE-4")
def test_a_relayed_datagram_counts_only_at_the_address_that_the_carriers_path_has():
    node, a, b = relaying()
    a.send(ref.ping(), at=OURS)
    node.say()
    node.hear(LEG + INNER, source=a.at, at=ALSO_OURS)
    assert forwarded(node) == []
    node.hear(LEG + INNER, source=a.at, at=OURS)
    node.hear(LEG + INNER, source=a.at)  # the system has not told
    assert forwarded(node) == [(OTHER + INNER, b.at)] * 2


@pytest.mark.spec("RE-21")
def test_nothing_is_sent_to_where_the_carrier_has_proved_nothing():
    node, a, b = relaying()
    b.send(ref.ping(), source=THIRD)  # it claims to be there now
    node.say()
    node.hear(LEG + INNER, source=a.at)
    assert forwarded(node) == []
    (pair,) = legs.pairs(node.engine)
    assert pair["dropped_way"] == 1


@pytest.mark.spec("RE-5")
def test_it_is_sent_where_the_carrier_sends_its_own():
    node, a, b = relaying()
    b.send(ref.ping(), bytes(100), source=THIRD)
    asked = challenge_in(b, [sent for sent in node.say() if sent.to == THIRD])
    node.now_ns += 20 * MS
    b.send(ref.path_response(asked), source=THIRD)
    node.say()
    node.hear(LEG + INNER, source=a.at)
    assert forwarded(node) == [(OTHER + INNER, THIRD)]


@pytest.mark.spec("RE-5")
def test_it_takes_the_path_that_the_carrier_prefers():
    node = Node()
    a = Peer(node, at=PEER_AT).call()
    a.exchange()
    b = Peer(node, bytes([3]) * 32, at=ELSEWHERE).call(MAX_PATHS=4)
    b.send(b.new_cid(0, 1), b.new_cid(1, 0), b.new_cid(2, 0))
    b.exchange()
    legs.join(a.handle, number(LEG), b.handle, number(OTHER), 1e9, 1 << 20)
    accepted(b, source=THIRD)
    for standby, target in ((2, ELSEWHERE), (0, THIRD)):
        path_handle.set_standby(b.handle, standby, True)
        path_handle.set_standby(b.handle, 2 - standby, False)
        node.say()
        node.hear(LEG + INNER, source=a.at)
        assert forwarded(node) == [(OTHER + INNER, target)]


@pytest.mark.spec("RE-9")
def test_what_is_too_short_for_anything_is_not_passed_on():
    node, a, b = relaying()
    for size in (0, 1, 9):
        node.hear(LEG + INNER[:size], source=a.at)
    assert forwarded(node) == []
    node.hear(LEG + INNER[:10], source=a.at)
    assert forwarded(node) == [(OTHER + INNER[:10], b.at)]


@pytest.mark.spec("RE-10")
def test_a_pair_passes_its_burst_at_once_and_then_its_rate_both_ways_together():
    node, a, b = relaying(bytes_per_s=10_800, burst=1080)
    node.hear(*[LEG + INNER] * 6, source=a.at)
    node.hear(*[OTHER + INNER] * 6, source=b.at)
    assert len(forwarded(node)) == 10
    node.now_ns += 20 * MS
    node.hear(*[LEG + INNER] * 4, source=a.at)
    assert len(forwarded(node)) == 2
    node.now_ns += 3600 * SECOND
    node.hear(*[LEG + INNER] * 16, source=a.at)
    assert len(forwarded(node)) == 10
    (pair,) = legs.pairs(node.engine)
    assert pair["dropped_rate"] == 2 + 2 + 6
    assert pair["packets_a_to_b"] + pair["packets_b_to_a"] == 22


@pytest.mark.spec("RE-10")
def test_all_pairs_together_pass_what_is_given_to_all():
    node, a, b = relaying()
    legs.set_total(node.engine, 10_800, 1080)
    node.hear(*[LEG + INNER] * 6, source=a.at)
    node.hear(*[OTHER + INNER] * 6, source=b.at)
    assert len(forwarded(node)) == 10
    node.now_ns += 20 * MS
    node.hear(*[LEG + INNER] * 4, source=a.at)
    assert len(forwarded(node)) == 2
    assert legs.pairs(node.engine)[0]["dropped_rate"] == 4
    with pytest.raises(ValueError, match="greater than 0"):
        legs.set_total(node.engine, 0, 1080)


@pytest.mark.spec("RE-11")
def test_what_does_not_fit_in_the_queue_is_dropped():
    node, a, _b = relaying(burst=1 << 40)
    inner = b"\x80" + bytes(65_000)
    for _ in range(40):  # and nobody asks the node what it has to say
        node.hear(LEG + inner, source=a.at)
    assert len(forwarded(node)) == (1 << 20) // 65_009
    (pair,) = legs.pairs(node.engine)
    assert pair["dropped_queue"] == 40 - (1 << 20) // 65_009
    node.hear(LEG + inner, source=a.at)
    assert len(forwarded(node)) == 1


@pytest.mark.spec("RE-12")
@pytest.mark.parametrize("how", ["by the peer", "here", "by silence"])
def test_legs_end_with_their_carrier_and_so_do_those_joined_to_them(how):
    node, a, b = relaying()
    if how == "by the peer":
        a.send(ref.close(0))
    elif how == "here":
        a.handle.close(0, b"")
    else:
        b.send(ref.ping())
        node.wait(25 * SECOND)
        b.send(ref.ping())
        node.wait(10 * SECOND)
    node.say()
    assert {event[1] for event in node.events() if event[0] == control.LEG_GONE} == {number(LEG), number(OTHER)}
    assert legs.pairs(node.engine) == []
    before = node.counter("dropped_unknown")
    node.hear(OTHER + INNER, source=b.at)
    assert forwarded(node) == [] and node.counter("dropped_unknown") == before + 1


# --- at the ends ---


@pytest.mark.spec("RE-6")
def test_a_leg_in_a_leg_is_dropped():
    peer, relay = behind()
    node = peer.node.node
    said = node.counter("resets_sent")
    for inner in (LEG + INNER, LEG + LEG + INNER):
        node.hear(LEG + inner, source=relay.at)
    assert node.counter("dropped_leg") == 2
    assert node.say() == [] and node.counter("resets_sent") == said


@pytest.mark.spec("RE-6")
def test_a_relayed_path_of_a_carrier_carries_nothing():
    """The connection to another relay goes through the first one: its leg has no way."""
    peer, _ = behind()
    at = legs.add(peer.handle, number(OTHER))
    node = peer.node.node
    stranger = Peer(node, bytes([7]) * 32)
    calling = control.connect(node.engine, stranger.identity.id, [at], b"test/1")
    assert node.say() == []
    calling.close(0, b"")
    assert node.counter("dropped_legless") == 1


@pytest.mark.spec("RE-7")
@pytest.mark.parametrize("first", [0x00, 0x01, 0x40, 0x45, 0x46])
def test_a_leg_carries_packets_and_handshakes_alone(first):
    peer, relay = behind()
    node = peer.node.node
    node.hear(LEG + bytes([first, 1, 0, 44, 0x21, 0x12, 0xA4, 0x42]) + bytes(56), source=relay.at)
    assert node.say() == [] and node.events() == []
    assert node.counter("dropped_leg") == 1


@pytest.mark.spec("RE-13")
@pytest.mark.parametrize("is_caller", [True, False], ids=["called", "calling"])
def test_a_connection_through_a_relay_is_one_like_any_other(is_caller):
    peer, relay = behind()
    node = peer.node.node
    if not is_caller:
        peer = Peer(Through(node, relay), bytes([8]) * 32, at=peer.at).be_called()
    assert peer.handle.state == OPEN and peer.handle.remote == peer.at
    peer.send(ref.stream(0 if is_caller else 1, b"hello", fin=True))
    taken = peer.handle.accept_stream()
    assert taken.read(100) == b"hello"
    assert all(sent.data[:8] == LEG for sent in node.wait(10 * MS))


@pytest.mark.spec("RE-13")
def test_a_stranger_behind_a_relay_is_answered_through_it_with_no_more_than_it_has_said():
    node = Node()
    relay = Peer(node).call()
    relay.exchange()
    at = legs.add(relay.handle, number(LEG))
    stranger = Peer(Through(node, relay), bytes([3]) * 32, at=at)
    init = stranger.init()
    node.hear(LEG + init, source=relay.at)
    (sent,) = node.say()
    assert sent.data[:8] == LEG and sent.to == relay.at and len(sent.data) <= 8 + len(init)
    other = stranger.init(version=99)
    node.hear(LEG + other, source=relay.at)
    (sent,) = node.say()
    assert sent.data[:8] == LEG and sent.data[8] == ref.VERSIONS


@pytest.mark.spec("RE-13")
def test_a_path_that_a_peer_opens_through_a_relay_is_proved_like_any_other():
    node = Node()
    relay = Peer(node, at=ELSEWHERE).call()
    relay.exchange()
    at = legs.add(relay.handle, number(LEG))
    peer = Peer(node, bytes([3]) * 32).call(MAX_PATHS=4)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    peer.exchange()
    packet = peer.packet(ref.path_challenge(QUESTION), bytes(1000), path=2)
    node.hear(LEG + packet, source=relay.at)
    (said,) = Through(node, relay).say()
    assert paths(peer)[2]["remote"] == at and states(peer)[2] == "validating"
    asked = challenge_in(peer, [said])
    node.hear(LEG + peer.packet(ref.path_response(asked), path=2), source=relay.at)
    assert states(peer)[2] == "active"


@pytest.mark.spec("RE-14")
def test_packets_on_a_relayed_path_leave_room_for_the_id():
    for size, inner in ((1200, 1200), (1204, 1200), (1400, 1392)):
        peer, _ = behind(packet_bytes=size)
        assert paths(peer)[0]["packet_bytes"] == inner
        stream = peer.handle.open_stream()
        stream.write(bytes(20_000))
        said = peer.node.node.say()
        assert max(len(sent.data) for sent in said) == inner + 8
        assert all(sent.data[:8] == LEG for sent in said)


@pytest.mark.spec("RE-14")
def test_the_search_for_the_mtu_counts_the_id():
    peer, relay = behind(max_packet_bytes=2000)
    node = peer.node.node
    stream, largest = peer.handle.open_stream(), set()
    for _ in range(60):
        stream.write(bytes(10_000))
        said = node.wait(10 * MS)
        largest |= {len(sent.data) for sent in said}
        peer.packets(peer.node.unwrap(said))
        node.now_ns += 10 * MS
        peer.acknowledge()
    assert 1452 in largest and max(largest) == 2000
    assert paths(peer)[0]["packet_bytes"] == 1992
    assert relay.handle.state == OPEN


@pytest.mark.spec("RE-14")
def test_a_size_that_the_interface_refuses_is_the_paths_and_the_id():
    peer, _ = behind(max_packet_bytes=2000)
    node = peer.node.node
    stream = peer.handle.open_stream()
    for _ in range(60):
        stream.write(bytes(10_000))
        said = node.say(refuses=lambda local, size: size > 1500)
        peer.packets(peer.node.unwrap(said))
        node.now_ns += 20 * MS
        node.exchange.handle_timeout(node.now_ns)
        peer.acknowledge()
    assert 1444 <= paths(peer)[0]["packet_bytes"] <= 1492


# --- tiers ---


def with_direct_path(**limits):
    """Return a peer behind a relay with a direct path that is proven, its id, and the relay."""
    peer, relay = behind(**limits)
    node = peer.node.node
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    peer.exchange()
    path = opening(peer, THIRD)
    asked = challenge_in(peer, [sent for sent in node.say() if sent.to == THIRD])
    node.now_ns += 200 * MS  # ten times the relayed round trip
    node.hear(peer.packet(ref.path_response(asked), peer.new_cid(path, 1), path=path), source=THIRD)
    assert states(peer)[path] == "active"
    settle_both(peer)
    return peer, path, relay


def settle_both(peer):
    """Acknowledge what is said on either path, a few times."""
    for _ in range(6):
        for sent in peer.node.node.wait(10 * MS):
            inner = sent.data[8:] if sent.data[:8] == LEG else sent.data
            if inner[:8] in peer.own_cids:
                peer.open(inner)
        peer.node.now_ns += 10 * MS
        peer.acknowledge_all()


def to_whom(peer, data=bytes(100)):
    """Write something; return where packets with data go."""
    peer.stream = peer.handle.open_stream()
    peer.stream.write(data)
    found = set()
    for sent in peer.node.node.say():
        inner = sent.data[8:] if sent.data[:8] == LEG else sent.data
        if any(ref.STREAM <= frame.kind < ref.STREAM + 8 for frame in ref.read_frames(peer.open(inner).payload)):
            found.add("relay" if sent.data[:8] == LEG else "direct")
    return found


@pytest.mark.spec("RE-15")
@pytest.mark.parametrize("is_standby", [False, True])
def test_data_take_the_direct_path_though_the_relayed_one_is_faster(is_standby):
    peer, path, _ = with_direct_path()
    path_handle.set_standby(peer.handle, path, is_standby)
    assert to_whom(peer) == {"direct"}


@pytest.mark.spec("RE-16")
def test_the_relayed_path_is_used_as_soon_as_the_direct_one_is_suspect_and_the_direct_one_when_it_recovers():
    peer, path, _ = with_direct_path()
    node = peer.node.node
    assert to_whom(peer) == {"direct"}
    said = []
    while states(peer)[path] == "active":
        said = node.wait(20 * MS)
    kinds = [frame.kind for sent in peer.node.unwrap(said) for frame in ref.read_frames(peer.open(sent.data).payload)]
    assert any(ref.STREAM <= kind < ref.STREAM + 8 for kind in kinds)  # what was on its way, in the same turn
    assert to_whom(peer) == {"relay"}
    probes = [sent for sent in node.wait(3 * SECOND) if sent.to == THIRD]
    peer.packets(probes)
    peer.acknowledge_all()
    assert states(peer)[path] == "active" and to_whom(peer) == {"direct"}


# --- the end of legs ---


@pytest.mark.spec("RE-17")
def test_paths_through_a_leg_that_has_ended_are_abandoned():
    peer, path, relay = with_direct_path()
    relay.send(ref.close(0))
    assert states(peer)[0] == "active"
    peer.node.node.say()
    assert states(peer) == {0: "abandoned", path: "active"}
    told, _ = path_handle.take_path_events(peer.handle)
    assert (0, 6, 8) in [event[:3] for event in told]


@pytest.mark.spec("RE-22")
def test_a_connection_without_a_relay_waits_for_another_way_and_takes_it_at_once():
    peer, relay = behind()
    node = peer.node.node
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    peer.exchange()
    relay.send(ref.close(0))
    node.say()
    peer.stream = peer.handle.open_stream()
    peer.stream.write(b"left behind")
    node.wait(8 * SECOND)
    assert peer.handle.state == OPEN
    path = opening(peer, THIRD)
    asked = challenge_in(peer, [sent for sent in node.say() if sent.to == THIRD])
    node.now_ns += 20 * MS
    node.hear(peer.packet(ref.path_response(asked), peer.new_cid(path, 1), path=path), source=THIRD)
    frames = peer.frames([sent for sent in node.say() if sent.to == THIRD])
    assert any(frame.data == b"left behind" for frame in frames if ref.STREAM <= frame.kind < ref.STREAM + 8)


@pytest.mark.spec("RE-22")
def test_an_only_path_that_is_silent_makes_way_at_once():
    peer, _ = behind()
    node = peer.node.node
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0))
    peer.exchange()
    peer.stream = peer.handle.open_stream()
    peer.stream.write(b"left behind")
    node.wait(8 * SECOND)
    path = opening(peer, THIRD)
    asked = challenge_in(peer, [sent for sent in node.say() if sent.to == THIRD])
    node.now_ns += 20 * MS
    node.hear(peer.packet(ref.path_response(asked), peer.new_cid(path, 1), path=path), source=THIRD)
    frames = peer.frames([sent for sent in node.say() if sent.to == THIRD])
    assert any(frame.data == b"left behind" for frame in frames if ref.STREAM <= frame.kind < ref.STREAM + 8)
    assert states(peer)[0] == "suspect"


# --- keeping paths open ---


@pytest.mark.spec("RE-19")
def test_each_path_is_kept_open_at_its_own_interval():
    peer, path, _ = with_direct_path(keep_alive_ns=0, rekey_ns=0)
    node = peer.node.node
    path_handle.set_path_keep_alive(peer.handle, path, 5.0)
    path_handle.set_path_keep_alive(peer.handle, 0, 2.0)
    counted = {0: 0, path: 0}
    start_ns = node.now_ns
    while node.now_ns - start_ns < 20 * SECOND:
        said = node.wait(100 * MS)
        for sent in said:
            inner = sent.data[8:] if sent.data[:8] == LEG else sent.data
            if inner[:8] not in peer.own_cids:
                continue  # it is the relay's
            on = peer.own_cids[inner[:8]]
            opened = peer.open(inner)
            if any(frame.kind == ref.PING for frame in ref.read_frames(opened.payload)):
                counted[on] += 1
                peer.send(ack_of([opened.counter], path=on))
    assert 3 <= counted[path] <= 4 and 7 <= counted[0] <= 10
