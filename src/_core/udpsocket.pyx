"""A UDP socket for Python: the door to udp for tests, diagnosis and measurements.

One call takes or gives one batch, as lists of tuples. The protocol does not come through here; it uses the C functions.
"""

import ipaddress
import os

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcpy, memset

from interpeer._core.slab cimport (
    SEND_BATCH_BYTES, SEND_ENTRIES, Datagrams, Endpoint, RecvBatch, SendBatch, recv_batch_free, recv_batch_init,
    send_batch_clear, send_batch_free, send_batch_init)
from interpeer._core.udp cimport Udp, udp_adopt, udp_close, udp_local, udp_open, udp_recv, udp_send, udp_wait

from interpeer._core.udp import parse_disabled, words_of


cdef int write_endpoint(object at, Endpoint *endpoint) except -1:
    """Translate (host, port) or (host, port, scope); the host is a numeric address."""
    cdef object address = ipaddress.ip_address(at[0])
    cdef bytes packed = address.packed
    memset(endpoint, 0, sizeof(Endpoint))
    if address.version == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    memcpy(endpoint.address, PyBytes_AS_STRING(packed), 16)
    endpoint.port = at[1]
    endpoint.scope = at[2] if len(at) > 2 else 0
    return 0


cdef object read_address(const uint8_t *address):
    cdef bytes packed = PyBytes_FromStringAndSize(<const char *>address, 16)
    return str(ipaddress.ip_address(packed[12:] if packed.startswith(bytes(10) + b"\xff\xff") else packed))


cdef tuple read_endpoint(const Endpoint *endpoint):
    cdef object host = read_address(endpoint.address)
    return (host, endpoint.port, endpoint.scope) if endpoint.scope else (host, endpoint.port)


@cython.final
cdef class UdpSocket:
    """One UDP socket.

    Raises OSError if the socket cannot be opened, ValueError for an address that is not numeric."""

    cdef Udp udp
    cdef RecvBatch incoming
    cdef SendBatch outgoing

    def __cinit__(self, host="127.0.0.1", port=0, *, scope=0, fd=None, disable=""):
        cdef Endpoint at
        cdef uint32_t disabled = parse_disabled(disable)
        cdef int result
        self.udp.fd = -1
        if recv_batch_init(&self.incoming) < 0 or send_batch_init(&self.outgoing) < 0:
            raise MemoryError("no memory for the batches of a socket")
        if fd is None:
            write_endpoint((host, port, scope), &at)
            result = udp_open(&self.udp, &at, disabled)
        else:
            result = udp_adopt(&self.udp, fd, disabled)
        if result < 0:
            what = f"{host} port {port}" if fd is None else f"file descriptor {fd}"
            raise OSError(-result, f"cannot use {what} for UDP: {os.strerror(-result)}")

    def __dealloc__(self):
        udp_close(&self.udp)
        recv_batch_free(&self.incoming)
        send_batch_free(&self.outgoing)

    def close(self):
        """Close the socket; messages that wait to be sent are lost. Harmless when repeated."""
        udp_close(&self.udp)
        send_batch_clear(&self.outgoing)

    def fileno(self):
        """Return the descriptor, -1 after close."""
        return self.udp.fd

    @property
    def address(self):
        """The address that the socket is bound to: (host, port), for a link-local one (host, port, scope)."""
        cdef Endpoint at
        self.check_open()
        cdef int result = udp_local(&self.udp, &at)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return read_endpoint(&at)

    @property
    def can(self):
        """The words, as in INTERPEER_DISABLE, for what the system offers here and nobody disabled."""
        return words_of(self.udp.can)

    @property
    def buffer_bytes(self):
        """The sizes of the receive and the send buffer, as given by the system."""
        return self.udp.receive_buffer_bytes, self.udp.send_buffer_bytes

    @property
    def last_error(self):
        """The errno of the last failure that was counted, 0 if there was none."""
        return self.udp.last_error

    def counters(self):
        """Return what the socket has counted since it was opened, by name."""
        return dict(self.udp.counters)

    def send(self, messages):
        """Queue messages and send what the system takes. Return how many still wait: `flush` when the socket is writable.

        A message is (data, address, segment, ecn, local, interface, ttl); what follows the address may be left out. A positive
        segment cuts the data into datagrams of that size, a positive ttl is their time to live. Raises
        ValueError if the batch has no room: nothing is queued then."""
        cdef uint32_t count, used
        self.check_open()
        if self.outgoing.sent == self.outgoing.count:
            send_batch_clear(&self.outgoing)
        count, used = self.outgoing.count, self.outgoing.used
        if len(messages) > SEND_ENTRIES - count:
            raise ValueError(f"expected at most {SEND_ENTRIES} messages not sent yet")
        try:
            for message in messages:
                self.queue(message)
        except BaseException:
            self.outgoing.count, self.outgoing.used = count, used
            raise
        return self.flush()

    cdef queue(self, message):
        cdef Endpoint source
        cdef Datagrams *entry = &self.outgoing.entries[self.outgoing.count]
        data, address, segment, ecn, local, interface, ttl = tuple(message) + (0, 0, None, 0, 0)[len(message) - 2:]
        cdef bytes copied = bytes(data)
        memset(entry, 0, sizeof(Datagrams))
        write_endpoint(address, &entry.remote)
        if local is not None:
            write_endpoint((local, 0), &source)
            memcpy(entry.local, source.address, 16)
        if len(copied) > <Py_ssize_t>(SEND_BATCH_BYTES - self.outgoing.used):
            raise ValueError(f"expected at most {SEND_BATCH_BYTES} bytes not sent yet")
        entry.segment = segment or len(copied)
        entry.ecn = ecn
        entry.interface = interface
        entry.ttl = ttl
        entry.data = self.outgoing.buffer + self.outgoing.used
        entry.bytes = <uint32_t>len(copied)
        memcpy(entry.data, PyBytes_AS_STRING(copied), entry.bytes)
        self.outgoing.used += entry.bytes
        self.outgoing.count += 1

    cdef check_open(self):
        if self.udp.fd < 0:
            raise ValueError("the socket is closed")

    def flush(self):
        """Send what waits. Return how many messages still wait."""
        cdef int result
        self.check_open()
        result = udp_send(&self.udp, &self.outgoing)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return self.outgoing.count - self.outgoing.sent

    def receive(self):
        """Return the messages that wait, at most one batch: a list of (data, address, segment, ecn, local, interface)."""
        cdef int result
        cdef Datagrams *slot
        self.check_open()
        result = udp_recv(&self.udp, &self.incoming)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        messages = []
        for i in range(result):
            slot = &self.incoming.slots[i]
            data = PyBytes_FromStringAndSize(<char *>slot.data, slot.bytes)
            messages.append(
                (data, read_endpoint(&slot.remote), slot.segment, slot.ecn, read_address(slot.local), slot.interface))
        return messages

    def wait(self, *, for_sending=False, timeout=10.0):
        """Block until the socket can be read from, or written to. Return whether it can."""
        cdef int timeout_ms = int(timeout * 1000), result
        cdef bint is_for_sending = for_sending
        self.check_open()
        with nogil:
            result = udp_wait(&self.udp, is_for_sending, timeout_ms)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result == 1
