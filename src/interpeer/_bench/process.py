"""The measuring side: start the two ends of a load as processes of their own and collect their figures.

An end is a function `module:name` that takes a `interpeer._bench.end.Control` and keyword arguments; it runs in a fresh
interpreter, so that neither end shares an interpreter lock, a heap or a warm cache with the other. The two sides speak
JSON lines: what the end tells or returns comes up on its standard output, and closing its standard input stops it.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from typing import IO, Any, cast

from interpeer._bench.end import Facts

TIMEOUT_S = 120.0


class EndFailed(RuntimeError):
    """An end of a load died or fell silent; the message carries the last line it wrote."""


class End:
    """One end of a load in a process of its own; killed at the latest when the `with` block is left."""

    def __init__(self, function: str, /, *, timeout_s: float = TIMEOUT_S, **arguments: Any) -> None:
        self.function = function
        self._timed_out = False
        self._stderr = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed by __exit__
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), *sys.path)))  # it finds what we find
        self._process = subprocess.Popen(
            [sys.executable, "-m", "interpeer._bench.end", function, json.dumps(arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, "PYTHONPATH": path},
            text=True,
        )
        self._stdin = cast(IO[str], self._process.stdin)
        self._stdout = cast(IO[str], self._process.stdout)
        self._watchdog = threading.Timer(timeout_s, self._give_up)
        self._watchdog.daemon = True
        self._watchdog.start()

    def __enter__(self) -> "End":
        return self

    def __exit__(self, *_: object) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        self._process.kill()
        self._process.wait()
        for stream in (self._stdin, self._stdout, self._stderr):
            stream.close()

    def receive(self) -> Facts:
        """Return what the end tells next; raise EndFailed if it ends without a word."""
        line = self._stdout.readline()
        if not line:
            self._process.wait()
            raise EndFailed(self.last_words())
        return cast(Facts, json.loads(line))

    def stop(self) -> None:
        """Tell the end to finish; it may still tell its figures."""
        self._stdin.close()

    def wait(self) -> None:
        """Wait for the end's exit; raise EndFailed unless it was clean."""
        if self._process.wait() != 0:
            raise EndFailed(self.last_words())

    def last_words(self) -> str:
        """Say in one line how the end fares: whether it still runs, and the last line of its standard error."""
        code = self._process.poll()
        self._stderr.seek(0)
        lines = self._stderr.read().strip().splitlines()
        if self._timed_out:
            state = "was killed because it took too long"
        else:
            state = "still runs" if code is None else f"ended with code {code}"
        return f"{self.function} {state}: {lines[-1] if lines else 'it wrote no error'}"

    def _give_up(self) -> None:
        self._timed_out = True
        self._process.kill()


def run_pair(server: str, client: str, *, timeout_s: float = TIMEOUT_S, **arguments: Any) -> tuple[Facts, Facts]:
    """Run both ends of a load and return the figures of (client, server).

    Both get `arguments`; the client also gets whatever the server tells first (its port, its key). The server is
    stopped as soon as the client has told its figures, and the client lives until the server has told its own, so that
    a server can measure itself with all connections open."""
    with End(server, timeout_s=timeout_s, **arguments) as server_end:
        told = server_end.receive()
        with End(client, timeout_s=timeout_s, **arguments, **told) as client_end:
            try:
                client_figures = client_end.receive()
            except EndFailed as failure:
                raise EndFailed(f"{failure}; its server {server_end.last_words()}") from None
            server_end.stop()
            server_figures = server_end.receive()
            client_end.stop()
            client_end.wait()
        server_end.wait()
    return client_figures, server_figures
