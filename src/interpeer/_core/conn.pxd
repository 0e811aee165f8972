from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from interpeer._core.cids cimport LocalCid, RemoteCids
from interpeer._core.context cimport Context
from interpeer._core.datagram cimport Messages
from interpeer._core.links cimport Link, is_linked
from interpeer._core.loss cimport SentPacket
from interpeer._core.path cimport Path
from interpeer._core.protection cimport RecvKeys, SendKeys
from interpeer._core.rekey cimport Rekey
from interpeer._core.relay cimport Leg
from interpeer._core.signals cimport Signals
from interpeer._core.slab cimport Endpoint
from interpeer._core.stream cimport Stream
from interpeer._core.table cimport Table
from interpeer._core.timers cimport Timer
from interpeer._core.wire cimport Parameters

cdef struct Conn
cdef enum:                          # states (docs/spec, chapter 5)
    CONN_DIALING = 0                # we called; the handshake machine is at work
    CONN_OPEN = 1
    CONN_CLOSING = 2                # we closed: what still comes is answered by our CLOSE
    CONN_DRAINING = 3               # the peer closed: nothing is sent any more
    CONN_CLOSED = 4                 # kept until the application lets go of it
    CONN_STATES = 5

cdef enum:                          # inputs
    CONN_IN_ANSWERED = 0            # the handshake is done
    CONN_IN_FAILED = 1              # the handshake has failed
    CONN_IN_CLOSE = 2               # the application closes
    CONN_IN_VIOLATION = 3           # the peer broke a rule
    CONN_IN_PEER_CLOSE = 4          # a CLOSE frame came
    CONN_IN_RESET = 5               # a stateless reset came
    CONN_IN_SILENCE = 6             # nothing came for the idle time-out
    CONN_IN_DRAINED = 7             # three probe time-outs have passed since we closed

cdef enum:                          # Conn.closed_by
    CLOSED_NOT = 0
    CLOSED_LOCALLY = 1              # by our application
    CLOSED_BY_PEER = 2              # by the peer's application
    CLOSED_BY_ERROR = 3             # we found the peer breaking a rule
    CLOSED_BY_PEER_ERROR = 4        # the peer says that we broke a rule
    CLOSED_BY_RESET = 5             # the peer has lost the connection: "connection reset by peer"
    CLOSED_BY_SILENCE = 6
    CLOSED_BY_REFUSAL = 7           # the peer did not let us in
    CLOSED_BY_VERSION = 8           # the peer speaks no version that we speak
    CLOSED_UNREACHABLE = 9          # no address answered in time

cdef enum:                          # Conn.pending: control frames to be sent
    CONN_PENDING_PING = 0x01
    CONN_PENDING_MAX_DATA = 0x02
    CONN_PENDING_MAX_STREAMS = 0x04
    CONN_PENDING_CLOSE = 0x08
    CONN_PENDING_IDS = 0x10         # connection ids to be told, or to be given up
    CONN_PENDING_PATHS = 0x20       # something is pending on a path
    CONN_PENDING_REKEY = 0x40       # our message of an agreement on fresh keys
    CONN_PENDING_MAX_CHANNELS = 0x80
    CONN_PENDING_SIGNALS = 0x100

cdef enum:                          # Conn.events and Conn.wanted
    CONN_EVENT_OPEN = 0x01
    CONN_EVENT_CLOSED = 0x02
    CONN_EVENT_STREAM = 0x04        # the peer has opened a stream
    CONN_EVENT_STREAM_ROOM = 0x08   # we may open another stream
    CONN_EVENT_DATAGRAM = 0x10
    CONN_EVENT_DATAGRAM_ROOM = 0x20
    CONN_EVENT_FLUSHED = 0x40       # everything that was finished is acknowledged
    CONN_EVENT_PATH = 0x80          # something happened to a path
    CONN_EVENT_IDS = 0x100          # the peer has given us connection ids for another path
    CONN_EVENT_CHANNEL = 0x200      # the peer has opened a channel
    CONN_EVENT_CHANNEL_ROOM = 0x400  # we may open another channel
    CONN_EVENT_SIGNAL = 0x800       # the peer's node says something, our address perhaps
    CONN_EVENT_ALWAYS = 0x883       # told whether or not anybody waits

cdef enum:                          # Conn.scheduler: which path a packet takes
    SCHEDULE_LOWEST_RTT = 0         # the one with the shortest round trip; another when that fails
    SCHEDULE_AGGREGATE = 1          # all of them, the shortest round trip first
    SCHEDULE_REDUNDANT = 2          # all of them, each packet on every one

cdef enum:
    MAX_PATHS = 4                   # at once
    MAX_PATH_EVENTS = 16            # kept for the application; later ones are counted

cdef enum:                          # PathEvent.kind
    PATH_EVENT_OPENED = 0           # its address is being validated
    PATH_EVENT_PROVEN = 1
    PATH_EVENT_MOVED = 2            # the peer's packets come from another address, which is being validated
    PATH_EVENT_RETURNED = 3         # back to the address before
    PATH_EVENT_SUSPECT = 4
    PATH_EVENT_RECOVERED = 5
    PATH_EVENT_ABANDONED = 6
    PATH_EVENT_PREFERRED = 7        # what is sent goes there from now on

cdef enum:                          # PathEvent.reason
    PATH_REASON_NONE = 0
    PATH_REASON_LOCAL = 1           # our application wants it
    PATH_REASON_PEER = 2            # the peer wants it
    PATH_REASON_SILENT = 3          # probes are not answered
    PATH_REASON_UNPROVEN = 4        # challenges are not answered
    PATH_REASON_FASTER = 5          # its round trip is shorter
    PATH_REASON_ONLY = 6            # no other path works
    PATH_REASON_CROSSED = 7         # the initiator was opening the last one at the same time
    PATH_REASON_RELAY = 8           # the leg that it needs is gone
    PATH_REASON_KIND = 9            # the other one works, but is relayed, in a tunnel or standby

cdef struct PathEvent:
    uint32_t path
    uint8_t kind
    uint8_t reason
    Endpoint remote

cdef struct PathEvents:             # a ring
    PathEvent events[16]
    uint32_t first
    uint32_t count
    uint64_t dropped

cdef struct Channels:               # of a connection; made with the first one
    uint64_t opened                 # as Conn has them for streams
    uint64_t peer_opened
    uint64_t peer_open_limit
    uint64_t peer_done
    uint64_t accepted
    Link fresh                      # channels with messages whose deadlines are not counted from a time yet
    Link dated                      # channels with deadlines
    uint64_t due_ns                 # none of these is earlier; 0: there are none
    uint32_t decoders               # channels that are ready for repairs
    uint64_t count                  # that are not forgotten, of both sides
    uint64_t reserved               # credit for the rest of messages that were begun
    Stream *large                   # has begun a message without credit for all of it; NULL: none has

cdef struct Handle:                 # what an object of the application holds on to; owned by that object
    Conn *conn                      # NULL: gone
    void *object                    # a weak reference to the Python object, or NULL; that object's to give back
    Handle *next_released           # in the engine's stack of handles that were let go of

cdef struct Conn:
    Context *context                # of the engine; not owned
    Link ready                      # in context.ready
    Link eventful                   # in context.eventful
    Timer timer
    Link member                     # in one of the engine's lists: dialling, or live
    Handle *handle                  # the application's; not owned; NULL: it has none (any more)
    bint is_released                # the application has let go of it
    bint in_backlog                 # a peer opened it, and the application has not taken it yet
    uint8_t state
    uint8_t controller              # of congestion, on each of its paths
    uint32_t trace_id               # its number in context.trace; 0: it has none
    bint is_initiator
    bint is_confirmed               # the peer has proved that it has the keys
    uint8_t peer_identity[32]       # Ed25519
    uint8_t peer_key[32]            # X25519
    void *dial                      # a Dial, while CONN_DIALING and after it has failed; the engine's
    uint16_t protocol               # index in the node's list, or of the name that was asked for
    uint8_t suite
    SendKeys send
    RecvKeys recv
    Rekey rekey                     # fresh keys, agreed by time
    uint64_t previous_until_ns      # when the last receiving key is forgotten; 0: there is none
    # paths (docs/spec, chapter 14)
    Path *path                      # the one that is preferred; NULL while dialling
    Path *paths[4]                  # all, in no order; owned
    uint8_t path_count
    uint8_t scheduler               # SCHEDULE_*
    uint8_t max_paths               # at once, as both ends have it
    uint32_t next_path[2]           # ids of the next path that the initiator, and the responder, opens
    uint32_t crossed_path           # the last one of ours that gave way to the initiator's; 0: none
    LocalCid first_cid              # that of the handshake
    LocalCid *local_cids            # all; owned, but for the first
    RemoteCids remote_cids
    bint ids_changed                # the engine is to issue ids, or to watch for other tokens
    Leg *legs                       # of other connections' packets; owned by context.relay
    PathEvents *path_events         # owned; NULL: there have been none
    bint is_waiting                 # there are data that may not go yet: counted in the context
    # streams
    Table streams                   # by id + 1
    Stream *last_stream             # found by the last look-up
    Link urgent                     # streams with control frames to send
    Link sendable[8]                # those with data, by class: 0 is the most urgent
    uint16_t sendable_classes       # a bit for each class that has any
    Link eventful_streams
    uint64_t opened                 # streams we have opened
    uint64_t open_limit             # the peer's MAX_STREAMS
    uint64_t peer_opened            # streams the peer has opened
    uint64_t peer_open_limit        # our MAX_STREAMS
    uint64_t peer_done              # of the peer's streams, over and released
    uint64_t accepted               # of the peer's streams, handed to the application
    uint64_t finishing              # streams finished and not wholly acknowledged
    uint64_t first_stream_limit     # the peer's MAX_STREAM_DATA for every new stream
    Channels *channels              # owned; NULL: there has been none
    Signals *signals                # owned; NULL: likewise
    uint64_t channel_limit          # the peer's MAX_CHANNELS
    uint64_t max_message_peer       # largest message the peer takes
    # flow control of the connection
    uint64_t data_sent
    uint64_t data_limit             # the peer's MAX_DATA
    uint64_t data_received          # sum of the highest offsets
    uint64_t data_consumed          # read, or dropped unread
    uint64_t data_allowed           # our MAX_DATA
    uint64_t data_window
    uint64_t data_window_ns         # when data_allowed was last raised
    uint64_t data_committed         # by how much it was beyond what was read then; counted in the context
    uint64_t data_held              # what the window is larger by: see conn_hold
    uint64_t data_backlog           # likewise: see conn_ease
    uint64_t data_eased             # data_consumed when that was done last
    # datagrams
    Messages messages_out
    Messages messages_in
    uint64_t max_datagram_peer      # largest payload the peer takes; 0: none
    uint64_t peer_receive_buffer    # what the peer's socket holds
    uint64_t peer_max_udp_payload   # the largest packet that the peer takes
    bint streams_first              # whose turn it is to fill the next packet first
    uint32_t stream_turn            # packets that the first stream in line has filled
    uint32_t skip_countdown         # packets until a number is left out
    # times
    uint64_t idle_timeout_ns        # of both ends the smaller; 0: never
    uint64_t peer_ack_delay_ns
    uint64_t last_received_ns
    uint64_t last_sent_ns
    uint64_t waiting_since_ns       # first packet that asks for an answer since something came; 0: none
    uint64_t close_deadline_ns
    uint64_t close_packets          # received while closing: answered at 1, 2, 4, 8, ...
    # what the application is told
    uint16_t pending
    uint16_t events
    uint16_t wanted
    uint8_t closed_by
    uint64_t close_code
    bint close_is_app
    uint8_t *close_reason           # owned
    uint32_t close_reason_bytes

cdef Conn *conn_new(Context *x) noexcept nogil
cdef void conn_set_waiting(Conn *c, bint is_waiting) noexcept nogil
cdef void conn_free(Conn *c) noexcept nogil
cdef int conn_input(Conn *c, int event) noexcept nogil
cdef int conn_start(Conn *c, int suite, const uint8_t *send_secret, const uint8_t *recv_secret,
                    const Parameters *peer, uint64_t now_ns) noexcept nogil
cdef void conn_limit_path(const Conn *c, Path *p) noexcept nogil
cdef void conn_wake(Conn *c) noexcept nogil
cdef void conn_notify(Conn *c, int events) noexcept nogil
cdef void conn_notify_stream(Conn *c, Stream *s) noexcept nogil
cdef void conn_fail(Conn *c, uint64_t code, const char *reason) noexcept nogil
cdef void conn_close_info(Conn *c, int closed_by, uint64_t code, bint is_app, const uint8_t *reason,
                          uint32_t n) noexcept nogil

cdef Stream *conn_find_stream(Conn *c, uint64_t id) noexcept nogil
cdef Stream *conn_open_stream(Conn *c) noexcept nogil
cdef int conn_peer_stream(Conn *c, uint64_t id, Stream **out) noexcept nogil
cdef Stream *conn_accept_stream(Conn *c) noexcept nogil
cdef void conn_stream_changed(Conn *c, Stream *s) noexcept nogil
cdef uint64_t conn_write_stream(Conn *c, Stream *s, const uint8_t *data, uint64_t n) noexcept nogil
cdef bint conn_lend_stream(Conn *c, Stream *s, const uint8_t *data, uint64_t n) noexcept nogil
cdef void conn_stream_was_read(Conn *c, Stream *s, uint64_t n) noexcept nogil
cdef uint64_t conn_read_stream(Conn *c, Stream *s, uint8_t *out, uint64_t n) noexcept nogil
cdef void conn_finish_stream(Conn *c, Stream *s) noexcept nogil
cdef void conn_reset_stream(Conn *c, Stream *s, uint64_t code) noexcept nogil
cdef void conn_stop_stream(Conn *c, Stream *s, uint64_t code) noexcept nogil
cdef void conn_release_stream(Conn *c, Stream *s) noexcept nogil
cdef void conn_consumed(Conn *c, uint64_t n) noexcept nogil
cdef void conn_settle_stream(Conn *c, Stream *s, uint8_t before) noexcept nogil
cdef void conn_reap_stream(Conn *c, Stream *s) noexcept nogil

cdef bint conn_make_channels(Conn *c) noexcept nogil
cdef bint conn_make_signals(Conn *c) noexcept nogil
cdef void conn_report_observed(Conn *c, Path *p) noexcept nogil
cdef Stream *conn_add_channel(Conn *c, uint64_t id) noexcept nogil
cdef void conn_queue_stream(Conn *c, Stream *s) noexcept nogil
cdef void conn_unqueue_stream(Conn *c, Stream *s) noexcept nogil
cdef void conn_hold(Conn *c, Stream *s, uint64_t n) noexcept nogil
cdef void conn_reserve(Conn *c, Stream *s) noexcept nogil
cdef void conn_ease(Conn *c) noexcept nogil
cdef void conn_received(Conn *c, uint64_t n) noexcept nogil
cdef bint conn_has_data(const Stream *s) noexcept nogil

cdef inline bint conn_has_sendable(const Conn *c) noexcept nogil:
    return c.sendable_classes != 0 or is_linked(&c.urgent)

cdef uint64_t conn_data_wanted(const Conn *c, uint64_t window) noexcept nogil
cdef uint64_t conn_data_granted(const Conn *c, uint64_t window) noexcept nogil
cdef void conn_commit(Conn *c, uint64_t n) noexcept nogil
cdef bint conn_data_is_due(const Conn *c) noexcept nogil
cdef uint64_t conn_send_buffer(const Conn *c) noexcept nogil
cdef uint32_t conn_max_datagram(const Conn *c) noexcept nogil
