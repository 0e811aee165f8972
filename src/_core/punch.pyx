"""Punching: two nodes that can talk through somebody else look for a way to send datagrams to each other directly.

docs/spec, chapter 24. One machine for each attempt at one connection. It opens no socket, knows no clock and draws nothing:
time, datagrams and one seed come in, datagrams, a deadline and events come out. Each pair of an address of the peer and a socket
of ours is probed until an answer shows that both directions work; the best pair that works is chosen by the controlling side.
What the two NATs need beyond that, a sweep or a spray, follows from what both sides know of them (natfacts).

Nothing is believed that is not sealed with a key which came over the connection to the peer. And since even the peer may name
somebody else's address: an answer is as large as its probe, to addresses that only the peer vouches for go MAX_UNATTESTED_BYTES
at most, to others a bounded number of probes, and sprays have a budget of the node's. One machine, one chapter, and so one file.
"""

import ipaddress

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from interpeer._core.address_class cimport address_is_private, address_refusal
from interpeer._core.crypto cimport MAC_BYTES, blake2b, equal_secret, wipe
from interpeer._core.natfacts cimport (
    NAT_NONE, PLAN_DIRECT, PLAN_HOPELESS, PLAN_PREDICT, PLAN_PREDICTED, PLAN_SPRAY_BOTH, PLAN_SPRAY_EASY, PLAN_SPRAY_HARD,
    PORTS_PRESERVED, PORTS_UNKNOWN, NatFacts, plan_of)
from interpeer._core.punch_message cimport (
    PUNCH_BYTES, PUNCH_FORGED, PUNCH_KEY_BYTES, PUNCH_MALFORMED, PUNCH_NOMINATED, PUNCH_NONCE_BYTES, PUNCH_OK,
    PUNCH_TOKEN_BYTES, PunchMessage, parse_punch, write_punch)
from interpeer._core.slab cimport Endpoint, endpoint_is_ipv4
from interpeer._core.spray cimport (
    SPRAY_BOTH_SOCKETS, SPRAY_LEAST_SOCKETS, SPRAY_MAX_SOCKETS, SPRAY_NOTHING, SPRAY_SOCKETS, Spray, sockets_for, spray_open,
    spray_poll, spray_ports, spray_sockets, spray_sockets_and_ports, spray_sweep)
from interpeer._core.spray_budget cimport SprayBudget

from interpeer._core.natfacts import PLAN_NAMES as _PLAN_NAMES
from interpeer._core.natfacts import plan as _plan

KINDS = ("host", "ipv6", "reflexive", "mapped", "predicted", "peer-reflexive", "sprayed")
STATES = ("idle", "ready", "waiting", "opening", "checking", "spraying", "settling", "found", "failed")
_REFUSALS = ("", "it has no port", "it is unspecified", "it is this machine's own loopback", "it is multicast", "it is reserved",
             "it is discard-only", "it is link-local without an interface")      # by ADDRESS_*

cdef enum:
    NOT_ALLOWED = 0xFF
    SEED_BYTES = 32

# [state][input] -> next state (docs/spec, PU-13)
cdef uint8_t[9][9] TABLE = [
    [  # IDLE: PEER, START, OPEN, HEARD, FULL, SPRAY, VERIFIED, CHOSEN, GIVE_UP
        PUNCH_READY, PUNCH_WAITING, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED,
        NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # READY
        PUNCH_READY, PUNCH_WAITING, NOT_ALLOWED, PUNCH_READY, NOT_ALLOWED,
        NOT_ALLOWED, PUNCH_SETTLING, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # WAITING
        PUNCH_WAITING, NOT_ALLOWED, PUNCH_OPENING, PUNCH_CHECKING, NOT_ALLOWED,
        NOT_ALLOWED, PUNCH_SETTLING, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # OPENING
        PUNCH_OPENING, NOT_ALLOWED, NOT_ALLOWED, PUNCH_CHECKING, PUNCH_CHECKING,
        NOT_ALLOWED, PUNCH_SETTLING, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # CHECKING
        PUNCH_CHECKING, NOT_ALLOWED, NOT_ALLOWED, PUNCH_CHECKING, NOT_ALLOWED,
        PUNCH_SPRAYING, PUNCH_SETTLING, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # SPRAYING
        PUNCH_SPRAYING, NOT_ALLOWED, NOT_ALLOWED, PUNCH_SPRAYING, NOT_ALLOWED,
        NOT_ALLOWED, PUNCH_SETTLING, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # SETTLING
        PUNCH_SETTLING, NOT_ALLOWED, NOT_ALLOWED, PUNCH_SETTLING, NOT_ALLOWED,
        NOT_ALLOWED, PUNCH_SETTLING, PUNCH_FOUND, PUNCH_FAILED,
    ],
    [  # FOUND
        PUNCH_FOUND, NOT_ALLOWED, NOT_ALLOWED, PUNCH_FOUND, NOT_ALLOWED,
        NOT_ALLOWED, PUNCH_FOUND, NOT_ALLOWED, PUNCH_FAILED,
    ],
    [  # FAILED
        PUNCH_FAILED, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED,
        NOT_ALLOWED, NOT_ALLOWED, NOT_ALLOWED, PUNCH_FAILED,
    ],
]


cdef int punch_next(uint8_t state, int event) noexcept nogil:
    """Return the state that follows, or -1 where the input is not allowed."""
    return -1 if TABLE[state][event] == NOT_ALLOWED else TABLE[state][event]


cdef int read_endpoint(object given, Endpoint *out) except -1:
    """Take (16 bytes, port) or (16 bytes, port, scope)."""
    cdef bytes address = given[0]
    if len(address) != 16:
        raise ValueError(f"an address has 16 bytes, IPv4 mapped, not {len(address)}")
    memset(out, 0, sizeof(Endpoint))
    memcpy(out.address, PyBytes_AS_STRING(address), 16)
    out.port = given[1]
    out.scope = given[2] if len(given) > 2 else 0
    return 0


cdef tuple endpoint_tuple(const Endpoint *e):
    return PyBytes_FromStringAndSize(<const char *>e.address, 16), e.port, e.scope


cdef str endpoint_text(const Endpoint *e):
    cdef object address = ipaddress.ip_address(PyBytes_FromStringAndSize(<const char *>e.address, 16))
    return f"{address.ipv4_mapped}:{e.port}" if address.ipv4_mapped else f"[{address}]:{e.port}"


cdef inline bint is_same_address(const Endpoint *a, const Endpoint *b) noexcept nogil:
    return memcmp(a.address, b.address, 16) == 0 and a.scope == b.scope


cdef int copy_exactly(uint8_t *out, bytes data, size_t n, str what) except -1:
    if data is None or len(data) != n:
        raise ValueError(f"{what} has {n} bytes, not {0 if data is None else len(data)}")
    memcpy(out, PyBytes_AS_STRING(data), n)
    return 0


cdef inline uint64_t between(uint64_t value, uint64_t least, uint64_t most) noexcept nogil:
    return least if value < least else most if value > most else value


cdef inline uint64_t sooner(uint64_t a, uint64_t b) noexcept nogil:
    """Return the earlier of two moments, where 0 is none."""
    return a if b == 0 or (a and a < b) else b


@cython.final
cdef class Punch:
    """Look for a direct way to one peer; sans-IO, one for each attempt.

    `token` (8 bytes) and `key` (32), fresh and random, are told to the peer over the connection that there is, and those of
    the peer are given to `set_peer`. `seed` has 32 random bytes. One side `is_controlling`: it chooses the pair. `budget` is the
    node's, shared by all its machines. The first probes to addresses behind NATs have `low_ttl` hops to live, one if we are
    behind none ourselves; 0 for all that they need. `is_same_machine` allows loopback, `is_experimental` sprays from both sides;
    no more than `unattested_bytes` go to addresses that the peer alone vouches for.

    After each call: send what `poll_transmit` returns, as (data, remote, socket, ttl), where socket 0 is the node's own and
    ttl 0 the system's; take `poll_events`; call `handle_timeout` when it is `poll_timeout`. Events are

    - ("sockets", n): open n more sockets for IPv4, say `sockets_opened`; datagrams from them have numbers from 1 to n
    - ("spray", kind, probes): a spray has ended
    - ("heard", remote): the peer's probes come from an attested address to the node's own socket: most likely ours get there, too
    - ("found", remote, socket, kind): this pair works in both directions, and is the one to use
    - ("failed", reasons): nothing was found; a sentence for each thing that was tried

    >>> from interpeer._core.natfacts import NatFacts
    >>> nat = NatFacts("endpoint-independent", "address-and-port-dependent")
    >>> a = Punch(b"a" * 8, b"A" * 32, True, nat, b"1" * 32)
    >>> b = Punch(b"b" * 8, b"B" * 32, False, nat, b"2" * 32)
    >>> a.set_peer(b"b" * 8, b"B" * 32, nat, 0)
    >>> b.set_peer(b"a" * 8, b"A" * 32, nat, 0)
    >>> address_of_a, address_of_b = [(bytes(10) + bytes([255, 255, 192, 0, 2, n]), 4000, 0) for n in (1, 2)]
    >>> a.add_remote(address_of_b, "reflexive", True)
    >>> b.add_remote(address_of_a, "reflexive", True)
    >>> a.start(1, 40_000_000)  # nanoseconds; b starts 20 ms later, when it hears of it
    >>> b.start(1, 40_000_000)
    >>> found = {}
    >>> for ms in range(200):
    ...     for us, them, source in ((a, b, address_of_a), (b, a, address_of_b)):
    ...         us.handle_timeout(ms * 1_000_000)
    ...         for data, remote, socket, ttl in us.poll_transmit(ms * 1_000_000):
    ...             if ttl == 0:  # others do not get here
    ...                 _ = them.handle_datagram(data, source, 0, ms * 1_000_000)
    ...         found.update({us: event for event in us.poll_events()})
    >>> found[a] == ("found", address_of_b, 0, "reflexive"), found[b] == ("found", address_of_a, 0, "reflexive")
    (True, True)
    """

    def __cinit__(self, bytes token, bytes key, bint is_controlling, NatFacts nat not None, bytes seed, *,
                  SprayBudget budget=None, uint8_t low_ttl=DEFAULT_LOW_TTL, bint is_same_machine=False,
                  bint is_experimental=False, uint32_t unattested_bytes=MAX_UNATTESTED_BYTES):
        cdef uint8_t drawn[32]
        copy_exactly(self.our_token, token, PUNCH_TOKEN_BYTES, "a token")
        copy_exactly(self.our_key, key, PUNCH_KEY_BYTES, "a key")
        copy_exactly(drawn, seed, SEED_BYTES, "a seed")
        self.is_controlling = is_controlling
        self.our_nat = nat
        self.budget = SprayBudget() if budget is None else budget
        self.low_ttl = min(low_ttl, LOWEST_TTL) if nat.mapping_class == NAT_NONE else low_ttl
        self.is_same_machine = is_same_machine
        self.is_experimental = is_experimental
        self.most_unattested = min(unattested_bytes, <uint32_t>MAX_UNATTESTED_BYTES)
        self.chosen = -1
        self.answers, self.events, self.notes = [], [], []
        self.tally = dict.fromkeys(("malformed", "stranger", "forged", "early", "stale", "probes", "answers", "sent"), 0)
        blake2b(self.secret, 32, b"nonces", 6, NULL, 0, drawn, SEED_BYTES)
        blake2b(drawn, 32, b"ports", 5, NULL, 0, drawn, SEED_BYTES)
        memcpy(&self.seed, drawn, sizeof(uint64_t))
        wipe(drawn, sizeof(drawn))

    def __dealloc__(self):
        wipe(self.our_key, sizeof(self.our_key))
        wipe(self.peer_key, sizeof(self.peer_key))
        wipe(self.secret, sizeof(self.secret))

    # --- verbs ---

    def set_peer(self, bytes token, bytes key, NatFacts nat not None, uint64_t now_ns):
        """Take what the peer has told of itself: its token, its key, what it knows of its NAT.

        May come again with other facts, before the machine has started to spray. Raises ValueError for other tokens and keys."""
        cdef uint8_t new_token[8]
        cdef uint8_t new_key[32]
        copy_exactly(new_token, token, PUNCH_TOKEN_BYTES, "a token")
        copy_exactly(new_key, key, PUNCH_KEY_BYTES, "a key")
        if memcmp(new_token, self.our_token, PUNCH_TOKEN_BYTES) == 0 or memcmp(new_key, self.our_key, PUNCH_KEY_BYTES) == 0:
            raise ValueError("the peer's token and key are ours")
        if self.is_peer_known and (memcmp(new_token, self.peer_token, PUNCH_TOKEN_BYTES) != 0
                                   or memcmp(new_key, self.peer_key, PUNCH_KEY_BYTES) != 0):
            raise ValueError("the peer's token and key cannot change")
        memcpy(self.peer_token, new_token, PUNCH_TOKEN_BYTES)
        memcpy(self.peer_key, new_key, PUNCH_KEY_BYTES)
        cdef int before = plan_of(self.our_nat, self.peer_nat, self.is_experimental)
        self.peer_nat = nat
        self.peer_known_ns = now_ns
        self.is_peer_known = True
        self.input(PUNCH_IN_PEER)
        if self.state == PUNCH_CHECKING and plan_of(self.our_nat, nat, self.is_experimental) != before:
            self.plan_spray(now_ns)

    def add_remote(self, remote, str kind, bint is_attested=False):
        """Take an address of the peer. Return None, or why it is not used, in words.

        `kind` is "host", "ipv6", "reflexive", "mapped" or "predicted"; `is_attested` says that somebody else than the peer has
        seen it use that address. It may come late."""
        cdef Endpoint e
        cdef Pair *pair
        cdef int refusal, i, of_host = 0
        if kind not in KINDS[:KIND_HEARD]:
            raise ValueError(f"an address is one of {', '.join(KINDS[:KIND_HEARD])}, not {kind!r}")
        read_endpoint(remote, &e)
        refusal = address_refusal(&e, self.is_same_machine)
        if refusal:
            return _REFUSALS[refusal]
        for i in range(self.count):
            if self.pairs[i].kind < KIND_HEARD and is_same_address(&self.pairs[i].remote, &e):
                of_host += 1
        pair = self.find(&e, 0)
        if pair != NULL and pair.kind < KIND_HEARD:
            if is_attested and not pair.is_attested:
                pair.is_attested = True             # somebody else has seen it only now: it counts for more
                pair.retry_ns = PAIR_RETRY_NS
                return None
            return "it is there already"
        if self.remotes == MAX_REMOTES:
            return f"there are {MAX_REMOTES} already"
        if of_host == MAX_REMOTES_PER_HOST:
            return f"there are {MAX_REMOTES_PER_HOST} of that host already"
        if pair != NULL:
            pair.kind = KINDS.index(kind)       # we have heard from there before
            pair.is_attested = pair.is_attested or is_attested
        else:
            pair = self.add(&e, 0, KINDS.index(kind), is_attested)
            if pair == NULL:
                return f"there are {MAX_PUNCH_PAIRS} pairs already"
            if PUNCH_OPENING <= self.state <= PUNCH_SETTLING:
                self.begin_pair(pair, 1)
        self.remotes += 1
        return None

    def start(self, uint64_t now_ns, uint64_t rtt_ns, uint64_t delay_ns=0):
        """Begin at the moment agreed on, which is in `delay_ns`; `rtt_ns` is the round trip of the connection that there is.

        Who asks the other side to begin waits for half a round trip, and who is asked does not wait. If the peer is not
        known yet, the machine opens as soon as it is. Raises ValueError when it has been started before."""
        if self.input(PUNCH_IN_START) != 0:
            raise ValueError(f"a machine that is {STATES[self.state]} cannot be started: make a new one for another attempt")
        self.rtt_ns = rtt_ns
        self.open_ns = now_ns + delay_ns

    def peer_opened(self, uint64_t now_ns):
        """The peer has said that it has opened: from now on probes may get there. Harmless at any other time."""
        if self.state == PUNCH_OPENING:
            self.full_ns = now_ns

    def sockets_opened(self, uint16_t count, uint64_t now_ns):
        """So many of the sockets that were asked for are open; 0: the system gave none."""
        if self.state == PUNCH_SPRAYING and self.spray.kind >= SPRAY_SOCKETS and self.spray.sockets == 0:
            if count == 0:
                self.notes.append("no more sockets could be opened for a spray")
            spray_open(&self.spray, count, now_ns)

    def close(self, uint64_t now_ns):
        """Stop, without an event; the budget of sprays is free for others."""
        self.end_spray(now_ns)
        self.events.clear()
        self.answers.clear()
        self.input(PUNCH_IN_GIVE_UP)

    # --- what happens ---

    def handle_datagram(self, bytes data not None, remote, uint16_t socket, uint64_t now_ns):
        """Take a datagram that may be a probe or an answer. Return whether it was one for this machine, and authentic."""
        cdef Endpoint source
        cdef PunchMessage message
        cdef int result = parse_punch(<const uint8_t *>PyBytes_AS_STRING(data), len(data), self.our_token, self.our_key, &message)
        if result != PUNCH_OK:
            self.tally["malformed" if result == PUNCH_MALFORMED else "forged" if result == PUNCH_FORGED else "stranger"] += 1
            return False
        read_endpoint(remote, &source)
        if not self.is_peer_known or self.state == PUNCH_FAILED or address_refusal(&source, self.is_same_machine):
            self.tally["early"] += 1
            return False
        if message.is_answer:
            return self.handle_answer(&message, &source, socket, now_ns)
        self.handle_probe(&message, &source, socket, now_ns)
        return True

    def handle_timeout(self, uint64_t now_ns):
        """Let time pass; harmless when it is too early."""
        if self.state == PUNCH_WAITING and now_ns >= self.open_ns:
            if self.is_peer_known:
                self.open(now_ns)
            elif now_ns >= self.open_ns + AWAIT_PEER_NS:
                self.notes.append("the peer did not say which addresses it has")
                self.give_up(now_ns)
        if self.state == PUNCH_OPENING and now_ns >= self.full_ns:
            self.input(PUNCH_IN_FULL)
            self.check(now_ns)
        if self.state == PUNCH_CHECKING and self.spray_ns and now_ns >= self.spray_ns:
            self.ask_for_spray(now_ns)
        if (self.state == PUNCH_CHECKING or self.state == PUNCH_SPRAYING) and now_ns >= self.deadline_ns:
            self.give_up(now_ns)
        if self.state == PUNCH_SETTLING:
            self.choose(now_ns)

    # --- what to do ---

    def poll_transmit(self, uint64_t now_ns):
        """Return what is to be sent now, as (data, remote, socket, ttl)."""
        cdef list out = [(data, remote, socket, 0) for data, remote, socket in self.answers]
        self.answers.clear()
        self.send_due(out, now_ns)
        self.tally["sent"] += len(out)
        return out

    def poll_timeout(self):
        """Return when `handle_timeout` and `poll_transmit` have something to do; 0: never, unless something happens."""
        cdef uint64_t next_ns = 1 if self.answers else 0
        cdef int i
        if self.state == PUNCH_WAITING:
            next_ns = sooner(next_ns, self.open_ns + 1 if self.is_peer_known else self.open_ns + AWAIT_PEER_NS)
        elif self.state == PUNCH_OPENING:
            next_ns = sooner(next_ns, self.full_ns)
        elif self.state == PUNCH_CHECKING or self.state == PUNCH_SPRAYING:
            next_ns = sooner(sooner(next_ns, self.deadline_ns), self.spray_ns)
        elif self.state == PUNCH_SETTLING:
            next_ns = sooner(next_ns, self.settle_ns)
        elif self.state == PUNCH_FOUND:
            return sooner(next_ns, self.nominate_ns)
        elif self.state == PUNCH_FAILED:
            return 0
        if self.state == PUNCH_SPRAYING:
            next_ns = sooner(next_ns, self.spray.next_ns)
        for i in range(self.count):
            next_ns = sooner(next_ns, self.pairs[i].next_ns)
        return next_ns

    def poll_events(self):
        """Return what has happened since the last time."""
        cdef list events = self.events
        self.events = []
        return events

    # --- readers ---

    @property
    def state(self):
        """Where the machine is, in one word of the specification's table."""
        return STATES[self.state]

    @property
    def plan(self):
        """What is tried beside the plain punch, and why: (plan, reason); None while the peer is not known."""
        if not self.is_peer_known:
            return None
        return _plan(self.our_nat, self.peer_nat, is_experimental=self.is_experimental)

    @property
    def counters(self):
        """How many datagrams were dropped, by reason, received and sent."""
        return dict(self.tally)

    def pairs_tried(self):
        """Return what is known of each pair, as a dict."""
        cdef int i
        cdef Pair *p
        found = []
        for i in range(self.count):
            p = &self.pairs[i]
            found.append({
                "remote": endpoint_tuple(&p.remote), "socket": p.socket, "kind": KINDS[p.kind],
                "is_attested": bool(p.is_attested), "is_verified": bool(p.is_verified), "is_chosen": i == self.chosen,
                "heard": p.heard, "sent": p.sent, "observed": endpoint_tuple(&p.observed) if p.is_verified else None})
        return found

    @property
    def unattested_sent(self):
        """Bytes of probes to addresses that the peer alone vouches for."""
        return self.unattested_bytes

    def reasons(self, bint is_better=False):
        """Return a sentence for each address that was tried and does not work, and for what else was in the way.

        is_better: only for the addresses that would have been better than the pair that was found."""
        cdef int i, rank = self.pairs[self.chosen].rank if is_better and self.chosen >= 0 else RANK_IPV4 + 1
        cdef Pair *p
        told = []
        for i in range(self.count):
            p = &self.pairs[i]
            if not p.is_verified and p.rank < rank:
                told.append(f"{endpoint_text(&p.remote)} ({KINDS[p.kind]}): " + (
                    "we hear the peer from there, but it does not hear us" if p.heard
                    else f"no answer to {p.sent} probe{'' if p.sent == 1 else 's'}" if p.sent
                    else "nothing was sent there: too many addresses that only the peer vouches for"
                    if self.state >= PUNCH_CHECKING else "nothing was sent there yet"))
        if is_better:
            return told
        if self.is_peer_known and plan_of(self.our_nat, self.peer_nat, self.is_experimental) != PLAN_DIRECT:
            told.append(self.plan[1])
        return told + self.notes

    # --- the machine ---

    cdef int input(self, int event) noexcept:
        """Move. Return 0, or -1 and no change where the table has NOT_ALLOWED."""
        cdef int after = punch_next(self.state, event)
        if after < 0:
            return -1
        self.state = <uint8_t>after
        return 0

    cdef Pair *find(self, const Endpoint *remote, uint16_t socket) noexcept:
        cdef int i
        for i in range(self.count):
            if self.pairs[i].socket == socket and memcmp(&self.pairs[i].remote, remote, sizeof(Endpoint)) == 0:
                return &self.pairs[i]
        return NULL

    cdef Pair *add(self, const Endpoint *remote, uint16_t socket, uint8_t kind, bint is_attested) noexcept:
        """Make room for a pair, by forgetting one that was merely heard from if need be. NULL: there is none."""
        cdef Pair *pair = NULL
        cdef int i
        if self.count < MAX_PUNCH_PAIRS:
            pair = &self.pairs[self.count]
            self.count += 1
        else:
            for i in range(self.count):
                if self.pairs[i].kind == KIND_HEARD and not self.pairs[i].is_verified and kind != KIND_HEARD:
                    pair = &self.pairs[i]
        if pair == NULL:
            return NULL
        memset(pair, 0, sizeof(Pair))
        pair.remote = remote[0]
        pair.socket = socket
        pair.kind = kind
        pair.rank = RANK_LAN if address_is_private(remote) else RANK_IPV4 if endpoint_is_ipv4(remote) else RANK_IPV6
        pair.is_attested = is_attested
        pair.retry_ns = PAIR_RETRY_NS
        return pair

    cdef bint is_attested_host(self, const Endpoint *remote, bint with_port) noexcept:
        """Tell whether somebody else than the peer has seen it at this address."""
        cdef int i
        for i in range(self.count):
            if self.pairs[i].is_attested and is_same_address(&self.pairs[i].remote, remote) \
                    and (not with_port or self.pairs[i].remote.port == remote.port):
                return True
        return False

    cdef Pair *attested(self) noexcept:
        """Return the peer's public IPv4 address that others have seen: the target of sprays; NULL: there is none."""
        cdef Pair *best = NULL
        cdef int i
        for i in range(self.count):
            if self.pairs[i].is_attested and self.pairs[i].rank == RANK_IPV4 and self.pairs[i].kind < KIND_HEARD \
                    and (best == NULL or self.pairs[i].kind < best.kind):
                best = &self.pairs[i]
        return best

    # --- opening ---

    cdef void begin_pair(self, Pair *pair, uint64_t at_ns) noexcept:
        pair.checks = 0
        pair.retry_ns = PAIR_RETRY_NS
        pair.next_ns = at_ns
        pair.is_low = ((self.state == PUNCH_OPENING or self.holds_low) and self.low_ttl and pair.heard == 0 and pair.rank == RANK_IPV4
                       and (pair.kind == KIND_REFLEXIVE or pair.kind == KIND_PREDICTED)
                       and self.peer_nat.mapping_class != NAT_NONE)

    cdef void begin_pairs(self, uint64_t now_ns, bint only_low) noexcept:
        """Probe all candidates one after the other, those that promise most first; or those that had a low TTL once more."""
        cdef uint64_t at_ns = now_ns
        cdef int kind, trust, i
        cdef Pair *pair
        for trust in range(2):
            for kind in range(KIND_HEARD):
                for i in range(self.count):
                    pair = &self.pairs[i]
                    # what only the peer vouches for comes first at home, where nobody else could, and last elsewhere
                    if pair.kind != kind or pair.is_verified or (only_low and not pair.is_low) \
                            or (pair.is_attested or kind <= KIND_IPV6) == trust:
                        continue
                    self.begin_pair(pair, at_ns)
                    at_ns += PAIR_GAP_NS

    cdef void open(self, uint64_t now_ns):
        """The moment agreed on: make our NAT expect the peer, without yet getting through to the peer's."""
        cdef bint is_any_low = False
        cdef int i
        self.input(PUNCH_IN_OPEN)
        self.begin_pairs(now_ns, False)
        for i in range(self.count):
            is_any_low = is_any_low or self.pairs[i].is_low
        self.full_ns = now_ns
        if (is_any_low or self.count == 0) and self.is_controlling: # who is asked to open knows that the other side has
            self.full_ns += between(6 * self.rtt_ns, LEAST_LOW_NS, MOST_LOW_NS)

    cdef void check(self, uint64_t now_ns):
        """Probe in earnest: the time for low TTLs is over, or the peer's own probes show that it has opened."""
        self.plan_spray(now_ns)
        self.begin_pairs(now_ns, True)
        self.deadline_ns = now_ns + CHECK_FOR_NS + 2 * self.rtt_ns

    # --- sprays ---

    cdef void plan_spray(self, uint64_t now_ns):
        """See whether the two NATs, as far as they are known, need one, and when it may begin."""
        cdef int plan = plan_of(self.our_nat, self.peer_nat, self.is_experimental)
        self.holds_low = (plan == PLAN_SPRAY_HARD or plan == PLAN_PREDICTED) and self.may_poison()
        self.spray_ns = 0
        if plan != PLAN_DIRECT and plan != PLAN_HOPELESS:
            self.spray_ns = now_ns + between(self.rtt_ns, LEAST_GRACE_NS, MOST_GRACE_NS)

    cdef bint may_poison(self):
        """Tell whether the peer may be behind a plain Linux router, which packets from ports that it has to guess would spoil."""
        return self.low_ttl and self.peer_nat.mapping_class != NAT_NONE and (
            self.peer_nat.allocation_class == PORTS_PRESERVED or self.peer_nat.allocation_class == PORTS_UNKNOWN)

    cdef void ask_for_spray(self, uint64_t now_ns):
        """The plain punch has had its time: do what the two NATs need besides, if the node's budget allows it."""
        cdef int plan = plan_of(self.our_nat, self.peer_nat, self.is_experimental)
        cdef Pair *target = self.attested()
        cdef uint32_t allowed
        self.spray_ns = 0
        if target == NULL:
            self.notes.append("nobody but the peer has seen its address: no ports of it were tried")
            return
        allowed = self.budget.begin(self, PyBytes_FromStringAndSize(<const char *>target.remote.address, 16), now_ns)
        if allowed:
            self.begin_spray(plan, &target.remote, allowed, now_ns)
        elif self.budget.is_busy(now_ns):
            self.spray_ns = now_ns + SPRAY_ASK_NS
        else:
            self.notes.append("as many ports of the peer's address were tried within an hour as may be")

    cdef void begin_spray(self, int plan, const Endpoint *to, uint32_t allowed, uint64_t now_ns):
        cdef uint16_t low = self.peer_nat.block_low, high = self.peer_nat.block_high
        cdef uint32_t sockets = SPRAY_LEAST_SOCKETS
        self.input(PUNCH_IN_SPRAY)
        self.spray_plan = plan
        self.deadline_ns = now_ns + SPRAY_FOR_NS + 2 * self.rtt_ns
        memset(&self.spray, 0, sizeof(Spray))
        self.spray.to = to[0]
        self.spray.allowed = allowed
        self.spray.seed = self.seed
        if plan == PLAN_PREDICT:
            spray_sweep(&self.spray, self.peer_nat.last_port, self.peer_nat.step,
                        self.peer_nat.age_ms + (now_ns - self.peer_known_ns) // 1000000, now_ns)
            return
        if plan == PLAN_SPRAY_EASY:
            spray_ports(&self.spray, low, high, now_ns)
            return
        if plan == PLAN_SPRAY_BOTH:
            spray_sockets_and_ports(&self.spray, low, high)
            sockets = SPRAY_BOTH_SOCKETS
        else:
            spray_sockets(&self.spray, self.may_poison())
            if plan == PLAN_SPRAY_HARD:
                sockets = SPRAY_MAX_SOCKETS
                if self.our_nat.block_low:
                    sockets = sockets_for(<uint32_t>self.our_nat.block_high - self.our_nat.block_low + 1)
        self.events.append(("sockets", sockets))

    cdef void end_spray(self, uint64_t now_ns):
        if self.spray.kind != SPRAY_NOTHING:
            self.budget.end(self, now_ns)
            self.events.append(("spray", _PLAN_NAMES[self.spray_plan], self.spray.sent))
            self.spray.kind = SPRAY_NOTHING
            self.spray.next_ns = 0

    # --- datagrams of the peer ---

    cdef void handle_probe(self, const PunchMessage *message, const Endpoint *remote, uint16_t socket, uint64_t now_ns):
        """Answer, to where it came from, and see whether our own probes get there."""
        cdef Pair *pair = self.find(remote, socket)
        cdef PunchMessage answer = message[0]
        cdef uint8_t data[64]
        cdef uint8_t before = self.state
        self.tally["probes"] += 1
        if len(self.answers) < MAX_PUNCH_ANSWERS:
            answer.is_answer = True
            answer.flags = message.flags & PUNCH_NOMINATED
            answer.observed = remote[0]
            write_punch(data, &answer, self.peer_token, self.peer_key)
            self.answers.append((PyBytes_FromStringAndSize(<const char *>data, PUNCH_BYTES), endpoint_tuple(remote), socket))
        if pair == NULL and self.state < PUNCH_FOUND:
            pair = self.add(remote, socket, KIND_HEARD, self.is_attested_host(remote, True))
        if pair != NULL:
            pair.heard += pair.heard < 0xFFFF
            pair.is_nominated = pair.is_nominated or (message.flags & PUNCH_NOMINATED and not self.is_controlling)
            if pair.heard == 1 and pair.is_attested and socket == 0 and self.state < PUNCH_FOUND:
                self.events.append(("heard", endpoint_tuple(remote)))
        self.input(PUNCH_IN_HEARD)
        if self.state == PUNCH_CHECKING and before != PUNCH_CHECKING:
            if before == PUNCH_WAITING:
                self.begin_pairs(now_ns, False)
            self.check(now_ns)
        if pair != NULL and not pair.is_verified and self.state < PUNCH_FOUND and pair.checks < MAX_PAIR_CHECKS \
                and (pair.last_ns == 0 or now_ns >= pair.last_ns + LEAST_TRIGGER_NS or pair.is_low):
            pair.next_ns = now_ns
            pair.is_low = False
        if self.state == PUNCH_SETTLING:
            self.choose(now_ns)

    cdef bint handle_answer(self, const PunchMessage *message, const Endpoint *remote, uint16_t socket, uint64_t now_ns):
        """Both directions work between this address and this socket, if we have probed from one to the other."""
        cdef uint8_t nonce[16]
        cdef Pair *pair
        if self.nonce_of(remote, socket, nonce) != 0 or not equal_secret(nonce, message.nonce, PUNCH_NONCE_BYTES):
            self.tally["stale"] += 1
            return False
        self.tally["answers"] += 1
        pair = self.find(remote, socket)
        if self.state == PUNCH_FOUND:
            if pair == &self.pairs[self.chosen] and message.flags & PUNCH_NOMINATED:
                self.nominate_ns = 0
            return True
        if pair == NULL:
            pair = self.add(remote, socket, KIND_SPRAYED, True)
        if pair == NULL:
            return True
        pair.is_verified = True
        pair.is_attested = True
        pair.observed = message.observed
        pair.next_ns = 0
        if self.state != PUNCH_SETTLING:
            self.end_spray(now_ns)
            self.settle_ns = now_ns + (
                SETTLE_NS if self.is_controlling else max(<uint64_t>AWAIT_NOMINATION_NS, 3 * self.rtt_ns))
        self.input(PUNCH_IN_VERIFIED)
        self.choose(now_ns)
        return True

    # --- the choice ---

    cdef bint may_improve(self, uint8_t rank) noexcept:
        """Tell whether a pair that is better than this may still turn out to work.

        In the local network, where round trips are short, an answer to the first probe would be here before the second."""
        cdef int i
        cdef Pair *pair
        for i in range(self.count):
            pair = &self.pairs[i]
            if pair.rank < rank and not pair.is_verified and pair.next_ns and (pair.rank != RANK_LAN or pair.checks < 2):
                return True
        return False

    cdef void choose(self, uint64_t now_ns):
        """The controlling side takes the best pair, as soon as it is sure; the other one what it is told, or the best."""
        cdef int best = -1, i
        for i in range(self.count):
            if self.pairs[i].is_verified and (self.is_controlling or self.pairs[i].is_nominated or now_ns >= self.settle_ns):
                if best < 0 or (not self.pairs[i].is_nominated, self.pairs[i].rank) < (
                        not self.pairs[best].is_nominated, self.pairs[best].rank):
                    best = i
        if best < 0 or (self.is_controlling and now_ns < self.settle_ns and self.may_improve(self.pairs[best].rank)):
            return
        self.chosen = best
        self.input(PUNCH_IN_CHOSEN)
        self.nominate_ns = now_ns if self.is_controlling else 0
        self.events.append(
            ("found", endpoint_tuple(&self.pairs[best].remote), self.pairs[best].socket, KINDS[self.pairs[best].kind]))

    cdef void give_up(self, uint64_t now_ns):
        self.end_spray(now_ns)
        self.input(PUNCH_IN_GIVE_UP)
        self.events.append(("failed", self.reasons()))

    # --- sending ---

    cdef int nonce_of(self, const Endpoint *remote, uint16_t socket, uint8_t *out) noexcept:
        """Write the nonce of our probes from a socket to an address: only who gets them there can know it, and we keep none."""
        return blake2b(out, MAC_BYTES, <const uint8_t *>remote, sizeof(Endpoint), <const uint8_t *>&socket, sizeof(uint16_t),
                       self.secret, sizeof(self.secret))

    cdef object probe(self, const Endpoint *remote, uint16_t socket, uint8_t flags, uint8_t ttl):
        """Return a probe as it is to be sent."""
        cdef PunchMessage message
        cdef uint8_t data[64]
        cdef uint8_t nonce[16]
        memset(&message, 0, sizeof(PunchMessage))
        self.nonce_of(remote, socket, nonce)
        memcpy(message.nonce, nonce, PUNCH_NONCE_BYTES)
        message.flags = flags
        write_punch(data, &message, self.peer_token, self.peer_key)
        return PyBytes_FromStringAndSize(<const char *>data, PUNCH_BYTES), endpoint_tuple(remote), socket, ttl

    cdef void send_due(self, list out, uint64_t now_ns):
        cdef Endpoint to
        cdef uint16_t socket
        cdef bint is_low
        cdef Pair *pair
        cdef int i
        if self.state == PUNCH_FOUND and self.nominate_ns and now_ns >= self.nominate_ns:
            self.nominations += 1
            self.nominate_ns = now_ns + PAIR_RETRY_NS if self.nominations < MAX_NOMINATIONS else 0
            pair = &self.pairs[self.chosen]
            out.append(self.probe(&pair.remote, pair.socket, PUNCH_NOMINATED, 0))
        if self.state >= PUNCH_FOUND:
            return
        for i in range(self.count):
            pair = &self.pairs[i]
            if pair.next_ns == 0 or now_ns < pair.next_ns:
                continue
            if not pair.is_attested:
                if self.unattested_bytes + PUNCH_BYTES > self.most_unattested:
                    pair.next_ns = 0
                    continue
                self.unattested_bytes += PUNCH_BYTES
            out.append(self.probe(&pair.remote, pair.socket, 0, self.low_ttl if pair.is_low else 0))
            pair.sent += 1
            pair.checks += 1
            pair.last_ns = now_ns
            pair.next_ns = now_ns + pair.retry_ns if pair.checks < MAX_PAIR_CHECKS else 0
            if not pair.is_attested or pair.checks >= PAIR_STEADY_CHECKS:
                pair.retry_ns = min(2 * pair.retry_ns, <uint64_t>PAIR_MOST_RETRY_NS)
        if self.state != PUNCH_SPRAYING:
            return
        while spray_poll(&self.spray, now_ns, &to, &socket, &is_low):
            out.append(self.probe(&to, socket, 0, self.low_ttl if is_low else 0))
            self.budget.spend(self, 1)
            if self.holds_low and not is_low:
                self.holds_low = False
                self.begin_pairs(now_ns, True)
        if self.spray.next_ns == 0 and self.spray.sent:
            self.deadline_ns = min(self.deadline_ns, now_ns + max(<uint64_t>SPRAY_REST_NS, 2 * self.rtt_ns))
