"""Python door into what relaying is made of: a bucket, and the queue of what is being forwarded."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memset

from interpeer._core.probe cimport exact
from interpeer._core.relay cimport (
    FORWARD_BYTES, FORWARD_RUNS, Bucket as CoreBucket, Forwards, bucket_admit, bucket_set, forwards_next, forwards_push,
    forwards_release, forwards_wait)
from interpeer._core.slab cimport Datagrams

QUEUE_BYTES, QUEUE_RUNS = FORWARD_BYTES, FORWARD_RUNS


cdef class Bucket:
    """What may pass between two legs, or between all."""

    cdef CoreBucket bucket

    def __cinit__(self, double bytes_per_s, double burst):
        memset(&self.bucket, 0, sizeof(CoreBucket))
        bucket_set(&self.bucket, bytes_per_s, burst)

    def admit(self, uint32_t n, uint32_t segment, uint64_t now_ns):
        return bucket_admit(&self.bucket, n, segment, now_ns)


cdef class Queue:
    """Runs of packets, from one connection to another."""

    cdef Forwards f

    def __dealloc__(self):
        free(self.f.bytes)
        free(self.f.runs)

    def push(self, bytes data, uint32_t segment, uint64_t leg=1, uint8_t ecn=0):
        """Return how many of the bytes found room."""
        cdef Datagrams run
        block = exact(data)
        memset(&run, 0, sizeof(Datagrams))
        run.data = <uint8_t *>block.p
        run.bytes = <uint32_t>len(data)
        run.segment = segment
        run.cid = leg
        run.ecn = ecn
        return forwards_push(&self.f, &run)

    def take(self):
        """Return the next message as (bytes, segment, leg, ecn), or None. Its bytes stay until `release`."""
        run = forwards_next(&self.f)
        if run == NULL:
            return None
        return <bytes>run.data[:run.bytes], run.segment, run.cid, run.ecn

    def peek_again(self, uint32_t back):
        """Return what a message that was taken, the last but `back`, holds now."""
        run = &self.f.runs[(self.f.first + self.f.given - 1 - back) % FORWARD_RUNS]
        return <bytes>run.data[:run.bytes]

    def release(self):
        forwards_release(&self.f)

    @property
    def waits(self):
        return bool(forwards_wait(&self.f))
