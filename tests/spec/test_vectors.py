"""Chapter 13 of the specification: the test vectors, made by the library and made anew by another implementation."""

import json

import pytest

from interpeer import Address, PeerId
from tests.spec import reference as ref
from tests.spec.make_vectors import CHAPTER, JSON_FILE, generate, render, suites_here

VECTORS = json.loads(JSON_FILE.read_text())


def decoded(run):
    """Return a handshake with bytes for hexadecimal."""
    return {name: bytes.fromhex(value) if isinstance(value, str) and name != "name" else value for name, value in run.items()}


HANDSHAKES = {run["suite"]: decoded(run) for run in VECTORS["handshakes"]}
INITIATOR, RESPONDER = (ref.Identity(bytes.fromhex(identity["seed"])) for identity in VECTORS["identities"])
NETWORK = b"vectors"


def test_the_library_still_makes_these_vectors():
    """If that is intended: `python -m tests.spec.make_vectors`."""
    here = suites_here()
    expected = VECTORS | {"handshakes": [run for run in VECTORS["handshakes"] if run["suite"] in here]}
    assert generate() == expected
    assert [run["suite"] for run in VECTORS["handshakes"]] == [1, 2, 3, 4]


def test_the_chapter_shows_these_vectors():
    assert CHAPTER.read_text() == render(VECTORS)


def test_identities_and_addresses_are_those_of_the_seeds():
    for identity, vector in zip((INITIATOR, RESPONDER), VECTORS["identities"], strict=True):
        assert vector["id"] == identity.id.hex() and vector["x25519_public"] == identity.public.hex()
        assert vector["x25519_secret"] == identity.secret.hex()
        assert bytes(PeerId(vector["text"])) == bytes(Address(vector["address"]).peer_id) == identity.id


@pytest.mark.spec("HS-4", "HS-10", "HS-11", "HS-12", "HS-18")
@pytest.mark.row("H25")
@pytest.mark.parametrize("suite", HANDSHAKES)
def test_another_implementation_writes_the_same_handshake(suite):
    v = HANDSHAKES[suite]
    random = v["initiator_random"]
    head = ref.header(ref.INIT, bytes([0x80 | random[1] & 0x7F]) + random[1:8])
    initiator = ref.Handshake(INITIATOR, random[8:], head, NETWORK, RESPONDER.public)
    assert ref.with_macs(head + initiator.write(v["init_payload"]), RESPONDER.public, NETWORK) == v["init"]
    responder = ref.Handshake(RESPONDER, v["responder_random"][8:], head, NETWORK)
    assert responder.read(v["init"][10:1168]) == v["init_payload"]
    assert ref.header(ref.RESPONSE, head[2:]) + responder.write(v["response_payload"]) == v["response"]
    assert initiator.read(v["response"][10:]) == v["response_payload"]
    assert initiator.secrets() == (v["initiator_secret"], v["responder_secret"]) == responder.secrets()[::-1]
    theirs = ref.read_parameters(v["response_payload"][32:])
    assert theirs[ref.SUITE_LIST] == bytes([suite]) and ref.read_parameters(v["init_payload"][32:])[ref.PROTOCOL] == b"test/1"
    assert theirs[ref.RESET_TOKEN] == ref.reset_token(RESPONDER.seed, theirs[ref.CONNECTION_ID])


@pytest.mark.spec("PK-19", "PK-20", "PK-21", "PK-22")
@pytest.mark.parametrize("suite", HANDSHAKES)
def test_another_implementation_seals_the_same_packets(suite):
    if suite > 2 and not hasattr(ref.sodium.sodium, "crypto_aead_aegis256_encrypt"):
        pytest.skip("this libsodium has no AEGIS, and no other library here has it")
    v = HANDSHAKES[suite]
    keys = {name: ref.PacketKeys(suite, v[f"{name}_secret"]) for name in ("initiator", "responder")}
    assert keys["initiator"].mask_key == v["initiator_mask_key"]
    assert keys["initiator"].of_epoch(0, 0) == (v["initiator_key_0"], v["initiator_iv_0"])
    cids = {"initiator": ref.read_parameters(v["response_payload"][32:])[ref.CONNECTION_ID], "responder": v["init"][2:10]}
    for packet in v["packets"]:
        sealed = keys[packet["from"]].seal(
            bytes.fromhex(packet["payload"]), cids[packet["from"]], packet["counter"], epoch=packet["epoch"]
        )
        assert sealed.hex() == packet["packet"]
    assert {packet["epoch"] for packet in v["packets"]} == {0, 1} and len(v["packets"]) >= 5
    assert {packet["from"] for packet in v["packets"]} == {"initiator", "responder"}


def test_another_implementation_seals_the_same_replies():
    for name, text in (("cookie", bytes.fromhex(VECTORS["cookie"]["cookie"])), ("versions", b"\1")):
        init, reply = (bytes.fromhex(VECTORS[name][part]) for part in ("init", "reply"))
        assert ref.with_macs(init[:-32], RESPONDER.public, NETWORK) == init
        assert ref.seal_reply(reply[:10], text, reply[10:34], init[-32:-16], RESPONDER.public, NETWORK) == reply
    cookie = VECTORS["cookie"]
    shown = ref.with_macs(bytes.fromhex(cookie["init"])[:1168], RESPONDER.public, NETWORK, bytes.fromhex(cookie["cookie"]))
    assert shown.hex() == cookie["init_with_cookie"]
    packet, reset = (bytes.fromhex(VECTORS["reset"][part]) for part in ("packet", "reset"))
    assert reset[24:] == ref.reset_token(RESPONDER.seed, packet[:8]) and len(reset) == 40 < len(packet)


def test_siphash_is_that_of_its_authors():
    assert ref.siphash(bytes(range(16)), bytes(range(15))).hex() == "e545be4961ca29a1"
