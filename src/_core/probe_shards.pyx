"""Python doors into shards: where a datagram belongs, the kernel's program for it, and messages that GRO has glued."""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.engine cimport Engine
from interpeer._core.probe cimport exact
from interpeer._core.shards cimport STEERING_STEPS, Step
from interpeer._core.shards cimport MAILBOX_BYTES as CORE_MAILBOX_BYTES
from interpeer._core.shards cimport shard_of as core_shard_of
from interpeer._core.shards cimport steering_program as core_steering_program
from interpeer._core.slab cimport RecvBatch, recv_batch_free, recv_batch_init

MAILBOX_BYTES = CORE_MAILBOX_BYTES


def shard_of(bytes datagram, int count):
    """Return the shard that a datagram is for."""
    data = exact(datagram)
    return core_shard_of(data.p, <unsigned int>data.n, count)


def steering_program(int count):
    """Return the kernel's program: (code, steps skipped if true, if false, value) each."""
    cdef Step steps[STEERING_STEPS]
    n = core_steering_program(steps, count)
    return [(steps[i].code, steps[i].if_true, steps[i].if_false, steps[i].value) for i in range(n)]


def receive_glued(Engine engine, list packets, int segment, uint64_t now_ns):
    """Hand over one message that consists of packets of `segment` bytes each, the last of which may be shorter."""
    cdef RecvBatch batch
    cdef bytes data = b"".join(packets)
    assert recv_batch_init(&batch) == 0
    d = &batch.slots[0]
    memcpy(d.data, <const uint8_t *>data, len(data))
    d.bytes, d.segment = len(data), segment
    memset(&d.remote, 1, sizeof(d.remote))
    memset(d.local, 0, sizeof(d.local))
    d.interface, d.ecn = 0, 0
    batch.count = 1
    engine.lock()
    engine.handle_batch(&batch, now_ns)
    engine.unlock()
    recv_batch_free(&batch)
