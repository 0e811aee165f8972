"""Which test cites which paragraph: `@pytest.mark.spec("HS-12")` on a test, in a parameter of it, or as pytestmark."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.spec.document import ROOT, SPEC, Paragraph, paragraphs


@dataclass(frozen=True, order=True)
class Test:
    """A test function that cites, by pytest's name for it."""

    __test__ = False
    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.file}::{self.name}"


def cited_in(source: str, file: str) -> Iterator[tuple[str, Test]]:
    """Yield (paragraph, test) for each citation in a test file. Raises ValueError for one that is not a plain string, or
    that stands outside of tests."""
    tree = ast.parse(source)
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "pytestmark":
            for test in tests_of(tree.body):
                yield from ((cited, Test(file, test.name)) for cited in ids_in(statement.value, file))
        elif isinstance(statement, ast.ClassDef):
            for decorator in statement.decorator_list:
                for test in tests_of(statement.body):
                    yield from ((cited, Test(file, f"{statement.name}::{test.name}")) for cited in ids_in(decorator, file))
            for test in tests_of(statement.body):
                yield from ((cited, Test(file, f"{statement.name}::{test.name}")) for cited in ids_of_test(test, file))
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name.startswith("test_"):
            yield from ((cited, Test(file, statement.name)) for cited in ids_of_test(statement, file))
        elif list(ids_in(statement, file)):
            raise ValueError(f"{file}:{statement.lineno}: a citation that no test has")


def tests_of(body: list[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef) and statement.name.startswith("test_"):
            yield statement


def ids_of_test(test: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> Iterator[str]:
    for decorator in test.decorator_list:
        yield from ids_in(decorator, file)


def ids_in(node: ast.AST, file: str) -> Iterator[str]:
    """Yield what the spec marks in an expression name."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "pytest.mark.spec":
            for argument in call.args:
                if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                    raise ValueError(f"{file}:{call.lineno}: a citation is a plain string")
                yield argument.value


def citations(folder: Path = ROOT / "tests") -> dict[str, set[Test]]:
    """Return the tests of each paragraph that is cited anywhere."""
    found = defaultdict(set)
    for path in sorted(folder.rglob("test_*.py")):
        for paragraph_id, test in cited_in(path.read_text(encoding="utf-8"), str(path.relative_to(ROOT))):
            found[paragraph_id].add(test)
    return dict(found)


@dataclass(frozen=True)
class Series:
    """What the index says of the ids with one prefix: how far they go, and which of them are given up for good."""

    last: int
    retired: frozenset[int]


def index(text: str | None = None) -> dict[str, Series]:
    """Read the table of ids in the index."""
    text = (SPEC / "README.md").read_text(encoding="utf-8") if text is None else text
    found = {}
    for prefix, last, retired in re.findall(r"^\| ([A-Z]{2}) \|.*\| (\d+) \|([^|]*)\|$", text, re.MULTILINE):
        found[prefix] = Series(int(last), frozenset(int(n) for n in re.findall(r"\d+", retired)))
    return found


def problems_of_ids(found: Iterable[Paragraph], series: dict[str, Series]) -> list[str]:
    """Return what is wrong with the ids of paragraphs: twice, not in the index, gone, or back again."""
    counts = Counter(paragraph.id for paragraph in found)
    problems = [f"{paragraph_id} is there {count} times" for paragraph_id, count in counts.items() if count > 1]
    present = defaultdict(set)
    for paragraph_id in counts:
        prefix, _, number = paragraph_id.partition("-")
        present[prefix].add(int(number))
    for prefix in sorted(present.keys() | series.keys()):
        known = series.get(prefix, Series(0, frozenset()))
        given = set(range(1, known.last + 1))
        problems += [f"{prefix}-{n} is not in the index: raise its last number" for n in sorted(present[prefix] - given)]
        problems += [f"{prefix}-{n} was retired, and ids are not used again" for n in sorted(present[prefix] & known.retired)]
        missing = given - present[prefix] - known.retired
        problems += [f"{prefix}-{n} is gone: list it as retired in the index" for n in sorted(missing)]
    return problems


def problems_of_requirements(found: Iterable[Paragraph]) -> list[str]:
    return [f"{p.place}: {p.id} has {p.requirements} requirements; one each" for p in found if p.requirements > 1]


def problems_of_citations(found: Iterable[Paragraph], cited: dict[str, set[Test]]) -> list[str]:
    """Return requirements that no test cites, and citations of nothing."""
    found = list(found)
    problems = [f"{p.place}: no test cites {p.id}" for p in found if p.requirements and p.id not in cited]
    known = {paragraph.id for paragraph in found}
    for paragraph_id in sorted(cited.keys() - known):
        problems += [f"{test} cites {paragraph_id}, which does not exist" for test in sorted(cited[paragraph_id])]
    return problems


def requirements() -> list[Paragraph]:
    return [paragraph for paragraph in paragraphs() if paragraph.requirements]
