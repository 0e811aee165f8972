"""The Noise handshakes against the published vectors, against an independent implementation, and against garbage."""

import json
import random
from pathlib import Path

import pytest
from noise.connection import Keypair, NoiseConnection

from interpeer._core import probe

# of the published vectors those of the two handshakes that are used here
VECTORS = json.loads((Path(__file__).parents[1] / "vectors/noise-25519.json").read_text())["vectors"]
OURS = {v["protocol_name"].split("_")[1]: v for v in VECTORS}


def pair(v):
    init_secret, resp_secret = bytes.fromhex(v["init_static"]), bytes.fromhex(v["resp_static"])
    remote = bytes.fromhex(v["init_remote_static"]) if "init_remote_static" in v else None
    pattern = v["protocol_name"].split("_")[1]
    prologue = bytes.fromhex(v["init_prologue"])
    a = probe.Handshake(pattern, True, prologue, init_secret, probe.x25519_public(init_secret), remote)
    b = probe.Handshake(pattern, False, prologue, resp_secret, probe.x25519_public(resp_secret))
    return a, b


@pytest.mark.row("H25")
@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_published_vectors_are_met_byte_for_byte(pattern):
    v = OURS[pattern]
    sides = pair(v)
    ephemerals = [bytes.fromhex(v["init_ephemeral"]), bytes.fromhex(v["resp_ephemeral"])]
    messages = [(bytes.fromhex(m["payload"]), bytes.fromhex(m["ciphertext"])) for m in v["messages"]]
    for i, (payload, ciphertext) in enumerate(messages):
        if sides[0].is_done:
            break
        assert sides[i % 2].write(payload, ephemerals[i % 2]) == ciphertext
        assert sides[1 - i % 2].read(ciphertext) == payload
    assert sides[0].is_done and sides[1].is_done
    assert sides[0].hash.hex() == sides[1].hash.hex() == v["handshake_hash"]
    (a_send, a_receive), (b_send, b_receive) = sides[0].split(), sides[1].split()
    assert (a_send, a_receive) == (b_receive, b_send) and a_send != a_receive
    # the vectors go on with transport messages: Noise's own cipher states, keyed by the split secrets
    counters = [0, 0]
    for j, (payload, ciphertext) in enumerate(messages[i:], i):
        key = a_send if j % 2 == 0 else b_send
        assert probe.noise_seal(payload, b"", counters[j % 2], key) == ciphertext
        counters[j % 2] += 1


def theirs(pattern, is_initiator, prologue, secret, ephemeral, remote):
    """Return a handshake of the package noiseprotocol, which uses neither libsodium nor code of ours."""
    noise = NoiseConnection.from_name(f"Noise_{pattern}_25519_ChaChaPoly_BLAKE2b".encode())
    noise.set_as_initiator() if is_initiator else noise.set_as_responder()
    noise.set_prologue(prologue)
    noise.set_keypair_from_private_bytes(Keypair.STATIC, secret)
    noise.set_keypair_from_private_bytes(Keypair.EPHEMERAL, ephemeral)
    if remote is not None:
        noise.set_keypair_from_public_bytes(Keypair.REMOTE_STATIC, remote)
    noise.start_handshake()
    return noise


@pytest.mark.row("H25")
@pytest.mark.filterwarnings("ignore:One of ephemeral keypairs is already set")
@pytest.mark.parametrize("is_initiator", [True, False], ids=["as initiator", "as responder"])
@pytest.mark.parametrize(("pattern", "count"), [("IK", 500), ("XX", 250)])
def test_random_handshakes_agree_with_an_independent_implementation(pattern, count, is_initiator, seed):
    choose = random.Random(seed)
    keys = [(secret, probe.x25519_public(secret)) for secret in (choose.randbytes(32) for _ in range(20))]
    for _ in range(count):
        (our_secret, our_public), (their_secret, their_public) = choose.sample(keys, 2)
        prologue = choose.randbytes(choose.randrange(80))
        ours_knows, theirs_knows = (their_public, None) if is_initiator else (None, our_public)
        if pattern == "XX":
            ours_knows = theirs_knows = None
        ours = probe.Handshake(pattern, is_initiator, prologue, our_secret, our_public, ours_knows)
        other = theirs(pattern, not is_initiator, prologue, their_secret, choose.randbytes(32), theirs_knows)
        is_our_turn = is_initiator
        while not ours.is_done:
            payload = choose.randbytes(choose.choice([0, 1, 63, 64, 65, choose.randrange(1200)]))
            if is_our_turn:
                assert other.read_message(ours.write(payload, choose.randbytes(32))) == payload
            else:
                assert ours.read(bytes(other.write_message(payload))) == payload
            is_our_turn = not is_our_turn
        assert other.handshake_finished and ours.hash == other.get_handshake_hash()
        assert ours.remote_static == their_public
        send, receive = ours.split()
        assert other.decrypt(probe.noise_seal(b"from us", b"", 0, send)) == b"from us"
        assert probe.noise_open(other.encrypt(b"to us"), b"", 0, receive) == b"to us"


@pytest.mark.row("H2", "H3")
@pytest.mark.parametrize("pattern", ["IK", "XX"])
def test_a_damaged_message_changes_nothing_and_the_true_one_still_passes(pattern):
    v = OURS[pattern]
    sides = pair(v)
    for i in range(3 if pattern == "XX" else 2):
        message = sides[i % 2].write(b"payload %d" % i, bytes([i + 1]) * 32)
        reader = sides[1 - i % 2]
        first_is_plain = pattern == "XX" and i == 0
        if not first_is_plain:
            for n in range(len(message)):
                assert reader.read(message[:n]) is None
            for bit in range(0, len(message) * 8, 5):
                damaged = bytearray(message)
                damaged[bit // 8] ^= 1 << bit % 8
                # X25519 ignores the top bit of a public key, and the transcript hash catches that
                assert reader.read(bytes(damaged)) is None
        assert reader.read(message) == b"payload %d" % i


@pytest.mark.row("H5")
def test_points_of_small_order_are_refused():
    small = [
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 19 - 1,
        2**255 - 19,
        2**255 - 19 + 1,
    ]
    secret = bytes(range(32))
    for u in small:
        assert probe.x25519(secret, u.to_bytes(32, "little")) is None


@pytest.mark.row("H12")
def test_another_prologue_fails():
    secret_a, secret_b = bytes(range(32)), bytes(range(1, 33))
    public_b = probe.x25519_public(secret_b)
    a = probe.Handshake("IK", True, b"one", secret_a, probe.x25519_public(secret_a), public_b)
    b = probe.Handshake("IK", False, b"two", secret_b, public_b)
    assert b.read(a.write(b"", bytes(32))) is None
