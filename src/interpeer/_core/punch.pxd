from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.natfacts cimport NatFacts
from interpeer._core.punch_message cimport PunchMessage
from interpeer._core.slab cimport Endpoint
from interpeer._core.spray cimport Spray
from interpeer._core.spray_budget cimport SprayBudget

cdef enum:
    MAX_REMOTES = 16                # candidates of the peer
    MAX_REMOTES_PER_HOST = 4        # ... with one address: whoever they name gets a few probes, not 16 times as many
    MAX_PUNCH_PAIRS = 24            # candidates, and pairs that were found otherwise
    MAX_PUNCH_ANSWERS = 32          # that wait to be sent; more are dropped, and the probe comes again
    MAX_UNATTESTED_BYTES = 1200     # of all probes to addresses that only the peer vouches for: no more than it sent us to begin
    PAIR_GAP_NS = 5000000           # between the first probes of two candidates
    PAIR_RETRY_NS = 50000000        # between two probes to one candidate
    PAIR_STEADY_CHECKS = 10         # then ever less often
    PAIR_MOST_RETRY_NS = 400000000
    MAX_PAIR_CHECKS = 24            # probes to one candidate
    LEAST_TRIGGER_NS = 20000000     # between two probes that the peer's own call for
    LEAST_LOW_NS = 2000000000       # with a low TTL, if the peer does not say that it has opened: six round trips, but no less,
    MOST_LOW_NS = 5000000000        # for it may be busy, or what it says be lost, and no more than this
    LEAST_GRACE_NS = 50000000       # for the plain punch, before a spray: a round trip, but no less and no more than this
    MOST_GRACE_NS = 500000000
    CHECK_FOR_NS = 3000000000       # of plain punching, and two round trips
    SPRAY_FOR_NS = 4000000000       # of a spray, and two round trips
    SPRAY_REST_NS = 500000000       # for what is on its way when everything is sent: at least
    SPRAY_ASK_NS = 200000000        # when the budget is used by another spray
    AWAIT_PEER_NS = 10000000000     # for the peer's candidates
    SETTLE_NS = 50000000            # for a better pair than the first one
    AWAIT_NOMINATION_NS = 500000000     # or three round trips; then the controlled side chooses by itself
    MAX_NOMINATIONS = 20            # probes that say which pair it is
    DEFAULT_LOW_TTL = 2             # gets through our own NAT, and not to the peer's
    LOWEST_TTL = 1                  # gets through a firewall of our own; with a hop more it might reach the peer's NAT from here

cdef enum:                          # states (docs/spec, PU-13)
    PUNCH_IDLE = 0
    PUNCH_READY = 1                 # the peer is known
    PUNCH_WAITING = 2               # for the moment of opening, or for the peer's candidates
    PUNCH_OPENING = 3               # with a low TTL
    PUNCH_CHECKING = 4
    PUNCH_SPRAYING = 5
    PUNCH_SETTLING = 6              # a pair works; a better one may follow
    PUNCH_FOUND = 7
    PUNCH_FAILED = 8
    PUNCH_STATES = 9

cdef enum:                          # inputs
    PUNCH_IN_PEER = 0               # its token, key and NAT have come
    PUNCH_IN_START = 1
    PUNCH_IN_OPEN = 2               # the moment agreed on, and the peer is known
    PUNCH_IN_HEARD = 3              # a probe of the peer
    PUNCH_IN_FULL = 4               # the time of low TTLs is over
    PUNCH_IN_SPRAY = 5              # time for a spray, and it is granted
    PUNCH_IN_VERIFIED = 6           # an answer to a probe of ours
    PUNCH_IN_CHOSEN = 7             # which pair is used
    PUNCH_IN_GIVE_UP = 8
    PUNCH_INPUTS = 9

cdef enum:                          # what kind of address it is, in the order in which they are tried
    KIND_HOST = 0
    KIND_IPV6 = 1
    KIND_REFLEXIVE = 2
    KIND_MAPPED = 3
    KIND_PREDICTED = 4
    KIND_HEARD = 5                  # a probe came from there (peer-reflexive)
    KIND_SPRAYED = 6                # hit by a spray

cdef enum:                          # how good a pair is, the best first
    RANK_LAN = 0
    RANK_IPV6 = 1
    RANK_IPV4 = 2

cdef struct Pair:                   # an address of the peer and a socket of ours
    Endpoint remote
    uint16_t socket                 # 0: the node's own; others: extra ones
    uint8_t kind
    uint8_t rank
    bint is_attested                # by a relay or an observer, or answered: not only by the peer
    bint is_verified                # it has answered: both directions work
    bint is_nominated               # by the peer
    bint is_low                     # probes have a low TTL while OPENING
    uint16_t heard                  # probes that came from there
    uint16_t checks                 # probes sent there since it was begun
    uint16_t sent                   # probes sent there in all
    uint64_t last_ns                # when the last one was sent
    uint64_t next_ns                # when the next one is due; 0: none is
    uint64_t retry_ns               # pause after that
    Endpoint observed               # where the peer saw our probe come from, once it is verified

cdef class Punch:
    cdef uint8_t state
    cdef bint is_controlling
    cdef bint is_same_machine
    cdef bint is_experimental
    cdef bint is_peer_known
    cdef uint8_t low_ttl
    cdef uint8_t our_token[8]
    cdef uint8_t our_key[32]        # probes to us are sealed with it
    cdef uint8_t peer_token[8]
    cdef uint8_t peer_key[32]
    cdef uint8_t secret[32]         # nonces of our probes come from it; nobody else knows it
    cdef uint64_t seed              # of the order of ports
    cdef readonly NatFacts our_nat
    cdef readonly NatFacts peer_nat
    cdef uint64_t peer_known_ns
    cdef SprayBudget budget
    cdef Pair pairs[24]
    cdef int count                  # of pairs
    cdef int remotes                # of these, candidates of the peer
    cdef int chosen                 # the pair that is used; -1: none yet
    cdef list answers               # (data, remote, socket) to be sent
    cdef list events
    cdef list notes                 # sentences for `reasons`
    cdef uint64_t rtt_ns
    cdef uint64_t open_ns           # WAITING: when to open
    cdef uint64_t full_ns           # OPENING: when the time of low TTLs is over
    cdef bint holds_low             # probes keep the low TTL until the second round of a spray
    cdef uint64_t spray_ns          # CHECKING: when to ask for a spray; 0: not at all
    cdef uint64_t deadline_ns       # CHECKING, SPRAYING: when to give up
    cdef uint64_t settle_ns         # SETTLING: when to choose
    cdef uint64_t nominate_ns       # FOUND: when to say so again; 0: not at all
    cdef uint8_t nominations
    cdef uint32_t unattested_bytes  # of probes to addresses that the peer alone vouches for
    cdef uint32_t most_unattested   # ... that may be sent
    cdef Spray spray
    cdef int spray_plan             # that it follows: the peer may tell of another NAT meanwhile
    cdef dict tally

    cdef int input(self, int event) noexcept
    cdef Pair *find(self, const Endpoint *remote, uint16_t socket) noexcept
    cdef Pair *add(self, const Endpoint *remote, uint16_t socket, uint8_t kind, bint is_attested) noexcept
    cdef bint is_attested_host(self, const Endpoint *remote, bint with_port) noexcept
    cdef Pair *attested(self) noexcept
    cdef void begin_pair(self, Pair *pair, uint64_t at_ns) noexcept
    cdef void begin_pairs(self, uint64_t now_ns, bint only_low) noexcept
    cdef void open(self, uint64_t now_ns)
    cdef void check(self, uint64_t now_ns)
    cdef void plan_spray(self, uint64_t now_ns)
    cdef bint may_poison(self)
    cdef void ask_for_spray(self, uint64_t now_ns)
    cdef void begin_spray(self, int plan, const Endpoint *to, uint32_t allowed, uint64_t now_ns)
    cdef void end_spray(self, uint64_t now_ns)
    cdef void handle_probe(self, const PunchMessage *message, const Endpoint *remote, uint16_t socket, uint64_t now_ns)
    cdef bint handle_answer(self, const PunchMessage *message, const Endpoint *remote, uint16_t socket, uint64_t now_ns)
    cdef bint may_improve(self, uint8_t rank) noexcept
    cdef void choose(self, uint64_t now_ns)
    cdef void give_up(self, uint64_t now_ns)
    cdef int nonce_of(self, const Endpoint *remote, uint16_t socket, uint8_t *out) noexcept
    cdef object probe(self, const Endpoint *remote, uint16_t socket, uint8_t flags, uint8_t ttl)
    cdef void send_due(self, list out, uint64_t now_ns)

cdef int punch_next(uint8_t state, int event) noexcept nogil
