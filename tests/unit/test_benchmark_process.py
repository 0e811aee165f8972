"""The frame of the loads: two ends in processes of their own, their facts and figures, and how they fail."""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from interpeer._bench import end
from interpeer._bench.process import End, EndFailed, run_pair


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Write a module `ends` that the processes can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def write(source: str) -> None:
        (tmp_path / "ends.py").write_text(textwrap.dedent(source))

    return write


def test_client_is_told_how_to_reach_the_server_and_both_figures_return(ends: Callable[[str], None]) -> None:
    ends("""
        def serve(control, *, part):
            control.tell(port=7, key="k")
            control.wait_stop()
            return {"served": part}

        def dial(control, *, part, port, key):
            return {"dialled": [part, port, key]}
    """)
    client, server = run_pair("ends:serve", "ends:dial", part="bulk")
    assert client == {"dialled": ["bulk", 7, "k"]}
    assert server == {"served": "bulk"}


def test_client_outlives_the_servers_figures(ends: Callable[[str], None]) -> None:
    ends("""
        import os

        def serve(control):
            control.tell(server=os.getpid())
            control.wait_stop()
            return {"client_alive": os.path.exists(CLIENT)}

        def dial(control, *, server):
            open(CLIENT, "w").close()
            control.tell(connected=True)
            control.wait_stop()
            os.remove(CLIENT)

        CLIENT = os.path.join(os.path.dirname(__file__), "client")
    """)
    client, server = run_pair("ends:serve", "ends:dial")
    assert client == {"connected": True}
    assert server == {"client_alive": True}


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_end_on_an_event_loop_hears_the_stop(ends: Callable[[str], None], loop: str) -> None:
    pytest.importorskip(loop)
    ends(f"""
        from interpeer._bench.end import run

        async def main(control):
            control.tell(ready=True)
            await control.stopped()
            return {{"stopped": True}}

        def serve(control):
            return run(main(control), uvloop={loop == "uvloop"})
    """)
    with End("ends:serve") as end:
        assert end.receive() == {"ready": True}
        end.stop()
        assert end.receive() == {"stopped": True}
        end.wait()


def test_what_a_library_prints_is_no_figure(ends: Callable[[str], None]) -> None:
    ends("""
        import os

        def serve(control):
            print("hello")
            os.write(1, b"from C")
            return {"figure": 1}
    """)
    with End("ends:serve") as end:
        assert end.receive() == {"figure": 1}
        end.wait()


def test_end_that_raises_is_told_with_its_last_line(ends: Callable[[str], None]) -> None:
    ends("""
        def serve(control):
            raise ValueError("no such cipher")
    """)
    with End("ends:serve") as end, pytest.raises(EndFailed) as caught:
        end.receive()
    assert str(caught.value) == "ends:serve ended with code 1: ValueError: no such cipher"


def test_failure_of_the_client_says_how_the_server_fares(ends: Callable[[str], None]) -> None:
    ends("""
        def serve(control):
            control.tell(port=7)
            control.wait_stop()

        def dial(control, *, port):
            raise ConnectionError("refused")
    """)
    with pytest.raises(EndFailed, match=r"^ends:dial .*refused; its server ends:serve still runs"):
        run_pair("ends:serve", "ends:dial")


def test_silent_end_is_killed_in_the_end(ends: Callable[[str], None]) -> None:
    ends("""
        def serve(control):
            control.wait_stop()
    """)
    with End("ends:serve", timeout_s=0.1) as end, pytest.raises(EndFailed, match="was killed because it took too long"):
        end.receive()


def test_no_end_outlives_its_block(ends: Callable[[str], None]) -> None:
    ends("""
        import os

        def serve(control):
            control.tell(pid=os.getpid())
            control.wait_stop()
    """)
    with End("ends:serve") as end:
        pid = end.receive()["pid"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_stopwatch_reads_clock_and_processor_since_it_was_made(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, processor = iter([10.0, 12.5]), iter([1.0, 4.0])
    monkeypatch.setattr(end.time, "perf_counter", lambda: next(clock))
    monkeypatch.setattr(end.time, "process_time", lambda: next(processor))
    assert end.Stopwatch().read() == {"seconds": 2.5, "cpu_s": 3.0}
