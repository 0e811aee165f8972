"""STUN transactions (docs/spec, chapter 22): a request is repeated until an answer comes, or none will.

No socket and no clock: time, random bytes and datagrams come in as arguments, and the caller polls until nothing is left.
Nothing that comes from the network creates a transaction, prolongs one, or makes it send more than its schedule has.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, final

from interpeer._address import CoreEndpoint
from interpeer._core import stun

_MS = 1_000_000
FIRST_RTO_NS = 500 * _MS
"""RFC 8489, 6.2.1: between the first two requests to a server of which nothing is known."""
LEAST_RTO_NS = 100 * _MS
"""... and to one that is known to be near: it may be busy for a moment."""
MAX_RTO_NS = 3000 * _MS
TRIES = 7
"""Rc: requests in all."""
LAST_WAIT = 16
"""Rm: how long to wait after the last one, in units of the first interval."""
MAX_TRANSACTIONS = 256
"""At once: as many as the core lets through."""
RTT_LIFETIME_NS = 600_000 * _MS
"""A round trip that was measured earlier says nothing (RFC 8489, 6.2.1)."""
MAX_RTTS = 64
"""Servers whose round trips are remembered; the one that was asked longest ago is forgotten."""


class State(enum.IntEnum):
    """Where a transaction is."""

    ASKING = 0
    ANSWERED = 1
    REFUSED = 2
    UNUSABLE = 3
    TIMED_OUT = 4


class Input(enum.IntEnum):
    """What can happen to it."""

    SUCCESS = 0
    ERROR = 1
    NONSENSE = 2
    """An answer with attributes that must be understood and are not, or without an address."""
    RETRY = 3
    DEADLINE = 4


class _Do(enum.IntEnum):
    NOTHING = 0
    SEND = 1
    FINISH = 2


_OVER = (_Do.NOTHING,) * len(Input)
TABLE: tuple[tuple[tuple[State, _Do], ...], ...] = (
    # SUCCESS                        ERROR                          NONSENSE                         RETRY
    ((State.ANSWERED, _Do.FINISH), (State.REFUSED, _Do.FINISH), (State.UNUSABLE, _Do.FINISH), (State.ASKING, _Do.SEND),
     (State.TIMED_OUT, _Do.FINISH)),                              # ... and DEADLINE, of ASKING
    *(tuple((state, action) for action in _OVER) for state in (State.ANSWERED, State.REFUSED, State.UNUSABLE, State.TIMED_OUT)),
)  # fmt: skip
"""[state][input] -> (next state, action): SN-15."""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """Tell how a transaction has ended."""

    transaction: bytes
    state: State
    message: stun.StunMessage | None
    """The answer; None: there was none."""
    source: CoreEndpoint | None
    tag: Any
    """What the caller has named it by."""

    @property
    def mapped(self) -> CoreEndpoint | None:
        """Where the request came from, as the server says."""
        return self.message.mapped if self.state is State.ANSWERED and self.message is not None else None


@dataclass(slots=True)
class _Transaction:
    request: bytes
    remote: CoreEndpoint
    answers_from: CoreEndpoint
    """The only source that is believed."""
    key: bytes | None
    tag: Any
    tries: int
    last_wait_ns: int
    interval_ns: int
    next_ns: int
    begun_ns: int
    state: State = State.ASKING
    sent: int = 0


@final
class RoundTrips:
    """Remember how long servers take (RFC 6298), so that the next request to one is repeated when that makes sense."""

    def __init__(self) -> None:
        self._known: OrderedDict[CoreEndpoint, tuple[int, int, int]] = OrderedDict()  # smoothed, variance, when

    def learn(self, remote: CoreEndpoint, rtt_ns: int, now_ns: int) -> None:
        smoothed, variance = rtt_ns, rtt_ns // 2
        if remote in self._known:
            smoothed, variance, _ = self._known[remote]
            variance += (abs(smoothed - rtt_ns) - variance) // 4
            smoothed += (rtt_ns - smoothed) // 8
        self._known[remote] = smoothed, variance, now_ns
        self._known.move_to_end(remote)
        if len(self._known) > MAX_RTTS:
            self._known.popitem(last=False)

    def rto_ns(self, remote: CoreEndpoint, now_ns: int) -> int:
        """Return after how long without an answer the first request is repeated."""
        smoothed, variance, learnt_ns = self._known.get(remote, (0, 0, 0))
        if not smoothed or now_ns - learnt_ns > RTT_LIFETIME_NS:
            return FIRST_RTO_NS
        return min(max(smoothed + 4 * variance, LEAST_RTO_NS), MAX_RTO_NS)

    def __len__(self) -> int:
        return len(self._known)


@final
class Transactions:
    """Run transactions, each to its end."""

    def __init__(self, round_trips: RoundTrips | None = None) -> None:
        self.round_trips = RoundTrips() if round_trips is None else round_trips
        self.dropped = 0
        """Datagrams that were no answers to what was asked."""
        self._running: dict[bytes, _Transaction] = {}
        self._results: list[Result] = []

    def __len__(self) -> int:
        return len(self._running)

    # --- verbs ---

    def start(
        self,
        remote: CoreEndpoint,
        transaction: bytes,
        now_ns: int,
        *,
        tag: Any = None,
        change: int = 0,
        response_port: int = 0,
        answers_from: CoreEndpoint | None = None,
        username: bytes = b"",
        key: bytes | None = None,
        with_sha1: bool = False,
        tries: int = TRIES,
        last_wait: int = LAST_WAIT,
    ) -> None:
        """Ask a server; `transaction` are 12 random bytes that nobody else has seen. Raises ValueError.

        Answers are believed from the server itself, or from `answers_from`, and with a `key` only if they prove to know it."""
        if len(self._running) >= MAX_TRANSACTIONS:
            raise ValueError(f"at most {MAX_TRANSACTIONS} transactions run at once")
        if transaction in self._running:
            raise ValueError("this transaction id is in use")
        if tries < 1 or last_wait < 1:
            raise ValueError("a transaction takes at least one try and one wait")
        request = stun.binding_request(
            transaction, change=change, response_port=response_port, username=username, key=key, with_sha1=with_sha1
        )
        rto_ns = self.round_trips.rto_ns(remote, now_ns)
        self._running[transaction] = _Transaction(
            request, remote, answers_from or remote, key, tag, tries, last_wait * rto_ns, rto_ns, now_ns, now_ns
        )

    def cancel(self, transaction: bytes) -> None:
        """Forget a transaction, without a result; harmless on one that is over."""
        self._running.pop(transaction, None)

    # --- what happens ---

    def handle_datagram(self, data: bytes, source: CoreEndpoint, now_ns: int) -> bool:
        """Take a datagram; return whether it was the answer to something."""
        message = stun.parse(data)
        running = None if message is None else self._running.get(message.transaction)
        if (
            message is None
            or running is None
            or not running.sent
            or message.method != stun.BINDING
            or message.kind not in (stun.SUCCESS, stun.ERROR)
            or source[:2] != running.answers_from[:2]
            or (running.key is not None and not stun.verify(data, running.key))
        ):
            self.dropped += 1
            return False
        if running.sent == 1 and source[:2] == running.remote[:2]:  # of a repeated request it is not known which was answered
            self.round_trips.learn(running.remote, max(now_ns - running.begun_ns, 1), now_ns)
        if message.unknown or (message.kind == stun.SUCCESS and message.mapped is None):
            self._input(running, Input.NONSENSE, message, source)
        else:
            self._input(running, Input.ERROR if message.kind == stun.ERROR else Input.SUCCESS, message, source)
        return True

    def handle_timeout(self, now_ns: int) -> None:
        """End what has waited long enough."""
        for running in list(self._running.values()):
            if running.sent == running.tries and now_ns >= running.next_ns:
                self._input(running, Input.DEADLINE)

    def _input(
        self, running: _Transaction, what: Input, message: stun.StunMessage | None = None, source: CoreEndpoint | None = None
    ) -> _Do:
        running.state, action = TABLE[running.state][what]
        if action is _Do.FINISH:
            transaction = running.request[8:20]
            del self._running[transaction]
            self._results.append(Result(transaction, running.state, message, source, running.tag))
        return action

    # --- what shall be done ---

    def poll_transmit(self, now_ns: int) -> list[tuple[bytes, CoreEndpoint, Any]]:
        """Return the requests that are due: data, where to, and the caller's tag."""
        due: list[tuple[bytes, CoreEndpoint, Any]] = []
        for running in self._running.values():
            if now_ns < running.next_ns or running.sent == running.tries:
                continue
            if self._input(running, Input.RETRY) is not _Do.SEND:
                continue
            running.begun_ns = running.begun_ns if running.sent else now_ns
            running.sent += 1
            is_last = running.sent == running.tries
            running.next_ns = now_ns + (running.last_wait_ns if is_last else running.interval_ns)
            running.interval_ns *= 2
            due.append((running.request, running.remote, running.tag))
        return due

    def poll_results(self) -> list[Result]:
        """Return what has ended since the last call."""
        results, self._results = self._results, []
        return results

    def poll_timeout(self) -> int | None:
        """Return when something is due, None: never."""
        return min((running.next_ns for running in self._running.values()), default=None)
