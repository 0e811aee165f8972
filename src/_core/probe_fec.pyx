"""Python doors into the forward error correction, its arithmetic included, and loops that measure both."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from interpeer._core.fec cimport (
    FEC_HEAD_BYTES, FEC_INVALID, FEC_KNOWN, FEC_NO_MEMORY, FEC_OK, FEC_OLD, FecDecoder, FecEncoder, FecRepair, fec_choose,
    fec_chosen, fec_decoder_add, fec_decoder_free, fec_decoder_init, fec_decoder_poll, fec_decoder_repair, fec_encoder_add,
    fec_encoder_forget, fec_encoder_free, fec_encoder_init, fec_encoder_repair, fec_encoder_repair_bytes, fec_factor,
    fec_muladd, fec_multiply, fec_parse_repair)
from interpeer._core.probe cimport Exact, exact, room

VARIANTS = {"portable": 0, "ssse3": 1, "avx2": 2, "neon": 3}
RESULTS = {FEC_OK: "new", FEC_KNOWN: "known", FEC_OLD: "old", FEC_INVALID: "invalid", FEC_NO_MEMORY: "no memory"}


# --- arithmetic ---

def chosen():
    """Return the name of the variant in use."""
    return next(name for name, number in VARIANTS.items() if number == fec_chosen())


def available_variants():
    before = fec_chosen()
    found = [name for name, number in VARIANTS.items() if fec_choose(number) == 0]
    fec_choose(before)
    return found


def choose(str variant):
    """Compute with this variant from now on, in the whole process."""
    if fec_choose(VARIANTS[variant]) != 0:
        raise ValueError(f"{variant} is not available")


def multiply(uint8_t a, uint8_t b):
    return fec_multiply(a, b)


def muladd(bytes sum, bytes source, uint8_t factor, int shift=0):
    """Return sum + factor * source; `shift` moves both away from where they were aligned, by different distances."""
    assert len(sum) == len(source)
    to, from_ = exact(bytes(shift) + sum), exact(bytes(2 * shift) + source)
    fec_muladd(to.p + shift, from_.p + 2 * shift, factor, len(sum))
    return to.first(to.n)[shift:]


def factor(uint16_t seed, uint64_t number):
    return fec_factor(seed, number)


# --- codec ---

def parse_repair(bytes body):
    """Return first, count, seed and symbol, or None."""
    cdef FecRepair repair
    block = exact(body)
    if fec_parse_repair(block.p, block.n, &repair) != FEC_OK:
        return None
    return repair.first, repair.count, repair.seed, <bytes>repair.symbol[:repair.bytes]


cdef class Encoder:
    cdef FecEncoder encoder

    def __cinit__(self, int window, int symbol_bytes, uint64_t first=0):
        fec_encoder_init(&self.encoder, window, symbol_bytes, first)

    def __dealloc__(self):
        fec_encoder_free(&self.encoder)

    def add(self, bytes message):
        """Return the message's number, or None for one that is too long."""
        block = exact(message)
        number = self.encoder.next
        return number if fec_encoder_add(&self.encoder, block.p, block.n) == FEC_OK else None

    def forget(self, uint64_t below):
        fec_encoder_forget(&self.encoder, below)

    def repair(self):
        """Return the body of a repair, or None while there is nothing to cover."""
        out = room(fec_encoder_repair_bytes(&self.encoder))
        n = fec_encoder_repair(&self.encoder, out.p)
        return out.first(n) if n else None

    @property
    def covered(self):
        return self.encoder.first, self.encoder.next

    @property
    def has_memory(self):
        return self.encoder.symbols != NULL


cdef class Decoder:
    cdef FecDecoder decoder

    def __cinit__(self, int window, int symbol_bytes, uint64_t first=0):
        fec_decoder_init(&self.decoder, window, symbol_bytes, first)

    def __dealloc__(self):
        fec_decoder_free(&self.decoder)

    def add(self, uint64_t number, bytes message):
        block = exact(message)
        return RESULTS[fec_decoder_add(&self.decoder, number, block.p, block.n)]

    def repair(self, bytes body):
        cdef FecRepair repair
        block = exact(body)
        if fec_parse_repair(block.p, block.n, &repair) != FEC_OK:
            return "invalid"
        return RESULTS[fec_decoder_repair(&self.decoder, &repair)]

    def poll(self):
        """Return what has been recovered since: (number, message)."""
        cdef uint64_t number
        cdef const uint8_t *message
        cdef uint32_t n
        found = []
        while fec_decoder_poll(&self.decoder, &number, &message, &n):
            found.append((number, <bytes>message[:n]))
        return found

    @property
    def equations(self):
        """Return the unknown numbers of each equation, its pivot first."""
        cdef FecDecoder *d = &self.decoder
        cdef uint32_t i
        found = []
        if d.rows != NULL:
            for i in range(d.window):
                if d.rows[i].columns:
                    numbers = [n for n in range(d.base, d.base + d.window) if d.rows[i].columns >> n % d.window & 1]
                    assert numbers[0] % d.window == d.rows[i].pivot and d.rows[i].factors[d.rows[i].pivot] == 1
                    found.append(numbers)
        return found

    @property
    def state(self):
        cdef FecDecoder *d = &self.decoder
        return {"base": d.base, "invalid": d.invalid, "multiplied": d.multiplied, "has_symbols": d.symbols != NULL,
                "has_rows": d.rows != NULL}


# --- loops ---

cdef class Correcting:
    """An encoder with a full window, a decoder, and messages of one size between them."""

    cdef FecEncoder encoder
    cdef FecDecoder decoder
    cdef Exact message, out
    cdef uint8_t window

    def __cinit__(self, uint8_t window, uint32_t message_bytes):
        cdef int _i
        self.window = window
        self.message = exact(bytes(i & 255 for i in range(message_bytes)))
        self.out = room(FEC_HEAD_BYTES + 2 + message_bytes)
        fec_encoder_init(&self.encoder, window, message_bytes + 2, 0)
        fec_decoder_init(&self.decoder, window, message_bytes + 2, 0)
        for _i in range(window):
            fec_encoder_add(&self.encoder, self.message.p, message_bytes)

    def __dealloc__(self):
        fec_encoder_free(&self.encoder)
        fec_decoder_free(&self.decoder)

    def add(self, int n):
        """Give the encoder `n` messages. Return how many it took."""
        cdef int _i, done = 0
        for _i in range(n):
            done += fec_encoder_add(&self.encoder, self.message.p, self.message.n) == FEC_OK
        return done

    def repair(self, int n):
        """Make `n` repairs over the whole window. Return how many were made."""
        cdef int _i, done = 0
        for _i in range(n):
            done += fec_encoder_repair(&self.encoder, self.out.p) != 0
        return done

    def recover(self, int n, int lost):
        """Lose the first `lost` messages of a window and recover them from repairs, `n` windows. Return how many came back."""
        cdef int i, done = 0
        cdef uint64_t number, at
        cdef const uint8_t *message
        cdef uint32_t bytes, tries
        cdef FecRepair repair
        for i in range(n):
            at = self.encoder.next
            for number in range(at, at + self.window):
                fec_encoder_add(&self.encoder, self.message.p, self.message.n)
                if number >= at + lost:
                    fec_decoder_add(&self.decoder, number, self.message.p, self.message.n)
            tries = 0
            while tries < lost + 8 and done < (i + 1) * lost:
                bytes = fec_encoder_repair(&self.encoder, self.out.p)
                fec_parse_repair(self.out.p, bytes, &repair)
                fec_decoder_repair(&self.decoder, &repair)
                tries += 1
                while fec_decoder_poll(&self.decoder, &number, &message, &bytes):
                    done += 1
        return done


def multiply_buffers(int n, size_t size):
    """Add a multiple of one buffer to another `n` times."""
    cdef int i
    cdef Exact to = room(size), from_ = room(size)
    memset(from_.p, 0x5A, size)
    for i in range(n):
        fec_muladd(to.p, from_.p, <uint8_t>(2 + i % 250), size)
    return n
