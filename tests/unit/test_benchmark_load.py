"""Single loads: by name, as JSON, and what becomes of one that fails."""

import json

import pytest

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from benchmarks import load as benchmarks_load
from benchmarks.load.__main__ import main
from benchmarks.table import Load
from interpeer._bench.process import EndFailed


@pytest.fixture
def loads(monkeypatch):
    """Three loads in place of the real ones: one that counts its runs, one that runs once, one that fails."""
    runs = []

    def count():
        runs.append(1)
        return {"cipher": "aegis-256", "gbit": float(len(runs)), "ends": [1.0, 2.0]}

    def fail():
        raise EndFailed("the server died")

    there_are = [Load("counted", count), Load("long", count, True), Load("broken", fail)]
    monkeypatch.setattr(benchmarks_load, "own_loads", lambda scale: there_are)
    return runs


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_load_is_the_median_of_its_runs(loads, capsys):
    assert main(["counted", "--rounds", "3", "--json"]) == 0
    assert told(capsys) == [
        {"load": "counted", "cipher": "aegis-256", "gbit": 2.0, "ends": [1.0, 2.0], "spread": {"gbit": [1.0, 3.0]}, "runs": 3}
    ]


def test_without_a_name_all_but_the_long_ones_run_and_a_failure_is_told(loads, capsys):
    assert main(["--quick", "--json"]) == 1
    assert [(facts["load"], facts.get("left_out")) for facts in told(capsys)] == [
        ("counted", None),
        ("broken", "the server died"),
    ]
    assert main(["long", "--json"]) == 0
    assert told(capsys)[0]["runs"] == 1


def test_an_unknown_load_is_refused_and_the_known_are_named(loads, capsys):
    with pytest.raises(SystemExit):
        main(["nonsense"])
    assert "counted, long, broken" in capsys.readouterr().err
    assert main(["--list"]) == 0
    assert capsys.readouterr().out.split() == ["counted", "long", "broken"]
