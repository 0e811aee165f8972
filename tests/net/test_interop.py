"""The cases of the QUIC interop runner between two real processes: those that take a few seconds at most, and all with --soak."""

import sys

import pytest

from benchmarks.interop.cases import CASES, NOT_YET

if not sys.platform.startswith("linux"):
    pytest.skip("the link is made of Linux's timers and batches", allow_module_level=True)

from benchmarks.interop.processes import run_between_processes
from interpeer.testing.natlab._wire import compiler

if compiler() is None:
    pytest.skip("the link is written in C, and there is no compiler", allow_module_level=True)

QUICK = ("handshake", "multiplexing", "retry", "version", "amplificationlimit", "connectionmigration")
"""Without those whose check is a rate, which other work on the machine may spoil."""


def case_params(names):
    return [pytest.param(CASES[name], id=name, marks=may_fail(name)) for name in names]


def may_fail(name):
    return [pytest.mark.xfail(reason=NOT_YET[name], strict=True)] if name in NOT_YET else []


def check(case, seed):
    facts = run_between_processes(case, seed)
    assert facts["bytes"] == case.bytes
    assert facts["connections"] == case.calls
    assert case.check(facts) is None


@pytest.mark.row("R1", "R5")
@pytest.mark.parametrize("case", case_params(QUICK))
def test_a_case_of_the_interop_runner(case, seed):
    check(case, seed)


@pytest.mark.soak
@pytest.mark.row("R1", "R5", "H22", "C7", "C8", "C11", "N1")
@pytest.mark.parametrize("case", case_params([name for name in CASES if name not in QUICK]))
def test_a_longer_case_of_the_interop_runner(case, seed):
    check(case, seed)
