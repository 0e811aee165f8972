"""`interpeer doctor` behind every kind of NAT of the laboratory, with three nodes outside to help, and no other server."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys

import pytest

from interpeer.testing import NatKind
from interpeer.testing.natlab import Lab, LabError
from interpeer.testing.natlab._namespace import require

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-m", "interpeer"]
PEERS = 3


@pytest.fixture(scope="module")
def lab():
    try:
        require()
    except LabError as error:
        pytest.skip(str(error))
    with Lab("stunlab", seed=3) as lab:
        yield lab


@pytest.fixture(scope="module")
def environ(tmp_path_factory):
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("INTERPEER_", "XDG_"))}
    home = str(tmp_path_factory.mktemp("home"))
    return {**kept, "HOME": home, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "INTERPEER_GATEWAY": "none"}


@pytest.fixture(scope="module")
def peers(lab, environ, tmp_path_factory):
    """Return the addresses of nodes outside, of which the others know the first."""
    addresses: list[str] = []
    with contextlib.ExitStack() as stack:
        for i in range(PEERS):
            words = ["up", "--json", "--no-lan", "--state", str(tmp_path_factory.mktemp("state"))]
            words += ["--bootstrap", addresses[0]] if addresses else []
            process = lab.host(f"p{i}").popen([*COMMAND, *words], stdout=subprocess.PIPE, text=True, env=environ)
            stack.callback(process.wait)
            stack.enter_context(process.stdout)
            stack.callback(process.terminate)
            addresses.append(json.loads(process.stdout.readline())["address"])
        yield addresses


def doctor(host, environ, peers, *words):
    command = [*COMMAND, "doctor", "--json", *words, *(word for peer in peers for word in ("--bootstrap", peer))]
    return json.loads(host.run(command, env=environ, check=False).stdout)


@pytest.mark.parametrize("kind", [kind for kind in NatKind if kind.behaviour.udp])
def test_doctor_names_the_kind(lab, environ, peers, kind):
    host, nat = lab.host(f"h-{kind}", kind), kind.behaviour
    told = doctor(host, environ, peers, "--lifetime", "0")
    assert told["ok"] is True and told["udp"]["works"] is True, told["udp"]
    seen = told["nat"]
    # a peer has one port to be asked at, so that what depends on addresses alone counts as the worse of two
    worse = {"address-dependent": ("address-dependent", "address-and-port-dependent")}
    mapping, filtering = str(nat.mapping), str(nat.filtering)
    assert seen["mapping"] in worse.get(mapping, (mapping,)), seen
    assert seen["filtering"] == filtering, seen
    assert seen["hairpin"] == nat.hairpin or mapping == "none" or not mapping.startswith("endpoint"), seen
    if mapping != "none":
        assert seen["preserves_port"] == nat.preserves_port, seen
        assert (seen["port_block"] is not None) == (nat.block_ports == 512), seen


@pytest.mark.parametrize("kind", [kind for kind in NatKind if not kind.behaviour.udp])
def test_doctor_says_that_udp_is_blocked(lab, environ, peers, kind):
    told = doctor(lab.host(f"h-{kind}", kind), environ, peers, "--lifetime", "0", "--timeout", "3")
    assert told["udp"]["status"] == "warning" and told["udp"]["works"] is not True and told["udp"]["advice"]


def test_doctor_finds_a_short_lifetime(lab, environ, peers):
    host = lab.host("forgetful", NatKind.PORT.behaviour.replace(lifetime_s=8))
    told = doctor(host, environ, peers, "--lifetime", "12")
    assert 5 <= told["nat"]["lifetime_s"] < 8.5 and told["nat"]["status"] == "warning" and "keep_alive_s" in told["nat"]["advice"]
