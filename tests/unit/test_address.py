"""Addresses and tickets: one word, one meaning."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interpeer import Address, Endpoint, Identity
from interpeer._address import _check
from interpeer._identity import to_base32

ID = Identity.from_seed(bytes(32)).id
HOSTS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
ENDPOINTS = st.builds(Endpoint, HOSTS, st.integers(1, 65535))


@given(st.lists(ENDPOINTS, max_size=16), st.none() | st.binary(min_size=16, max_size=16))
def test_a_word_comes_back(endpoints, secret):
    address = Address.of(ID, endpoints, secret)
    word = str(address)
    assert word.isalnum() and word == word.lower()
    assert Address(word) == address
    assert Address(word).secret == secret


@given(st.lists(ENDPOINTS, min_size=1, max_size=4), st.data())
def test_a_changed_word_is_refused(endpoints, data):
    word = str(Address.of(ID, endpoints))
    at = data.draw(st.integers(0, len(word) - 1))
    other = data.draw(st.sampled_from("abcdefghijklmnopqrstuvwxyz234567").filter(lambda c: c != word[at]))
    with pytest.raises(ValueError, match="not an address"):
        Address(word[:at] + other + word[at + 1 :])
    with pytest.raises(ValueError, match="not an address"):
        Address(word[:at])


@given(st.text(max_size=200))
def test_noise_is_refused_with_an_explanation(text):
    with pytest.raises(ValueError):
        Address(text)


def test_the_readable_form():
    address = Address(f"{ID}@192.0.2.1:5,[2001:db8::1]:6")
    assert address.endpoints == (Endpoint("192.0.2.1", 5), Endpoint("2001:db8::1", 6))
    assert Address(str(address)) == address


@pytest.mark.parametrize(
    "wrong",
    ["192.0.2.1", "192.0.2.1:", "192.0.2.1:0", "192.0.2.1:65536", "::1:5", "[::1]", "host:5", ":5", "1.2.3:5", "[1.2.3.4:5"],
)
def test_what_is_no_endpoint_is_refused(wrong):
    with pytest.raises(ValueError):
        Endpoint.parse(wrong)
    with pytest.raises(ValueError):
        Address(f"{ID}@{wrong}")


@given(ENDPOINTS)
def test_endpoints_cross_the_border_and_come_back(endpoint):
    core = endpoint.to_core()
    back = Endpoint.from_core(core)
    mapped = endpoint.host.startswith("::ffff:")
    assert back.port == endpoint.port
    assert back == endpoint or mapped
    assert Endpoint.parse(str(back)) == back


def test_too_many_endpoints_and_odd_secrets_are_refused():
    with pytest.raises(ValueError, match="at most 16"):
        Address.of(ID, [Endpoint("192.0.2.1", i) for i in range(1, 18)])
    with pytest.raises(ValueError, match="16 bytes"):
        Address.of(ID, [], secret=b"short")
    with pytest.raises(TypeError):
        Address(7)


SCOPES = st.text(st.characters(codec="utf-8", exclude_characters="%/"), min_size=1, max_size=60)


@given(st.lists(st.tuples(SCOPES, st.booleans()), max_size=8))
def test_a_word_keeps_the_scopes_of_link_local_addresses(scopes):
    endpoints = [
        Endpoint(f"fe80::{i + 1}%{scope}" if is_local else "192.0.2.1", i + 1) for i, (scope, is_local) in enumerate(scopes)
    ]
    address = Address.of(ID, endpoints)
    assert Address(str(address)) == address


@pytest.mark.parametrize(
    "tail", [b"\x07" + bytes(17), b"\x07" + bytes(18), b"\x07" + bytes(18) + b"\x02a", b"\x07" + bytes(18) + b"\x01\xff"]
)
def test_a_scope_that_is_cut_or_no_text_is_refused(tail):
    body = b"\x01" + bytes(ID) + b"\0" + tail
    with pytest.raises(ValueError):
        Address(to_base32(body + _check(body)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Endpoint(16909060, 5),
        lambda: Endpoint(b"\x01\x02\x03\x04", 5),
        lambda: Endpoint("::1", "5"),
        lambda: Endpoint("::1", 5.5),
        lambda: Endpoint("::1", True),
        lambda: Address.of("x", []),
        lambda: Address.of(ID, [("1.2.3.4", 5)]),
        lambda: Address.of(ID, [], "s" * 16),
        lambda: ID < 5,
        lambda: sorted([ID, "x"]),
    ],
)
def test_parts_of_the_wrong_type_are_refused(make):
    with pytest.raises(TypeError):
        make()


def test_a_scope_too_long_for_a_word_is_refused():
    with pytest.raises(ValueError, match="255"):
        Endpoint("fe80::1%" + "x" * 256, 1)


def test_an_address_is_a_value():
    one, two = Address.of(ID, [Endpoint("192.0.2.1", 1)]), Address.of(ID, [Endpoint("192.0.2.1", 1)])
    assert {one: 1}[two] == 1
    with pytest.raises(AttributeError):
        one.peer_id = two.peer_id
    assert one.with_secret(bytes(16)) != one
    assert Endpoint("192.0.2.1", 1).is_private
    assert Endpoint("::1", 1).is_loopback
