"""The cases of the QUIC interop runner, with its parameters, in the simulator: twice here, twenty times in `./run soak`.

Between real processes they are in tests/net, and as often as one likes with `python -m benchmarks interop`."""

import pytest

from benchmarks.interop.cases import CASES, NOT_YET
from benchmarks.interop.simulated import simulate

IN_THE_SUITE, IN_ALL = 2, 20


def case_params(numbers):
    return [
        pytest.param(case, number, id=f"{case.name}-{number}", marks=may_fail(case.name))
        for case in CASES.values()
        for number in numbers
    ]


def may_fail(name):
    return [pytest.mark.xfail(reason=NOT_YET[name], strict=True)] if name in NOT_YET else []


def check(case, seed):
    facts = simulate(case, seed)
    assert facts["bytes"] == case.bytes
    assert facts["connections"] == case.calls
    assert case.check(facts) is None


@pytest.mark.row("R1", "R5", "H22", "C7", "C8", "C11", "N1")
@pytest.mark.parametrize(("case", "number"), case_params(range(IN_THE_SUITE)))
def test_a_case_of_the_interop_runner(case, number, seed):
    check(case, seed + number)


@pytest.mark.soak
@pytest.mark.row("R5")
@pytest.mark.parametrize(("case", "number"), case_params(range(IN_THE_SUITE, IN_ALL)))
def test_a_case_of_the_interop_runner_again(case, number, seed):
    check(case, seed + number)


def test_cases_that_cannot_pass_yet_exist():
    assert NOT_YET.keys() <= CASES.keys()
