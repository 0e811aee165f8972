"""The udp layer beyond loopback, in network namespaces that need no root."""

import errno
import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("namespaces", Path(__file__).with_name("namespaces.py"))
namespaces = importlib.util.module_from_spec(spec)
spec.loader.exec_module(namespaces)

pytestmark = pytest.mark.skipif(not namespaces.are_available(), reason="needs unshare and ip, and the right to use them")


@pytest.mark.row("M3")
def test_full_socket_keeps_the_rest_of_the_batch_and_sends_it_later():
    seen = namespaces.run_case("full_socket")
    first, second = seen["waiting"]
    assert 0 < first < 20 and first == second
    assert not seen["writable"]
    assert seen["payloads"] == [str(i) for i in range(20)]
    assert seen["counters"]["would_block"] >= 2
    assert seen["counters"]["sent_messages"] == 20


@pytest.mark.row("M3")
def test_full_queue_below_the_socket_is_a_loss_and_nothing_waits_for_it():
    seen = namespaces.run_case("full_queue")
    if "skipped" in seen:
        pytest.skip(seen["skipped"])
    assert seen["waiting"] == 0
    assert seen["counters"]["no_buffers"] > 0
    assert seen["counters"]["no_buffers"] + seen["counters"]["sent_messages"] == 11
    assert seen["arrived"] == ["fine"]


@pytest.mark.row("M3", "N12")
def test_each_failing_route_is_counted_as_what_it_is():
    seen = namespaces.run_case("failing_routes")
    assert seen["before"]["unreachable"] == 2
    assert seen["before"]["forbidden"] == 1
    assert seen["before"]["too_big"] == 2
    assert seen["before"]["gso_refused"] == 0
    assert seen["after"]["unreachable"] == 3
    assert seen["arrived"] == ["fine", "fine"]


@pytest.mark.row("N12")
def test_link_local_addresses_keep_their_scope():
    seen = namespaces.run_case("link_local")
    assert seen["bound"][2] == seen["from"][2] == seen["scope"] > 0
    assert seen["from"][0] == seen["local"] == "fe80::1"
    assert seen["answer"] == "back"


def test_broadcast_is_answered_from_an_address_of_ours():
    assert namespaces.run_case("broadcast") == {"local": "10.9.0.1", "answers": ["here"]}


@pytest.mark.row("N12")
def test_machine_without_ipv6_says_so_and_keeps_ipv4():
    seen = namespaces.run_case("without_ipv6")
    assert seen["errno"] in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
    assert "::1" in seen["error"]
    assert seen["ipv4"][0] == "127.0.0.1"
