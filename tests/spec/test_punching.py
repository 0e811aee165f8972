"""Chapter 24 of the specification: what machines say to each other, when and to whom, with an implementation of the peer."""

import itertools

import pytest

from interpeer._core.natfacts import NatFacts, plan
from interpeer._core.probe_punch import classify
from interpeer._core.punch import Punch
from interpeer._core.retry import Retry
from interpeer._core.spray_budget import SprayBudget
from tests.models import punch_message as wire
from tests.models.punching import APD, MS, SECOND, core
from tests.spec.document import array, names, paragraph

TOKEN, KEY, PEER_TOKEN, PEER_KEY = b"our_tokn", b"k" * 32, b"its_tokn", b"K" * 32
RTT = 60 * MS
START = 5 * SECOND
EIM = "endpoint-independent"
STRICT = NatFacts(EIM, APD)
RANDOM = NatFacts(APD, APD, "random")
BLOCK = NatFacts(APD, APD, "block", block=(2000, 2511))
PUBLIC = NatFacts("none", "none")
REFLEXIVE = core(("198.51.100.7", 4000))
HOME = core(("192.168.1.10", 4433))
GLOBAL6 = core(("2001:db8::7", 4433))
ATTESTED = ((REFLEXIVE, "reflexive", True),)
SEQUENTIAL = NatFacts(APD, APD, "sequential", step=1, last_port=5000)


class Bench:
    """One machine, whose peer is this test."""

    def __init__(self, *, controlling=True, nat=STRICT, peer=STRICT, remotes=ATTESTED, start=True, opens=True, **more):
        self.now, self.events, self.sent = START, [], []
        self.opens = opens  # the peer says at once that it has opened
        self.punch = Punch(TOKEN, KEY, controlling, nat, b"s" * 32, **more)
        self.refused = []
        if peer is not None:
            self.punch.set_peer(PEER_TOKEN, PEER_KEY, peer, self.now)
        for remote in remotes:
            self.refused.append(self.punch.add_remote(*remote))
        if start:
            self.punch.start(self.now, RTT)

    def turn(self):
        """Do what is due; return what was sent: (when, message, remote, socket, ttl)."""
        self.punch.handle_timeout(self.now)
        if self.opens:
            self.punch.peer_opened(self.now)
            self.punch.handle_timeout(self.now)
        sent = [
            (self.now, wire.read(data, PEER_TOKEN, PEER_KEY), remote, socket, ttl)
            for data, remote, socket, ttl in self.punch.poll_transmit(self.now)
        ]
        self.sent += sent
        for event in self.punch.poll_events():
            self.events.append((self.now, *event))
            if event[0] == "sockets":
                self.punch.sockets_opened(event[1], self.now)
        return sent

    def run(self, ns):
        """Let so much time pass, waking whenever the machine wants to; return what was sent in it."""
        end, before = self.now + ns, len(self.sent)
        self.turn()
        while (due := self.punch.poll_timeout()) and due <= end:
            self.now = max(due, self.now)
            self.turn()
        self.now = end
        self.turn()
        return self.sent[before:]

    def give(self, data, remote=REFLEXIVE, socket=0):
        taken = self.punch.handle_datagram(data, remote, socket, self.now)
        return taken, self.turn()

    def probe(self, remote=REFLEXIVE, socket=0, **more):
        return self.give(wire.probe(TOKEN, KEY, b"nonce123", **more), remote, socket)

    def answer(self, sent, **more):
        """Answer one of its probes."""
        _, message, remote, socket, _ = sent
        return self.give(wire.answer(TOKEN, KEY, message.nonce, core(("203.0.113.5", 999)), **more), remote, socket)

    def event(self, name):
        return next((event for event in self.events if event[1] == name), None)


def probes(sent, remote=None):
    return [one for one in sent if not one[1].is_answer and remote in (None, one[2])]


# --- what both sides tell each other ---


@pytest.mark.spec("PU-3")
def test_facts_that_are_not_facts_are_unreadable():
    good = NatFacts(APD, APD, "sequential", step=-2, last_port=4000, age_ms=70_000).to_bytes()
    assert good.hex() == "01 24 03 00 fffe 0fa0 00011170 0000 0000".replace(" ", "")
    assert NatFacts.parse(good + b"later") == NatFacts.parse(good) is not None
    block = BLOCK.to_bytes()
    assert block.hex() == "01 24 04 00 0000 0000 00000000 07d0 09cf".replace(" ", "")
    wrong = [b"", good[:15], good + bytes(9), b"\2" + good[1:], good[:1] + b"\x05" + good[2:], good[:1] + b"\x28" + good[2:]]
    wrong += [good[:2] + b"\5" + good[3:], good[:4] + bytes(2) + good[6:], good[:6] + bytes(2) + good[8:]]
    wrong += [block[:12] + bytes(2) + block[14:], block[:12] + b"\x09\xd0" + block[14:], good[:4] + b"\x80\0" + good[6:]]
    for data in wrong:
        assert NatFacts.parse(data) is None, data.hex()


UNUSABLE = ["0.1.2.3", "127.0.0.1", "224.0.0.251", "239.255.255.250", "240.0.0.1", "255.255.255.255"]
UNUSABLE += ["::", "::1", "::2", "ff02::fb", "100::1:0:0:1", "fe80::1", "fec0::1", "4000::1", "::1.2.3.4"]


@pytest.mark.spec("PU-4")
@pytest.mark.row("N4")
def test_nothing_is_sent_where_nobody_can_be():
    bench = Bench(remotes=[(core((host, 4433)), "host", True) for host in UNUSABLE] + [(core(("192.0.2.1", 0)), "host", True)])
    assert all(bench.refused) and bench.run(SECOND) == []
    for host in UNUSABLE:  # not even an answer, should somebody be able to fake that
        assert bench.probe(core((host, 4433))) == (False, [])
    at_home = Bench(remotes=[(core(("127.0.0.1", 4433)), "host"), (core(("::1", 1)), "host")], is_same_machine=True)
    assert at_home.refused == [None, None] and len(at_home.run(SECOND)) > 2
    link_local = (core(("fe80::1", 4433))[0], 4433, 3)
    assert Bench(remotes=[(link_local, "host")]).refused == [None]
    for usable in ("64:ff9b::1.2.3.4", "fd00::1", "2001:db8::1", "8.8.8.8", "100.64.0.1"):
        assert classify(core((usable, 1))[0], 1)[0] == 0


@pytest.mark.spec("PU-5")
@pytest.mark.row("N4")
def test_more_candidates_than_may_be_are_ignored():
    many = [(core((f"198.51.100.{n}", 4000)), "reflexive", True) for n in range(1, 20)]
    bench = Bench(remotes=many)
    assert [refused is None for refused in bench.refused] == [True] * 16 + [False] * 3
    assert len({remote for *_, remote, _, _ in bench.run(SECOND)}) == 16
    one_host = Bench(remotes=[(core(("198.51.100.1", port)), "host", False) for port in range(1, 1000)])
    assert sum(refused is None for refused in one_host.refused) == 4
    assert len({remote for *_, remote, _, _ in one_host.run(SECOND)}) == 4
    assert Bench(remotes=[(REFLEXIVE, "reflexive", True), (REFLEXIVE, "mapped", True)]).refused[1] == "it is there already"


@pytest.mark.spec("PU-6")
@pytest.mark.row("N4")
def test_little_is_sent_to_addresses_that_only_the_peer_vouches_for():
    victims = [(core((f"198.51.100.{n}", 53)), kind, False) for n, kind in enumerate(["reflexive", "mapped", "host"] * 5)]
    bench = Bench(remotes=victims)
    for n in range(40):  # nor does it help to send probes in the name of others: each gets its answer, and no more
        bench.probe(core((f"203.0.113.{n}", 53)))
    sent = bench.run(10 * SECOND)
    assert 16 < len(probes(bench.sent)) <= 1200 / 64 and bench.event("failed")
    assert len(probes(sent)) <= 18 and len([one for one in bench.sent if one[1].is_answer]) == 40
    attested = Bench(remotes=[(remote, kind, True) for remote, kind, _ in victims])
    assert len(attested.run(10 * SECOND)) * 64 > 5000


# --- probes and answers ---

GOOD = wire.probe(TOKEN, KEY, b"nonce123")
BAD = {
    "short": GOOD[:63],
    "long": GOOD + b"\0",
    "other type": wire.probe(TOKEN, KEY, kind=0x44),
    "other version": wire.probe(TOKEN, KEY, version=2),
    "other token": wire.probe(PEER_TOKEN, KEY),
    "other key": wire.probe(TOKEN, PEER_KEY),
    "flipped": GOOD[:20] + b"\1" + GOOD[21:],
    "flipped mac": GOOD[:63] + bytes([GOOD[63] ^ 1]),
}


@pytest.mark.spec("PU-8")
@pytest.mark.parametrize("name", BAD)
def test_what_is_not_authentic_is_dropped_without_an_answer(name):
    bench = Bench(start=False)
    assert bench.give(BAD[name], core(("203.0.113.77", 1))) == (False, [])
    assert bench.run(SECOND) == [] and len(bench.punch.pairs_tried()) == 1
    assert sum(bench.punch.counters.values()) == 1
    assert bench.give(GOOD)[0]


@pytest.mark.spec("PU-9")
def test_each_probe_has_one_answer_that_is_no_larger_and_says_where_it_came_from():
    bench = Bench(start=False)
    source = core(("203.0.113.77", 5353))
    for _ in range(3):
        taken, sent = bench.probe(source, socket=3)
        answers = [one for one in sent if one[1].is_answer]
        assert taken and len(answers) == 1
        _, message, remote, socket, ttl = answers[0]
        assert (message.nonce, message.observed, remote, socket, ttl) == (b"nonce123", source[:2], source, 3, 0)
    waiting = Bench(start=False)
    for _ in range(100):
        waiting.punch.handle_datagram(GOOD, source, 0, waiting.now)
    assert sum(one[1].is_answer for one in waiting.turn()) == 32
    unknown = Bench(peer=None, start=False)
    assert unknown.give(GOOD) == (False, [])


@pytest.mark.spec("PU-10")
def test_nonces_differ_by_pair_and_by_machine():
    remotes = [(REFLEXIVE, "reflexive", True), (core(("198.51.100.7", 4001)), "mapped", True), (GLOBAL6, "ipv6")]
    nonces = {}
    bench = Bench(remotes=remotes, start=False)
    bench.probe(REFLEXIVE, socket=2)
    bench.punch.start(bench.now, RTT)
    for _, message, remote, socket, _ in probes(bench.run(SECOND)):
        nonces.setdefault((remote, socket), set()).add(message.nonce)
    assert len(nonces) == 4 and len(set().union(*nonces.values())) == 4
    other = Punch(TOKEN, KEY, True, STRICT, b"S" * 32)
    other.set_peer(PEER_TOKEN, PEER_KEY, STRICT, 0)
    other.add_remote(REFLEXIVE, "reflexive", True)
    other.start(START, RTT)
    other.handle_timeout(START)
    (data, *_), *_ = other.poll_transmit(START)
    assert wire.read(data, PEER_TOKEN, PEER_KEY).nonce not in set().union(*nonces.values())


@pytest.mark.spec("PU-11")
def test_an_answer_counts_only_for_the_pair_whose_nonce_it_has():
    bench = Bench(remotes=[(REFLEXIVE, "reflexive", True), (HOME, "host")])
    sent = bench.run(200 * MS)
    nonce = probes(sent, REFLEXIVE)[0][1].nonce
    for data, remote, socket in [
        (wire.answer(TOKEN, KEY, bytes(8), REFLEXIVE), REFLEXIVE, 0),
        (wire.answer(TOKEN, KEY, nonce, REFLEXIVE), HOME, 0),
        (wire.answer(TOKEN, KEY, nonce, REFLEXIVE), REFLEXIVE, 1),
        (wire.answer(TOKEN, KEY, nonce, REFLEXIVE), core(("198.51.100.7", 4001)), 0),
    ]:
        assert bench.give(data, remote, socket) == (False, [])
    assert bench.punch.state == "checking" and bench.punch.counters["stale"] == 4
    assert bench.give(wire.answer(TOKEN, KEY, nonce, REFLEXIVE), REFLEXIVE)[0]
    assert bench.punch.state == "found"


@pytest.mark.spec("PU-12")
def test_a_pair_that_the_peer_is_heard_by_is_probed_too():
    bench = Bench()
    source = core(("198.51.100.7", 61000))
    _, sent = bench.probe(source, socket=0)
    mine = probes(sent, source)
    assert len(mine) == 1
    bench.answer(mine[0])
    bench.run(SECOND)
    assert bench.event("found")[2:] == (source, 0, "peer-reflexive")


# --- opening ---


@pytest.mark.spec("PU-16")
def test_first_probes_do_not_get_to_the_peers_nat():
    remotes = [*ATTESTED, (core(("198.51.100.7", 9)), "predicted"), (core(("198.51.100.7", 8)), "mapped", True)]
    bench = Bench(opens=False, remotes=[*remotes, (HOME, "host"), (GLOBAL6, "ipv6")])
    sent = probes(bench.run(4 * SECOND))
    for remote, kind, *_ in remotes:
        ttls = [(when - START, ttl) for when, _, to, _, ttl in sent if to == remote]
        assert {ttl for when, ttl in ttls if when < 2 * SECOND} == ({0} if kind == "mapped" else {2})
        assert {ttl for when, ttl in ttls if when >= 2 * SECOND} <= {0}
    assert all(ttl == 0 for *_, to, _, ttl in sent if to in (HOME, GLOBAL6))
    heard = Bench(opens=False)
    heard.turn()
    assert [ttl for *_, ttl in probes(heard.probe()[1])] == [0], "the peer has opened: no need to wait"
    public = Bench(opens=False, peer=PUBLIC)
    assert {ttl for *_, ttl in public.run(SECOND)} == {0}
    quick = Bench(opens=False, low_ttl=5)
    assert [ttl for *_, ttl in quick.turn()] == [5]
    bare = Bench(opens=False, nat=PUBLIC)
    assert [ttl for *_, ttl in bare.turn()] == [1], "a hop more may lead to the peer's router, from where we are"
    assert [ttl for *_, ttl in Bench(opens=False, nat=PUBLIC, low_ttl=0).turn()] == [0]
    for rtt, least in ((0, 2000), (400 * MS, 2400), (9 * SECOND, 5000)):
        slow = Bench(opens=False, start=False)
        slow.punch.start(slow.now, rtt)
        assert min(when for when, *_, ttl in slow.run(6 * SECOND) if ttl == 0) == START + least * MS
    unknown = Bench(opens=False, remotes=())
    unknown.run(100 * MS)
    unknown.punch.add_remote(REFLEXIVE, "reflexive", True)
    assert [ttl for *_, ttl in unknown.turn()] == [2], "where the peer is has become known only now"
    told = Bench(opens=False)
    told.run(30 * MS)
    told.punch.peer_opened(told.now)
    assert {ttl for *_, ttl in told.run(SECOND)} == {0}, "the peer says that it has opened"
    assert {ttl for *_, ttl in Bench(opens=False, controlling=False).run(SECOND)} == {0}, (
        "who is asked knows that the other side has"
    )


@pytest.mark.spec("PU-17")
def test_candidates_are_begun_one_after_the_other_and_the_best_first():
    kinds = [("mapped", True), ("reflexive", False), ("predicted", True), ("reflexive", True), ("host", False)]
    remotes = [(core((f"198.51.100.{n}", 4000)), kind, attested) for n, (kind, attested) in enumerate(kinds)]
    sent = Bench(remotes=[*remotes, (GLOBAL6, "ipv6")], opens=False).run(28 * MS)
    assert [when - START for when, *_ in sent] == [n * 5 * MS for n in range(6)]
    expected = [remotes[4][0], GLOBAL6, remotes[3][0], remotes[0][0], remotes[2][0], remotes[1][0]]
    assert [remote for _, _, remote, _, _ in sent] == expected


@pytest.mark.spec("PU-18")
def test_probes_to_a_candidate_come_every_50_ms_then_more_seldom_and_end():
    bench = Bench(peer=PUBLIC, start=False)
    bench.punch.start(bench.now, 20 * SECOND)  # so that it does not give up before
    times = [when for when, *_ in bench.run(30 * SECOND)]
    gaps = [(after - before) // MS for before, after in itertools.pairwise(times)]
    assert len(times) == 24 and gaps[:10] == [50] * 10 and gaps[10:13] == [100, 200, 400] and set(gaps[13:]) == {400}
    unattested = Bench(remotes=[(REFLEXIVE, "reflexive", False)], peer=PUBLIC)
    times = [when for when, *_ in unattested.run(2 * SECOND)]
    assert [(after - before) // MS for before, after in itertools.pairwise(times)][:4] == [50, 100, 200, 400]


# --- the choice ---


@pytest.mark.spec("PU-21")
def test_the_controlling_side_takes_the_best_pair_that_works_soon():
    both = Bench(remotes=[(REFLEXIVE, "reflexive", True), (HOME, "host"), (GLOBAL6, "ipv6")])
    both.run(20 * MS)
    both.answer(probes(both.sent, REFLEXIVE)[0])
    both.run(5 * MS)
    both.answer(probes(both.sent, GLOBAL6)[0])
    both.run(5 * MS)
    assert both.event("found") is None, "who is at home may follow"
    both.answer(probes(both.sent, HOME)[0])
    assert both.event("found")[2:] == (HOME, 0, "host"), "nothing is better"
    late = Bench(remotes=[(REFLEXIVE, "reflexive", True), (GLOBAL6, "ipv6")])
    late.run(100 * MS)
    answered = late.now
    late.answer(probes(late.sent, REFLEXIVE)[-1])
    late.run(200 * MS)
    assert late.event("found")[0] == answered + 50 * MS
    alone = Bench(remotes=[(REFLEXIVE, "reflexive", True), (HOME, "host")])
    alone.run(100 * MS)
    assert len(probes(alone.sent, HOME)) == 2
    alone.answer(probes(alone.sent, REFLEXIVE)[-1])
    assert alone.event("found")[0] == alone.now, "who is at home would have answered by now"


@pytest.mark.spec("PU-22")
def test_the_other_side_takes_the_pair_that_it_is_told():
    other = core(("198.51.100.8", 4000))
    bench = Bench(controlling=False, remotes=[(REFLEXIVE, "reflexive", True), (other, "mapped", True)])
    bench.run(100 * MS)
    bench.answer(probes(bench.sent, REFLEXIVE)[-1])
    bench.probe(other, flags=wire.NOMINATED)
    assert bench.event("found") is None, "that pair does not work for us yet"
    _, sent = bench.answer(probes(bench.sent, other)[-1])
    assert bench.event("found")[2:] == (other, 0, "mapped") and probes(sent) == []
    _, sent = bench.probe(other, flags=wire.NOMINATED)
    assert [message.is_nominated for _, message, *_ in sent] == [True], "should the first answer be lost"
    # the controlling side ignores the flag, and sends it until it is heard
    chief = Bench(remotes=[(REFLEXIVE, "reflexive", True), (other, "mapped", True), (GLOBAL6, "ipv6")])
    chief.run(100 * MS)
    chief.answer(probes(chief.sent, REFLEXIVE)[-1])
    chief.answer(probes(chief.sent, other)[-1])
    chief.probe(other, flags=wire.NOMINATED)
    told = [one for one in chief.run(10 * SECOND) if one[1].is_nominated and not one[1].is_answer]
    assert chief.event("found")[2] == REFLEXIVE and {remote for _, _, remote, _, _ in told} == {REFLEXIVE} and len(told) == 20
    brief = Bench()
    brief.run(100 * MS)
    brief.answer(probes(brief.sent)[-1])
    brief.answer(brief.sent[-1], flags=wire.NOMINATED)
    assert brief.run(SECOND) == []


# --- plans ---


@pytest.mark.spec("PU-25")
def test_table_of_plans_is_that_of_the_source_and_acted_by():
    head, *rows = paragraph("PU-25").tables()[0]
    assert head[1:] == [row[0] for row in rows] == names("natfacts", "SIDE")
    assert [f"PLAN_{cell}" for row in rows for cell in row[1:]] == array("natfacts", "PLAN_TABLE")
    sides = {
        "OPEN": NatFacts(EIM, "address-dependent"),
        "STRICT": NatFacts(EIM, "unknown"),
        "LISTENING": NatFacts(APD, EIM, "random"),
        "SEQUENTIAL": NatFacts("address-dependent", APD, "sequential", step=2, last_port=3000),
        "BLOCK": BLOCK,
        "RANDOM": NatFacts(APD, "unknown", "preserved"),
        "UNKNOWN": NatFacts(),
        "BLOCKED": NatFacts(EIM, EIM, is_udp_blocked=True),
    }
    for row in rows:
        for name, cell in zip(head[1:], row[1:], strict=True):
            ours, theirs = sides[row[0]], sides[name]
            word = cell.lower().replace("_", "-")
            assert ours.side == row[0].lower() and plan(ours, theirs, is_experimental=True)[0] == word
            assert plan(ours, theirs)[0] == ("hopeless" if word == "spray-both" else word)
            bench = Bench(nat=ours, peer=theirs, is_experimental=True)
            bench.run(SECOND)
            assert bench.punch.state == ("checking" if word in ("direct", "hopeless") else "spraying")
            sockets = {"spray-hard": 256, "predicted": 8, "spray-both": 3}.get(word)
            sockets = 8 if row[0] == "BLOCK" and word == "spray-hard" else sockets
            event = bench.event("sockets")
            assert (event and event[2]) == sockets


# --- sprays ---


def sprayed(bench, ns=10 * SECOND):
    """Return (when, port, socket, ttl) of what a spray has sent."""
    return [(when, to[1], socket, ttl) for when, _, to, socket, ttl in probes(bench.run(ns)) if socket or to != REFLEXIVE]


@pytest.mark.spec("PU-26")
def test_no_spray_begins_before_the_plain_punch_has_had_a_round_trip():
    for rtt, grace in ((0, 50), (RTT, 60), (200 * MS, 200), (2 * SECOND, 500)):
        bench = Bench(peer=RANDOM, start=False, opens=False)
        bench.punch.start(bench.now, rtt)
        low = min(max(rtt * 6, 2 * SECOND), 5 * SECOND)
        assert sprayed(bench, 8 * SECOND)[0][0] == START + low + grace * MS


@pytest.mark.spec("PU-27")
def test_a_spray_goes_to_an_address_that_others_have_seen():
    victim = core(("198.51.100.99", 4000))
    bench = Bench(peer=RANDOM, remotes=[(victim, "reflexive", False), (HOME, "host", True), (GLOBAL6, "ipv6", True)])
    bench.run(10 * SECOND)
    assert len(probes(bench.sent, victim)) <= 18 and bench.punch.counters["sent"] < 60
    assert any("nobody but the peer has seen its address" in reason for reason in bench.event("failed")[2])
    assert {to[0] for _, _, to, _, _ in Bench(peer=RANDOM).run(2 * SECOND)} == {REFLEXIVE[0]}


@pytest.mark.spec("PU-28")
@pytest.mark.row("N4")
def test_sprays_have_a_budget():
    budget = SprayBudget()
    first = Bench(peer=RANDOM, budget=budget)
    rival = Bench(peer=RANDOM, budget=budget, remotes=[(core(("198.51.100.8", 4000)), "reflexive", True)])
    assert len(sprayed(first, SECOND)) > 500
    assert rival.run(SECOND) and rival.punch.state == "checking", "one at a time"
    first.run(10 * SECOND)
    assert first.event("spray")[2:] == ("spray-easy", 2048)
    rival.run(SECOND)
    assert rival.punch.state == "spraying", "it has asked again"
    rival.punch.close(rival.now)
    second = Bench(peer=RANDOM, budget=budget)
    second.run(10 * SECOND)
    assert second.event("spray")[2:] == ("spray-easy", 2048)
    third = Bench(peer=RANDOM, budget=budget)
    third.run(10 * SECOND)
    assert third.event("spray") is None, "4,096 are sent to that address within an hour"
    assert any("within an hour" in reason for reason in third.event("failed")[2])
    elsewhere = Bench(peer=RANDOM, budget=budget, remotes=[(core(("198.51.100.8", 4000)), "reflexive", True)])
    elsewhere.run(10 * SECOND)
    assert elsewhere.event("spray")[3] == 2048


@pytest.mark.spec("PU-29")
@pytest.mark.parametrize("peer", [RANDOM, BLOCK, SEQUENTIAL], ids=lambda nat: nat.side)
def test_a_spray_has_a_pace(peer):
    times = [when for when, *_ in sprayed(Bench(peer=peer))]
    assert len(times) == 2048 and times[-1] - times[0] >= 2047 * MS
    hard = [when for when, *_ in sprayed(Bench(nat=RANDOM, peer=STRICT))]
    assert all(later - before >= 63 * MS for before, later in zip(hard, hard[64:], strict=False))
    late = Bench(peer=peer)
    late.run(200 * MS)
    late.now += SECOND
    assert 0 < len(probes(late.turn())) <= 10


@pytest.mark.spec("PU-30")
def test_ports_are_tried_once_and_those_of_a_known_block_first():
    ports = [port for _, port, _, _ in sprayed(Bench(peer=RANDOM))]
    assert len(set(ports)) == len(ports) and min(ports) >= 1024
    assert sum(port > 32768 for port in ports) in range(800, 1250), "all over"
    ports = [port for _, port, _, _ in sprayed(Bench(peer=BLOCK))]
    block = set(range(2000, 2512))
    assert set(ports[:512]) == set(ports[512:1024]) == block and ports[:512] != ports[512:1024]
    rest = ports[1024:]
    assert not block & set(rest) and len(set(rest)) == len(rest)
    large = NatFacts(APD, APD, "block", block=(10000, 11999))
    ports = [port for _, port, _, _ in sprayed(Bench(peer=large))]
    assert set(ports[:2000]) == set(range(10000, 12000)) and not set(ports[2000:]) & set(range(10000, 12000))


@pytest.mark.spec("PU-31")
@pytest.mark.parametrize(("step", "last", "age_ms"), [(1, 5000, 0), (2, 65530, 0), (-1, 1030, 0), (1, 5000, 2000), (1, 9, 10**6)])
def test_a_sweep_tries_the_ports_to_come(step, last, age_ms):
    bench = Bench(peer=NatFacts(APD, APD, "sequential", step=step, last_port=last, age_ms=age_ms))
    found = sprayed(bench)
    width = min(64 + (age_ms + (found[0][0] - START) // MS) * 40 // 1000, 1024)
    expected = [1024 + (last - 1024 + step * i) % 64512 for i in range(1, width + 1)]
    ports = [port for _, port, socket, _ in found if socket == 0]
    assert ports[:width] == expected
    wider = min(4 * width, 1024)
    assert ports[width : width + wider] == [1024 + (last - 1024 + step * i) % 64512 for i in range(1, wider + 1)]
    assert len(set(ports)) == 1024


@pytest.mark.spec("PU-32")
@pytest.mark.parametrize(
    ("nat", "sockets"), [(RANDOM, 256), (BLOCK, 8), (SEQUENTIAL, 8)], ids=lambda one: getattr(one, "side", "")
)
def test_many_sockets_leave_a_plain_linux_router_alone_at_first(nat, sockets):
    def ttls(peer, **more):
        bench = Bench(nat=nat, peer=peer, **more)
        sent = probes(bench.run(10 * SECOND))
        spray = [(when, socket, ttl) for when, _, _, socket, ttl in sent if socket]
        assert [socket for _, socket, _ in spray] == [*range(1, sockets + 1)] * 2
        again = spray[sockets][0]
        assert again - spray[0][0] == 1500 * MS
        own = [(when, ttl) for when, _, _, socket, ttl in sent if not socket]
        return (
            {ttl for _, _, ttl in spray[:sockets]}, {ttl for _, _, ttl in spray[sockets:]},
            {ttl for when, ttl in own if START + 100 * MS < when < again}, {ttl for when, ttl in own if when >= again},
        )  # fmt: skip

    for controlling in (True, False):
        for kind in ("preserved", "unknown"):
            assert ttls(NatFacts(EIM, APD, kind), controlling=controlling) == ({2}, {0}, {2}, {0})
        assert ttls(NatFacts(EIM, APD, "random"), controlling=controlling) == ({0}, {0}, {0}, {0}), "no Linux"
    assert ttls(STRICT, low_ttl=0) == ({0}, {0}, {0}, {0})


@pytest.mark.spec("PU-35")
def test_a_spray_ends_at_the_first_answer():
    budget = SprayBudget()
    bench = Bench(peer=RANDOM, budget=budget)
    bench.run(SECOND)
    hit = probes(bench.sent)[-1]
    assert hit[2] != REFLEXIVE
    bench.answer(hit)
    assert bench.event("found")[2:] == (hit[2], 0, "sprayed")
    assert bench.event("spray") and not budget.is_busy(bench.now)
    assert [message.is_nominated for _, message, *_ in probes(bench.run(100 * MS))] == [True] * 2


# --- the end ---


@pytest.mark.spec("PU-34")
def test_a_side_that_gives_up_says_what_it_has_tried():
    plain = Bench(remotes=[(REFLEXIVE, "reflexive", True), (HOME, "host")])
    plain.run(10 * SECOND)
    when, _, reasons = plain.event("failed")
    assert when == START + 3 * SECOND + 2 * RTT
    assert any(reason.startswith("198.51.100.7:4000 (reflexive): no answer to ") for reason in reasons)
    assert any(reason.startswith("192.168.1.10:4433 (host): no answer to ") for reason in reasons)
    spraying = Bench(peer=RANDOM)
    last = sprayed(spraying)[-1][0]
    assert last + 500 * MS <= spraying.event("failed")[0] <= last + 502 * MS
    assert any("gives each destination another port" in reason for reason in spraying.event("failed")[2])
    forgotten = Bench(peer=None)
    forgotten.run(20 * SECOND)
    assert forgotten.event("failed")[0] == START + 10 * SECOND


@pytest.mark.spec("PU-36")
def test_it_is_tried_again_for_ever_and_at_once_when_the_network_has_changed():
    retry, now, waits = Retry(START), START, []
    assert retry.is_due(now)
    for _ in range(12):
        retry.begin(now)
        assert not retry.is_due(now + 10**15) and retry.poll_timeout() == 0
        retry.fail(now, random=bytes(4))
        waits.append((retry.poll_timeout() - now) // SECOND)
        assert not retry.is_due(retry.poll_timeout() - 1) and retry.is_due(retry.poll_timeout())
        now = retry.poll_timeout()
    assert waits == [5, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]
    retry.handle_network_change(now)
    assert retry.is_due(now)
    retry.begin(now)
    retry.fail(now + 1, random=b"\xff" * 4)
    assert retry.poll_timeout() == pytest.approx(now + 3.75 * SECOND, abs=MS)
    retry.handle_network_change(now + 2)
    assert retry.poll_timeout() == now + SECOND
