"""Forward error correction: a systematic random linear code over a sliding window (docs/spec, chapter 17; RFC 8681).

Messages go out as they are. Now and then a repair follows: the sum over GF(256) of the last messages, each times a factor
that both ends compute from a seed. Each repair that arrives makes up for one message that has not, whichever it is.

The receiver keeps its equations reduced, each with the oldest message that it misses as its pivot, so that a message is
recovered the moment its equations suffice, and the oldest can be given up without losing what the others tell. Whatever a
peer sends, there are at most FEC_MAX_WINDOW symbols and as many equations, and no input costs more than one pass over each
of these. Memory is taken when a side is first used, and for equations when a message is first missing.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from interpeer._core.wire cimport PARSE_OK, Reader, read_varint, write_varint

cdef extern from "gf256.h" nogil:
    void gf256_init()
    int gf256_choose(int variant)
    int gf256_chosen
    uint8_t gf256_mul(uint8_t a, uint8_t b)
    uint8_t gf256_inverse(uint8_t a)
    void gf256_muladd(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n)
    void gf256_scale(uint8_t *data, uint8_t factor, size_t n)

gf256_init()


cdef uint8_t fec_factor(uint16_t seed, uint64_t number) noexcept nogil:
    """Return the factor of a message in a repair, 1 to 255: a repair covers all of its messages."""
    cdef uint64_t x = number << 16 | seed
    x = (x ^ x >> 30) * <uint64_t>0xBF58476D1CE4E5B9
    x = (x ^ x >> 27) * <uint64_t>0x94D049BB133111EB
    return <uint8_t>(1 + ((x >> 32) * 255 >> 32))


cdef inline uint8_t *slot(uint8_t *symbols, uint32_t symbol_bytes, uint32_t index) noexcept nogil:
    return symbols + <size_t>index * symbol_bytes


cdef inline uint8_t within(uint8_t window) noexcept nogil:
    return 1 if window == 0 else window if window < FEC_MAX_WINDOW else FEC_MAX_WINDOW


cdef void put_symbol(uint8_t *symbol, const uint8_t *message, uint32_t n) noexcept nogil:
    symbol[0] = <uint8_t>(n >> 8)
    symbol[1] = <uint8_t>n
    if n:                           # otherwise it may be NULL
        memcpy(symbol + FEC_LENGTH_BYTES, message, n)


# --- encoder ---

cdef void fec_encoder_init(FecEncoder *e, uint8_t window, uint32_t symbol_bytes, uint64_t first) noexcept nogil:
    """Start with the message number `first`. A symbol has the length of its message before it, 65,535 bytes at the most."""
    memset(e, 0, sizeof(FecEncoder))
    e.window = within(window)
    e.symbol_bytes = symbol_bytes
    e.first = first
    e.next = first


cdef void fec_encoder_free(FecEncoder *e) noexcept nogil:
    """Give the memory back; nothing is covered any more, and it can be used again."""
    free(e.symbols)
    e.symbols = NULL
    e.first = e.next


cdef int fec_encoder_add(FecEncoder *e, const uint8_t *message, uint32_t n) noexcept nogil:
    """Cover the message with the number `next`, in place of the oldest when the window is full."""
    cdef uint32_t index = <uint32_t>(e.next % e.window)
    if n + FEC_LENGTH_BYTES > e.symbol_bytes:
        return FEC_INVALID
    if e.symbols == NULL:
        e.symbols = <uint8_t *>malloc(<size_t>e.window * e.symbol_bytes)
        if e.symbols == NULL:
            return FEC_NO_MEMORY
    put_symbol(slot(e.symbols, e.symbol_bytes, index), message, n)
    e.sizes[index] = <uint16_t>(n + FEC_LENGTH_BYTES)
    e.next += 1
    if e.next - e.first > e.window:
        e.first = e.next - e.window
    return FEC_OK


cdef void fec_encoder_forget(FecEncoder *e, uint64_t below) noexcept nogil:
    """Cover no message below this number any more: the peer has it, or does not want it."""
    if below > e.first:
        e.first = below if below < e.next else e.next


cdef uint32_t fec_encoder_repair_bytes(const FecEncoder *e) noexcept nogil:
    """Return the room that fec_encoder_repair needs now; 0: there is nothing to cover."""
    cdef uint64_t number
    cdef uint32_t most = 0
    for number in range(e.first, e.next):
        if e.sizes[number % e.window] > most:
            most = e.sizes[number % e.window]
    return most + FEC_HEAD_BYTES if most else 0


cdef uint32_t fec_encoder_repair(FecEncoder *e, uint8_t *out) noexcept nogil:
    """Write a repair over all messages in the window: number, count, seed, symbol. Return its bytes; 0: nothing to cover."""
    cdef uint32_t symbol_bytes = fec_encoder_repair_bytes(e), index
    cdef uint64_t number
    cdef uint8_t *p
    if symbol_bytes == 0:
        return 0
    symbol_bytes -= FEC_HEAD_BYTES
    p = write_varint(out, e.first)
    p[0] = <uint8_t>(e.next - e.first)
    p[1] = <uint8_t>(e.seed >> 8)
    p[2] = <uint8_t>e.seed
    p += 3
    memset(p, 0, symbol_bytes)
    for number in range(e.first, e.next):
        index = <uint32_t>(number % e.window)
        gf256_muladd(p, slot(e.symbols, e.symbol_bytes, index), fec_factor(e.seed, number), e.sizes[index])
    e.seed += 1
    return <uint32_t>(p + symbol_bytes - out)


cdef int fec_parse_repair(const uint8_t *p, size_t n, FecRepair *out) noexcept nogil:
    """Read what fec_encoder_repair has written, `n` bytes. Return FEC_OK or FEC_INVALID."""
    cdef Reader r
    r.p = p
    r.end = p + n
    if read_varint(&r, &out.first) != PARSE_OK or r.end - r.p < 3 + FEC_LENGTH_BYTES:
        return FEC_INVALID
    out.count = r.p[0]
    out.seed = <uint16_t>(r.p[1] << 8 | r.p[2])
    out.symbol = r.p + 3
    out.bytes = <uint32_t>(r.end - out.symbol)
    return FEC_INVALID if out.count == 0 or out.count > FEC_MAX_WINDOW else FEC_OK


# --- decoder ---

cdef void fec_decoder_init(FecDecoder *d, uint8_t window, uint32_t symbol_bytes, uint64_t first) noexcept nogil:
    """Start with the message number `first`.

    A window larger than the sender's lets repairs be overtaken: one that reaches behind it is of no use."""
    memset(d, 0, sizeof(FecDecoder))
    d.window = within(window)
    d.symbol_bytes = symbol_bytes
    d.base = first


cdef void fec_decoder_free(FecDecoder *d) noexcept nogil:
    """Give the memory back; what was received is forgotten."""
    free(d.symbols)
    free(d.sums)
    free(d.rows)
    d.symbols = d.sums = NULL
    d.rows = NULL
    d.known = d.recovered = 0


cdef inline uint32_t column_of(const FecDecoder *d, uint64_t number) noexcept nogil:
    return <uint32_t>(number % d.window)


cdef inline bint has(uint64_t columns, uint32_t column) noexcept nogil:
    return (columns >> column & 1) != 0


cdef int lowest_bit(uint64_t bits) noexcept nogil:
    cdef int at = 0, width = 32
    while width:
        if bits & ((<uint64_t>1 << width) - 1) == 0:
            bits >>= width
            at += width
        width >>= 1
    return at


cdef uint32_t oldest_of(const FecDecoder *d, uint64_t columns) noexcept nogil:
    """Return the column of the oldest message among these, of which there is one: the window starts at `base` and wraps."""
    cdef uint32_t start = column_of(d, d.base)
    cdef uint64_t later = columns >> start << start
    return lowest_bit(later if later else columns)


cdef inline uint64_t number_of(const FecDecoder *d, uint32_t column) noexcept nogil:
    return d.base + (column + d.window - column_of(d, d.base)) % d.window


cdef inline void muladd(FecDecoder *d, uint8_t *sum, const uint8_t *source, uint8_t factor, uint32_t n) noexcept nogil:
    d.multiplied += n
    gf256_muladd(sum, source, factor, n)


cdef inline uint8_t *sum_of(FecDecoder *d, uint32_t row) noexcept nogil:
    return slot(d.sums, d.symbol_bytes, row)


cdef int fec_decoder_add(FecDecoder *d, uint64_t number, const uint8_t *message, uint32_t n) noexcept nogil:
    """Take a message that has arrived; what it solves can be polled. Return FEC_OK, or why it was not new."""
    cdef uint32_t column
    if n + FEC_LENGTH_BYTES > d.symbol_bytes:
        return FEC_INVALID
    if number < d.base:
        return FEC_OLD
    column = column_of(d, number)
    if number - d.base < d.window and has(d.known, column):
        return FEC_KNOWN
    if need_symbols(d) != FEC_OK:
        return FEC_NO_MEMORY
    move_window(d, number)
    put_symbol(slot(d.symbols, d.symbol_bytes, column), message, n)
    d.sizes[column] = <uint16_t>(n + FEC_LENGTH_BYTES)
    d.known |= <uint64_t>1 << column
    if d.rows != NULL:
        put_into_rows(d, column)
        collect(d)
    return FEC_OK


cdef int fec_decoder_repair(FecDecoder *d, const FecRepair *repair) noexcept nogil:
    """Take a repair; what it solves can be polled. Return FEC_OK, or why it was of no use."""
    cdef uint32_t index, i
    cdef FecRow *row
    if repair.count == 0 or repair.count > d.window or not FEC_LENGTH_BYTES <= repair.bytes <= d.symbol_bytes:
        return FEC_INVALID
    if repair.first < d.base:
        return FEC_OLD
    if is_known(d, repair):
        return FEC_KNOWN
    if need_symbols(d) != FEC_OK or need_rows(d) != FEC_OK:
        return FEC_NO_MEMORY
    move_window(d, repair.first + repair.count - 1)
    index = free_row(d)
    row = &d.rows[index]
    fill_row(d, index, repair)
    for i in range(d.window):       # what earlier equations tell
        if i != index and d.rows[i].columns and has(row.columns, d.rows[i].pivot):
            add_row(d, index, i, row.factors[d.rows[i].pivot])
    if row.columns == 0:
        return FEC_KNOWN
    make_pivot(d, index)
    collect(d)
    return FEC_OK


cdef bint fec_decoder_poll(FecDecoder *d, uint64_t *number, const uint8_t **message, uint32_t *n) noexcept nogil:
    """Tell the oldest message that was recovered, once; it stays where it is until the next input. False: there is none.

    Poll after each input until there is none: what the window has passed is not told any more."""
    cdef uint32_t column
    if d.recovered == 0:
        return False
    column = oldest_of(d, d.recovered)
    d.recovered &= ~(<uint64_t>1 << column)
    number[0] = number_of(d, column)
    message[0] = slot(d.symbols, d.symbol_bytes, column) + FEC_LENGTH_BYTES
    n[0] = d.sizes[column] - FEC_LENGTH_BYTES
    return True


cdef int need_symbols(FecDecoder *d) noexcept nogil:
    if d.symbols == NULL:
        d.symbols = <uint8_t *>malloc(<size_t>d.window * d.symbol_bytes)
    return FEC_OK if d.symbols != NULL else FEC_NO_MEMORY


cdef int need_rows(FecDecoder *d) noexcept nogil:
    if d.sums == NULL:
        d.sums = <uint8_t *>malloc(<size_t>d.window * d.symbol_bytes)
    if d.rows == NULL:
        d.rows = <FecRow *>calloc(d.window, sizeof(FecRow))
    return FEC_OK if d.sums != NULL and d.rows != NULL else FEC_NO_MEMORY


cdef bint is_known(const FecDecoder *d, const FecRepair *repair) noexcept nogil:
    """Tell whether all messages of a repair are here, as they mostly are."""
    cdef uint64_t number
    if repair.first + repair.count > d.base + d.window:
        return False
    for number in range(repair.first, repair.first + repair.count):
        if not has(d.known, column_of(d, number)):
            return False
    return True


cdef void move_window(FecDecoder *d, uint64_t number) noexcept nogil:
    """See that `number` is in the window; what is behind it is given up, with the one equation that has it as its pivot."""
    cdef uint64_t base = number - d.window + 1 if number >= d.base + d.window else d.base
    cdef uint64_t gone = 0
    cdef uint32_t i
    if base - d.base >= d.window:
        gone = ~<uint64_t>0
        d.base = base
    while d.base < base:
        gone |= <uint64_t>1 << column_of(d, d.base)
        d.base += 1
    d.known &= ~gone
    d.recovered &= ~gone
    if gone and d.rows != NULL:
        for i in range(d.window):
            if d.rows[i].columns & gone:
                d.rows[i].columns = 0


cdef uint32_t free_row(const FecDecoder *d) noexcept nogil:
    """Return a row that is not in use. There is one: as many equations as columns would have been solved."""
    cdef uint32_t i = 0
    while d.rows[i].columns:
        i += 1
    return i


cdef void fill_row(FecDecoder *d, uint32_t index, const FecRepair *repair) noexcept nogil:
    """Make a row of a repair: what is known moves to the side of the sum."""
    cdef FecRow *row = &d.rows[index]
    cdef uint8_t *sum = sum_of(d, index)
    cdef uint64_t number
    cdef uint32_t column
    cdef uint8_t factor
    memset(row, 0, sizeof(FecRow))
    row.bytes = repair.bytes
    memcpy(sum, repair.symbol, repair.bytes)
    memset(sum + repair.bytes, 0, d.symbol_bytes - repair.bytes)
    for number in range(repair.first, repair.first + repair.count):
        column = column_of(d, number)
        factor = fec_factor(repair.seed, number)
        if has(d.known, column):
            muladd(d, sum, slot(d.symbols, d.symbol_bytes, column), factor, d.sizes[column])
            widen(row, d.sizes[column])
        else:
            row.factors[column] = factor
            row.columns |= <uint64_t>1 << column


cdef inline void widen(FecRow *row, uint32_t bytes) noexcept nogil:
    if bytes > row.bytes:           # never with an honest sender
        row.bytes = bytes


cdef void add_row(FecDecoder *d, uint32_t target, uint32_t source, uint8_t factor) noexcept nogil:
    """Add `factor` times one row to another."""
    cdef FecRow *to = &d.rows[target]
    cdef FecRow *from_ = &d.rows[source]
    cdef uint32_t column
    muladd(d, sum_of(d, target), sum_of(d, source), factor, from_.bytes)
    widen(to, from_.bytes)
    for column in range(d.window):
        if has(from_.columns, column):
            to.factors[column] ^= gf256_mul(factor, from_.factors[column])
            if to.factors[column]:
                to.columns |= <uint64_t>1 << column
            else:
                to.columns &= ~(<uint64_t>1 << column)


cdef void make_pivot(FecDecoder *d, uint32_t index) noexcept nogil:
    """Choose the pivot of a row that has none, and take it out of all others."""
    cdef FecRow *row = &d.rows[index]
    cdef uint32_t column, i
    cdef uint8_t inverse
    row.pivot = <uint8_t>oldest_of(d, row.columns)
    inverse = gf256_inverse(row.factors[row.pivot])
    d.multiplied += row.bytes
    gf256_scale(sum_of(d, index), inverse, row.bytes)
    for column in range(d.window):
        row.factors[column] = gf256_mul(inverse, row.factors[column])
    for i in range(d.window):
        if i != index and has(d.rows[i].columns, row.pivot):
            add_row(d, i, index, d.rows[i].factors[row.pivot])


cdef void put_into_rows(FecDecoder *d, uint32_t column) noexcept nogil:
    """A message has arrived that equations were to solve: they have one unknown less."""
    cdef uint32_t i
    cdef FecRow *row
    cdef uint32_t orphan = d.window     # the row whose pivot it was
    for i in range(d.window):
        row = &d.rows[i]
        if has(row.columns, column):
            muladd(d, sum_of(d, i), slot(d.symbols, d.symbol_bytes, column), row.factors[column], d.sizes[column])
            widen(row, d.sizes[column])
            row.factors[column] = 0
            row.columns &= ~(<uint64_t>1 << column)
            if row.pivot == column:
                orphan = i
    if orphan < d.window and d.rows[orphan].columns:
        make_pivot(d, orphan)


cdef void collect(FecDecoder *d) noexcept nogil:
    """Take the messages out of the rows that have only one."""
    cdef uint32_t i, n
    cdef FecRow *row
    cdef uint8_t *sum
    for i in range(d.window):
        row = &d.rows[i]
        if row.columns == 0 or row.columns & (row.columns - 1):
            continue
        row.columns = 0             # its message was the pivot, which no other row has
        sum = sum_of(d, i)
        n = FEC_LENGTH_BYTES + (<uint32_t>sum[0] << 8 | sum[1])
        if n > d.symbol_bytes or not is_zero(sum, n, row.bytes):
            d.invalid += 1
            continue
        memcpy(slot(d.symbols, d.symbol_bytes, row.pivot), sum, n)
        d.sizes[row.pivot] = <uint16_t>n
        d.known |= <uint64_t>1 << row.pivot
        d.recovered |= <uint64_t>1 << row.pivot


cdef bint is_zero(const uint8_t *data, uint32_t start, uint32_t end) noexcept nogil:
    cdef uint32_t i
    for i in range(start, end):
        if data[i]:
            return False
    return True


# --- for tests and measurements ---

cdef int fec_choose(int variant) noexcept nogil:
    """Compute with this variant of gf256.h from now on. Return 0, or -1 where the processor does not have it."""
    return gf256_choose(variant)


cdef int fec_chosen() noexcept nogil:
    return gf256_chosen


cdef uint8_t fec_multiply(uint8_t a, uint8_t b) noexcept nogil:
    return gf256_mul(a, b)


cdef void fec_muladd(uint8_t *sum, const uint8_t *source, uint8_t factor, size_t n) noexcept nogil:
    gf256_muladd(sum, source, factor, n)
