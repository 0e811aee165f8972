"""Chapter 13 of the specification: the test vectors, made by the library and made anew by another implementation."""

import json

import pytest

from interpeer import Address, PeerId
from interpeer._core import probe_wire
from tests.models import gf256, wire
from tests.spec import reference as ref
from tests.spec.make_more_vectors import FRAMES, plain
from tests.spec.make_vectors import CHAPTER, JSON_FILE, generate, render, suites_here
from tests.spec.peer import Node, Peer

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


# --- what needs no handshake ---


@pytest.mark.spec("FR-9")
@pytest.mark.parametrize(
    ("vector", "made"),
    [pytest.param(*pair, id=pair[0]["name"]) for pair in zip(VECTORS["frames"], FRAMES, strict=True)],
)
def test_three_readers_agree_on_each_frame(vector, made):
    name, fields, values = made
    encoded = bytes.fromhex(vector["frame"])
    assert probe_wire.parse(encoded) == wire.read_frames(encoded) == ([values], True)
    (frame,) = ref.read_frames(encoded)
    assert frame.kind == getattr(ref, name, None) or frame.kind == getattr(ref, f"F_{name}")
    told = vector["fields"]
    assert told == {field: plain(value) for field, value in zip(fields.split(), values[1:], strict=False)}
    for field in ("offset", "within", "delay", "path", "fin"):
        if field in told:
            assert getattr(frame, {"delay": "delay_us"}.get(field, field)) == told[field]


def test_there_is_a_vector_of_each_frame():
    kinds = {bytes.fromhex(vector["frame"])[0] for vector in VECTORS["frames"]}
    assert {*range(1, 8), *range(0x10, 0x13), 0x17, *range(0x18, 0x27)} <= kinds
    assert any(8 <= kind < 16 for kind in kinds) and any(0x2C <= kind < 0x30 for kind in kinds)


@pytest.mark.spec("PK-21")
def test_another_implementation_seals_the_same_packets_of_other_paths():
    for vector in VECTORS["path_packets"]:
        keys = ref.PacketKeys(vector["suite"], bytes.fromhex(vector["secret"]))
        payload, cid = bytes.fromhex(vector["payload"]), bytes.fromhex(vector["connection_id"])
        assert keys.seal(payload, cid, vector["counter"], path=vector["path"]).hex() == vector["packet"]
    assert len({vector["packet"] for vector in VECTORS["path_packets"]}) == 4


@pytest.mark.spec("FE-6", "FE-16", "FE-20")
def test_the_lost_message_comes_by_the_repair_in_the_library_and_in_its_twin():
    vectors = VECTORS["repairs"]
    assert all(gf256.multiply(a, b) == product for a, b, product in vectors["products"])
    assert all(gf256.factor(seed, number) == factor for seed, number, factor in vectors["factors"])
    messages = {each["number"]: bytes.fromhex(each["message"]) for each in vectors["messages"]}
    protected = {
        each["number"]: each["offset"].to_bytes(8, "big") + ref.message(each["number"], messages[each["number"]], ordered=False)
        for each in vectors["messages"]
    }
    repair = bytes.fromhex(vectors["repair"])
    (frame,) = ref.read_frames(repair)
    first, count, seed, symbol = frame.data[0], frame.data[1], int.from_bytes(frame.data[2:4], "big"), frame.data[4:]
    assert (first, count, seed) == (0, 4, 1) and symbol == gf256.repair(protected, seed)
    rest = {number: text for number, text in protected.items() if number != vectors["lost"]}
    found = gf256.solve([({vectors["lost"]: gf256.factor(seed, vectors["lost"])}, gf256.add(symbol, gf256.repair(rest, seed)))])
    assert gf256.message(found[vectors["lost"]]) == protected[vectors["lost"]]
    peer = Peer(Node()).call()
    peer.send(ref.channel_frame(0, 0, 0, fec=(4, 1)))
    channel = peer.handle.accept_channel()
    for each in vectors["messages"]:
        if each["number"] != vectors["lost"]:
            peer.send(bytes.fromhex(each["frame"]))
    assert len(channel.recv_many(9, False)) == 3
    peer.send(repair)
    assert channel.recv_many(9, True) == [(vectors["lost"], messages[vectors["lost"]])]


@pytest.mark.spec("KU-7", "KU-8")
def test_another_implementation_agrees_on_the_same_fresh_keys():
    v = {name: bytes.fromhex(value) for name, value in VECTORS["fresh_keys"].items()}
    identities = {side: ref.Identity(v[f"{side}_seed"]) for side in ("initiator", "responder")}
    sends, receives = (ref.PacketKeys(1, v[f"{side}_secret_0"]) for side in ("initiator", "responder"))
    view = ref.Agreements(identities["initiator"], identities["responder"].public, sends, receives, is_initiator=True)
    assert view.chain == v["first_chain"]
    assert ref.rekey(1, view.message(v["initiator_ephemeral"])) == v["rekey"]
    assert bytes(view.noise.read_message(v["rekey_answer"][2:])) == b""
    view.finish(1, 1)
    assert (sends.secret(1), receives.secret(1)) == (v["initiator_secret_1"], v["responder_secret_1"])
    assert view.chain == v["next_chain"]
    cid = bytes.fromhex(VECTORS["path_packets"][0]["connection_id"])
    assert sends.seal(v["payload"], cid, 9, epoch=1) == v["packet"]


@pytest.mark.spec("PK-42")
def test_ids_name_their_shards_by_their_first_two_bytes():
    for vector in VECTORS["shards"]:
        cid = bytes.fromhex(vector["connection_id"])
        assert (cid[0] ^ cid[1]) & 0x7F == vector["shard"]
