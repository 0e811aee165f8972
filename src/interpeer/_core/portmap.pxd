from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    PCP_VERSION = 2
    PCP_HEADER_BYTES = 24
    PCP_MAP_BYTES = 60              # header, and what MAP adds to it
    MAX_PCP_BYTES = 1100            # RFC 6887, section 7: nothing longer is PCP
    MAX_PCP_FILTERS = 8             # in one answer; we never ask for one
    NATPMP_VERSION = 0
    NATPMP_ADDRESS_BYTES = 12
    NATPMP_MAP_BYTES = 16
    NATPMP_ERROR_BYTES = 8          # an answer to a version or opcode that the gateway does not know ends here

cdef enum:                          # PCP opcodes, and NAT-PMP's of the same use
    PCP_ANNOUNCE = 0
    PCP_MAP = 1
    NATPMP_ADDRESS = 0
    NATPMP_MAP_UDP = 1

cdef enum:                          # PCP options (RFC 6887, section 7.3)
    PCP_THIRD_PARTY = 1
    PCP_PREFER_FAILURE = 2
    PCP_FILTER = 3

cdef enum:                          # what a reader returns
    PORTMAP_OK = 0
    PORTMAP_SHORT = -1              # it ends too early, is too long, or is no multiple of four
    PORTMAP_OTHER = -2              # a request, another version, or an opcode that we never send
    PORTMAP_OPTION = -3             # an option that does not fit

cdef struct PcpFilter:
    uint8_t prefix_bits             # of `address` that have to match; 0: this one removes all before it
    uint16_t port                   # 0: any
    uint8_t address[16]             # of those who may come in

cdef struct PcpAnswer:
    uint8_t opcode
    uint8_t result                  # 0: done
    uint32_t lifetime_s             # of the mapping; of the error, if it is one
    uint32_t epoch_s                # since the gateway has lost its mappings, or never had any
    uint8_t nonce[12]               # from here on: MAP alone
    uint8_t protocol
    uint16_t internal_port
    uint16_t external_port
    uint8_t external_address[16]    # IPv4 mapped
    bint has_third_party
    uint8_t third_party[16]
    bint has_prefer_failure
    uint8_t filter_count
    PcpFilter filters[8]

cdef struct NatpmpAnswer:
    uint8_t opcode
    uint16_t result                 # 0: done
    uint32_t epoch_s
    uint8_t external_address[4]     # of NATPMP_ADDRESS
    uint16_t internal_port          # of NATPMP_MAP_UDP, as what follows
    uint16_t external_port
    uint32_t lifetime_s

cdef int read_pcp(const uint8_t *p, Py_ssize_t n, PcpAnswer *out) noexcept nogil
cdef void write_pcp_header(uint8_t *out, uint8_t opcode, uint32_t lifetime_s, const uint8_t *client) noexcept nogil
cdef int read_natpmp(const uint8_t *p, Py_ssize_t n, NatpmpAnswer *out) noexcept nogil
