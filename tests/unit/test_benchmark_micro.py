"""The micro-benchmarks still run: each does its work once, and nothing is measured."""

import os
import subprocess
import sys

PARTS = {"test_ciphers.py", "test_engine.py", "test_fec.py", "test_structures.py"}


def test_every_micro_benchmark_does_its_work(root):
    folder = root / "benchmarks/micro"
    assert {path.name for path in folder.glob("test_*.py")} == PARTS
    command = [sys.executable, "-m", "pytest", "-q", "--benchmark-disable", "-p", "no:cacheprovider", "-rA", str(folder)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = [line for line in done.stdout.splitlines() if line.startswith("PASSED")]
    for name in (
        "test_seal",
        "test_open",
        "test_parse_frames",
        "test_make_a_repair",
        "test_move_a_timer",
        "test_send_datagrams",
        "test_recv_datagrams",
    ):
        assert any(f"::{name}" in line for line in passed), name
