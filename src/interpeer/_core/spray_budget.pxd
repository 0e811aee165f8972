from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    SPRAY_PROBES = 2048             # of one spray: 1,160 against 256 sockets hit with 99 %, these with 99.97 %
    SPRAY_PROBES_PER_HOUR = 4096    # to one host: more would be a scan of its ports
    SPRAY_HOUR_NS = 3600000000000
    SPRAY_LEASE_NS = 15000000000    # of the node's one spray: longer than any; a machine that was lost blocks no other
    MAX_SPRAY_HOSTS = 256           # hosts remembered for an hour; when there are more, nobody else is sprayed
    MAX_SPRAY_RECORDS = 16          # sprays of one host that are told apart: older ones count as the next newer

cdef class SprayBudget:
    cdef dict hosts                 # address -> records, the oldest first
    cdef object owner               # who sprays; None: nobody
    cdef list record                # of the latest spray, in `hosts`: [when, probes]
    cdef uint64_t lease_ns          # the spray is over by then, whatever its owner says
    cdef readonly uint64_t probes   # sent by all sprays

    cpdef uint32_t begin(self, object owner, bytes host, uint64_t now_ns)
    cpdef void spend(self, object owner, uint32_t count)
    cpdef void end(self, object owner, uint64_t now_ns)
    cdef void add(self, bytes host, uint64_t now_ns)
    cdef void forget(self, uint64_t now_ns)
