"""The link between processes is held against another one that knows nothing of it: those of a laboratory beside this checkout."""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from interpeer.testing import Link

NATLAB = Path(__file__).resolve().parents[3] / "shared" / "natlab" / "natlab.py"
PROBE = str(Path(__file__).with_name("linkprobe.py"))
ETHERNET_BYTES = 42  # what a wire counts: the frame, with headers of Ethernet, IP and UDP

pytestmark = pytest.mark.system


class Lab:
    """The laboratory by its command line."""

    def __init__(self):
        self.command = [sys.executable, str(NATLAB), "-L", "linkst"]
        self.nodes = {}

    def do(self, *words):
        return subprocess.run([*self.command, *words], check=True, capture_output=True, text=True).stdout

    def inside(self, host):
        return [*self.command, "exec", host]


@pytest.fixture(scope="module")
def lab():
    if not sys.platform.startswith("linux") or os.geteuid():
        pytest.skip("a laboratory of network namespaces needs Linux and root")
    if not NATLAB.exists():
        pytest.skip("there is no laboratory beside this checkout")
    lab = Lab()
    lab.nodes = json.loads(lab.do("up", "a=none,wire=1", "b=none"))
    yield lab
    lab.do("down")


def run_probe(prefix, target):
    """Receive; yield the port first, and then what came. `prefix` enters where it is done."""
    receiver = subprocess.Popen([*prefix, sys.executable, PROBE, "receive", target], stdout=subprocess.PIPE, text=True)
    with contextlib.ExitStack() as stack:
        stack.callback(receiver.wait)
        stack.enter_context(receiver.stdout)
        stack.callback(receiver.kill)
        yield json.loads(receiver.stdout.readline())["port"]
        yield json.loads(receiver.stdout.readline())


def through_the_lab(lab, settings, *traffic):
    lab.do("set", "a", settings)
    target = lab.nodes["b"]["addresses"][0]
    facts = run_probe(lab.inside("b"), target)
    send = [sys.executable, PROBE, "send", target, str(next(facts)), *map(str, traffic)]
    subprocess.run([*lab.inside("a"), *send], check=True)
    return next(facts)


def through_the_relay(link, *traffic):
    from tests.net.udplink import UdpLink

    facts = run_probe([], "127.0.0.1")
    with UdpLink(("127.0.0.1", next(facts)), link, overhead_bytes=ETHERNET_BYTES, seed=1) as relay:
        subprocess.run([sys.executable, PROBE, "send", relay.host, str(relay.port), *map(str, traffic)], check=True)
        return next(facts)


NOTHING = "delay=0,jitter=0,loss=0,burst=1,rate=0,queue=256"


def both(lab, settings, link, *traffic):
    return through_the_lab(lab, f"{NOTHING},{settings}", *traffic), through_the_relay(link, *traffic)


@pytest.mark.parametrize("delay_ms", [5, 50])
def test_the_delay_is_the_same(lab, delay_ms):
    theirs, ours = both(lab, f"delay={delay_ms}", Link(delay_s=delay_ms / 1e3), 500, 1200, 2000)
    assert ours["least_ms"] >= delay_ms
    assert ours["delay_ms"] == pytest.approx(theirs["delay_ms"], abs=2)


@pytest.mark.parametrize(("loss", "run"), [(0.02, 0), (0.1, 0), (0.1, 3)])
def test_the_share_that_is_lost_is_the_same(lab, loss, run):
    link = Link(loss=loss, loss_run_packets=run)
    theirs, ours = both(lab, f"loss={loss * 100:g},burst={run or 1}", link, 10_000, 200, 50)
    assert 1 - ours["packets"] / 10_000 == pytest.approx(1 - theirs["packets"] / 10_000, abs=0.02)
    assert 1 - ours["packets"] / 10_000 == pytest.approx(loss, abs=0.015)


def test_the_rate_and_what_does_not_fit_are_the_same(lab):
    """Twice as much as the rate, and a queue of sixty-four kilobytes in front of it."""
    link = Link(rate_bit_per_s=10e6, queue_bytes=64_000)
    theirs, ours = both(lab, "rate=10,queue=64", link, 4000, 1208, 500)
    assert ours["bit_per_s"] == pytest.approx(theirs["bit_per_s"], rel=0.05)
    assert ours["bit_per_s"] == pytest.approx(10e6 * 1208 / 1250, rel=0.03)
    assert ours["packets"] == pytest.approx(theirs["packets"], rel=0.05)
    assert ours["delay_ms"] == pytest.approx(theirs["delay_ms"], rel=0.15)
