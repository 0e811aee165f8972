"""The ciphers, hashes and keys of the core, each beside an implementation that is not libsodium's."""

import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

from interpeer import _sodium
from interpeer._core import probe
from tests.models import aegis, protection

SUITES = probe.available_suites()
suites = pytest.mark.parametrize("suite", SUITES)
keys = st.binary(min_size=32, max_size=32)


def oracle(suite, key, iv, path, counter, text, header):
    """Seal with an implementation that is not ours."""
    number = probe.SUITES[suite]
    return protection.seal(number, key, protection.nonce(number, iv, path, counter), text, header)


# --- packets ---


@suites
@settings(max_examples=40)
@given(
    key=keys,
    iv=keys,
    path=st.sampled_from([0, 1, 2**32 - 1]) | st.integers(0, 2**32 - 1),
    counter=st.sampled_from([0, 1, 2**56 - 1, 2**64 - 1]) | st.integers(0, 2**56 - 1),
    text=st.binary(max_size=100),
    header=st.binary(max_size=40),
)
def test_sealing_agrees_with_an_independent_implementation(suite, key, iv, path, counter, text, header):
    ours = probe.Key(suite, key, iv)
    sealed = oracle(suite, key, iv, path, counter, text, header)
    assert ours.seal(text, header, path, counter) == sealed
    assert ours.seal(text, header, path, counter, in_place=False) == sealed
    assert ours.open(sealed, header, path, counter) == text


@suites
@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 31, 32, 33, 1159, 1200])
def test_each_size_of_packet_agrees(suite, n):
    key, iv, text, header = bytes(range(32)), bytes(range(32, 64)), bytes(i % 251 for i in range(n)), bytes(range(16))
    assert probe.Key(suite, key, iv).seal(text, header, 7, 2**40) == oracle(suite, key, iv, 7, 2**40, text, header)


@pytest.mark.parametrize(
    ("suite", "key", "iv", "sealed"),
    [
        (
            "aegis-128l",
            "10010000000000000000000000000000",
            "10000200000000000000000000000000",
            "c1c0e58bd913006feba00f4b3cc3594e25835bfbb21632176cf03840687cb968cace4617af1bd0f7d064c639a5c79ee4",
        ),
        (
            "aegis-256",
            "1001000000000000000000000000000000000000000000000000000000000000",
            "1000020000000000000000000000000000000000000000000000000000000000",
            "754fc3d8c973246dcc6d741412a4b2361181a1d18091082bf0266f66297d167d2e68b845f61a3b0527d31fc7b7b89f13",
        ),
    ],
)
def test_published_vectors_of_aegis_are_met(suite, key, iv, sealed):
    """draft-irtf-cfrg-aegis-aead, test vectors: 16 zeros without associated data."""
    key, iv, sealed = (bytes.fromhex(text) for text in (key, iv, sealed))
    cipher = aegis.Aegis128L if suite == "aegis-128l" else aegis.Aegis256
    assert aegis.seal(cipher, key, iv, bytes(16), b"") == sealed
    if suite in SUITES:
        assert probe.Key(suite, key.ljust(32, b"\0"), iv.ljust(32, b"\0")).seal(bytes(16), b"", 0, 0) == sealed


@suites
def test_tag_has_the_bytes_that_packets_leave_for_it(suite):
    assert len(probe.Key(suite, bytes(32), bytes(32)).seal(b"text", b"", 0, 0)) == 4 + protection.TAG_BYTES[probe.SUITES[suite]]


@pytest.mark.row("P1", "P5")
@suites
def test_every_flipped_bit_is_noticed(suite):
    key = probe.Key(suite, bytes(32), bytes(range(32)))
    text, header = b"twenty bytes of text", bytes(range(16))
    sealed = key.seal(text, header, 1, 2)
    for bit in range(8 * len(sealed)):
        forged = bytearray(sealed)
        forged[bit // 8] ^= 1 << bit % 8
        assert key.open(bytes(forged), header, 1, 2) is None
    for bit in range(8 * len(header)):
        forged = bytearray(header)
        forged[bit // 8] ^= 1 << bit % 8
        assert key.open(sealed, bytes(forged), 1, 2) is None
    for path, counter in ((0, 2), (1, 3), (1, 2 + 2**32), (1 + 2**31, 2), (2, 1)):
        assert key.open(sealed, header, path, counter) is None
    assert key.open(sealed, header, 1, 2) == text


@suites
def test_ciphertext_shorter_than_a_tag_is_refused(suite):
    key = probe.Key(suite, bytes(32), bytes(32))
    sealed = key.seal(b"", b"", 0, 0)
    for n in range(len(sealed)):
        assert key.open(sealed[:n], b"", 0, 0) is None
    assert key.open(sealed, b"", 0, 0) == b""


@suites
def test_no_two_packets_have_the_same_nonce(suite):
    """Neighbours in path and counter, and values that would collide if one ran into the other."""
    key, seen = probe.Key(suite, bytes(32), bytes(32)), set()
    pairs = [(path, counter) for path in (0, 1, 255, 256, 2**32 - 1) for counter in (0, 1, 255, 256, 2**32, 2**56 - 1)]
    for path, counter in pairs:
        seen.add(key.seal(bytes(16), b"", path, counter))
    assert len(seen) == len(pairs)


def test_unavailable_cipher_is_refused():
    for suite in set(probe.SUITES) - set(SUITES):
        with pytest.raises(ValueError, match="is not available"):
            probe.Key(suite, bytes(32), bytes(32))
    assert "chacha20-poly1305" in SUITES


@given(st.binary(min_size=16, max_size=16), st.binary(min_size=16, max_size=16))
def test_header_mask_is_siphash_of_the_sample(key, sample):
    assert protection.siphash(bytes(range(16)), bytes(range(15))).hex() == "e545be4961ca29a1"  # from the paper
    assert probe.mask(key, sample) == protection.siphash(key, sample)


# --- handshake and cookies ---


@given(key=keys, counter=st.integers(0, 2**64 - 1), text=st.binary(max_size=80), ad=st.binary(max_size=80))
def test_noise_cipher_is_chacha_with_a_little_endian_nonce(key, counter, text, ad):
    sealed = probe.noise_seal(text, ad, counter, key)
    assert sealed == ChaCha20Poly1305(key).encrypt(bytes(4) + counter.to_bytes(8, "little"), text, ad)
    assert probe.noise_open(sealed, ad, counter, key) == text
    assert probe.noise_open(sealed[:-1] + bytes([sealed[-1] ^ 1]), ad, counter, key) is None


def test_noise_ciphertext_shorter_than_a_tag_is_refused():
    for n in range(16):
        assert probe.noise_open(bytes(n), b"", 0, bytes(32)) is None
        assert probe.xopen(bytes(n), b"", bytes(24), bytes(32)) is None


@given(key=keys, nonce=st.binary(min_size=24, max_size=24), text=st.binary(max_size=80), ad=st.binary(max_size=80))
def test_sealed_replies_are_xchacha(key, nonce, text, ad):
    sealed = probe.xseal(text, ad, nonce, key)
    assert sealed == _sodium.pysodium().crypto_aead_xchacha20poly1305_ietf_encrypt(text, ad, nonce, key)
    assert probe.xopen(sealed, ad, nonce, key) == text
    assert probe.xopen(sealed, ad + b"x", nonce, key) is None


# --- hashes ---


@given(a=st.binary(max_size=300), b=st.binary(max_size=300), key=st.binary(max_size=64), size=st.integers(16, 64))
def test_hash_is_blake2b_of_both_parts(a, b, key, size):
    assert probe.hash(a, b, key, size) == hashlib.blake2b(a + b, digest_size=size, key=key).digest()


@given(chaining_key=st.binary(min_size=64, max_size=64), material=st.binary(max_size=64), in_place=st.booleans())
def test_hkdf_is_noises(chaining_key, material, in_place):
    """Noise, revision 34, 4.3."""

    def hmac_hash(key, data):
        return hmac.new(key, data, hashlib.blake2b).digest()

    temporary = hmac_hash(chaining_key, material)
    first = hmac_hash(temporary, b"\1")
    assert probe.hkdf(chaining_key, material, in_place=in_place) == (first, hmac_hash(temporary, first + b"\2"))


def test_secrets_are_compared_whole():
    assert probe.equal(bytes(range(16)), bytes(range(16))) and probe.equal(b"", b"")
    for bit in range(128):
        other = bytearray(range(16))
        other[bit // 8] ^= 1 << bit % 8
        assert not probe.equal(bytes(range(16)), bytes(other))


# --- keys ---

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def edwards_add(a, b):
    """Add two points of edwards25519 (RFC 8032, 5.1)."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2
    return (
        (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P,
    )


def edwards_decode(text):
    sign, y = text[31] >> 7, int.from_bytes(text, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (x if x % 2 == sign else P - x), y


def edwards_encode(point):
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


ORDER_8 = bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")


@pytest.mark.row("F8")
@given(keys)
def test_everything_of_an_identity_comes_from_its_seed(seed):
    ed25519, secret, public = probe.identity(seed)
    assert ed25519 == Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    scalar = bytearray(hashlib.sha512(seed).digest()[:32])
    scalar[0] &= 248
    scalar[31] = scalar[31] & 127 | 64
    assert secret == bytes(scalar)
    assert public == X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
    sodium = _sodium.pysodium()
    pair = sodium.crypto_sign_seed_keypair(seed)
    assert pair[0] == ed25519
    assert sodium.crypto_sign_pk_to_box_pk(ed25519) == public and sodium.crypto_sign_sk_to_box_sk(pair[1]) == secret


@given(keys)
def test_identity_converts_to_its_x25519_key_and_so_does_its_negative(seed):
    ed25519, _, public = probe.identity(seed)
    y = int.from_bytes(ed25519, "little") & (2**255 - 1)
    assert public == ((1 + y) * pow(1 - y, -1, P) % P).to_bytes(32, "little")
    assert probe.x25519_of(ed25519) == public
    negative = ed25519[:31] + bytes([ed25519[31] ^ 0x80])
    assert probe.x25519_of(negative) == public


@given(keys, keys)
def test_both_sides_agree_and_so_does_an_independent_implementation(a, b):
    public_b = probe.x25519_public(b)
    shared = probe.x25519(a, public_b)
    assert shared == probe.x25519(b, probe.x25519_public(a))
    assert shared == X25519PrivateKey.from_private_bytes(a).exchange(X25519PublicKey.from_public_bytes(public_b))


@pytest.mark.row("H6")
def test_identities_of_small_order_are_refused():
    point, seen = edwards_decode(ORDER_8), set()
    other = (0, 1)
    for _ in range(8):
        other = edwards_add(other, point)
        seen.add(edwards_encode(other))
    assert len(seen) == 8
    for identity in seen:
        assert probe.x25519_of(identity) is None


@pytest.mark.row("H6")
def test_cve_2025_69277_identities_outside_the_main_subgroup_are_refused():
    ed25519, _, _ = probe.identity(bytes(range(32)))
    point = edwards_decode(ed25519)
    assert probe.x25519_of(edwards_encode(point)) is not None
    for _ in range(7):
        point = edwards_add(point, edwards_decode(ORDER_8))
        assert probe.x25519_of(edwards_encode(point)) is None


@pytest.mark.row("H6")
def test_identities_that_are_no_points_are_refused():
    refused = 0
    for y in range(2, 60):
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        if pow(square, (P - 1) // 2, P) != 1:
            assert probe.x25519_of(y.to_bytes(32, "little")) is None
            refused += 1
    assert refused > 20
    for value in range(P, P + 19):  # the same y as a smaller number has
        assert probe.x25519_of(value.to_bytes(32, "little")) is None
