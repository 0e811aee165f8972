"""`interpeer doctor` with the help of others: peers that serve STUN on loopback, and some that do not."""

from __future__ import annotations

import contextlib
import json
import socket

import pytest

import interpeer
from interpeer._cli import main
from interpeer._nat import _discover

pytestmark = pytest.mark.usefixtures("homeless")
HOSTS = ("127.0.0.1", "127.0.1.1", "127.0.2.1")


@pytest.fixture
def _hasty(monkeypatch):
    monkeypatch.setattr(_discover, "TRIES", 1)
    monkeypatch.setattr(_discover, "LAST_WAIT", 1)


@contextlib.contextmanager
def peers():
    """Run nodes beside the command; yield what --bootstrap takes of each, and what --stun takes."""
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(interpeer.blocking.Node(listen=f"{host}:0", network="test", lan=False)) for host in HOSTS]
        yield [(str(node.address), str(node.address.endpoints[0])) for node in nodes]
        assert sum(node.counters()["stun_answered"] for node in nodes) > 0


def doctor(capsys, *words):
    assert main(["doctor", "--json", "--listen", "127.0.0.1:0", "--lifetime", "0", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_doctor_asks_stun_servers(capsys, tmp_path):
    with peers() as there:
        told = doctor(capsys, *(word for _, at in there for word in ("--stun", at)))
    assert (told["nat"]["mapping"], told["nat"]["hairpin"], told["nat"]["lifetime_s"]) == ("none", True, None)
    assert told["nat"]["reflexive"][0].startswith("127.0.0.1:") and told["nat"]["status"] == "ok"
    assert told["udp"] == {"status": "ok", "text": "gets out, and answers come back", "advice": "", "works": True}
    assert told["port_mapping"]["gateways"] == [] and told["mtu"]["bytes"] in (None, *range(1280, 70_000))
    assert list(tmp_path.iterdir()) == [], "no key, no directory"


@pytest.mark.usefixtures("_hasty")
def test_doctor_says_that_udp_does_not_get_through(capsys):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as deaf:
        deaf.bind((HOSTS[1], 0))
        told = doctor(capsys, "--stun", f"{HOSTS[1]}:{deaf.getsockname()[1]}")
    assert (told["udp"]["status"], told["udp"]["works"]) == ("warning", False)
    assert "TCP or TLS" in told["udp"]["advice"] and told["nat"]["mapping"] == "unknown"


def test_doctor_says_whom_it_could_not_ask(capsys):
    told = doctor(capsys, "--stun", "a..b")
    assert told["udp"]["works"] is None and "a..b" in told["udp"]["text"] and told["udp"]["advice"]


def test_doctor_reaches_the_peers_of_bootstrap(capsys):
    with peers() as ((address, _), (_, second), (_, third)):
        told = doctor(capsys, "--network", "test", "--bootstrap", address, "--stun", second, "--stun", third)
    assert (told["udp"]["works"], told["nat"]["mapping"]) == (True, "none")


@pytest.mark.parametrize("place", ["environment", "config.toml"])
def test_doctor_asks_the_peers_that_the_settings_name(capsys, monkeypatch, tmp_path, place):
    with interpeer.blocking.Node(listen="127.0.0.1:0", network="test", lan=False) as node:
        if place == "environment":
            monkeypatch.setenv("INTERPEER_BOOTSTRAP", str(node.address))
        else:
            (tmp_path / "config" / "interpeer").mkdir(parents=True)
            (tmp_path / "config" / "interpeer" / "config.toml").write_text(f'bootstrap = "{node.address}"\n')
        told = doctor(capsys, "--network", "test")
    reached = "nobody could be asked (no peer of --bootstrap has an address of its own by which it could be asked)"
    assert reached in told["nat"]["text"] and reached in told["udp"]["text"]


def test_doctor_reads_as_a_list_with_the_answers_of_others(capsys):
    with peers() as ((_, first), (_, second), _):
        assert main(["doctor", "--listen", "127.0.0.1:0", "--lifetime", "0", "--stun", first, "--stun", second]) == 0
    printed = capsys.readouterr()
    assert "no NAT" in printed.out and "gets out, and answers come back" in printed.out


@pytest.mark.parametrize(
    "words",
    [
        ("--stun", "a:b:c:d"),
        ("--stun", ""),
        ("--stun", "host:0"),
        ("--lifetime", "long"),
        ("--lifetime", "-1"),
        ("--lifetime", "1e9"),
    ],
)
def test_doctor_says_what_it_takes(capsys, words):
    assert main(["doctor", *words]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
