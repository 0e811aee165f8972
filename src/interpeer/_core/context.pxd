from libc.stdint cimport uint8_t, uint32_t, uint64_t

from interpeer._core.buffer cimport BlockPools
from interpeer._core.links cimport Link
from interpeer._core.relay cimport Relay
from interpeer._core.slab cimport Pool
from interpeer._core.trace cimport Trace

cdef enum:
    ENTROPY_BYTES = 4096            # enough for the busiest turn: a handshake takes 100 bytes

cdef struct Entropy:                # random bytes from outside; each is used once
    uint8_t bytes[4096]
    uint32_t left                   # the last `left` bytes have not been used

cdef struct Limits:                 # settings of a node; times in ns. Defaults and reasons are in interpeer.Config
    uint64_t idle_timeout_ns
    uint64_t keep_alive_ns          # 0: none
    uint64_t connect_timeout_ns
    uint64_t max_ack_delay_ns
    uint64_t stream_window          # first window of a stream
    uint64_t max_stream_window
    uint64_t connection_window
    uint64_t max_connection_window
    uint64_t send_buffer_bytes      # of a stream, written and not acknowledged, on a path with a small window
    uint64_t max_send_buffer_bytes  # ... and on any
    uint64_t max_memory             # that windows and buffers of all connections may grow to, beyond their first sizes
    uint64_t max_streams            # that the peer may have open at once
    uint64_t max_channels           # the same
    uint64_t max_message            # largest message accepted on a channel
    uint64_t datagram_queue_bytes   # each way
    uint64_t max_datagram           # largest payload accepted
    uint64_t receive_buffer         # bytes that the smallest of our sockets holds
    uint64_t key_update_packets     # sealed under one key before the next is used
    uint64_t key_limit_packets      # sealed under one key at the most, if the peer never acknowledges
    uint64_t rekey_ns               # of use, after which fresh keys are agreed; 0: only when the peer asks
    uint64_t forgery_limit          # forged packets before the connection is given up
    uint64_t max_connections
    uint64_t max_half_open
    uint32_t packet_bytes           # of the largest packet sent on a path of which nothing is known
    uint32_t max_packet_bytes       # ... and on any
    uint32_t skip_every             # one packet number in about so many is left out; 0: none
    uint32_t max_paths              # of a connection, at once
    int controller                  # of congestion, for connections that name none
    int scheduler                   # of a new connection: SCHEDULE_*
    bint answers_stun               # Binding requests of anybody
    bint bundle                     # several messages may share a packet
    bint observe                    # peers are told what their addresses look like from here

cdef struct Counters:               # since the node was made
    uint64_t packets_received
    uint64_t packets_sent
    uint64_t bytes_received
    uint64_t bytes_sent
    uint64_t connections_opened
    uint64_t connections_accepted
    uint64_t dropped_short          # too short, or not of any kind we know
    uint64_t dropped_unknown        # for a connection id we do not have
    uint64_t dropped_replayed
    uint64_t dropped_forged
    uint64_t dropped_reserved       # reserved bits set, or an impossible epoch
    uint64_t dropped_mac            # a first message whose mac1 is wrong
    uint64_t dropped_handshake      # a handshake message that cannot be opened or understood
    uint64_t dropped_identity       # a handshake whose identity does not match its key
    uint64_t dropped_limited        # over a rate or a table's size
    uint64_t dropped_stun           # STUN that nobody waits for, that is malformed, or that pays for no answer
    uint64_t stun_answered
    uint64_t dropped_probes         # probes that nobody waits for, or that are none
    uint64_t dropped_raw            # answers that somebody waits for, and did not take in time
    uint64_t dropped_virtual        # from addresses that only we may use, for what is no address
    uint64_t cookies_sent
    uint64_t versions_sent
    uint64_t refusals_sent
    uint64_t resets_sent
    uint64_t resets_received
    uint64_t key_updates
    uint64_t datagrams_dropped      # received, and given up for newer ones before they were read
    uint64_t packets_lost
    uint64_t paths_opened           # beside those of the handshakes
    uint64_t paths_moved            # times that a peer's packets came from another address
    uint64_t shard_forwarded        # packets passed on to the shard that they are for
    uint64_t shard_dropped          # ... and not, for its mailbox was full
    uint64_t mtu_probes_sent
    uint64_t mtu_black_holes        # times that packets above the base size vanished, or were refused
    uint64_t datagrams_too_large    # queued, and given up because the path carries them no more
    uint64_t signals_dropped        # received, and there was no room until they were read
    uint64_t packets_forwarded      # relayed for others
    uint64_t bytes_forwarded
    uint64_t dropped_leg            # with a leg's id, but not from where its connection has a path; or inside another leg
    uint64_t dropped_legless        # for a leg that is gone, or whose connection has no proven path
    uint64_t no_memory              # times an allocation failed

cdef struct Context:                # what every connection of an engine shares
    Limits limits
    Counters counters
    Entropy entropy
    const uint8_t *static_secret    # X25519, of the node; not owned. NULL: it has none, and agrees on nothing
    const uint8_t *static_public
    BlockPools blocks
    uint64_t committed              # what all peers together have been allowed to send and was not read
    Pool streams
    Pool records
    uint8_t *spare_packet           # where a packet is kept that goes on several paths; owned; NULL: none has yet
    Pool channels
    Link ready                      # connections that may have something to send
    uint32_t waiting                # connections with data that may not go yet
    Link eventful                   # connections with events for the application
    bint is_pressed                 # a queue of received datagrams is half full: let the application read first
    Relay *relay                    # legs; owned; NULL: there has been none
    Trace *trace                    # what is seen, for a log; owned; NULL: nobody looks

cdef void context_init(Context *x) noexcept nogil
cdef void context_free(Context *x) noexcept nogil
cdef int entropy_take(Entropy *e, uint8_t *out, uint32_t n) noexcept nogil
cdef uint32_t entropy_add(Entropy *e, const uint8_t *bytes, uint32_t n) noexcept nogil
