"""Probe traffic: python linkprobe.py receive HOST, python linkprobe.py send HOST PORT COUNT BYTES GAP_US.

The receiver tells its port in its first line and, after a second of silence, what came, as JSON. Both are on one machine, so that
the monotonic clock is the same for both."""

import json
import socket
import statistics
import struct
import sys
import time

SILENCE_S = 1.0
RECEIVE_BUFFER_FORCE = 33


def receive(host: str) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, RECEIVE_BUFFER_FORCE, 1 << 23)
    sock.bind((host, 0))
    print(json.dumps({"port": sock.getsockname()[1]}), flush=True)
    sock.settimeout(None)
    delays_ms, size, first_s, last_s = [], 0, 0.0, 0.0
    try:
        while True:
            data = sock.recv(65536)
            last_s = time.monotonic()
            delays_ms.append(last_s * 1e3 - struct.unpack_from("!d", data)[0] * 1e3)
            if not first_s:
                first_s = last_s
            else:
                size += len(data)
            sock.settimeout(SILENCE_S)
    except TimeoutError:
        pass
    facts = {"packets": len(delays_ms), "delay_ms": statistics.median(delays_ms), "least_ms": min(delays_ms)}
    print(json.dumps({**facts, "bit_per_s": size * 8 / max(1e-9, last_s - first_s)}), flush=True)


def send(host: str, port: int, count: int, size: int, gap_us: int) -> None:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((host, port))
    padding = bytes(size - 8)
    start_s = time.monotonic()
    for number in range(count):
        ahead_s = start_s + number * gap_us / 1e6 - time.monotonic()
        if ahead_s > 0:
            time.sleep(ahead_s)
        sock.send(struct.pack("!d", time.monotonic()) + padding)


if __name__ == "__main__":
    {"receive": receive, "send": send}[sys.argv[1]](sys.argv[2], *map(int, sys.argv[3:]))
