"""Every input that is kept is fed again, without a fuzzer; and what ./run fuzz tells of a log is right."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import read_log
from tests.fuzz.source import Source
from tests.fuzz.targets import CORPUS, TARGETS, load

LOG = """\
INFO: Seed: 3
#2\tINITED cov: 151 ft: 152 corp: 1/1b exec/s: 0 rss: 580Mb
#2048\tpulse  cov: 190 ft: 800 corp: 300/3Kb lim: 4 exec/s: 1024 rss: 582Mb
"""
CRASH = """\
 === Uncaught Python exception: ===
ValueError: a seed has 32 bytes, not 0
Traceback (most recent call last):
MS: 2 ChangeByte-; base unit: adc8
artifact_prefix='/here/'; Test unit written to /here/crash-1
"""
SANITIZER = "src/_core/wire.pyx:3:4: runtime error: shift exponent 70 is too large\n"


@pytest.mark.parametrize("path", sorted(CORPUS.glob("*/*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_kept_input_does_no_harm(path):
    load(path.parent.name)(path.read_bytes())


def test_every_target_has_inputs_to_start_from_and_nothing_else_has():
    assert {path.parent.name for path in CORPUS.glob("*/*")} == set(TARGETS)
    assert all(path.stat().st_size <= 4096 for path in CORPUS.glob("*/*"))


@pytest.mark.parametrize("name", TARGETS)
def test_target_takes_anything(name):
    feed = load(name)
    for data in (b"", bytes(100), b"\xff" * 100, bytes(range(256))):
        feed(data)


def test_source_gives_what_is_there_and_zeros_behind_it():
    source = Source(b"\x05\x00\x07\x00\x03abcdef")
    assert (source.byte(), source.number(), source.piece(), source.take(2)) == (5, 7, b"abc", b"de")
    assert source and source.rest() == b"f" and not source
    assert (source.byte(), source.number(), source.piece(), source.take(9)) == (0, 0, b"", b"")


def test_report_has_the_last_figures_of_the_log():
    report = read_log("frames", LOG, 0)
    assert (report.executions, report.executions_per_s, report.edges, report.corpus) == (2048, 1024, 190, 300)
    assert report.cause is None and report.finding is None


def test_report_names_the_error_and_the_input():
    report = read_log("keyfiles", LOG + CRASH, 1)
    assert (report.cause, report.finding) == ("ValueError: a seed has 32 bytes, not 0", "/here/crash-1")
    assert read_log("frames", LOG + SANITIZER, 1).cause == SANITIZER.strip()


def test_report_of_a_fuzzer_that_did_not_run_says_where_to_look():
    report = read_log("frames", "python: not here\n", 127)
    assert report.cause == "exit code 127: the end of .cache/fuzz/frames.log says why"
