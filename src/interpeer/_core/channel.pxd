from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.buffer cimport Draft
from interpeer._core.links cimport Link
from interpeer._core.rangeset cimport RangeSet
from interpeer._core.repairs cimport Repairs
from interpeer._core.stream cimport Stream
from interpeer._core.wire cimport Capabilities

cdef enum:
    MAX_DROPPED_RANGES = 1000       # ranges of numbers that are kept, so that each counts once

cdef enum:                          # OutMessage.state
    MESSAGE_LIVE = 0                # to be sent, or sent and not wholly acknowledged
    MESSAGE_DROPPED = 1             # given up; the peer is to be told
    MESSAGE_TOLD = 2                # DROPPED frames are on their way, as far as it is passed over
    MESSAGE_SETTLED = 3             # the peer knows

cdef struct OutMessage:             # a message that is not settled
    uint64_t start                  # of its header, in the send buffer
    uint64_t shift                  # the same on the wire is less by so much; set when its first byte is sent
    uint64_t deadline_ns            # 0: none; counted from the next turn while it is one of the `fresh` ones
    uint32_t told                   # of one that was given up: bytes that DROPPED frames have told of
    uint8_t state
    uint8_t flags                   # CAN_RESEND, CAN_ORDER
    bint was_begun                  # something of it was sent, so it has its room on the wire

cdef struct ChannelCounters:
    uint64_t messages_sent          # taken from the application
    uint64_t bytes_sent
    uint64_t dropped                # of these, given up
    uint64_t late                   # of these, for their deadlines
    uint64_t messages_received      # handed to the application
    uint64_t bytes_received
    uint64_t peer_dropped           # given up by the peer
    uint64_t repaired               # made good by forward error correction

cdef struct Channel:                # what a stream has besides when it carries messages
    Capabilities capabilities       # of what we send
    Capabilities theirs
    uint64_t sequence               # of our CHANNEL frame
    uint64_t their_sequence
    bint is_told                    # we know what the channel is: we have opened it, or the peer's CHANNEL frame has come
    bint has_theirs                 # a CHANNEL frame of the peer has come
    bint is_announced               # the peer knows it, too: it has opened it, or acknowledged our CHANNEL frame
    bint is_ours                    # the application here has set what it sends with
    # sending
    OutMessage *messages            # ring, oldest at `first`; owned
    uint32_t first
    uint32_t count
    uint32_t capacity               # a power of two, or 0
    uint32_t fresh                  # newest ones whose deadlines are not counted from a time yet
    uint32_t untold                 # in MESSAGE_DROPPED
    uint32_t untold_from            # index below which none of those is
    uint64_t first_number           # of the oldest
    uint64_t skipped                # bytes below `sent` of messages that were given up before they were begun
    uint64_t reserved               # of the message that is being sent, what is to follow
    uint64_t due_ns                 # no deadline is earlier; 0: none
    uint64_t latest_ns              # of the deadlines of messages that are not settled
    bint is_mixed                   # and they are not in the order of the messages
    RangeSet known                  # what the peer knows of messages that were given up, as long as it is not all; in the send buffer
    Link dated                      # in the connection's list of channels with deadlines
    Link fresh_link                 # in its list of channels with fresh messages
    Repairs *repairs                # owned; NULL: neither side protects its messages
    # receiving
    uint32_t *queue                 # ring: where unordered, complete messages start (32 bits of the offset); owned
    uint32_t queue_first
    uint32_t queue_count
    uint32_t queue_capacity
    uint64_t last_number            # of the message that was delivered last
    uint64_t expected               # end of the message furthest on whose size is known
    RangeSet gone                   # numbers of messages that the peer has given up
    ChannelCounters counters

cdef inline Channel *channel_of(const Stream *s) noexcept nogil:
    return <Channel *>s.channel

cdef inline uint64_t channel_key(uint64_t id) noexcept nogil:
    """Return the number under which a channel is kept: streams have ids of their own."""
    return id | <uint64_t>1 << 61

cdef inline uint64_t channel_wire_id(const Stream *s) noexcept nogil:
    return s.id & ~(<uint64_t>1 << 61)

cdef inline uint64_t channel_wire_sent(const Stream *s) noexcept nogil:
    """Return one past the greatest offset that was sent, as the peer counts."""
    return s.sent - channel_of(s).skipped

cdef void channel_init(Stream *s, Channel *ch) noexcept nogil
cdef void channel_clear(Stream *s) noexcept nogil
cdef bint channel_has_data(const Stream *s) noexcept nogil
cdef int channel_append(Stream *s, const uint8_t *data, uint64_t n, Draft *draft) noexcept nogil
cdef bint channel_count_deadlines(Stream *s, uint64_t now_ns) noexcept nogil
cdef uint32_t channel_expire(Stream *s, uint64_t now_ns) noexcept nogil
cdef void channel_reset(Stream *s, uint64_t code) noexcept nogil

cdef struct Piece:                  # of messages, to be sent in one frame
    uint64_t offset                 # in the send buffer
    uint64_t wire                   # the same on the wire
    uint64_t within                 # from the start of its first message
    uint64_t bytes
    bint is_new

cdef bint channel_piece(Stream *s, uint64_t room, uint64_t most, uint64_t credit, bint may_begin, Piece *out) noexcept nogil
cdef bint channel_mark_sent(Stream *s, const Piece *p) noexcept nogil
cdef uint64_t channel_unsent(const Stream *s) noexcept nogil
cdef void channel_handle_acked(Stream *s, uint64_t offset, uint64_t n, bint fin) noexcept nogil
cdef uint32_t channel_handle_lost(Stream *s, uint64_t offset, uint64_t n, bint fin, bint is_lost) noexcept nogil

cdef struct Dropped:                # what a DROPPED frame tells: several messages not begun, or a piece of one that was
    uint64_t wire
    uint64_t within
    uint64_t bytes
    uint64_t number
    uint64_t count                  # 0: the message does not end here

cdef bint channel_next_dropped(Stream *s, Dropped *out) noexcept nogil
cdef bint channel_must_pass(const Stream *s) noexcept nogil
cdef uint64_t channel_pass(Stream *s, uint64_t credit) noexcept nogil
cdef void channel_dropped_acked(Stream *s, uint64_t number, uint32_t count_or_within, uint32_t bytes) noexcept nogil
cdef void channel_dropped_lost(Stream *s, uint64_t number, uint32_t count_or_within, bint was_begun) noexcept nogil
