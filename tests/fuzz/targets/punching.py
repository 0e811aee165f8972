"""A punching machine beside everything that a peer, a stranger or a network can do to it, and facts of NATs."""

from __future__ import annotations

from interpeer._core.natfacts import NatFacts, plan
from interpeer._core.punch import KINDS, Punch
from tests.fuzz.source import Source
from tests.models import punch_message as wire

MS = 1_000_000
TOKEN, KEY, PEER_TOKEN, PEER_KEY = b"our_tokn", b"k" * 32, b"its_tokn", b"K" * 32
BYTES = 64
FITTING = {"spray-easy": "spray-hard", "spray-hard": "spray-easy", "predict": "predicted", "predicted": "predict"}


def feed(data: bytes) -> None:
    source = Source(data)
    read_facts(source.piece())
    Attempt(source).run()


def read_facts(data: bytes) -> NatFacts:
    """Read facts; what is read can be written, and is the same then."""
    facts = NatFacts.parse(data)
    if facts is None:
        return NatFacts("endpoint-independent", "address-and-port-dependent")
    again = facts.to_bytes()
    assert len(again) == 16 and NatFacts.parse(again) == facts and eval(repr(facts)) == facts
    other = NatFacts("endpoint-independent", "unknown")
    (ours, why), (theirs, _) = plan(facts, other), plan(other, facts)
    assert theirs == FITTING.get(ours, ours) and why
    return facts


class Attempt:
    """One machine, and what was sent to whom."""

    def __init__(self, source: Source) -> None:
        self.source, self.now = source, 1000 * MS
        facts = read_facts(source.take(16))
        self.punch = Punch(TOKEN, KEY, bool(source.byte(2)), facts, b"s" * 32, is_experimental=bool(source.byte(2)))
        self.probed: list[tuple[wire.Message, wire.Remote, int]] = []
        self.owed: dict[wire.Remote, int] = {}
        self.attested: set[bytes] = set()
        self.bytes_unattested = 0
        self.ends = 0

    def run(self) -> None:
        actions = (self.peer, self.remote, self.start, self.garbage, self.probe, self.answer, self.wait, self.wait, self.sockets)
        for _ in range(400):
            if not self.source:
                break
            if self.source.byte(64) == 63:
                self.punch.close(self.now)
            else:
                actions[self.source.byte(len(actions))]()
            self.turn()
        assert self.punch.counters["sent"] < 2048 + 24 * 24 * 2 + 400 + 20
        assert self.ends <= 1 and all(self.punch.reasons())

    def address(self) -> wire.Remote:
        """Choose among a few addresses, so that some come again, or any."""
        match self.source.byte(4):
            case 0:
                return (self.source.take(16) + bytes(16))[:16], self.source.number(65536), self.source.byte(2)
            case 1:
                return b"\x20\x01\x0d\xb8" + bytes(11) + bytes([self.source.byte(4)]), 4000, 0
            case _:
                host = bytes([198, 51, 100, self.source.byte(8)])
                return bytes(10) + b"\xff\xff" + host, 4000 + self.source.byte(4), 0

    def peer(self) -> None:
        self.punch.set_peer(PEER_TOKEN, PEER_KEY, read_facts(self.source.take(16)), self.now)

    def remote(self) -> None:
        remote, is_attested = self.address(), bool(self.source.byte(2))
        if self.punch.add_remote(remote, KINDS[self.source.byte(5)], is_attested) is None and is_attested:
            self.attested.add(remote[0])

    def start(self) -> None:
        if self.punch.state in ("idle", "ready"):
            self.punch.start(self.now, self.source.number(1 << 34), self.source.number(1 << 30))

    def garbage(self) -> None:
        data = self.source.take(self.source.byte(80))
        assert not self.punch.handle_datagram(data, self.address(), self.source.byte(4), self.now)

    def probe(self) -> None:
        remote = self.address()
        data = wire.probe(TOKEN, KEY, self.source.take(8), flags=self.source.byte())
        if self.punch.handle_datagram(data, remote, self.source.byte(300), self.now):
            self.owed[remote] = self.owed.get(remote, 0) + BYTES

    def answer(self) -> None:
        """Answer what was sent, from where it went or from elsewhere, or what never was."""
        if self.probed and self.source.byte(4):
            message, remote, socket = self.probed[self.source.byte() % len(self.probed)]
            is_right = self.source.byte(4) != 0
            source = remote if is_right else self.address()
            data = wire.answer(TOKEN, KEY, message.nonce, self.address(), flags=self.source.byte(2))
            if self.punch.handle_datagram(data, source, socket, self.now):
                assert source == remote
                self.attested.add(remote[0])
        else:
            data = wire.answer(TOKEN, KEY, self.source.take(8), self.address())
            assert not self.punch.handle_datagram(data, self.address(), self.source.byte(300), self.now)

    def wait(self) -> None:
        """Let some time pass, or as much as the machine wants."""
        due = self.punch.poll_timeout()
        self.now = max(self.now, due) if self.source.byte(4) else self.now + self.source.number(1 << 34)

    def sockets(self) -> None:
        self.punch.sockets_opened(self.source.number(300), self.now)

    def turn(self) -> None:
        """Take what is to be sent and told; nothing may be left over, or the machine would spin."""
        self.punch.handle_timeout(self.now)
        for data, remote, socket, _ in self.punch.poll_transmit(self.now):
            message = wire.read(data, PEER_TOKEN, PEER_KEY)
            assert remote[1] and remote[0] != bytes(16)
            if message.is_answer:
                self.owed[remote] -= len(data)
                assert self.owed[remote] >= 0, "more was answered than was asked"
                continue
            if remote[0] not in self.attested:
                self.bytes_unattested += len(data)
            self.probed = [*self.probed[-255:], (message, remote, socket)]
        assert self.bytes_unattested <= 1200
        self.ends += sum(event[0] in ("found", "failed") for event in self.punch.poll_events())
        due = self.punch.poll_timeout()
        assert due == 0 or due > self.now
