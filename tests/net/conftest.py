"""Real sockets, under every driver: both loops, a thread of its own, and a loop that cannot watch sockets."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

import interpeer
from interpeer._core import engine

DRIVERS = ["asyncio", "uvloop", "thread", "shards", "portable"]
TIMEOUT_S = 30


@pytest.fixture(scope="session", autouse=True)
def _first_uvloop() -> None:
    """Let uvloop make, outside of any test, what it makes once for the process: a pipe for signals."""
    import uvloop

    uvloop.new_event_loop().close()


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of the driver that nodes of this test run on."""
    name: str = request.param
    if name == "thread":
        monkeypatch.setenv("INTERPEER_PUMP", "thread")
    if name == "shards":
        monkeypatch.setenv("INTERPEER_SHARDS", "2")
    if name == "portable":
        monkeypatch.setenv("INTERPEER_DISABLE", "reader")
    return name


@pytest.fixture
def run(driver: str) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """A function that runs a coroutine on the driver's loop, and fails if it hangs or leaves an unhandled error."""

    def run(main: Coroutine[Any, Any, Any]) -> Any:
        problems: list[dict[str, Any]] = []

        async def bounded() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: problems.append(context))
            async with asyncio.timeout(TIMEOUT_S):
                return await main

        factory = None
        if driver == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            result = runner.run(bounded())
            gc.collect()
        assert not problems, problems
        return result

    return run


class Pair:
    """Two nodes on loopback and a connection between them: `ab` is a's end, `ba` is b's."""

    a: interpeer.Node
    b: interpeer.Node
    ab: interpeer.Connection
    ba: interpeer.Connection

    async def streams(self) -> tuple[interpeer.Stream, interpeer.Stream]:
        """Open a stream at a, and accept it at b."""
        return await self.ab.open_stream(), await self.ba.accept_stream()


@asynccontextmanager
async def make_pair(**config: Any) -> AsyncIterator[Pair]:
    """Connect two nodes, both with these settings of Config."""
    settings = interpeer.Config(**config)
    async with (
        interpeer.Node(listen="127.0.0.1:0", config=settings) as a,
        interpeer.Node(listen="127.0.0.1:0", config=settings) as b,
    ):
        pair = Pair()
        pair.a, pair.b = a, b
        pair.ab = await a.connect(b.address)
        pair.ba = await b.accept()
        yield pair


@pytest.fixture
def pair() -> Callable[..., Any]:
    """`async with pair(**config) as p`: two connected nodes."""
    return make_pair


def pytest_live_objects() -> Counter[str]:
    """Engines that are still alive hold everything else."""
    return Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, engine.Engine))


# --- the command line, in processes of its own ---

PATIENCE_S = 30.0
Words = str | os.PathLike[str]


class Command:
    """A running command whose JSON events are read as they come."""

    def __init__(self, words: Sequence[Words], events_on: str, environ: dict[str, str], **options: Any) -> None:
        self._quiet = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by `close`
        streams: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": self._quiet, "stderr": self._quiet}
        command = [sys.executable, "-m", "interpeer", *words]
        self.process = subprocess.Popen(command, env=environ, **streams | {events_on: subprocess.PIPE} | options)
        events = self.process.stdout if events_on == "stdout" else self.process.stderr
        assert events is not None
        self._events = events
        self._watchdog = threading.Timer(PATIENCE_S, self.process.kill)
        self._watchdog.start()

    def event(self, name: str) -> dict[str, Any]:
        """Return the next event of a name; skip others. Fails when the command ends before."""
        for line in self._events:
            event: dict[str, Any] = json.loads(line)
            if event.get("event") == name:
                return event
        raise AssertionError(f"no event {name!r}; the command ended with {self.process.wait()} and said {self.said()!r}")

    def rest(self) -> list[dict[str, Any]]:
        """Return all events until the command ends."""
        return [json.loads(line) for line in self._events]

    def said(self) -> str:
        """Return what it printed where the events are not."""
        self._quiet.seek(0)
        return self._quiet.read()

    def interrupt(self, number: int = signal.SIGINT) -> int:
        """Send it a signal; return its exit code."""
        self.process.send_signal(number)
        return self.process.wait()

    def close(self) -> None:
        """Kill it, if it still runs."""
        self._watchdog.cancel()
        self._watchdog.join()
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr, self._quiet):
            if stream is not None:
                with suppress(BrokenPipeError):
                    stream.close()


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let commands that run in this process find no settings, no state and no gateway, and change no signal."""
    for name in [name for name in os.environ if name.startswith("INTERPEER_") and name != "INTERPEER_LIBSODIUM"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("INTERPEER_GATEWAY", "none")
    monkeypatch.setattr("interpeer._cli._QUIET_SIGNALS", [])


class Cli:
    """The command line, with home, state and settings of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        settings = {name for name in os.environ if name.startswith(("INTERPEER_", "XDG_"))} - {"INTERPEER_LIBSODIUM"}
        kept = {name: value for name, value in os.environ.items() if name not in settings}
        kept["INTERPEER_GATEWAY"] = "none"  # nothing leaves the machine
        self.environ = {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._running: list[Command] = []

    def run(self, *words: Words, environ: dict[str, str] | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, with nothing on standard input; return what it printed."""
        command = [sys.executable, "-m", "interpeer", *words]
        options = {"stdin": subprocess.DEVNULL, "text": True} | options if "input" not in options else options
        environ = self.environ | (environ or {})
        return subprocess.run(command, capture_output=True, timeout=PATIENCE_S, env=environ, check=False, **options)

    def start(self, *words: Words, events_on: str = "stdout", environ: dict[str, str] | None = None, **options: Any) -> Command:
        """Start a command with --json."""
        self._running.append(Command([*words, "--json"], events_on, self.environ | (environ or {}), **options))
        return self._running[-1]

    def close(self) -> None:
        for command in self._running:
            command.close()


@pytest.fixture
def cli(tmp_path: Path) -> Iterator[Cli]:
    """The command line; what still runs at the end is killed."""
    home = tmp_path / "home"
    home.mkdir()
    cli = Cli(home)
    yield cli
    cli.close()
