"""The STUN codec: RFC 5769's vectors, every attribute, and what is too short, too long or too much."""

import hashlib

import pytest

from interpeer._core import stun
from tests.models import stun as model

ID = bytes(range(12))
V4, V6 = model.endpoint("192.0.2.1", 32853), model.endpoint("2001:db8:1234:5678:11:2233:4455:6677", 32853)

# RFC 5769, 2
REQUEST = bytes.fromhex(
    "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e74002400046e0001ff80290008932ff9b151263b36"
    "000600096576746a3a68367659202020000800149aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a280280004e57a3bcf"
)
RESPONSE_IPV4 = bytes.fromhex(
    "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000080001a147e112a643"
    "000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96"
)
RESPONSE_IPV6 = bytes.fromhex(
    "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f7220002000140002a1470113a9faa5d3f179bc25f4b5bed2b9d9"
    "00080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c"
)
LONG_TERM = bytes.fromhex(
    "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383e382afe382b900000015001c662f2f3439396b393534643"
    "64f4c33346f4c394653547679363473410014000b6578616d706c652e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666"
)
# RFC 8489, B.1, with the integrity of erratum 6268
LONG_TERM_SHA256 = bytes.fromhex(
    "000100902112a44278ad3433c6ad72c029da412e001e00204a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704001500296f62"
    "4d61744a6f733241414143662f2f3439396b39353464364f4c33346f4c394653547679363473410000000014000b6578616d706c652e6f726700001d0004"
    "00020000001c0020b5c7bf005b6c52a21c51c5e892f81924136296cb927c43149309278cc6518e65"
)
PASSWORD = b"VOkJxbRl1RmTxUk/WvJxBt"


def test_the_sample_request_of_rfc_5769():
    message = stun.parse(REQUEST)
    assert (message.kind, message.method, message.transaction.hex()) == (stun.REQUEST, stun.BINDING, "b7e7a701bc34d686fa87dfae")
    assert (message.software, message.username) == (b"STUN test client", b"evtj:h6vY")
    assert message.has_fingerprint and message.has_integrity and message.unknown == (0x24,)
    assert stun.verify(REQUEST, PASSWORD) and not stun.verify(REQUEST, PASSWORD[1:])


@pytest.mark.parametrize(("data", "mapped"), [(RESPONSE_IPV4, V4), (RESPONSE_IPV6, V6)], ids=["IPv4", "IPv6"])
def test_the_sample_responses_of_rfc_5769(data, mapped):
    message = stun.parse(data)
    assert (message.kind, message.mapped, message.software) == (stun.SUCCESS, mapped, b"test vector")
    assert stun.verify(data, PASSWORD)


def test_the_sample_request_with_a_long_term_credential_of_rfc_5769():
    message = stun.parse(LONG_TERM)
    assert message.username.decode() == "マトリックス" and message.realm == b"example.org"
    assert message.nonce == b"f//499k954d6OL34oL9FSTvy64sA"
    assert stun.verify(LONG_TERM, hashlib.md5("マトリックス:example.org:TheMatrIX".encode()).digest())


def test_the_sample_request_of_rfc_8489():
    message = stun.parse(LONG_TERM_SHA256)
    assert (message.realm, message.unknown) == (b"example.org", ())
    assert stun.verify(LONG_TERM_SHA256, hashlib.sha256("マトリックス:example.org:TheMatrIX".encode()).digest())


def test_every_attribute_is_read():
    text = b"a text"
    data = model.message(
        model.ERROR, ID, (model.MAPPED_ADDRESS, model.address(V6)), (model.OTHER_ADDRESS, model.address(V4)),
        (model.RESPONSE_ORIGIN, model.address(V6)), (model.ALTERNATE_SERVER, model.address(V4)), model.error_code(487, text),
        (model.UNKNOWN_ATTRIBUTES, bytes.fromhex("00240025c001")), (model.CHANGE_REQUEST, bytes([0, 0, 0, 6])),
        (model.RESPONSE_PORT, bytes([0x12, 0x34])), (model.PADDING, bytes(33)), (model.USERNAME, b"me"), (model.REALM, b"here"),
        (model.NONCE, b"once"), (model.SOFTWARE, text), (0x7FFF, b"?"), (0x0025, b""), (0xFFFF, b"optional"),
    )  # fmt: skip
    message = stun.parse(data)
    assert (message.kind, message.mapped, message.other, message.origin, message.alternate) == (stun.ERROR, V6, V4, V6, V4)
    assert (message.error, message.reason, message.listed) == (487, text, (0x24, 0x25, 0xC001))
    assert (message.change, message.response_port, message.padding) == (stun.CHANGES_PORT | stun.CHANGES_ADDRESS, 0x1234, 33)
    assert (message.username, message.realm, message.nonce, message.software) == (b"me", b"here", b"once", text)
    assert message.unknown == (0x7FFF, 0x25) and not message.has_fingerprint and not message.has_integrity


def test_an_xored_address_counts_more_than_a_plain_one_and_the_first_of_several_alike():
    others = [(model.MAPPED_ADDRESS, model.address(V6)), model.xor_mapped(V4, ID), model.xor_mapped(V6, ID)]
    assert stun.parse(model.message(model.SUCCESS, ID, *others)).mapped == V4


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("method", [1, 3, 0x00F, 0x010, 0x07F, 0x080, 0xFFF])
def test_class_and_method_share_the_type(kind, method):
    code = (method & 0xF80) << 2 | (method & 0x70) << 1 | (method & 0xF) | (kind & 2) << 7 | (kind & 1) << 4
    message = stun.parse(model.message(code, ID))
    assert (message.kind, message.method) == (kind, method)


BAD = {
    "nothing": b"",
    "a cut header": model.message(model.REQUEST, ID)[:19],
    "the first bits are not zero": model.message(model.REQUEST | 0x4000, ID),
    "no magic": REQUEST[:4] + bytes(4) + REQUEST[8:],
    "a length that is too long": model.message(model.REQUEST, ID, length=4),
    "a length that is too short": model.message(model.REQUEST, ID, (model.SOFTWARE, b"x"), length=4),
    "a length that is no multiple of four": model.message(model.REQUEST, ID, length=2) + bytes(2),
    "an attribute beyond the end": model.message(model.REQUEST, ID) [:2] + b"\0\4" + model.message(0, ID)[4:] + b"\x80\x22\0\1",
    "an attribute of 65,535 bytes": model.message(model.REQUEST, ID)[:2] + b"\0\4" + model.message(0, ID)[4:] + b"\0\6\xff\xff",
    "an address of no bytes": model.message(model.SUCCESS, ID, (model.XOR_MAPPED_ADDRESS, b"")),
    "an address of three bytes": model.message(model.SUCCESS, ID, (model.XOR_MAPPED_ADDRESS, b"\0\1\1")),
    "an address of no family": model.message(model.SUCCESS, ID, (model.XOR_MAPPED_ADDRESS, bytes(8))),
    "an IPv6 address of four bytes": model.message(model.SUCCESS, ID, (model.XOR_MAPPED_ADDRESS, b"\0\2" + bytes(6))),
    "an IPv4 address of sixteen": model.message(model.SUCCESS, ID, (model.XOR_MAPPED_ADDRESS, b"\0\1" + bytes(18))),
    "an address with port 0": model.message(model.SUCCESS, ID, (model.MAPPED_ADDRESS, b"\0\1\0\0\1\2\3\4")),
    "another server of no bytes": model.message(model.SUCCESS, ID, (model.OTHER_ADDRESS, b"")),
    "an error without a number": model.message(model.ERROR, ID, (model.ERROR_CODE, b"\0\0")),
    "an error below 300": model.message(model.ERROR, ID, model.error_code(200)),
    "an error above 699": model.message(model.ERROR, ID, model.error_code(700)),
    "an error of 499 and one": model.message(model.ERROR, ID, (model.ERROR_CODE, bytes([0, 0, 4, 100]))),
    "half an unknown attribute": model.message(model.ERROR, ID, (model.UNKNOWN_ATTRIBUTES, b"\0\1\0")),
    "a change of two bytes": model.message(model.REQUEST, ID, (model.CHANGE_REQUEST, b"\0\6")),
    "a port of one byte": model.message(model.REQUEST, ID, (model.RESPONSE_PORT, b"\1")),
    "port 0": model.message(model.REQUEST, ID, (model.RESPONSE_PORT, b"\0\0")),
    "too long a name": model.message(model.REQUEST, ID, (model.USERNAME, bytes(509))),
    "too long a text": model.message(model.REQUEST, ID, (model.SOFTWARE, bytes(764))),
    "an integrity that is cut": model.message(model.REQUEST, ID, (model.INTEGRITY, bytes(16))),
    "an integrity that is cut too much": model.message(model.REQUEST, ID, (model.INTEGRITY_SHA256, bytes(12))),
    "an integrity that is too long": model.message(model.REQUEST, ID, (model.INTEGRITY_SHA256, bytes(36))),
    "a wrong fingerprint": model.message(model.REQUEST, ID, (model.FINGERPRINT, bytes(4))),
    "a fingerprint of eight bytes": model.message(model.REQUEST, ID, (model.FINGERPRINT, bytes(8))),
    "more behind the fingerprint": model.add(model.with_fingerprint(model.message(model.REQUEST, ID)), model.SOFTWARE, b"x"),
    "too many attributes": model.message(model.REQUEST, ID, *[(0x8000, b"")] * 65),
}  # fmt: skip


@pytest.mark.row("N8")
@pytest.mark.spec("SN-3")
def test_cve_2026_54909_an_address_of_no_bytes_is_refused():
    for code in (
        model.XOR_MAPPED_ADDRESS,
        model.MAPPED_ADDRESS,
        model.OTHER_ADDRESS,
        model.RESPONSE_ORIGIN,
        model.ALTERNATE_SERVER,
    ):
        for size in range(8):
            assert stun.parse(model.message(model.SUCCESS, ID, (code, bytes([0, 1, 1, 1, 1, 1, 1])[:size]))) is None
            assert stun.parse(model.message(model.SUCCESS, ID, (code, bytes(size)))) is None


@pytest.mark.row("N8")
@pytest.mark.spec("SN-2", "SN-3")
@pytest.mark.parametrize("name", BAD)
def test_malformed_message_is_none(name):
    assert stun.parse(BAD[name]) is None and not stun.verify(BAD[name], b"key")


@pytest.mark.spec("SN-2")
def test_no_cut_message_is_one():
    for data in (REQUEST, RESPONSE_IPV4, RESPONSE_IPV6, LONG_TERM):
        assert [n for n in range(len(data)) if stun.parse(data[:n]) is not None] == []


def test_as_many_attributes_as_are_allowed_are_read():
    assert stun.parse(model.message(model.REQUEST, ID, *[(0x8000, b"")] * 64)) is not None


@pytest.mark.parametrize("code", [model.INTEGRITY, model.INTEGRITY_SHA256])
def test_what_stands_behind_an_integrity_is_not_there(code):
    data = model.with_integrity(model.message(model.SUCCESS, ID), b"key", code)
    data = model.add(data, *model.xor_mapped(V4, ID))
    assert stun.verify(data, b"key") and stun.parse(data).mapped is None


def test_both_integrities_and_a_fingerprint_stand_together():
    data = model.with_integrity(model.message(model.SUCCESS, ID, model.xor_mapped(V4, ID)), b"key", model.INTEGRITY)
    data = model.with_fingerprint(model.with_integrity(data, b"key"))
    assert stun.verify(data, b"key") and not stun.verify(data, b"other") and stun.parse(data).has_fingerprint


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32])
def test_a_cut_integrity_is_verified_as_far_as_it_goes(size):
    data = model.with_integrity(model.message(model.SUCCESS, ID), b"key", size=size)
    assert stun.verify(data, b"key")
    assert not stun.verify(data[:-1] + bytes([data[-1] ^ 1]), b"key")


def test_a_right_sha1_does_not_make_up_for_a_wrong_sha256():
    data = model.with_integrity(model.message(model.SUCCESS, ID), b"key", model.INTEGRITY)
    assert stun.verify(data, b"key")
    assert not stun.verify(model.with_integrity(data, b"other"), b"key")


def test_a_message_without_an_integrity_is_not_verified():
    assert not stun.verify(model.message(model.SUCCESS, ID), b"key")


@pytest.mark.parametrize("changed", range(0, 72, 5))
def test_a_changed_message_is_not_verified(changed):
    data = bytearray(model.with_integrity(model.message(model.SUCCESS, ID, model.xor_mapped(V4, ID)), b"key"))
    data[changed % len(data)] ^= 1
    assert not stun.verify(bytes(data), b"key")


def test_a_request_is_what_the_twin_writes():
    expected = model.with_fingerprint(model.message(model.REQUEST, ID, (model.SOFTWARE, stun.SOFTWARE)))
    assert stun.binding_request(ID) == expected


def test_a_request_leaves_room_for_the_longest_answer():
    longest = model.with_fingerprint(model.message(model.SUCCESS, ID, model.xor_mapped(V6, ID)))
    assert len(stun.binding_request(ID)) >= len(longest)


@pytest.mark.parametrize("with_sha1", [False, True])
def test_a_request_with_everything_is_what_the_twin_writes(with_sha1):
    data = stun.binding_request(ID, change=6, response_port=4660, username=b"me", key=b"key", with_sha1=with_sha1)
    plain = model.message(
        model.REQUEST, ID, (model.SOFTWARE, stun.SOFTWARE), (model.CHANGE_REQUEST, b"\0\0\0\6"),
        (model.RESPONSE_PORT, b"\x12\x34\0\0"), (model.USERNAME, b"me"),
    )  # fmt: skip
    code = model.INTEGRITY if with_sha1 else model.INTEGRITY_SHA256
    assert data == model.with_fingerprint(model.with_integrity(plain, b"key", code))
    assert stun.verify(data, b"key")


def test_what_cannot_be_written_is_refused():
    with pytest.raises(ValueError, match="12 bytes, not 11"):
        stun.binding_request(ID[1:])
    with pytest.raises(ValueError, match="508 bytes, not 509"):
        stun.binding_request(ID, username=bytes(509))
