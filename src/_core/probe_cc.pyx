"""Python doors into congestion control: a controller alone, told what it would be told by a path."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.bbr cimport bbr_input
from interpeer._core.cc cimport cc_handle_ack, cc_handle_loss, cc_handle_mark, cc_handle_sent, cc_init
from interpeer._core.controller cimport CONTROLLER_CUBIC, AckSample, Congestion, LossSample
from interpeer._core.pacing cimport pacing_rate, pacing_release_ns, pacing_spend


cdef class Controller:
    """A controller of the given kind (its number). Samples have the fields of AckSample and LossSample."""

    cdef Congestion cc

    def __cinit__(self, uint32_t packet_bytes, int kind=CONTROLLER_CUBIC):
        cc_init(&self.cc, kind, packet_bytes)

    def ack(self, uint64_t in_flight_before, **fields):
        cdef AckSample s
        memset(&s, 0, sizeof(s))
        s.now_ns, s.acked_bytes, s.lost_bytes = fields["now_ns"], fields["acked_bytes"], fields.get("lost_bytes", 0)
        s.marked_packets, s.newest_sent_ns = fields.get("marked_packets", 0), fields["newest_sent_ns"]
        s.rtt_ns, s.min_rtt_ns, s.smoothed_rtt_ns = fields["rtt_ns"], fields["min_rtt_ns"], fields["smoothed_rtt_ns"]
        s.in_flight, s.rate = fields.get("in_flight", 0), fields.get("rate", 0)
        s.is_rate_app_limited, s.delivered = fields.get("is_rate_app_limited", False), fields.get("delivered", 0)
        s.prior_delivered, s.prior_in_flight = fields.get("prior_delivered", 0), fields.get("prior_in_flight", 0)
        s.lost_since = fields.get("lost_since", 0)
        cc_handle_ack(&self.cc, &s, in_flight_before)
        return bool(s.app_limited)

    def loss(self, **fields):
        cdef LossSample s
        memset(&s, 0, sizeof(s))
        s.now_ns, s.newest_sent_ns = fields["now_ns"], fields["newest_sent_ns"]
        s.lost_bytes, s.rtt_ns = fields.get("lost_bytes", self.cc.packet_bytes), fields.get("rtt_ns", 0)
        s.in_flight, s.acked_bytes = fields.get("in_flight", 0), fields.get("acked_bytes", 0)
        s.delivered, s.is_rate_app_limited = fields.get("delivered", 0), fields.get("is_rate_app_limited", False)
        s.prior_in_flight, s.lost_since = fields.get("prior_in_flight", 0), fields.get("lost_since", 0)
        s.is_persistent = fields.get("is_persistent", False)
        cc_handle_loss(&self.cc, &s)

    def mark(self, uint64_t now_ns, uint64_t newest_sent_ns):
        cc_handle_mark(&self.cc, now_ns, newest_sent_ns)

    def sent(self, uint64_t now_ns, uint32_t n, uint64_t in_flight_before, bint app_limited):
        cc_handle_sent(&self.cc, now_ns, n, in_flight_before, app_limited)

    def pacing_rate(self, uint64_t smoothed_rtt_ns):
        return pacing_rate(&self.cc, smoothed_rtt_ns)

    def release_ns(self, uint64_t now_ns, uint64_t smoothed_rtt_ns):
        return pacing_release_ns(&self.cc, now_ns, smoothed_rtt_ns)

    def spend(self, uint64_t n):
        pacing_spend(&self.cc, n)

    @property
    def window(self):
        return self.cc.window

    @property
    def threshold(self):
        return self.cc.threshold

    @property
    def events(self):
        return self.cc.congestion_events

    @property
    def wants_app_limited(self):
        return bool(self.cc.wants_app_limited)

    @property
    def is_conservative(self):
        """Tell whether slow start has become conservative (RFC 9406)."""
        return self.cc.state.cubic.hystart.css_baseline_ns != 0

    @property
    def bbr(self):
        """Return what BBR knows, by name."""
        facts = self.cc.state.bbr
        return facts

    @property
    def ledbat(self):
        facts = self.cc.state.ledbat
        return facts

    def input(self, int state, int event, uint64_t now_ns=1):
        """Put BBR's machine into a state, give it an input; return (result, next state)."""
        self.cc.state.bbr.state = <unsigned char>state
        result = bbr_input(&self.cc, event, now_ns, 0, 0)
        return result, self.cc.state.bbr.state
