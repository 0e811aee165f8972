from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.slab cimport Datagrams

cdef enum:
    MAX_SHARDS = 32                 # of a node: what a node may do in a second is shared out, and has to be one or more each
    MAILBOX_BYTES = 4194304         # passed on and not yet taken: about what a socket's buffer holds
    MEETING_SETS = 512              # peers with a handshake under way that other shards have to know of: sets of
    MEETING_WAYS = 8                # ... so many, of which the one that ends first gives way; 256 KiB in all
    STEERING_STEPS = 24             # of the filter program that the kernel steers by

cdef enum:                          # Meeting.kind
    MEETING_NONE = 0
    MEETING_CALL = 1                # we call the peer
    MEETING_ANSWER = 2              # the peer has called us

cdef enum:                          # results of posting
    POST_FULL = -1                  # the mailbox is full, or there is no memory for it
    POST_ADDED = 0                  # behind other mail
    POST_FIRST = 1                  # the other shard is to be woken

cdef struct Mail:                   # one message passed on; its data lie behind it
    Datagrams datagrams
    uint32_t seen                   # shards that have looked whether it is theirs, a bit each; 0: it is the receiver's

cdef struct Mailbox:
    void *mutex
    uint8_t *filling                # MAILBOX_BYTES, made with the first mail; owned
    uint8_t *emptying               # the other one, which its shard reads without the lock; owned
    long used                       # bytes of `filling`; read without the lock

cdef struct Meeting:                # a handshake under way, so that our call and the peer's meet in one shard (glare)
    uint8_t peer_key[32]
    uint64_t until_ns
    uint16_t protocol
    uint8_t shard
    uint8_t kind

cdef struct Shards:                 # what the engines of one node share
    long users                      # engines that hold it; the last one frees it
    uint32_t count
    long backlog                    # incoming connections that the application has not taken, of all
    long connections[32]            # of each
    Mailbox boxes[32]
    void *mutex                     # of what follows
    Meeting *meetings               # owned
    uint64_t secret                 # hashes peers' keys, which they choose

cdef struct Step:                   # an instruction of the classic packet filter (struct sock_filter)
    uint16_t code
    uint8_t if_true                 # steps skipped
    uint8_t if_false
    uint32_t value

cdef Shards *shards_new(uint32_t count, uint64_t secret) noexcept
cdef void shards_leave(Shards *s) noexcept
cdef uint32_t shard_of(const uint8_t *p, uint32_t n, uint32_t count) noexcept nogil
cdef uint32_t steering_program(Step *steps, uint32_t count) noexcept nogil
cdef long shards_connections(Shards *s) noexcept nogil
cdef int shards_post(Shards *s, uint32_t to, const Datagrams *from_, uint8_t *data, uint32_t bytes, uint32_t segment,
                     uint32_t seen) noexcept nogil
cdef bint shards_have_mail(Shards *s, uint32_t shard) noexcept nogil
cdef uint32_t shards_collect(Shards *s, uint32_t shard, uint8_t **mail) noexcept nogil
cdef uint32_t mail_bytes(uint32_t bytes) noexcept nogil
cdef uint32_t shards_note_call(Shards *s, const uint8_t *peer_key, uint16_t protocol, uint64_t now_ns,
                               uint64_t until_ns) noexcept nogil
cdef int shards_note_answer(Shards *s, uint32_t shard, const uint8_t *peer_key, uint16_t protocol, uint32_t seen,
                            uint64_t now_ns, uint64_t until_ns) noexcept nogil
