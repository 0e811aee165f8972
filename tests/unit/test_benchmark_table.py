"""The table of the benchmarks: which loads run, in which order, and how a row is judged against its goal."""

import json

import pytest

pytest.importorskip("resource", reason="the loads are measured on POSIX systems")

from benchmarks import __main__ as command
from benchmarks import table
from benchmarks.table import Load, Measured, Row, judge, measure
from interpeer._bench.process import EndFailed


@pytest.mark.parametrize(
    ("row", "value", "beside", "status"),
    [
        (Row("r", "l", "a.x", at_least=5), 5, None, "ok"),
        (Row("r", "l", "a.x", at_least=5), 4.9, None, "short"),
        (Row("r", "l", "a.x", at_most=5), 5.1, None, "short"),
        (Row("r", "l", "a.x", beside="b.x", at_least=0.6, is_compared=True), 6, 10, "ok"),
        (Row("r", "l", "a.x", beside="b.x", at_most=1.7, is_compared=True), 18, 10, "short"),
        (Row("r", "l", "a.x", beside="b.x", is_difference=True, at_most=60, is_compared=True), 150, 100, "ok"),
        (Row("r", "l", "a.x", beside="b.x", is_difference=True, at_most=60, is_compared=True), 161, 100, "short"),
        (Row("r", "l", "a.x", beside="b.x", at_least=3, is_compared=True), 6, None, "not measured"),
        (Row("r", "l", "a.x"), 6, None, "-"),
        (Row("r", "l", "a.x", at_least=5), None, None, "not measured"),
    ],
)
def test_row_is_judged_by_its_goal(row, value, beside, status):
    runs = {name: [number] for name, number in (("a.x", value), ("b.x", beside)) if number is not None}
    assert judge(row, Measured(runs))["status"] == status


def test_row_shows_median_spread_comparison_and_rivals():
    row = Row("r", "l", "a.x", beside="b.x", at_least=2, is_compared=True, rival=("bulk", "gbit"))
    runs = {"a.x": [9.0, 1.0, 4.0], "b.x": [2.0, 1.0, 8.0], "tls:bulk.gbit": [3.0], "pyzmq:bulk.p50_us": [1.0]}
    facts = judge(row, Measured(runs))
    assert (facts["value"], facts["spread"], facts["beside"], facts["compared"]) == (4.0, [1.0, 9.0], 2.0, 2.0)
    assert facts["rivals"] == {"tls": 3.0} and facts["goal"] == ">= 2x" and facts["status"] == "ok"


def test_loads_take_turns_and_one_that_fails_is_left_out():
    order = []

    def load(name, *, fails=False, **options):
        def run():
            order.append(name)
            if fails:
                raise EndFailed("the client died")
            return {"x": float(len(order)), "cipher": "aegis-256"}

        return Load(name, run, **options)

    told = []
    loads = [load("a"), load("b", fails=True), load("c", only_once=True)]
    result = measure(loads, 2, lambda *run: told.append(run))
    assert order == ["a", "b", "c", "a"] and told[0] == ("a", 1, 5)
    assert result.samples == {"a.x": [1.0, 4.0], "c.x": [3.0]}
    assert result.left_out == {"b": "the client died"} and result.cipher == "aegis-256"


def test_every_row_is_fed_by_a_load_and_every_load_feeds_a_row():
    loads = {load.name for load in table.own_loads(table.Scale.of(is_quick=True, rounds=None))}
    assert table.needed(table.ROWS) - loads <= ({"idle", "soak"} if not table.RESIDENT.exists() else set())
    assert loads <= table.needed(table.ROWS)


def test_rivals_that_are_not_installed_are_named_with_the_reason(monkeypatch):
    monkeypatch.setattr(table.RIVALS["tls"].__class__, "why_not", lambda self, load: "needs a package")
    loads, left_out = table.rival_loads(table.ROWS, table.Scale.of(is_quick=True, rounds=None))
    assert loads == [] and set(left_out.values()) == {"needs a package"} and "tls:bulk" in left_out


def test_one_command_measures_and_prints_one_object(monkeypatch, capsys):
    monkeypatch.setattr(table.Scale, "of", lambda **_: table.Scale(1, 0.05, 20, 1 << 14, 10))
    monkeypatch.setattr(table, "PINGS", 50)
    monkeypatch.setattr(table, "SPINNING_PINGS", 5)
    assert command.main(["--only", "ping", "--no-rivals", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    first = told["rows"][0]
    assert [row["row"] for row in told["rows"]] == ["ping", "ping"] and told["left_out"] == {}
    assert first["compared"] == pytest.approx(first["value"] - first["beside"]) and first["status"] in ("ok", "short")


@pytest.fixture
def _no_loads(monkeypatch):
    monkeypatch.setattr(command, "own_loads", lambda scale: [Load("handshakes", lambda: {"handshakes_per_s": 2345.0})])


@pytest.mark.usefixtures("_no_loads")
def test_table_is_readable(capsys):
    assert command.main(["--only", "handshakes", "--no-rivals"]) == 0
    first, second = capsys.readouterr().out.splitlines()[-2:]
    assert first.split() == ["handshakes", "per", "second,", "16", "at", "once", "2,345", ">=", "2,000", "ok"]
    assert second.endswith("not measured")


def test_own_load_that_fails_is_told_by_the_exit_code(monkeypatch, capsys):
    def broken():
        raise EndFailed("the server died")

    monkeypatch.setattr(command, "own_loads", lambda scale: [Load("handshakes", broken)])
    assert command.main(["--only", "handshakes", "--no-rivals"]) == 1
    assert "left out: handshakes: the server died" in capsys.readouterr().out


@pytest.mark.usefixtures("_no_loads")
def test_soak_is_run_only_when_it_is_asked_for(capsys):
    command.main(["--no-rivals", "--json"])
    assert "soak" not in {row["row"] for row in json.loads(capsys.readouterr().out)["rows"]}
    command.main(["--only", "soak", "--no-rivals", "--json"])
    assert {row["row"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"soak"}


def test_micro_hands_its_words_to_pytest(monkeypatch, tmp_path, capsys):
    calls = []
    monkeypatch.setattr(command, "MICRO", tmp_path)
    assert command.main(["micro"]) == 1 and str(tmp_path) in capsys.readouterr().err
    (tmp_path / "test_one.py").touch()
    monkeypatch.setattr(command.subprocess, "call", lambda words: calls.append(words) or 5)
    assert command.main(["micro", "-k", "seal"]) == 5 and calls[0][-3:] == [str(tmp_path), "-k", "seal"]
