"""A stream that never ends, over a path with a delay: what loss recovery and congestion control make of it."""

from __future__ import annotations

from collections.abc import Callable

from tests.spec.peer import MS, Peer, Sent, ack_of

WRITE_BYTES = 1 << 20


class Flow:
    """Let the node send all it can; acknowledge each packet a round trip after it was sent, but for those that are lost."""

    def __init__(
        self,
        peer: Peer,
        rtt_ns: int,
        *,
        lose: Callable[[int], bool] = lambda number: False,
        step_ns: int = MS,
        ce: int = 0,
        write_bytes: int = WRITE_BYTES,
    ) -> None:
        self.peer, self.rtt_ns, self.lose, self.step_ns = peer, rtt_ns, lose, step_ns
        self.stream = peer.handle.open_stream()
        self.on_the_way: list[tuple[int, int]] = []  # when the acknowledgement is due, and the number
        self.marked, self.ce, self.write_bytes = 0, ce, write_bytes
        self.said: list[Sent] = []
        self.windows: list[tuple[int, int]] = []
        self.last: Sent  # what `lose` is asked about

    @property
    def window(self) -> int:
        return self.peer.handle.stats()["window_bytes"]

    def run(self, ns: int, *, is_writing: bool = True) -> list[Sent]:
        """Let time pass; return what was said."""
        node, end_ns, said = self.peer.node, self.peer.node.now_ns + ns, []
        while node.now_ns < end_ns:
            if is_writing:
                self.stream.write(bytes(self.write_bytes))
            new = node.wait(self.step_ns)
            said += new
            for sent in new:
                self.last = sent
                number = self.peer.open(sent.data).counter
                if not self.lose(number):
                    self.on_the_way.append((sent.at_ns + self.rtt_ns, number))
            self.acknowledge([number for due_ns, number in self.on_the_way if due_ns <= node.now_ns])
            self.on_the_way = [(due_ns, number) for due_ns, number in self.on_the_way if due_ns > node.now_ns]
            self.windows.append((node.now_ns, self.window))
        self.said += said
        return said

    def acknowledge(self, numbers: list[int]) -> None:
        if numbers:
            self.marked += len(numbers)
            self.peer.send(ack_of(numbers, ecn=(self.marked - self.ce, 0, self.ce)))
