"""Hosts on a switch that leads nowhere: what a machine notices of its own interfaces, and moving while data flow."""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def load(name: str) -> Any:
    """Import a script of this folder by its plain name, as it imports its own neighbours."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


namespaces, switched = load("namespaces"), load("switched")
pytestmark = pytest.mark.skipif(not namespaces.are_available(), reason="needs unshare and ip, and the right to use them")


def test_watcher_sees_every_change_of_the_interfaces_and_a_burst_as_few():
    told = switched.run_case("watched")
    seen = told["seen"]
    assert seen["another address"]["come"] == ["10.7.0.2"] and not seen["another address"]["rerouted"]
    assert seen["an address less"]["gone"] == ["10.7.0.2"]
    assert seen["a way out"]["rerouted"] and seen["a way out"]["ways"] == ["eth0"]
    assert seen["another router"]["rerouted"] and seen["another router"]["gateways"] == ["10.7.0.253"]
    assert seen["no way out"]["rerouted"] and seen["no way out"]["ways"] == []
    assert seen["a way out for IPv6"]["gateways"] == ["fd07::254"]
    assert {"10.7.0.1", "fd07::1"} <= set(seen["down"]["gone"])
    assert "10.7.0.1" in seen["up"]["come"]
    assert told["burst"] < 30  # of 59 changes


def test_addresses_that_a_node_tells_follow_the_machines():
    told = switched.run_case("candidates")
    assert told["first"] == ["10.7.0.1", "fd07::1"]
    assert told["second"] == ["10.7.0.1", "fd07::1", "172.20.0.1"]
    assert told["third"] == ["fd07::1", "172.20.0.1"]


@pytest.mark.row("N12")
@pytest.mark.parametrize("case", ["move_ipv4", "move_ipv6"])
def test_machine_that_gets_another_address_goes_on_sending_and_nothing_is_lost(case):
    told = switched.run_case(case)
    assert told["sent"]["digest"] == told["received"]["digest"]
    assert told["sent"]["counters"]["source_gone"] > 0
    assert told["received"]["counters"]["paths_moved"] == 1


@pytest.mark.row("N12")
def test_interface_that_goes_down_while_sending_loses_nothing():
    told = switched.run_case("interface_down")
    assert told["sent"]["digest"] == told["received"]["digest"]
    assert told["sent"]["counters"]["unreachable"] > 0
    assert told["sent"]["counters"]["other_errors"] == 0


@pytest.mark.system
@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft, to drop what the other ways of discovery say")
@pytest.mark.parametrize("case", ["find_by_multicast", "find_by_broadcast", "find_by_mdns"])
def test_hosts_with_no_way_out_find_and_reach_each_other_by_any_one_way(case):
    told = switched.run_case(case)
    assert all(endpoint.startswith("10.7.0.2:") for endpoint in told["found"]["endpoints"])
    assert told["reached"]["path"] == "lan"
    assert told["other"] == []  # who is of another network finds nobody
    assert all(counters["failed"] for counters in told["counters"] if counters.get("said"))  # the filter was at work


def test_hosts_without_any_ipv4_find_and_reach_each_other_by_link_local_addresses():
    told = switched.run_case("find_by_ipv6")
    assert all(endpoint.startswith("[fe80::") and "%" in endpoint for endpoint in told["found"]["endpoints"])
    assert told["reached"]["path"] == "lan" and told["other"] == []


def test_hosts_that_are_not_told_how_far_datagrams_have_come_find_each_other_by_their_prefixes():
    told = switched.run_case("find_without_hops")
    assert told["reached"]["path"] == "lan" and told["other"] == []


def test_host_that_is_plugged_in_later_is_found_at_once():
    told = switched.run_case("find_after_plugging")
    assert told["found"]["endpoints"][0].startswith("10.7.0.2:")
    assert all(ended["found"] for ended in told["ended"])
