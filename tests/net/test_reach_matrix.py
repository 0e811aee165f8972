"""The commands of a new user in the laboratory: everybody reaches everybody, directly wherever two NATs permit it at all."""

import json
import subprocess
import sys

import pytest

from benchmarks.nat_matrix import FOUR, SIX, Matrix
from benchmarks.other_laboratory import OtherLab
from interpeer.testing import Link, NatKind
from interpeer.testing.natlab import Lab, LabError
from interpeer.testing.natlab._namespace import require

pytestmark = pytest.mark.system

TIMEOUT_S = 60
LINK = Link(delay_s=0.0075)
TUNNEL = ["--tunnel", "tls://0.0.0.0:443"]
HARD = {"symmetric", "symmetric-block", "symmetric-seq"}
SPRAYED = {(hard, "port") for hard in HARD} | {("port", hard) for hard in HARD}
"""Pairs where no plain punch can work, and a spray or a prediction does."""


@pytest.fixture(autouse=True)
def laboratory():
    try:
        require()
    except LabError as error:
        pytest.skip(str(error))


def calls_between(laboratory, sites):
    with laboratory as lab, Matrix(lab, sites, LINK, TUNNEL) as matrix:
        return list(matrix.calls(1, 4, TIMEOUT_S, 0, ()))


def hold(calls):
    """See that everybody was reached, directly where that was expected, and told why not elsewhere; return who was relayed."""
    not_reached = [(call.caller, call.called, call.facts.get("error")) for call in calls if not call.is_reached]
    assert not_reached == []
    relayed = {(call.caller, call.called): call.facts["reasons"] for call in calls if not call.is_direct}
    assert {(call.caller, call.called) for call in calls if call.is_direct_expected} & relayed.keys() == set()
    assert all(relayed.values()), "whoever is relayed is told why"
    return relayed.keys()


def test_every_kind_of_nat_reaches_every_other_and_directly_where_that_can_be():
    calls = calls_between(Lab("reach", seed=1), FOUR)
    assert len(calls) == len(FOUR) ** 2
    assert hold(calls) & SPRAYED == set()


def test_hosts_with_ipv6_meet_through_their_firewalls_whatever_ipv4_they_have():
    calls = calls_between(Lab("reach6", seed=1), SIX)
    assert len(calls) == len(SIX) ** 2
    hold(calls)


def test_a_laboratory_of_others_says_the_same(root):
    """Some of the matrix; `python -m benchmarks nat --laboratory` runs all of it."""
    path = root.parent / "shared" / "natlab" / "natlab.py"
    if not path.exists():
        pytest.skip("there is no other laboratory beside this checkout")
    sites = [site for site in FOUR if site.nat in (NatKind.PORT, NatKind.LINUX, NatKind.SYMMETRIC, NatKind.UDPBLOCK)]
    calls = calls_between(OtherLab(path, "reachother"), sites)
    assert len(calls) == len(sites) ** 2
    assert hold(calls) & SPRAYED == set()


def test_the_demo_connects_two_hosts_behind_nats_and_says_when_they_stay_relayed():
    def demo(kinds):
        done = subprocess.run(
            [sys.executable, "-m", "interpeer", "demo", "--nat", kinds, "--json"],
            capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
        )  # fmt: skip
        return json.loads(done.stdout)

    easy = demo("port")
    assert easy["ok"] and easy["path"] == "direct" and easy["direct_s"] > 0
    blocked = demo("udpblock")
    assert blocked["ok"] and blocked["path"] == "relayed"
    assert any("UDP" in reason for reason in blocked["reasons"])


def test_a_ticket_alone_leads_to_a_sender_behind_a_nat(tmp_path):
    """Whoever has it knows no peer of the network, and has told nobody of itself."""
    content = bytes(range(256)) * 4000
    (tmp_path / "file").write_bytes(content)
    command = [sys.executable, "-m", "interpeer"]

    def options(name):
        return ["--json", "--no-lan", "--state", tmp_path / name]

    with Lab("ticket", seed=1) as lab:
        helper = lab.host("helper")
        sender, receiver = (lab.host(name, NatKind("port"), link=LINK) for name in ("sender", "receiver"))
        up = helper.popen([*command, "up", *options("helper"), "--listen", f"{helper.address}:4433"], stdout=subprocess.PIPE)
        known = json.loads(up.stdout.readline())["address"]
        send = sender.popen(
            [*command, "send", tmp_path / "file", *options("sender"), "--bootstrap", known], stdout=subprocess.PIPE
        )
        ticket = json.loads(send.stdout.readline())["ticket"]
        receiver.run([*command, "recv", ticket, "-o", tmp_path / "out", *options("receiver")], timeout_s=TIMEOUT_S, check=True)
        for process in (up, send):
            process.terminate()
            process.wait(TIMEOUT_S)
            process.stdout.close()
    assert (tmp_path / "out" / "file").read_bytes() == content
