"""Packet protection: sealing and opening packets, header masks, key epochs (docs/spec, chapter 3).

The header carries the whole counter, so nothing is reconstructed or guessed, and two bits of the epoch, so that one
packet is tried under one key only. Each direction ratchets its own secret; a packet of the next epoch moves the
receiver on only after its AEAD has agreed. The mask key stays for the life of the session.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from interpeer._core.crypto cimport (
    KEY_BYTES, MASK_KEY_BYTES, MAX_IV_BYTES, SUITE_NONE, Aead, aead_free, aead_init, aead_open, aead_seal, blake2b,
    header_mask, wipe)
from interpeer._core.replay cimport ReplayWindow, replay_accept, replay_is_new
from interpeer._core.wire cimport COUNTER_BITS, EPOCH_MASK, HEADER_BYTES, MIN_PACKET_BYTES, read_u64, write_u64

cdef enum:
    LABEL_BYTES = 14

cdef const char *LABEL_KEY = b"interpeer key "
cdef const char *LABEL_IV = b"interpeer iv  "
cdef const char *LABEL_MASK = b"interpeer mask"
cdef const char *LABEL_UPDATE = b"interpeer next"
cdef const char *LABEL_MIX = b"interpeer mix "


cdef int derive(uint8_t *out, size_t n, const uint8_t *secret, const char *label, uint8_t suite) noexcept nogil:
    """Keyed BLAKE2b of label and suite: the same secret never serves two purposes or two ciphers."""
    return blake2b(out, n, <const uint8_t *>label, LABEL_BYTES, &suite, 1, secret, KEY_BYTES)


cdef int aead_of(Aead *a, uint8_t suite, const uint8_t *secret) noexcept nogil:
    cdef uint8_t key[32]
    cdef uint8_t iv[32]
    cdef int result = derive(key, KEY_BYTES, secret, LABEL_KEY, suite)
    result |= derive(iv, MAX_IV_BYTES, secret, LABEL_IV, suite)
    if result == 0:
        result = aead_init(a, suite, key, iv)
    wipe(key, KEY_BYTES)
    wipe(iv, MAX_IV_BYTES)
    return result


cdef int ratchet(uint8_t *secret, uint8_t suite) noexcept nogil:
    cdef uint8_t following[32]
    cdef int result = derive(following, KEY_BYTES, secret, LABEL_UPDATE, suite)
    memcpy(secret, following, KEY_BYTES)
    wipe(following, KEY_BYTES)
    return result


cdef int mix(uint8_t *secret, uint8_t suite, const uint8_t *fresh) noexcept nogil:
    """Mix a fresh secret in: the result is unknown to whoever lacks either of them."""
    cdef uint8_t material[33]
    cdef int result
    material[0] = suite
    memcpy(material + 1, fresh, KEY_BYTES)
    result = blake2b(secret, KEY_BYTES, <const uint8_t *>LABEL_MIX, LABEL_BYTES, material, sizeof(material), secret, KEY_BYTES)
    wipe(material, sizeof(material))
    return result


cdef int send_keys_init(SendKeys *k, int suite, const uint8_t *secret) noexcept nogil:
    """Derive epoch 0 from a traffic secret of 32 bytes. Return 0 or -1."""
    memset(k, 0, sizeof(SendKeys))
    memcpy(k.secret, secret, KEY_BYTES)
    if derive(k.mask_key, MASK_KEY_BYTES, secret, LABEL_MASK, suite) != 0:
        return -1
    return aead_of(&k.aead, suite, secret)


cdef int recv_keys_init(RecvKeys *k, int suite, const uint8_t *secret) noexcept nogil:
    memset(k, 0, sizeof(RecvKeys))
    memcpy(k.secret, secret, KEY_BYTES)
    if derive(k.mask_key, MASK_KEY_BYTES, secret, LABEL_MASK, suite) != 0:
        return -1
    if aead_of(&k.current, suite, k.secret) != 0 or ratchet(k.secret, suite) != 0:
        return -1
    return aead_of(&k.following, suite, k.secret)


cdef void send_keys_wipe(SendKeys *k) noexcept nogil:
    aead_free(&k.aead)
    wipe(k, sizeof(SendKeys))


cdef void recv_keys_wipe(RecvKeys *k) noexcept nogil:
    aead_free(&k.current)
    aead_free(&k.following)
    aead_free(&k.previous)
    wipe(k, sizeof(RecvKeys))


cdef int send_keys_update(SendKeys *k) noexcept nogil:
    """Move to the next epoch. The caller has seen an acknowledgement of this one. Return 0 or -1."""
    return send_keys_mix(k, NULL)


cdef int send_keys_mix(SendKeys *k, const uint8_t *fresh) noexcept nogil:
    """Move to the next epoch, and mix a secret into it that was agreed since, if there is one. Return 0 or -1."""
    cdef uint8_t suite = k.aead.suite
    aead_free(&k.aead)
    if ratchet(k.secret, suite) != 0 or (fresh != NULL and mix(k.secret, suite, fresh) != 0) \
            or aead_of(&k.aead, suite, k.secret) != 0:
        return -1
    k.epoch += 1
    k.sealed = 0
    return 0


cdef int recv_keys_update(RecvKeys *k) noexcept nogil:
    """Follow the peer to the next epoch; the present key is kept for packets that were overtaken."""
    cdef uint8_t suite = k.current.suite
    aead_free(&k.previous)
    k.previous = k.current
    k.current = k.following
    memset(&k.following, 0, sizeof(Aead))
    k.epoch += 1
    if ratchet(k.secret, suite) != 0:
        return -1
    return aead_of(&k.following, suite, k.secret)


cdef int recv_keys_mix(RecvKeys *k, const uint8_t *fresh) noexcept nogil:
    """Mix a secret into the epoch to come: the peer is not there yet, and goes there with it. Return 0 or -1."""
    cdef uint8_t suite = k.current.suite
    aead_free(&k.following)
    if mix(k.secret, suite, fresh) != 0:
        return -1
    return aead_of(&k.following, suite, k.secret)


cdef void recv_keys_forget_previous(RecvKeys *k) noexcept nogil:
    aead_free(&k.previous)


cdef inline void apply_mask(uint8_t *p, uint64_t mask) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, p, 8)             # packets of a GRO batch start at any address
    word ^= mask
    memcpy(p, &word, 8)


cdef Py_ssize_t protect(SendKeys *k, uint8_t *packet, const uint8_t *payload, size_t payload_bytes, uint64_t cid,
                        uint32_t path, uint64_t counter) noexcept nogil:
    """Seal a payload into `packet` and write the header. Return the packet's bytes or -1.

    The payload may stand where it goes, HEADER_BYTES behind `packet`; there is room for it and the tag."""
    cdef Py_ssize_t sealed
    write_u64(packet, cid)
    write_u64(packet + 8, (k.epoch & EPOCH_MASK) << COUNTER_BITS | counter)
    sealed = aead_seal(&k.aead, packet + HEADER_BYTES, payload, payload_bytes, packet, HEADER_BYTES, path, counter)
    if sealed < 0:
        return -1
    k.sealed += 1
    apply_mask(packet + 8, header_mask(k.mask_key, packet + HEADER_BYTES))
    return sealed + HEADER_BYTES


cdef Py_ssize_t unprotect(RecvKeys *k, ReplayWindow *window, uint8_t *packet, size_t bytes, uint32_t path,
                          uint64_t *counter, bint *is_update) noexcept nogil:
    """Open a packet where it is. Return the payload's bytes (it starts at HEADER_BYTES) or an UNPROTECT_* code.

    Nothing is changed by a packet that is not authentic, but the packet itself and the count of forgeries. Without a
    window it is for the caller to make one and to accept the number."""
    cdef Py_ssize_t n
    cdef uint64_t word, number
    cdef uint64_t phase
    cdef Aead *aead = &k.current
    is_update[0] = False
    if bytes < MIN_PACKET_BYTES:
        return UNPROTECT_SHORT
    apply_mask(packet + 8, header_mask(k.mask_key, packet + HEADER_BYTES))
    word = read_u64(packet + 8)
    number = word & ((<uint64_t>1 << COUNTER_BITS) - 1)
    if word >> COUNTER_BITS & ~<uint64_t>EPOCH_MASK:
        return UNPROTECT_RESERVED
    if window != NULL and not replay_is_new(window, number):
        return UNPROTECT_REPLAY
    phase = (word >> COUNTER_BITS) - k.epoch & EPOCH_MASK
    if phase == 1:
        aead = &k.following
    elif phase == EPOCH_MASK and k.previous.suite != SUITE_NONE:
        aead = &k.previous
    elif phase != 0:
        return UNPROTECT_RESERVED
    n = aead_open(aead, packet + HEADER_BYTES, bytes - HEADER_BYTES, packet, HEADER_BYTES, path, number)
    if n < 0:
        k.forged += 1
        return UNPROTECT_FORGED
    if window != NULL:
        replay_accept(window, number)
    counter[0] = number
    if phase == 1:
        is_update[0] = True
    return n
