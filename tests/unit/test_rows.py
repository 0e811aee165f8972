"""Every row of the list of attacks and faults that exists in the protocol of today has a test marked with it.

The groups that the transport has to stand: handshake (H), packets (P), streams (S), recovery (C), the application's own
mistakes (A), and of the networks' (N) what concerns paths. The bugs of peers in the same list have tests that are named after
their reports.
"""

import ast
import re

HERE = {
    "H": {*range(1, 26)},
    "P": {*range(1, 17)},
    "S": {*range(1, 15)},
    "C": {*range(1, 13)},
    "N": {1, 2, 3, 4, 8, 9, 11, 12},
    "A": {*range(1, 10), 11},
}
NOT_YET = {
    "N5": "nobody relays yet",
    "N6": "nobody relays yet",
    "N7": "nobody relays yet; packet sizes that a relay kills have a test",
    "N10": "there is no rendezvous to meet at again; NATs of both ends that rebind have a test",
    "A10": "a node that runs has no socket to be asked by yet: nothing listens but UDP",
}
BUGS = (
    "CVE-2023-42805", "CVE-2024-45311", "CVE-2026-31812", "CVE-2026-25800", "CVE-2023-49295", "CVE-2024-22189", "CVE-2023-46239",
    "CVE-2024-53259", "CVE-2025-29785", "CVE-2025-59530", "kubo#7526", "aioquic#501", "aioquic#549", "aioquic#589",
    "picoquic#1745", "CVE-2025-4432", "CVE-2024-58265", "RUSTSEC-2022-0009", "specs#355", "py-libp2p#1182", "GHSA-xqvc",
    "CVE-2022-23492", "CVE-2026-32314", "CVE-2022-29189", "CVE-2022-29190", "CVE-2026-26014", "CVE-2025-49140", "uTP DRDoS",
    "CVE-2024-32650", "CVE-2025-69277", "CVE-2023-36435", "CVE-2026-54909",
)  # fmt: skip
"""Reports of bugs in what the transport has as well, one of each kind. The others in the list are of overlays, relays, gossip,
RSA, Torrent files and control sockets, which there are not."""
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


def test_every_bug_of_a_peer_has_a_test_that_is_named_after_its_report(root):
    names = "\n".join(
        node.name
        for path in sorted((root / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
    )
    missing = [bug for bug in BUGS if f"test_{re.sub('[^a-z0-9]+', '_', bug.lower())}" not in names]
    assert missing == []
