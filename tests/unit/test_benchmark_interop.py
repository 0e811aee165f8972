"""The table of the interop runner's cases, and that of goodput over a link: what is counted, told and refused."""

import json

import pytest

from benchmarks import goodput_link
from benchmarks.interop import table
from benchmarks.interop.cases import CASES, NOT_YET, Case, Rebinding, at_least, both, equal, within
from benchmarks.interop.programs import Fetched, content

KB = 1024


@pytest.fixture
def case(monkeypatch):
    """A case in place of the real ones, whose runs are as fast as their seed; the third fails."""

    def run(case, seed):
        if seed == 1 + 2 * table.SEEDS_APART:
            raise ValueError("the wrong bytes")
        return {"seconds": seed / 1000, "mbit_per_s": 8.0, "longest_pause_s": 0.1, "share": 0.5}

    case = Case("fake", "a case", (KB,), check=at_least("seconds", 0.5))
    monkeypatch.setattr(table, "CASES", {"fake": case})
    monkeypatch.setattr(table, "_runner", lambda way: run)
    return case


def test_runs_are_counted_and_failures_are_told_with_their_seed(case, capsys):
    assert table.main(["fake", "--runs", "4", "--only", "simulator", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["runs"], facts["passed"]) == (4, 2)
    assert facts["wrong"] == ["seed 1: seconds is 0.001, less than 0.5", "seed 2001: ValueError: the wrong bytes"]
    assert facts["seconds"] == [0.001, 1.001, 3.001]


def test_both_ways_have_a_line_and_each_failure_one(case, capsys):
    assert table.main(["--runs", "3"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines if line.startswith("fake")] == [
        ["fake", "simulator", "1/3"],
        ["fake", "processes", "1/3"],
    ]
    assert sum("the wrong bytes" in line for line in lines) == 2


@pytest.mark.parametrize("words", [["nonsense"], ["--runs", "0"]])
def test_what_there_is_not_is_refused(words, capsys):
    with pytest.raises(SystemExit):
        table.main(words)
    assert "error" in capsys.readouterr().err


def test_checks_say_what_is_wrong():
    facts = {"name": "x", "figure": 5}
    assert equal("name", "x")(facts) is None
    assert equal("name", "y")(facts) == "name is 'x', not 'y'"
    assert within("figure", 1, 9)(facts) is None
    assert within("figure", 6, 9)(facts) == "figure is 5, not from 6 to 9"
    assert both(at_least("figure", 5), at_least("figure", 6))(facts) == "figure is 5, less than 6"


def test_the_cases_are_the_runners():
    assert len(CASES) == 21 and NOT_YET.keys() <= CASES.keys()
    assert sum(CASES["transfer"].files) == 10 << 20
    assert CASES["multiplexing"].files == (32,) * 2000
    assert CASES["handshakeloss"].link.loss_run_limit == 3
    assert CASES["rebind-addr"].rebinding == Rebinding(1, 5, address=True)
    assert all(case.link.rate_bit_per_s == 10e6 for case in CASES.values())


def test_files_that_came_wrong_or_not_at_all_are_noticed():
    case = Case("fake", "two files", (KB, 2 * KB))
    fetched = Fetched()
    with pytest.raises(ValueError, match="0 files came of 2"):
        fetched.verify(case)
    fetched.files = [(0, [content(0, KB)]), (1, [content(1, 2 * KB)[:KB], content(1, 2 * KB)[KB:]])]
    fetched.verify(case)
    fetched.files[0] = (0, [content(1, KB)])
    with pytest.raises(ValueError, match="file 0 came as 1024 bytes that are not the 1024"):
        fetched.verify(case)


def test_goodput_is_judged_for_the_tolerant_controller_alone(monkeypatch, capsys):
    monkeypatch.setattr(goodput_link, "measure", lambda controller, loss, seconds, seed: {"mbit": 80.0 + seed})
    arguments = ["--controller", "cubic", "bbr-lossy", "--loss", "0", "0.02", "--runs", "3", "--json"]
    assert goodput_link.main(arguments) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["controller"], row["loss"], row["mbit"], row["is_met"]) for row in rows] == [
        ("cubic", 0.0, 82.0, None),
        ("cubic", 0.02, 82.0, None),
        ("bbr-lossy", 0.0, 82.0, False),
        ("bbr-lossy", 0.02, 82.0, True),
    ]
    assert rows[0]["spread"] == [81.0, 83.0]


def test_goodput_needs_longer_than_what_does_not_count(capsys):
    with pytest.raises(SystemExit):
        goodput_link.main(["--seconds", "2"])
    assert "more than 2" in capsys.readouterr().err
