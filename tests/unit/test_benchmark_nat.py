"""The matrix of NATs: what a cell says of the calls of a pair, and where a direct path is expected."""

import pytest

from benchmarks.nat_matrix import FOUR, SIX, Call, Site, cell, expects_direct, summary, table
from interpeer.testing import NatKind

DIRECT = {"ok": True, "path": "direct", "direct_s": 0.25, "first_byte_s": 0.1}
RELAYED = {"ok": True, "path": "relayed", "direct_s": None, "first_byte_s": 0.2}
FAILED = {"ok": False, "error": "nobody answers"}
SITES = {site.name: site for site in (*FOUR, *SIX)}


def calls(*facts, is_direct_expected=True):
    return [Call("a", "b", is_direct_expected, one) for one in facts]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (calls(), ""),
        (calls(DIRECT), "0.25"),
        (calls(RELAYED), "**relayed**"),
        (calls(RELAYED, is_direct_expected=False), "relayed"),
        (calls(FAILED, is_direct_expected=False), "**not reached**"),
        (calls(DIRECT, DIRECT), "0.25"),
        (calls(DIRECT, RELAYED), "**0.25 (1/2)**"),
        (calls(RELAYED, RELAYED), "**relayed**"),
        (calls(DIRECT, FAILED), "**not reached 1/2**"),
        (calls({"ok": True, "path": "lan"}), "direct"),
    ],
)
def test_a_cell_says_how_soon_or_else_how_and_is_bold_where_that_is_less_than_expected(given, shown):
    assert cell(given) == shown


@pytest.mark.parametrize(
    ("caller", "called", "is_expected"),
    [
        ("port", "port", True),
        ("port", "symmetric", False),
        ("linux", "linux", True),
        ("cgn", "cgn", False),
        ("cgn-hairpin", "cgn-hairpin", True),
        ("udpblock", "public", False),
        ("v6-firewall", "v6-firewall", True),
        ("v6-open", "port", False),
        ("symmetric-and-v6", "symmetric-and-v6", True),
        ("symmetric-and-v6", "symmetric", False),
        ("port-and-v6", "port", True),
    ],
)
def test_a_direct_path_is_expected_where_a_plain_punch_can_work(caller, called, is_expected):
    assert expects_direct(SITES[caller], SITES[called]) is is_expected
    assert expects_direct(SITES[called], SITES[caller]) is is_expected


def test_the_table_has_a_row_and_a_column_for_each_site():
    a, b = Site("a", NatKind.PORT), Site("b", NatKind.PORT)
    assert table([a, b], calls(DIRECT)) == ["| calls | a | b |", "| --- | --- | --- |", "| a |  | 0.25 |", "| b |  |  |"]


def test_the_summary_counts_what_was_reached_and_what_was_direct():
    lines = summary([*calls(DIRECT, RELAYED), *calls(FAILED, is_direct_expected=False)])
    assert lines[:3] == ["reached: 2 of 3", "direct where a plain timed punch can work: 1 of 2", "direct elsewhere: 0 of 1"]
    assert lines[4] == "direct path: 0.250 s median, 0.250 s p99, 0.250 s at most"
