"""How much a node may spray (docs/spec, chapter 24).

A spray is the one thing in punching that sends many datagrams to addresses nobody has attested: the host is, its ports are
guesses. So a node sprays one host at a time, and so much in an hour and no more; all its machines share the budget. When it
cannot remember enough to be sure, it refuses.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t


@cython.final
cdef class SprayBudget:
    """Bound what all sprays of a node may send: one at a time, and SPRAY_PROBES_PER_HOUR probes an hour to one host.

    >>> budget, hour_ns = SprayBudget(), 3600 * 10**9
    >>> spray = object()
    >>> budget.begin(spray, b"host", 0)
    2048
    >>> budget.begin(object(), b"another host", 0)  # one at a time
    0
    >>> budget.spend(spray, 2048)
    >>> budget.end(spray, 0)
    >>> budget.remaining(b"host", 0), budget.remaining(b"host", hour_ns)
    (2048, 4096)
    """

    def __cinit__(self):
        self.hosts = {}
        self.owner = None
        self.record = [0, 0]
        self.lease_ns = 0
        self.probes = 0

    cpdef uint32_t begin(self, object owner, bytes host, uint64_t now_ns):
        """Ask for a spray of a host; return how many probes it may have: 0, another one is going on or nothing is left."""
        cdef uint32_t most
        if self.is_busy(now_ns) and self.owner is not owner:
            return 0
        self.forget(now_ns)
        if host not in self.hosts and len(self.hosts) >= MAX_SPRAY_HOSTS:
            return 0
        most = self.remaining(host, now_ns)
        if most == 0:
            return 0
        self.owner = owner
        self.lease_ns = now_ns + SPRAY_LEASE_NS
        self.add(host, now_ns)
        return most if most < SPRAY_PROBES else SPRAY_PROBES

    cpdef void spend(self, object owner, uint32_t count):
        """Count probes of the spray that goes on."""
        if self.owner is owner:
            self.record[1] += count
            self.probes += count

    cpdef void end(self, object owner, uint64_t now_ns):
        """Let others spray. What was sent counts for an hour from now on."""
        if self.owner is owner and owner is not None:
            self.record[0] = now_ns
            self.owner = None

    def is_busy(self, uint64_t now_ns):
        """Tell whether a spray is going on."""
        return self.owner is not None and now_ns < self.lease_ns

    def remaining(self, bytes host not None, uint64_t now_ns):
        """Return how many probes may still be sent to a host within the hour that ends now."""
        recent = sum(count for when, count in self.hosts.get(host, ()) if when + <uint64_t>SPRAY_HOUR_NS > now_ns)
        return max(0, SPRAY_PROBES_PER_HOUR - recent)

    cdef void add(self, bytes host, uint64_t now_ns):
        records = self.hosts.setdefault(host, [])
        self.record = [now_ns, 0]
        records.append(self.record)
        if len(records) > MAX_SPRAY_RECORDS:
            oldest = records.pop(0)
            records[0][1] += oldest[1]

    cdef void forget(self, uint64_t now_ns):
        """Drop what is more than an hour ago."""
        for host, records in list(self.hosts.items()):
            records[:] = [record for record in records if record[0] + <uint64_t>SPRAY_HOUR_NS > now_ns]
            if not records:
                del self.hosts[host]
