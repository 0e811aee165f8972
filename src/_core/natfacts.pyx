"""What two nodes tell each other of their NATs, and the plan that follows from both (docs/spec, chapter 24).

Facts come from measuring (RFC 5780) and may be wrong or missing: they decide what is tried besides the plain punch, which is
always tried. Those of the peer are hostile input, so a reader checks every bound; nothing is allocated from what they say.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t

BEHAVIOURS = ("unknown", "none", "endpoint-independent", "address-dependent", "address-and-port-dependent")
ALLOCATIONS = ("unknown", "preserved", "random", "sequential", "block")
SIDE_NAMES = ("open", "strict", "listening", "sequential", "block", "random", "unknown", "blocked")
PLAN_NAMES = ("direct", "predict", "predicted", "spray-easy", "spray-hard", "spray-both", "hopeless")

cdef enum:                          # bits of the second byte
    FILTERING_SHIFT = 3
    BEHAVIOUR_MASK = 0x07
    IS_BLOCKED = 0x40

# [ours][theirs] -> plan (docs/spec, PU-25)
cdef uint8_t[8][8] PLAN_TABLE = [
    [  # OPEN
        PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT,
        PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # STRICT
        PLAN_DIRECT, PLAN_DIRECT, PLAN_SPRAY_EASY, PLAN_PREDICT,
        PLAN_SPRAY_EASY, PLAN_SPRAY_EASY, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # LISTENING
        PLAN_DIRECT, PLAN_SPRAY_HARD, PLAN_DIRECT, PLAN_DIRECT,
        PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # SEQUENTIAL
        PLAN_DIRECT, PLAN_PREDICTED, PLAN_DIRECT, PLAN_HOPELESS,
        PLAN_HOPELESS, PLAN_HOPELESS, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # BLOCK
        PLAN_DIRECT, PLAN_SPRAY_HARD, PLAN_DIRECT, PLAN_HOPELESS,
        PLAN_SPRAY_BOTH, PLAN_HOPELESS, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # RANDOM
        PLAN_DIRECT, PLAN_SPRAY_HARD, PLAN_DIRECT, PLAN_HOPELESS,
        PLAN_HOPELESS, PLAN_HOPELESS, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # UNKNOWN
        PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT,
        PLAN_DIRECT, PLAN_DIRECT, PLAN_DIRECT, PLAN_HOPELESS,
    ],
    [  # BLOCKED
        PLAN_HOPELESS, PLAN_HOPELESS, PLAN_HOPELESS, PLAN_HOPELESS,
        PLAN_HOPELESS, PLAN_HOPELESS, PLAN_HOPELESS, PLAN_HOPELESS,
    ],
]


cdef int number_of(tuple words, str word, str what) except -1:
    if word not in words:
        raise ValueError(f"{what} is one of {', '.join(words)}, not {word!r}")
    return words.index(word)


@cython.final
cdef class NatFacts:
    """Say how the NAT in front of a node behaves, as far as it is known; travels in 16 bytes.

    `mapping` and `filtering` are "none", "endpoint-independent", "address-dependent", "address-and-port-dependent" (RFC 4787) or
    "unknown"; `allocation`, of ports, is "preserved", "random", "sequential" (with `step`, and with the port of the newest
    mapping, `last_port`, as it was `age_ms` ago), "block" (with `block`, the lowest and the highest port) or "unknown".
    Raises ValueError for anything else.

    >>> facts = NatFacts("address-and-port-dependent", "address-and-port-dependent", "block", block=(4096, 4607))
    >>> NatFacts.parse(facts.to_bytes()) == facts
    True
    >>> plan(NatFacts("endpoint-independent", "address-and-port-dependent"), facts)
    ('spray-easy', "the peer's NAT gives each destination another port, one of 512: they are tried")
    """

    def __cinit__(self, str mapping="unknown", str filtering="unknown", str allocation="unknown", *, step=0, last_port=0,
                  age_ms=0, block=None, bint is_udp_blocked=False):
        self.mapping_class = number_of(BEHAVIOURS, mapping, "mapping")
        self.filtering_class = number_of(BEHAVIOURS, filtering, "filtering")
        self.allocation_class = number_of(ALLOCATIONS, allocation, "allocation")
        self.is_udp_blocked = is_udp_blocked
        if self.allocation_class == PORTS_SEQUENTIAL:
            if not (0 < abs(step) <= 32767 and 0 < last_port <= 65535 and 0 <= age_ms <= 0xFFFFFFFF):
                raise ValueError(f"ports one after the other have a step (not 0), a last port and its age in ms: "
                                 f"{step}, {last_port}, {age_ms}")
            self.step, self.last_port, self.age_ms = step, last_port, age_ms
        elif self.allocation_class == PORTS_BLOCK:
            if block is None or not 0 < block[0] <= block[1] <= 65535:
                raise ValueError(f"a block of ports is (lowest, highest), not {block}")
            self.block_low, self.block_high = block

    @staticmethod
    def parse(bytes data not None):
        """Read what a peer wrote; None if it is not that, or of another version."""
        cdef const uint8_t *p = data
        cdef NatFacts facts
        if not NAT_FACTS_BYTES <= len(data) <= MAX_NAT_FACTS_BYTES or p[0] != NAT_FACTS_VERSION:
            return None
        facts = NatFacts()
        facts.mapping_class = p[1] & BEHAVIOUR_MASK
        facts.filtering_class = p[1] >> FILTERING_SHIFT & BEHAVIOUR_MASK
        facts.is_udp_blocked = p[1] & IS_BLOCKED != 0
        facts.allocation_class = p[2]
        if facts.mapping_class >= NAT_BEHAVIOURS or facts.filtering_class >= NAT_BEHAVIOURS \
                or facts.allocation_class >= PORT_CLASSES:
            return None
        if facts.allocation_class == PORTS_SEQUENTIAL:
            facts.step = <int16_t>(p[4] << 8 | p[5])
            facts.last_port = <uint16_t>(p[6] << 8 | p[7])
            facts.age_ms = <uint32_t>p[8] << 24 | <uint32_t>p[9] << 16 | <uint32_t>p[10] << 8 | p[11]
            return facts if facts.step not in (0, -32768) and facts.last_port else None
        if facts.allocation_class == PORTS_BLOCK:
            facts.block_low = <uint16_t>(p[12] << 8 | p[13])
            facts.block_high = <uint16_t>(p[14] << 8 | p[15])
            return facts if 0 < facts.block_low <= facts.block_high else None
        return facts

    def to_bytes(self):
        """Write it for the peer: NAT_FACTS_BYTES bytes."""
        first = bytes((NAT_FACTS_VERSION, self.mapping_class | self.filtering_class << FILTERING_SHIFT
                       | (IS_BLOCKED if self.is_udp_blocked else 0), self.allocation_class, 0))
        return (first + int.to_bytes(self.step, 2, signed=True) + int.to_bytes(self.last_port, 2)
                + int.to_bytes(self.age_ms, 4) + int.to_bytes(self.block_low, 2) + int.to_bytes(self.block_high, 2))

    @property
    def mapping(self):
        """How mappings are made, in words of RFC 4787."""
        return BEHAVIOURS[self.mapping_class]

    @property
    def filtering(self):
        """Who is let in, in words of RFC 4787."""
        return BEHAVIOURS[self.filtering_class]

    @property
    def allocation(self):
        """How the port of a new mapping is chosen."""
        return ALLOCATIONS[self.allocation_class]

    @property
    def block(self):
        """The lowest and the highest port, where they are known."""
        return (self.block_low, self.block_high) if self.block_low else None

    @property
    def side(self):
        """What the NAT is for somebody who punches, in one word: a row of the table of plans."""
        return SIDE_NAMES[side_of(self)]

    def __eq__(self, other):
        return isinstance(other, NatFacts) and self.to_bytes() == other.to_bytes()

    def __hash__(self):
        return hash(self.to_bytes())

    def __repr__(self):
        more = ""
        if self.allocation_class == PORTS_SEQUENTIAL:
            more = f", step={self.step}, last_port={self.last_port}, age_ms={self.age_ms}"
        elif self.block_low:
            more = f", block={self.block}"
        if self.is_udp_blocked:
            more += ", is_udp_blocked=True"
        return f"NatFacts({self.mapping!r}, {self.filtering!r}, {self.allocation!r}{more})"


cdef int side_of(NatFacts facts):
    """Tell what a NAT is for somebody who punches. What is not known of a filter counts as the strictest."""
    if facts.is_udp_blocked:
        return SIDE_BLOCKED
    if facts.mapping_class == NAT_UNKNOWN:
        return SIDE_UNKNOWN
    if facts.mapping_class in (NAT_NONE, NAT_ENDPOINT_INDEPENDENT):
        if facts.filtering_class in (NAT_NONE, NAT_ENDPOINT_INDEPENDENT, NAT_ADDRESS_DEPENDENT):
            return SIDE_OPEN
        return SIDE_STRICT
    if facts.filtering_class in (NAT_NONE, NAT_ENDPOINT_INDEPENDENT):
        return SIDE_LISTENING
    if facts.allocation_class == PORTS_SEQUENTIAL:
        return SIDE_SEQUENTIAL
    return SIDE_BLOCK if facts.allocation_class == PORTS_BLOCK else SIDE_RANDOM


cdef int plan_of(NatFacts ours, NatFacts theirs, bint is_experimental):
    cdef int found = PLAN_TABLE[side_of(ours)][side_of(theirs)]
    return PLAN_HOPELESS if found == PLAN_SPRAY_BOTH and not is_experimental else found


def plan(NatFacts ours not None, NatFacts theirs not None, *, bint is_experimental=False):
    """Return what shall be tried between two NATs, beside the plain punch, and why: (plan, reason).

    Both ends come to plans that fit: one is "spray-easy" where the other is "spray-hard", and "predict" where that is
    "predicted". `is_experimental` allows for "spray-both", where it is "hopeless" otherwise."""
    cdef int found = plan_of(ours, theirs, is_experimental)
    return PLAN_NAMES[found], reason_of(found, ours, theirs)


cdef str reason_of(int found, NatFacts ours, NatFacts theirs):
    if found == PLAN_DIRECT:
        return "each end can send to an address of the other that is known"
    if found == PLAN_PREDICT:
        return f"the peer's NAT gives each destination the next port, in steps of {theirs.step}: those to come are tried"
    if found == PLAN_PREDICTED:
        return f"our NAT gives each destination the next port, in steps of {ours.step}: the peer tries those to come"
    if found == PLAN_SPRAY_EASY:
        return f"the peer's NAT gives each destination another port, {choice_of(theirs)}: they are tried"
    if found == PLAN_SPRAY_HARD:
        return f"our NAT gives each destination another port, {choice_of(ours)}: many are opened for the peer to hit one"
    if found == PLAN_SPRAY_BOTH:
        return "both NATs give each destination another port of a known block: both ends try them"
    if ours.is_udp_blocked or theirs.is_udp_blocked:
        owner = "our" if ours.is_udp_blocked else "the peer's"
        return f"no UDP gets out of {owner} network"
    return "both NATs give each destination another port: neither end can guess both"


cdef str choice_of(NatFacts facts):
    return f"one of {facts.block_high - facts.block_low + 1}" if facts.block_low else "at random"
