"""The messages of the handshake: both roles beside an independent implementation, cookies, lists of versions."""

import random

import pytest

from interpeer._core.probe_handshake import Keys, mac1_of, open_sealed_reply
from tests.models import wire
from tests.spec import reference as ref

SECOND = 10**9
FRESH, NONCE = b"f" * 32, b"n" * 24
HERE, ELSEWHERE = (
    (bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 1]), 1001, 0),
    (bytes(10) + b"\xff\xff" + bytes([192, 0, 2, 2]), 1001, 0),
)
CID = 0x80 << 56 | 7
INIT = {"suites": b"\4\3\2\1", "protocol": b"test/1", "max_data": 2**40, "max_udp_payload": 1400, "reset_token": b"t" * 16}
ANSWER = {"suites": b"\2", "max_data": 5, "max_udp_payload": 1300, "connection_id": 0x81 << 56}


@pytest.fixture
def alice():
    return Keys(b"a" * 32, b"net")


@pytest.fixture
def bob():
    return Keys(b"b" * 32, b"net")


def call(alice, bob, parameters=INIT, **options):
    return alice.write_init(bob.public_key, CID, parameters, b"e" * 32, **options)


# --- init and response ---


def test_parameters_and_secrets_are_the_same_at_both_ends(alice, bob):
    init, calling = call(alice, bob)
    assert len(init) == 1200 and bob.has_mac1(init)
    result, answering = bob.read_init(init)
    assert (result, answering.cid, answering.identity) == ("ok", CID, alice.identity)
    assert {name: answering.parameters[name] for name in INIT} == INIT
    response = answering.write_response(CID, ANSWER, b"r" * 32)
    result, parameters = calling.read_response(response, bob.identity)
    assert result == "ok" and {name: parameters[name] for name in ANSWER} == ANSWER
    (send, receive), (other_send, other_receive) = calling.split(), answering.split()
    assert (send, receive) == (other_receive, other_send) and send != receive


@pytest.mark.row("H25")
def test_random_handshakes_agree_with_an_independent_implementation(seed):
    """Init and response as they go over the wire; each role of ours against the other one of the reference."""
    choose = random.Random(seed)
    for _ in range(100):
        network = choose.randbytes(choose.randrange(65))
        seeds, cid = [choose.randbytes(32) for _ in range(2)], (0x80 << 56 | choose.getrandbits(63)).to_bytes(8, "big")
        ours, other = Keys(seeds[0], network), ref.Identity(seeds[1])
        assert (ours.identity, ours.secret, ours.public_key) == (ref.Identity(seeds[0]).id, *key_pair(ref.Identity(seeds[0])))

        # we call
        init, calling = ours.write_init(other.public, int.from_bytes(cid, "big"), INIT, choose.randbytes(32))
        assert init == ref.with_macs(init[:-32], other.public, network)
        noise = ref.Handshake(other, choose.randbytes(32), init[:10], network)
        payload = noise.read(init[10:-32])
        assert payload[:32] == ours.identity and noise.remote_static == ours.public_key
        assert {k: v for k, v in wire.read_parameters(payload[32:]).items() if k in INIT} == INIT
        response = noise.write(other.id + wire.write_parameters(ANSWER))
        result, parameters = calling.read_response(ref.header(ref.RESPONSE, cid) + response, other.id)
        assert result == "ok" and {name: parameters[name] for name in ANSWER} == ANSWER
        assert calling.split() == noise.secrets()[::-1]

        # we are called
        head = ref.header(ref.INIT, cid)
        noise = ref.Handshake(other, choose.randbytes(32), head, network, responder=ours.public_key)
        payload = other.id + wire.write_parameters(INIT)
        init = ref.with_macs(
            head + noise.write(payload + bytes([0]) + padding(1062 - len(payload) - 1)), ours.public_key, network
        )
        assert len(init) == 1200 and ours.has_mac1(init)
        result, answering = ours.read_init(init)
        assert (result, answering.identity) == ("ok", other.id)
        response = answering.write_response(int.from_bytes(cid, "big"), ANSWER, choose.randbytes(32))
        assert response[:10] == ref.header(ref.RESPONSE, cid)
        assert noise.read(response[10:])[:32] == ours.identity
        assert answering.split() == noise.secrets()[::-1]


def key_pair(identity):
    return identity.secret, identity.public


def padding(n):
    """Return the length and the content of a parameter that takes `n` bytes."""
    return wire.varint(n - 2) + bytes(n - 2)


@pytest.mark.row("H2", "H3")
def test_damaged_messages_are_refused_and_the_true_ones_still_pass(alice, bob):
    init, calling = call(alice, bob)
    for bit in range(8, 8 * 1168, 97):
        damaged = bytearray(init)
        damaged[bit // 8] ^= 1 << bit % 8
        assert not bob.has_mac1(bytes(damaged))
        assert bob.read_init(bytes(damaged))[0] == "open"
    _, answering = bob.read_init(init)
    response = answering.write_response(CID, ANSWER, b"r" * 32)
    for n in range(len(response)):
        assert calling.read_response(response[:n], bob.identity)[0] == "open"
    for bit in range(80, 8 * len(response), 7):
        damaged = bytearray(response)
        damaged[bit // 8] ^= 1 << bit % 8
        assert calling.read_response(bytes(damaged), bob.identity)[0] == "open"
    assert calling.read_response(response, bob.identity)[0] == "ok"


@pytest.mark.row("H11", "H12")
def test_init_of_another_network_or_for_another_key_is_refused(alice, bob):
    for caller, called in ((Keys(b"a" * 32, b"other"), bob), (alice, Keys(b"c" * 32, b"net"))):
        init, _ = call(caller, called)
        assert not bob.has_mac1(init) and bob.read_init(init)[0] == "open"


@pytest.mark.row("H7")
def test_our_own_init_reflected_is_refused(bob):
    init, _ = call(bob, bob)
    assert bob.read_init(init)[0] == "identity"


def test_response_of_another_identity_is_refused(alice, bob):
    init, calling = call(alice, bob)
    _, answering = bob.read_init(init)
    response = answering.write_response(CID, ANSWER, b"r" * 32)
    negative = bob.identity[:31] + bytes([bob.identity[31] ^ 0x80])
    assert calling.read_response(response, negative)[0] == "identity"


@pytest.mark.row("H5")
def test_key_of_small_order_cannot_be_called(alice):
    for key in (bytes(32), b"\1" + bytes(31)):
        assert alice.write_init(key, CID, INIT, b"e" * 32) is None


def test_reset_token_belongs_to_the_connection_and_to_the_seed(alice, bob):
    tokens = {keys.reset_token(cid) for keys in (alice, bob) for cid in (CID, CID + 1)}
    assert len(tokens) == 4 and alice.reset_token(CID) == Keys(b"a" * 32, b"another").reset_token(CID)


# --- cookies ---


@pytest.fixture
def cookie(alice, bob):
    """An init, and the cookie that bob gives out for it at the second 1000."""
    bob.rotate_cookie_secret(FRESH, 1000 * SECOND)
    init, _ = call(alice, bob)
    reply = bob.write_cookie_reply(init, HERE, NONCE)
    return open_sealed_reply(reply, alice.sealing_key(bob.public_key), mac1_of(init))


@pytest.mark.row("H18")
def test_cookie_is_good_for_its_address_and_for_two_minutes(alice, bob, cookie):
    assert len(cookie) == 16
    init, _ = call(alice, bob, cookie=cookie)
    for later_s, is_good in ((0, True), (119, True), (240, False), (3600, False)):
        assert bob.has_mac2(init, HERE, (1000 + later_s) * SECOND) == is_good
    assert not bob.has_mac2(init, ELSEWHERE, 1000 * SECOND)
    assert not bob.has_mac2(init, (HERE[0], 1002, 0), 1000 * SECOND)
    plain, _ = call(alice, bob)
    assert not bob.has_mac2(plain, HERE, 1000 * SECOND)


@pytest.mark.row("H18")
def test_cookie_survives_one_rotation_of_the_secret_and_no_second_one(alice, bob, cookie):
    init, _ = call(alice, bob, cookie=cookie)
    assert not bob.rotate_cookie_secret(b"1" * 32, 1119 * SECOND)
    assert bob.rotate_cookie_secret(b"1" * 32, 1120 * SECOND)
    assert bob.has_mac2(init, HERE, 1121 * SECOND)
    assert bob.rotate_cookie_secret(b"2" * 32, 1240 * SECOND)
    assert not bob.has_mac2(init, HERE, 1241 * SECOND)


def test_before_the_first_secret_no_cookie_is_good(alice, bob):
    init, _ = call(alice, bob, cookie=bytes(16))
    assert not bob.has_mac2(init, HERE, 1000 * SECOND)


# --- sealed replies ---


@pytest.mark.row("H19", "H23")
def test_reply_opens_only_for_the_init_and_the_peer_that_it_answers(alice, bob):
    init, _ = call(alice, bob)
    other, _ = alice.write_init(bob.public_key, CID + 1, INIT, b"e" * 32)
    key = alice.sealing_key(bob.public_key)
    for reply in (bob.write_versions_reply(init, NONCE), bob.write_cookie_reply(init, HERE, NONCE)):
        assert reply[2:10] == init[2:10] and len(reply) in (51, 66)
        assert open_sealed_reply(reply, key, mac1_of(init)) is not None
        assert open_sealed_reply(reply, key, mac1_of(other)) is None
        assert open_sealed_reply(reply, alice.sealing_key(alice.public_key), mac1_of(init)) is None
        for n in range(len(reply)):
            assert open_sealed_reply(reply[:n], key, mac1_of(init)) is None
        for bit in range(8 * len(reply)):
            damaged = bytearray(reply)
            damaged[bit // 8] ^= 1 << bit % 8
            assert open_sealed_reply(bytes(damaged), key, mac1_of(init)) is None


@pytest.mark.parametrize("n", [0, 1, 16, 17, 40])
def test_reply_says_no_more_than_sixteen_bytes(alice, bob, n):
    init, _ = call(alice, bob)
    head = ref.header(ref.VERSIONS, init[2:10])
    reply = ref.seal_reply(head, bytes(range(n)), NONCE, mac1_of(init), bob.public_key, b"net")
    assert open_sealed_reply(reply, alice.sealing_key(bob.public_key), mac1_of(init)) == (bytes(range(n)) if n <= 16 else None)


def test_list_of_versions_answers_an_init_of_any_size(alice, bob):
    for n in (64, 500, 1200, 1400):
        init = ref.with_macs(ref.header(ref.INIT, CID.to_bytes(8, "big"), version=9) + bytes(n - 42), bob.public_key, b"net")
        assert len(init) == n and bob.has_mac1(init)
        reply = bob.write_versions_reply(init, NONCE)
        assert open_sealed_reply(reply, alice.sealing_key(bob.public_key), init[-32:-16]) == b"\1"
