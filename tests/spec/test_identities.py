"""Chapter 2 of the specification: identities and addresses."""

import base64
import hashlib

import pytest

from interpeer import Address, Identity, PeerId
from interpeer._core import control, probe
from tests.spec import reference as ref
from tests.spec.peer import PEER_AT, PROTOCOL, Node

ID = ref.Identity(bytes(range(32)))
SMALL_ORDER = [bytes(32), b"\1" + bytes(31), bytes([0xEC]) + b"\xff" * 30 + b"\x7f"]  # y = 0, 1, -1
NOT_ON_THE_CURVE = b"\2" + bytes(31)
# a point of the main subgroup plus the point of order 2: y changes its sign
MIXED_ORDER = (2**255 - 19 - int.from_bytes(ID.id, "little") % 2**255).to_bytes(32, "little")


@pytest.mark.spec("ID-2")
@pytest.mark.parametrize("seed", [bytes(32), bytes(range(32)), b"\xff" * 32])
def test_static_key_is_the_x25519_key_of_the_ed25519_key(seed):
    independent = ref.Identity(seed)
    assert probe.identity(seed) == (independent.id, independent.secret, independent.public)
    assert probe.x25519_of(independent.id) == independent.public == probe.x25519_public(independent.secret)


@pytest.mark.spec("ID-3")
@pytest.mark.parametrize("identity", [*SMALL_ORDER, NOT_ON_THE_CURVE, MIXED_ORDER], ids=["0", "1", "-1", "off", "mixed"])
def test_an_id_that_is_no_usable_key_is_not_called(identity):
    node = Node()
    with pytest.raises(ValueError, match="not a usable key"):
        control.connect(node.engine, identity, [PEER_AT], PROTOCOL)
    with pytest.raises(ValueError, match="not the id of a usable key"):
        PeerId(identity)
    assert node.say() == []


@pytest.mark.spec("ID-5")
@pytest.mark.parametrize("own", [bytes, ref.negated], ids=["A", "-A"])
def test_a_node_does_not_call_itself_under_either_id_of_its_key(own):
    node = Node()
    with pytest.raises(ValueError, match="connect to itself"):
        control.connect(node.engine, own(node.identity.id), [PEER_AT], PROTOCOL)


def base32(data):
    return base64.b32encode(data).decode().rstrip("=").lower()


@pytest.mark.spec("ID-7")
def test_an_id_has_one_text_and_every_other_is_refused():
    text = str(Identity.from_seed(ID.seed).id)
    assert text == base32(ID.id) and len(text) == 52 and bytes(PeerId(text)) == ID.id
    last = "abcdefghijklmnopqrstuvwxyz234567".index(text[-1])
    with_bits_behind = text[:-1] + "abcdefghijklmnopqrstuvwxyz234567"[last | 1]
    for other in (text[:-1], text + "a", text.upper(), text[:-1] + "1", text[:-1] + "é", with_bits_behind, " " + text[1:]):
        assert other != text
        with pytest.raises(ValueError, match="a peer id"):
            PeerId(other)


def word(*endpoints, version=1, secret=b"\0", check=None):
    body = bytes([version]) + ID.id + secret + b"".join(endpoints)
    return base32(body + (check or hashlib.blake2b(body, digest_size=4, person=b"interpeer addr").digest()))


IPV4, IPV6 = b"\4" + bytes([192, 0, 2, 1]) + b"\x11\x51", b"\6" + bytes(15) + b"\1" + b"\x11\x51"


def test_an_address_word_has_the_layout_of_the_specification():
    address = Address(word(IPV4, IPV6, secret=b"\x10" + bytes(range(16))))
    assert bytes(address.peer_id) == ID.id and address.secret == bytes(range(16))
    assert [str(endpoint) for endpoint in address.endpoints] == ["192.0.2.1:4433", "[::1]:4433"]
    assert str(address) == word(IPV4, IPV6, secret=b"\x10" + bytes(range(16)))


@pytest.mark.spec("ID-9")
def test_a_word_with_a_wrong_check_is_refused():
    with pytest.raises(ValueError, match="a character is wrong"):
        Address(word(IPV4, check=b"good"))


@pytest.mark.spec("ID-10")
@pytest.mark.parametrize("version", [0, 2, 255])
def test_a_word_of_another_version_is_refused(version):
    with pytest.raises(ValueError, match=f"of version {version}"):
        Address(word(IPV4, version=version))


@pytest.mark.spec("ID-11")
@pytest.mark.parametrize("size", [1, 15, 17, 255])
def test_a_secret_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match="its secret has the wrong size"):
        Address(word(secret=bytes([size]) + bytes(size)))


SCOPED = b"\7" + IPV6[1:]


@pytest.mark.spec("ID-12")
@pytest.mark.parametrize(
    "endpoint",
    [b"\5" + IPV4[1:], IPV4[:-1], IPV6[:-1], b"\4", IPV4[:-2] + b"\0\0", SCOPED + b"\0", SCOPED, SCOPED + b"\2a"],
    ids=["kind", "cut4", "cut6", "empty", "port", "no scope", "cut before the scope", "cut in the scope"],
)
def test_an_endpoint_that_cannot_be_used_is_refused(endpoint):
    with pytest.raises(ValueError, match="cannot be read|a port is a number from 1"):
        Address(word(IPV4, endpoint))


@pytest.mark.spec("ID-13")
def test_more_than_sixteen_endpoints_are_refused():
    assert len(Address(word(*[IPV4] * 16)).endpoints) == 16
    with pytest.raises(ValueError, match="at most 16 endpoints"):
        Address(word(*[IPV4] * 17))
