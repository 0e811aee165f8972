"""Every row of the list of attacks and faults that exists in the protocol of today has a test marked with it.

The groups that a first release has to stand: handshake (H), packets (P), streams (S), the application's own mistakes (A),
and recovery (C). The bugs of peers in the same list are tests/spec/test_peer_bugs.py, named after their reports.
"""

import ast

HERE = {
    "H": {*range(1, 9), *range(10, 26)},
    "P": {*range(1, 17)},
    "S": {*range(1, 11), 12, 13},
    "C": {1, 2, *range(4, 13)},
    "A": {*range(1, 10), 11},
}
NOT_YET = {
    "H9": "there is no early data",
    "S11": "there is no stream for control or handshake",
    "S14": "streams have no priorities yet; today's sharing has a test all the same",
    "C3": "there are neither PATH_CHALLENGE nor NEW_CONNECTION_ID frames",
    "A10": "there is no control socket",
}
GROUPS = {"H": 25, "P": 16, "S": 14, "C": 12, "N": 12, "R": 16, "A": 11, "F": 8, "M": 11}


def cited(root):
    """Collect, row by row, the tests that are marked with it."""
    found = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "row":
                for argument in node.args:
                    assert isinstance(argument, ast.Constant), f"{path}: a row is a literal"
                    found.setdefault(argument.value, []).append(path.name)
    return found


def test_every_row_of_today_is_tested(root):
    rows = {f"{group}{number}" for group, numbers in HERE.items() for number in numbers}
    assert not rows - cited(root).keys()


def test_rows_that_are_left_out_are_the_rest(root):
    rows = {f"{group}{number}" for group in HERE for number in range(1, GROUPS[group] + 1)}
    here = {f"{group}{number}" for group, numbers in HERE.items() for number in numbers}
    assert rows - here == NOT_YET.keys()


def test_no_test_is_marked_with_a_row_that_does_not_exist(root):
    for row, files in cited(root).items():
        assert row[0] in GROUPS and row[1:].isdigit() and 1 <= int(row[1:]) <= GROUPS[row[0]], (row, files)
