"""Chapter 15 of the specification: the path's MTU."""

import itertools

import pytest

from interpeer._core import path_handle
from interpeer._core.probe_pmtud import Search
from tests.spec import reference as ref
from tests.spec.flow import Flow
from tests.spec.peer import ELSEWHERE, MS, NODE_AT, SECOND, Node, Peer, endpoint
from tests.spec.test_packets import pto_ns

RTT_NS = 20 * MS
BASE, ETHERNET, MOST = 1200, 1472, 65_507
TEN_MINUTES = 600 * SECOND
THIRD = endpoint("203.0.113.77", 7007)


def is_probe(peer, sent):
    """Tell whether a packet holds a PING and PADDING, and nothing else."""
    payload = peer.open(sent.data).payload
    return len(payload) > 1000 and payload[0] == ref.PING and not any(payload[1:])


class Way(Flow):
    """A flow over a path that carries packets of so many bytes, up to a ceiling; it asks for windows of `window_bytes`."""

    def __init__(self, carries=9000, *, ceiling=9000, window_bytes=100_000, limits=None, **changes):
        node = Node(**{"max_packet_bytes": ceiling, "receive_buffer": 1 << 23, "idle_timeout_ns": 0} | (limits or {}))
        peer = Peer(node).call(**{"RECEIVE_BUFFER": 1 << 23} | changes)
        peer.exchange()
        step = window_bytes * MS // RTT_NS
        super().__init__(peer, RTT_NS, lose=lambda number: len(self.last.data) > self.carries, write_bytes=step)
        self.carries = carries

    @property
    def size(self):
        return self.peer.handle.stats()["packet_bytes"]

    def settle(self):
        """Send until the search has ended; return all that was said."""
        said, last_ns, start_ns = [], self.peer.node.now_ns, self.peer.node.now_ns
        while self.peer.node.now_ns - last_ns < SECOND // 4:
            new = self.run(RTT_NS)
            said += new
            if any(is_probe(self.peer, sent) for sent in new):
                last_ns = self.peer.node.now_ns
            assert last_ns - start_ns < 10 * SECOND, "it never ends"
        return said

    def drain(self):
        """Send no more, and let what is on its way arrive."""
        for _ in range(20):
            if not self.run(RTT_NS, is_writing=False):
                return
        raise AssertionError("it never ends")

    def probes(self, said):
        return [sent for sent in said if is_probe(self.peer, sent)]


@pytest.mark.spec("MT-1")
def test_nothing_but_probes_is_larger_than_what_has_passed():
    way = Way(9000)
    assert way.size == BASE
    passed, sizes = BASE, set()
    for _ in range(400):
        for sent in way.run(MS):
            if is_probe(way.peer, sent):
                assert len(sent.data) > passed
                sizes.add(len(sent.data))
            else:
                assert len(sent.data) <= passed
        if way.size != passed:
            passed = way.size
            assert passed in sizes and passed <= 9000
    assert passed > 8900


@pytest.mark.spec("MT-2")
@pytest.mark.parametrize(
    ("changes", "most"),
    [({"MAX_UDP_PAYLOAD": 1300}, 1300), ({"RECEIVE_BUFFER": 8 * 1400}, 1400), ({"RECEIVE_BUFFER": 8 * 1000}, BASE),
     ({"RECEIVE_BUFFER": None}, 131_072 // 8), ({"MAX_UDP_PAYLOAD": 1200}, 1200)],
)  # fmt: skip
def test_no_packet_is_larger_than_the_peer_takes_and_its_socket_holds_eight_of(changes, most):
    way = Way(MOST, ceiling=MOST, window_bytes=200_000, **changes)
    said = way.settle()
    assert max(len(sent.data) for sent in said) == most == way.size


@pytest.mark.spec("MT-3")
@pytest.mark.row("C9")
def test_datagrams_that_do_not_fit_any_more_are_given_up_and_counted():
    way = Way(ETHERNET)
    way.settle()
    way.drain()
    peer, handle = way.peer, way.peer.handle
    most, count = handle.max_datagram_bytes, 2000
    assert most > BASE
    assert all(handle.send_datagram(bytes(most)) for _ in range(count))
    handle.send_datagram(b"small")
    way.carries = BASE
    arrived = []
    for _ in range(100):
        said = way.run(MS, is_writing=False)
        arrived += [
            frame.data for frame in peer.frames([s for s in said if len(s.data) <= BASE]) if frame.kind == ref.DATAGRAM_LEN
        ]
    assert arrived == [b"small"]
    assert way.size == BASE and handle.stats()["datagrams_queued"] == 0
    assert 0 < peer.node.counter("datagrams_too_large") < count


# --- probes ---


@pytest.mark.spec("MT-4")
def test_a_probe_holds_a_ping_and_padding():
    way = Way()
    peer, acknowledge, count = way.peer, way.acknowledge, 0

    def acknowledge_and_ask(numbers):
        peer.send(ref.ping())  # so that an acknowledgement is owed all the time
        acknowledge(numbers)

    way.acknowledge = acknowledge_and_ask
    for _ in range(400):
        size = way.size
        for sent in way.run(MS):
            if len(sent.data) > max(size, way.size):
                assert is_probe(peer, sent)
                frames = [frame.kind for frame in ref.read_frames(peer.open(sent.data).payload)]
                assert [kind for kind in frames if kind != ref.PADDING] == [ref.PING]
                count += 1
    assert count >= 2


@pytest.mark.spec("MT-5")
@pytest.mark.parametrize("carries", [BASE, ETHERNET, 9000])
def test_one_probe_is_on_its_way_at_a_time(carries):
    way = Way(carries)
    times = [sent.at_ns for sent in way.probes(way.settle())]
    assert len(times) > 2
    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= RTT_NS


@pytest.mark.spec("MT-6")
def test_a_probe_that_nothing_follows_is_given_up_by_its_own_timer_and_nothing_is_sent_for_it():
    way = Way(BASE)
    peer = way.peer
    while not way.probes(way.run(MS)):
        pass
    stats = peer.handle.stats()
    way.drain()
    assert peer.handle.stats()["packets_lost"] == stats["packets_lost"]
    in_flight = peer.handle.stats()["bytes_in_flight"]
    assert in_flight in (0, ETHERNET)
    assert peer.node.wait(3 * SECOND) == []
    assert peer.handle.stats()["bytes_in_flight"] == 0
    assert 3 * pto_ns(peer) < SECOND


@pytest.mark.spec("MT-7")
def test_a_lost_probe_changes_no_window():
    def windows(carries):
        way = Way(carries, limits={"max_packet_bytes": ETHERNET})
        seen = [way.window for _ in range(20) if way.run(RTT_NS) is not None]
        assert way.peer.node.counter("mtu_probes_sent") > 0
        return way.peer.handle.stats(), seen

    stats, seen = windows(BASE)
    assert (stats["congestion_events"], stats["packets_lost"]) == (0, 0)
    assert seen == sorted(seen) and seen[-1] > seen[0]


@pytest.mark.spec("MT-8")
def test_a_probe_goes_beside_a_full_window_of_which_it_is_a_small_part():
    way = Way(MOST, ceiling=MOST, window_bytes=700_000)
    for _ in range(500):
        before = way.window
        for sent in way.run(MS):
            if is_probe(way.peer, sent):
                assert len(sent.data) <= max(2 * way.size, max(before, way.window) // 8)
    assert way.size == MOST


@pytest.mark.spec("MT-9")
def test_who_sends_no_full_packets_does_not_search():
    way = Way(ceiling=2000)
    peer = way.peer
    for _ in range(50):
        assert peer.handle.send_datagram(bytes(1000))
        peer.exchange()
    assert peer.node.counter("mtu_probes_sent") == 0
    for count in range(1, 9):
        assert peer.node.counter("mtu_probes_sent") == 0, count
        assert peer.handle.send_datagram(bytes(peer.handle.max_datagram_bytes))
        peer.exchange()
    for _ in range(10):
        assert peer.handle.send_datagram(b"and another one")
        peer.exchange()
    assert peer.node.counter("mtu_probes_sent") == 1


def test_a_datagram_that_does_not_fit_makes_up_for_it():
    way = Way(ETHERNET)
    peer = way.peer
    with pytest.raises(ValueError, match="fit in a packet"):
        peer.handle.send_datagram(bytes(1300))
    way.run(10 * SECOND, is_writing=False)
    assert peer.handle.send_datagram(bytes(1300)) and way.size == ETHERNET


# --- the search ---


@pytest.mark.parametrize(("carries", "found"), [(ETHERNET, ETHERNET), (8972, 8972)])
def test_well_known_sizes_are_found(carries, found):
    way = Way(carries, ceiling=MOST)
    way.settle()
    assert way.size == found


@pytest.mark.spec("MT-13")
@pytest.mark.parametrize("carries", [BASE, 1300, ETHERNET, 5000])
def test_no_size_is_tried_more_than_three_times(carries):
    way = Way(carries)
    sizes = [len(sent.data) for sent in way.probes(way.settle())]
    assert all(sizes.count(size) == (1 if size <= carries else 3) for size in sizes)
    assert carries - 16 < way.size <= carries


@pytest.mark.spec("MT-14")
def test_a_path_is_searched_again_ten_minutes_later():
    way = Way(ETHERNET)
    way.settle()
    way.carries = 8972
    way.drain()
    way.peer.node.now_ns += TEN_MINUTES - 3 * SECOND
    way.acknowledge([])
    assert way.probes(way.run(SECOND)) == []
    way.drain()
    way.peer.node.now_ns += 2 * SECOND
    assert way.probes(way.settle())
    assert way.size == 8972


# --- paths that move ---


@pytest.mark.spec("MT-20")
@pytest.mark.parametrize(("what", "is_reset"), [("peer", True), ("node", True), ("port", False)])
def test_a_path_that_moves_is_searched_anew(what, is_reset):
    way = Way(ETHERNET)
    way.settle()
    peer = way.peer
    way.drain()
    peer.send(ref.ping(), at=NODE_AT)
    way.drain()
    lost_on_the_old_way(peer)
    way.carries = 1280
    if what == "node":
        peer.send(ref.ping(), at=ELSEWHERE)
    else:
        to = ELSEWHERE if what == "peer" else endpoint("198.51.100.7", 2003)
        peer.at = to
        peer.send(ref.ping(), bytes(200))
        (asked,) = (f.data for s in peer.node.say() if s.to == to for f in peer.frames([s]) if f.kind == ref.PATH_CHALLENGE)
        peer.send(ref.path_response(asked))
    assert way.size == (BASE if is_reset else ETHERNET)
    said = way.settle()
    if is_reset:
        for sent in said:
            assert len(sent.data) <= 1280 or is_probe(peer, sent), "what does not pass is never tried with data"
        assert 1280 - 16 < way.size <= 1280 and peer.node.counter("mtu_black_holes") == 0
    else:
        assert peer.node.counter("mtu_black_holes") >= 1


def lost_on_the_old_way(peer):
    """Let three large packets be on their way that never arrive: once it moves they tell nothing of sizes."""
    for _ in range(3):
        peer.handle.send_datagram(bytes(peer.handle.max_datagram_bytes))
        for sent in peer.node.say():
            peer.open(sent.data)
            peer.received.discard(peer.open(sent.data).counter)


# --- black holes ---


@pytest.mark.spec("MT-15")
@pytest.mark.row("C9")
def test_three_large_packets_lost_in_a_row_are_a_black_hole():
    way = Way(ETHERNET)
    way.settle()
    way.drain()
    peer = way.peer
    for lost in range(1, 4):
        assert way.size == ETHERNET, lost
        large = peer.handle.max_datagram_bytes
        peer.handle.send_datagram(bytes(large))
        peer.node.say()
        for _ in range(3):
            peer.handle.send_datagram(b"small")
            (sent,) = peer.node.say()
            peer.open(sent.data)
        peer.node.now_ns += RTT_NS
        peer.send(ref.ack(peer.open(sent.data).counter, 2))
        peer.node.say()
    assert way.size == BASE and peer.node.counter("mtu_black_holes") == 1


@pytest.mark.spec("MT-15")
def test_large_packets_that_are_lost_before_one_that_arrives_are_none():
    way = Way(ETHERNET)
    way.settle()
    lose = way.lose
    way.lose = lambda number: number % 10 < 2 or lose(number)
    way.run(2 * SECOND)
    assert way.peer.handle.stats()["packets_lost"] > 20
    assert way.size == ETHERNET and way.peer.node.counter("mtu_black_holes") == 0


@pytest.mark.spec("MT-16")
@pytest.mark.row("C9")
def test_the_second_packet_of_a_probe_time_out_has_the_base_size():
    way = Way(ETHERNET)
    way.settle()
    way.lose = lambda number: True
    way.run(SECOND)
    pairs = way.run(10 * SECOND)
    times = sorted({sent.at_ns for sent in pairs})
    assert len(times) >= 5
    for at_ns in times:
        first, second = (len(sent.data) for sent in pairs if sent.at_ns == at_ns)
        assert BASE < first <= ETHERNET and second <= BASE


@pytest.mark.row("C9")
def test_a_path_that_narrows_in_mid_flow_is_left_after_one_probe_time_out():
    way = Way(ETHERNET)
    way.settle()
    way.carries = 1300
    way.run(RTT_NS)
    start_ns = way.peer.node.now_ns
    while way.size > BASE:
        way.run(MS)
    assert way.peer.node.now_ns - start_ns <= pto_ns(way.peer) + 2 * RTT_NS
    way.settle()
    assert 1300 - 16 < way.size <= 1300


@pytest.mark.spec("MT-17")
def test_a_black_hole_that_comes_back_makes_the_search_wait_twice_as_long():
    search = Search(ceiling=ETHERNET)
    now, number, waits = SECOND, 0, []
    for _ in range(14):
        fell = now
        search.send(search.bytes, 8)
        while (size := search.poll(now)) is None:
            now += SECOND // 4
            search.send(search.bytes, 8)
        waits.append((now - fell) / SECOND)
        search.sent(number, now + SECOND)
        assert size == ETHERNET
        search.probe_acked(number)
        for lost in range(number + 1, number + 4):
            search.lost(lost, ETHERNET, lost + 1)
        number += 4
        assert search.state == "base"
    assert waits == [0, 0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]


@pytest.mark.spec("MT-18", "MT-21")
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_refusal_concerns_the_path_of_the_packet_and_no_other(is_refused):
    """Two paths to one address, by two interfaces, and a connection of somebody else at the same address."""
    peer = two_interfaces()
    node, other = peer.node, Peer(peer.node, bytes([9]) * 32).call(RECEIVE_BUFFER=1 << 23)
    search_all(node, [peer, other])
    sizes = {path["id"]: path["packet_bytes"] for path in path_handle.paths(peer.handle)}
    assert sizes == {0: ETHERNET, 1: ETHERNET} and other.handle.stats()["packet_bytes"] == ETHERNET
    streams = [end.handle.open_stream() for end in (peer, other)]
    for stream in streams:
        stream.write(bytes(2000))
    refused = []

    def refuses(local, n):
        if is_refused and local == THIRD[0] and n > BASE:
            refused.append(n)
        return is_refused and local == THIRD[0] and n > BASE

    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["redundant"])
    node.say(refuses=refuses)
    sizes = {path["id"]: path["packet_bytes"] for path in path_handle.paths(peer.handle)}
    assert sizes == {0: ETHERNET, 1: BASE if is_refused else ETHERNET}
    assert other.handle.stats()["packet_bytes"] == ETHERNET and bool(refused) == is_refused


def two_interfaces():
    """Return a peer with two paths to one of its addresses, each from another of the node's."""
    node = Node(max_packet_bytes=ETHERNET, receive_buffer=1 << 23, idle_timeout_ns=0)
    peer = Peer(node).call(MAX_PATHS=4, RECEIVE_BUFFER=1 << 23)
    peer.send(peer.new_cid(0, 1), peer.new_cid(1, 0), peer.new_cid(2, 0), at=NODE_AT)
    peer.exchange()
    assert path_handle.open_path(peer.handle, peer.at, THIRD[0]) == (path_handle.OPENED, 1)
    (asked,) = (f.data for f in peer.frames(node.say()) if f.kind == ref.PATH_CHALLENGE)
    peer.send(ref.path_response(asked), path=1, at=THIRD)
    path_handle.set_scheduler(peer.handle, path_handle.SCHEDULERS["aggregate"])
    return peer


def search_all(node, ends):
    """Let data flow to all these peers until each path is known to carry Ethernet's packets."""
    streams = [end.handle.open_stream() for end in ends]
    for _ in range(40):
        for stream in streams:
            stream.write(bytes(40_000))
        said = node.say()
        node.now_ns += RTT_NS
        for end in ends:
            end.frames([sent for sent in said if sent.data[:8] in end.own_cids])
            end.acknowledge_all(at=NODE_AT)


@pytest.mark.spec("MT-18", "MT-19")
def test_what_the_interface_refuses_is_not_sent_again_and_base_sized_packets_always_are():
    search = Search()
    search.send(BASE, 8)
    search.sent(0, SECOND) if search.poll(SECOND) == ETHERNET else pytest.fail("no probe")
    search.probe_acked(0)
    for size in (68, 576, 1000, BASE):
        assert not search.refused(size, 1) and search.bytes == ETHERNET
    assert search.refused(ETHERNET, 1) and search.bytes == BASE
    for size in (68, 576, 1000, BASE):
        assert not search.refused(size, 1) and search.bytes == BASE
