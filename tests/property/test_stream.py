"""A stream from its sender to its receiver over a network that loses, delays, doubles and reorders every piece."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from interpeer._core.probe_transport import Flow

SEND_DONE, SEND_RESETTING = 2, 3
RECV_READ, RECV_RESET, RECV_RESET_TOLD = 3, 4, 5
RECV_IN_TOLD = 4
STOP = 8  # Stream.pending


def pattern(start, n):
    """Bytes that tell where in the stream they belong."""
    return bytes((at * 7 + at // 256 * 13) % 251 for at in range(start, start + n))


class StreamOverABadNetwork(RuleBasedStateMachine):
    """The bytes read are the bytes written, from the first on; and of the connection's credit nothing is lost."""

    window, credit = 6000, 9000

    def __init__(self):
        super().__init__()
        self.sender, self.receiver = Flow(send_limit=self.window), Flow(window=self.window)
        self.written, self.read, self.finished = 0, b"", False
        self.on_way = []  # pieces that the network still has, (offset, data, fin) each; they may arrive any number of times
        self.unsettled = []  # pieces whose fate the sender does not know
        self.delivered = set()
        self.used, self.consumed, self.allowed = 0, 0, self.credit  # of the connection's credit, as the receiver counts it
        self.sent_new = 0
        self.has_stopped = self.has_reset = False

    # the sender

    @precondition(lambda self: not self.finished and not self.has_reset)
    @rule(n=st.integers(0, 300) | st.sampled_from([1200, 4096, 10_000]), lend=st.booleans())
    def write(self, n, lend):
        if lend:
            self.sender.lend(pattern(self.written, n))
        else:
            assert self.sender.write(pattern(self.written, n)) == n
        self.written += n

    @precondition(lambda self: not self.has_reset)
    @rule()
    def finish(self):
        self.sender.finish()
        self.finished = True

    @rule(most=st.integers(1, 200) | st.just(1200), count=st.integers(1, 10))
    def send(self, most, count):
        for _ in range(count):
            if not self.sender.has_data:
                return
            before = self.sender.sent
            offset, n = self.sender.next(self.allowed - self.sent_new)
            if n == 0 and offset != self.sender.written:
                return  # the connection's limit
            piece = self.sender.send(self.allowed - self.sent_new, most)
            assert piece[0] == offset and piece[1] == pattern(offset, len(piece[1]))
            self.sent_new += self.sender.sent - before
            assert self.sender.sent <= self.receiver.recv_limit and self.sent_new <= self.allowed
            self.on_way.append(piece)
            self.unsettled.append(piece)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data(), is_probe=st.booleans())
    def lose(self, data, is_probe):
        """The sender takes a piece for lost, whether it is or not; a probe sends it again while it may still be acknowledged."""
        piece = data.draw(st.sampled_from(self.unsettled))
        self.sender.lost(piece[0], len(piece[1]), piece[2])
        if not is_probe:
            self.unsettled.remove(piece)

    @precondition(lambda self: self.unsettled)
    @rule(data=st.data())
    def acknowledge(self, data):
        for _ in range(data.draw(st.integers(1, 5))):
            known = [piece for piece in self.unsettled if piece in self.delivered]
            if known:
                piece = data.draw(st.sampled_from(known))
                self.unsettled.remove(piece)
                self.sender.acked(piece[0], len(piece[1]), piece[2])

    @precondition(lambda self: not self.has_reset)
    @rule(chance=st.integers(0, 9))
    def reset(self, chance):
        if chance == 0:
            self.sender.reset(7)
            self.has_reset = self.sender.states[0] == SEND_RESETTING

    # the network

    @precondition(lambda self: self.on_way)
    @rule(data=st.data(), again=st.booleans())
    def deliver(self, data, again):
        for _ in range(data.draw(st.integers(1, 5))):
            if self.on_way:
                piece = data.draw(st.sampled_from(self.on_way))
                if not again:
                    self.on_way.remove(piece)
                self.arrive(piece)

    def arrive(self, piece):
        code, grown = self.receiver.data(*piece, credit=self.allowed - self.used)
        assert code == 0
        self.delivered.add(piece)
        self.used += grown
        if self.has_stopped:
            self.consumed += grown

    @precondition(lambda self: self.on_way)
    @rule(data=st.data())
    def drop(self, data):
        self.on_way.remove(data.draw(st.sampled_from(self.on_way)))

    @precondition(lambda self: self.has_reset)
    @rule()
    def deliver_reset(self):
        code, grown, dropped = self.receiver.peer_reset(7, self.sender.sent, credit=self.allowed - self.used)
        assert code == 0
        self.used += grown
        self.consumed += dropped

    # the receiver

    @rule(n=st.integers(1, 500) | st.just(10_000))
    def read_some(self, n):
        if self.receiver.states[1] == RECV_RESET:
            self.receiver.told(RECV_IN_TOLD)
            return
        taken = self.receiver.read(n)
        assert taken == pattern(len(self.read), len(taken))
        self.read += taken
        self.consumed += len(taken)

    @rule(n=st.integers(1, 500))
    def wait_for_some(self, n):
        if self.receiver.states[1] >= RECV_READ or self.receiver.readable or self.has_stopped or not self.on_way:
            return
        before = self.receiver.readable
        self.receiver.post(n)
        self.arrive(self.on_way[0])
        taken = self.receiver.unpost()
        assert before == 0 and taken == pattern(len(self.read), len(taken))
        self.read += taken
        self.consumed += len(taken)

    @rule(chance=st.integers(0, 9))
    def stop(self, chance):
        if chance == 0:
            self.consumed += self.receiver.stop(3)
            self.has_stopped = True

    @rule()
    def allow_more(self):
        self.receiver.raise_limit(1, 0, self.window)
        self.sender.raise_send_limit(self.receiver.recv_limit)
        self.allowed = max(self.allowed, self.consumed + self.credit)

    # what must come true once the network behaves

    def teardown(self):
        if not self.has_reset:
            self.sender.finish()
        for _ in range(10_000):
            if self.is_settled():
                break
            self.settle_a_little()
        else:
            raise AssertionError(f"it hangs: {self.sender.states} {self.receiver.states}")
        if self.has_reset:
            assert self.sender.states[0] == SEND_RESETTING and self.receiver.states[1] in (RECV_READ, RECV_RESET_TOLD)
        elif not self.has_stopped:
            assert self.read == pattern(0, self.written)
        assert self.consumed == self.used == self.receiver.highest
        assert self.sender.pools.live == self.receiver.pools.live == (0, 0)
        assert not self.sender.has_data

    def is_settled(self):
        return self.sender.states[0] in (SEND_DONE, SEND_RESETTING) and self.receiver.states[1] in (RECV_READ, RECV_RESET_TOLD)

    def settle_a_little(self):
        if self.receiver.pending & STOP:
            self.sender.reset(3)
            self.has_reset = self.sender.states[0] == SEND_RESETTING
        for piece in self.unsettled:
            if piece in self.delivered:
                self.sender.acked(piece[0], len(piece[1]), piece[2])
            else:
                self.sender.lost(piece[0], len(piece[1]), piece[2])
        self.unsettled, self.on_way = [], []
        self.send(most=1200, count=50)
        for piece in self.on_way:
            self.arrive(piece)
        if self.has_reset:
            self.deliver_reset()
        self.read_some(10**6)
        self.allow_more()


TestStream = StreamOverABadNetwork.TestCase
