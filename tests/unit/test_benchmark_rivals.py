"""Which rivals are measured, in which order, and what becomes of one that cannot be."""

import pytest

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from benchmarks import rivals
from interpeer._bench.end import Facts
from interpeer._bench.process import EndFailed


def test_rivals_runs_are_interleaved(monkeypatch: pytest.MonkeyPatch) -> None:
    order = []

    def run_once(rival: str, load: str, seconds: float) -> Facts:
        order.append(rival)
        return {"gbit": float(len(order))}

    monkeypatch.setattr(rivals, "run_once", run_once)
    monkeypatch.setattr(rivals.Rival, "why_not", lambda self, load: None)
    monkeypatch.setattr(rivals.Rival, "version", lambda self: "1")
    results = rivals.compare(["tls", "pyzmq"], "bulk", 1.0, runs=2)
    assert order == ["tls", "pyzmq", "tls", "pyzmq"]
    assert [result["gbit"] for result in results] == [2.0, 3.0]


def test_rival_that_is_not_installed_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = rivals.Rival("absent", "a library nobody has", ("no_such_package",))
    monkeypatch.setitem(rivals.RIVALS, "absent", absent)
    result = rivals.measure("absent", "bulk", 1.0)
    assert result == {
        "rival": "absent",
        "load": "bulk",
        "left_out": "needs no_such_package: pip install --group bench",
    }


def test_rival_that_fails_is_left_out_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def run_once(rival: str, load: str, seconds: float) -> Facts:
        if rival == "tls":
            raise EndFailed("the server died")
        return {"gbit": 1.0}

    monkeypatch.setattr(rivals, "run_once", run_once)
    monkeypatch.setattr(rivals.Rival, "why_not", lambda self, load: None)
    monkeypatch.setattr(rivals.Rival, "version", lambda self: "1")
    broken, other = rivals.compare(["tls", "pyzmq"], "bulk", 1.0, runs=2)
    assert broken == {"rival": "tls", "load": "bulk", "left_out": "the server died"}
    assert other["gbit"] == 1.0
