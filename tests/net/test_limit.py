"""The yardstick of the benchmarks: what it counts is what went over the wire."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from interpeer._core.limit import Limit, suites
from interpeer._core.udpsocket import UdpSocket
from interpeer._limit import TAG_BYTES, bulk, ping, run_pair

SHORT = 0.05


def both(second, first):
    """Run the passive end in a thread beside the active one; return what the active and the passive one returned."""
    with ThreadPoolExecutor(1) as pool:
        passive = pool.submit(second)
        return first(), passive.result()


@pytest.mark.parametrize("disable", ["", "gso,gro", "gso,gro,mmsg", "gso,gro,mmsg,recvmsg,bigbuf"])
@pytest.mark.parametrize("suite", suites())
def test_every_packet_sent_is_received_and_opens(suite, disable):
    sender, receiver = Limit(suite, 1000, disable=disable), Limit(suite, 1000, disable=disable)
    sent, received = both(receiver.receive, lambda: sender.send(receiver.port, SHORT))
    assert sent["stalls"] == received["bad"] == 0
    assert received["packets"] == sent["packets"] > 100
    assert received["text_bytes"] == 1000 * received["packets"]
    assert sender.packet_size == 8 + 1000 + TAG_BYTES[suite]


@pytest.mark.parametrize("text_bytes", [1, 64, 1380, 40_000, 65_467])
def test_each_size_of_packet_can_be_measured(text_bytes):
    sender, receiver = Limit("none", text_bytes), Limit("none", text_bytes)
    sent, received = both(receiver.receive, lambda: sender.send(receiver.port, SHORT))
    assert received["packets"] == sent["packets"]
    assert received["text_bytes"] == text_bytes * sent["packets"]


@pytest.mark.parametrize("is_spinning", [False, True])
@pytest.mark.parametrize("suite", suites())
def test_each_ping_comes_back_and_takes_time(suite, is_spinning):
    near, far = Limit(suite, 64), Limit(suite, 64)
    times, _ = both(lambda: far.echo(is_spinning=is_spinning), lambda: near.ping(far.port, 50, is_spinning=is_spinning))
    assert len(times) == 50 and min(times) > 0


def test_packets_that_do_not_open_are_counted_as_bad():
    sender, receiver, stranger = Limit("chacha20-poly1305", 100), Limit("chacha20-poly1305", 100), UdpSocket()
    stranger.send([(b"short", ("127.0.0.1", receiver.port)), (bytes(124), ("127.0.0.1", receiver.port))])
    sent, received = both(receiver.receive, lambda: sender.send(receiver.port, SHORT))
    assert received["bad"] == 2
    assert received["packets"] == sent["packets"]


@pytest.mark.parametrize("action", ["send", "receive", "ping", "spin", "echo"])
def test_missing_other_end_is_told(action):
    closed = UdpSocket()
    port = closed.address[1]
    closed.close()
    end = Limit("none", 64, patience=0.05)
    actions = {
        "send": lambda: end.send(port, 0.01),
        "receive": end.receive,
        "ping": lambda: end.ping(port, 1),
        "spin": lambda: end.ping(port, 1, is_spinning=True),
        "echo": end.echo,
    }
    with pytest.raises(TimeoutError, match="did nothing for 0.05 s"):
        actions[action]()


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(ValueError, match="'rot13'.*none, chacha20-poly1305"):
        Limit("rot13", 100)
    for text_bytes in (0, -1, 65_468):
        with pytest.raises(ValueError, match="1 to 65467 bytes"):
            Limit("none", text_bytes)


def test_two_processes_measure_and_their_numbers_fit():
    one = bulk("chacha20-poly1305", 1176, seconds=SHORT)
    assert one.packet_bytes == 1200 and one.lost == 0
    assert one.gbit_per_s * 1e9 / 8 == pytest.approx(one.packets_per_s * 1176)
    assert one.cpu_s_per_gb == pytest.approx(one.sender_cpu_s_per_gb + one.receiver_cpu_s_per_gb)
    assert one.sender_cpu_s_per_gb > 0 < one.receiver_cpu_s_per_gb
    there_and_back = ping("none", count=100)
    assert 0 < there_and_back.p50_us <= there_and_back.p99_us and there_and_back.cpu_us > 0


def test_end_that_fails_is_named(capfd):
    asked = {"aead": "rot13", "text_bytes": 64}
    with pytest.raises(RuntimeError, match="should echo failed with exit code 1"):
        run_pair(asked | {"do": "ping"}, asked | {"do": "echo"})
    assert "rot13" in capfd.readouterr().err


def test_benchmark_prints_one_object_for_a_row():
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "benchmarks.limit", "--message", "64", "--seconds", "0.05", "--runs", "2", "--json"]
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    row = json.loads(done.stdout)
    assert row["packet_bytes"] == 72 and row["runs"] == 2
    assert row["spread"][0] <= row["gbit_per_s"] <= row["spread"][1]
