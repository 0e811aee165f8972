from libc.stdint cimport int16_t, uint8_t, uint16_t, uint32_t

cdef enum:
    NAT_FACTS_VERSION = 1
    NAT_FACTS_BYTES = 16            # as written
    MAX_NAT_FACTS_BYTES = 24        # as read: later versions may say more

cdef enum:                          # behaviours of mapping and of filtering (RFC 4787, 4.1 and 5; RFC 5780, 3)
    NAT_UNKNOWN = 0
    NAT_NONE = 1                    # addresses are not translated; nothing is filtered
    NAT_ENDPOINT_INDEPENDENT = 2
    NAT_ADDRESS_DEPENDENT = 3
    NAT_ADDRESS_AND_PORT_DEPENDENT = 4
    NAT_BEHAVIOURS = 5

cdef enum:                          # how a NAT chooses the port of a new mapping
    PORTS_UNKNOWN = 0
    PORTS_PRESERVED = 1             # that of the host, if it is free
    PORTS_RANDOM = 2
    PORTS_SEQUENTIAL = 3
    PORTS_BLOCK = 4                 # at random in a known range
    PORT_CLASSES = 5

cdef enum:                          # what a NAT is for somebody who punches; rows and columns of the table of plans
    SIDE_OPEN = 0                   # one port for all, which lets in whoever's host has been sent to, at least
    SIDE_STRICT = 1                 # one port for all, which lets in only what was sent to, address and port
    SIDE_LISTENING = 2              # a port for each destination, and all of them let anybody in
    SIDE_SEQUENTIAL = 3             # a port for each destination, the next one each time
    SIDE_BLOCK = 4                  # a port for each destination, from a known range
    SIDE_RANDOM = 5                 # a port for each destination, any
    SIDE_UNKNOWN = 6
    SIDE_BLOCKED = 7                # no UDP at all
    SIDES = 8

cdef enum:                          # plans
    PLAN_DIRECT = 0                 # both send to the addresses that they know
    PLAN_PREDICT = 1                # we try the ports that come next at the peer's NAT
    PLAN_PREDICTED = 2              # the peer tries those of ours
    PLAN_SPRAY_EASY = 3             # we try random ports, from one socket
    PLAN_SPRAY_HARD = 4             # we open many ports, for the peer to hit one
    PLAN_SPRAY_BOTH = 5             # both: an experiment
    PLAN_HOPELESS = 6
    PLANS = 7

cdef class NatFacts:
    cdef readonly bint is_udp_blocked
    cdef readonly int16_t step
    cdef readonly uint16_t last_port
    cdef readonly uint32_t age_ms   # of `last_port`, when this was written
    cdef uint8_t mapping_class, filtering_class, allocation_class
    cdef uint16_t block_low, block_high

cdef int side_of(NatFacts facts)
cdef int plan_of(NatFacts ours, NatFacts theirs, bint is_experimental)
