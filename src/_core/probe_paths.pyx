"""Python doors into cids and the validation of a path's address; the paths of a connection are a Lone's (probe_conn)."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.cids cimport (
    CIDS_CONFLICT, CIDS_OK, CIDS_TOO_MANY, REMOTE_FREE, REMOTE_RETIRED, REMOTE_RETIRING, REMOTE_SPARE, REMOTE_USED, LocalCid,
    RemoteCid, RemoteCids, local_cid_find, local_cids_count, remote_cids_add, remote_cids_find, remote_cids_free,
    remote_cids_in_state, remote_cids_spare)
from interpeer._core.controller cimport CONTROLLER_CUBIC
from interpeer._core.loss cimport SentPacket
from interpeer._core.path cimport (
    RESPONSE_PROVES, RESPONSE_RETURNS, RESPONSE_STRANGE, Path, path_challenge_is_due, path_challenge_sent, path_free,
    path_handle_response, path_init, path_input, path_start_validation)
from interpeer._core.probe cimport exact
from interpeer._core.slab cimport Endpoint

ADDED = {CIDS_OK: "ok", CIDS_TOO_MANY: "too many", CIDS_CONFLICT: "conflict"}
REMOTE_STATES = {
    "free": REMOTE_FREE, "spare": REMOTE_SPARE, "used": REMOTE_USED, "retiring": REMOTE_RETIRING, "retired": REMOTE_RETIRED}
RESPONSES = {RESPONSE_STRANGE: "strange", RESPONSE_PROVES: "proves", RESPONSE_RETURNS: "returns"}
PATH_STATE_NAMES = ("validating", "active", "suspect", "abandoned")
PATH_INPUT_NAMES = ("proven", "moved", "silent", "heard", "abandon")


# --- connection ids ---

cdef class PeersIds:
    """The connection ids that a peer has given us."""

    cdef RemoteCids ids

    def __dealloc__(self):
        remote_cids_free(&self.ids)

    def add(self, uint32_t path, uint32_t sequence, uint64_t cid, bytes token=bytes(16)):
        return ADDED[remote_cids_add(&self.ids, path, sequence, cid, exact(token).p)]

    cdef RemoteCid *of(self, uint32_t path, uint32_t sequence) except NULL:
        id = remote_cids_find(&self.ids, path, sequence)
        if id == NULL:
            raise KeyError((path, sequence))
        return id

    def move(self, uint32_t path, uint32_t sequence, str state):
        self.of(path, sequence).state = REMOTE_STATES[state]

    def watch(self, uint32_t path, uint32_t sequence, bint is_watched):
        """The engine knows its token, or does not any more."""
        self.of(path, sequence).is_watched = is_watched

    def find(self, uint32_t path, uint32_t sequence):
        """Return an id and whether it has a token, or None."""
        id = remote_cids_find(&self.ids, path, sequence)
        return (id.cid, bool(id.has_token)) if id != NULL else None

    def spare(self, uint32_t path):
        id = remote_cids_spare(&self.ids, path)
        return id.sequence if id != NULL else None

    def in_state(self, str state):
        id = remote_cids_in_state(&self.ids, REMOTE_STATES[state])
        return (id.path, id.sequence) if id != NULL else None

    @property
    def capacity(self):
        return self.ids.capacity


cdef class OwnIds:
    """Connection ids that we have given a peer: (path, sequence, state) each."""

    cdef LocalCid[16] ids
    cdef LocalCid *first

    def __cinit__(self, list ids):
        memset(self.ids, 0, sizeof(self.ids))
        for i, (path, sequence, state) in enumerate(ids):
            self.ids[i].path, self.ids[i].sequence, self.ids[i].state = path, sequence, state
            self.ids[i].next = self.first
            self.first = &self.ids[i]

    def has(self, uint32_t path, uint32_t sequence):
        id = local_cid_find(self.first, path, sequence)
        return id != NULL and id.path == path and id.sequence == sequence

    def count(self, uint32_t path):
        return local_cids_count(self.first, path)


# --- the proof of an address ---

cdef void forget(void *owner, uint64_t number, const SentPacket *packet) noexcept nogil:
    pass


cdef class Prover:
    """A path whose address is to be proven."""

    cdef Path path

    def __cinit__(self):
        cdef Endpoint nowhere
        memset(&nowhere, 0, sizeof(Endpoint))
        path_init(&self.path, 0, &nowhere, 1200, CONTROLLER_CUBIC, forget, forget)

    def __dealloc__(self):
        path_free(&self.path)

    def move(self):
        assert path_start_validation(&self.path) == 0

    def set_rtt(self, uint64_t rtt_ns):
        self.path.recovery.rtt.smoothed_ns = rtt_ns

    def input(self, str event):
        """Return whether the state has changed."""
        return bool(path_input(&self.path, PATH_INPUT_NAMES.index(event)))

    def ask(self, bytes challenge, uint64_t now_ns, uint64_t pto_ns, bytes previous=None):
        """Send a challenge; `previous` goes to the address before."""
        v = self.path.validation
        memcpy(v.challenge, exact(challenge).p, 8)
        v.is_drawn = True
        if previous is not None:
            v.has_previous = True
            memcpy(v.previous_challenge, exact(previous).p, 8)
        path_challenge_sent(&self.path, now_ns, pto_ns)

    def is_due(self, uint64_t now_ns, *, uint32_t unacked=0):
        """Tell whether to ask; `unacked` packets of the peer wait for an answer."""
        self.path.unacked = unacked
        return bool(path_challenge_is_due(&self.path, now_ns))

    def answer(self, bytes data):
        return RESPONSES[path_handle_response(&self.path, exact(data).p)]

    @property
    def next_ns(self):
        return self.path.validation.next_ns

    @property
    def is_validating(self):
        return self.path.validation != NULL

    @property
    def state(self):
        return PATH_STATE_NAMES[self.path.state]
