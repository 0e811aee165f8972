"""Every requirement of the specification has a test that cites it, and every citation a paragraph."""

import pytest

from tests.spec.citations import (
    Series,
    Test,
    citations,
    cited_in,
    index,
    problems_of_citations,
    problems_of_ids,
    problems_of_requirements,
)
from tests.spec.document import REQUIREMENT, SPEC, chapters, paragraphs, paragraphs_of


def test_every_requirement_is_cited_and_every_citation_means_something():
    found, cited = paragraphs(), citations()
    required = [paragraph for paragraph in found if paragraph.requirements]
    tests = {test for some in cited.values() for test in some}
    print(f"{len(found)} paragraphs, {len(required)} requirements, {len(tests)} tests that cite")
    assert problems_of_ids(found, index()) == []
    assert problems_of_requirements(found) == []
    assert problems_of_citations(found, cited) == []
    assert len(required) > 200


def test_no_requirement_stands_outside_of_a_paragraph():
    for name, text in chapters().items():
        inside = sum(paragraph.requirements for paragraph in paragraphs_of(text, name))
        assert inside == len(REQUIREMENT.findall(text)), name


def test_the_index_lists_every_chapter():
    text = (SPEC / "README.md").read_text()
    assert all(f"({name})" in text for name in chapters())


# --- the checker ---

TEXT = """# 1 Title
**[AA-1]** Something that is.
It goes on, and A MUST do this.

| a | b |
|---|---|
| 1 | 2 |

## Heading
Not a paragraph.
**[AA-3]** B MUST NOT do that. C MUST too.
"""


def test_paragraphs_end_at_the_next_one_or_at_a_heading():
    first, second = paragraphs_of(TEXT, "one.md")
    assert (first.id, first.place, first.requirements) == ("AA-1", "one.md:2", 1)
    assert first.tables() == [[["a", "b"], ["1", "2"]]] and first.text.endswith("| 1 | 2 |")
    assert (second.id, second.place, second.requirements) == ("AA-3", "one.md:11", 2)


@pytest.mark.parametrize(
    ("last", "retired", "problems"),
    [
        (3, {2}, []),
        (3, set(), ["AA-2 is gone: list it as retired in the index"]),
        (2, {2}, ["AA-3 is not in the index: raise its last number"]),
        (4, {2}, ["AA-4 is gone: list it as retired in the index"]),
        (3, {2, 3}, ["AA-3 was retired, and ids are not used again"]),
    ],
)
def test_ids_that_are_missing_new_or_back_are_found(last, retired, problems):
    found = list(paragraphs_of(TEXT, "one.md"))
    assert problems_of_ids(found, {"AA": Series(last, frozenset(retired))}) == problems
    assert problems_of_ids([*found, found[0]], {"AA": Series(3, frozenset({2}))}) == ["AA-1 is there 2 times"]
    assert problems_of_ids(found, {}) == [f"AA-{n} is not in the index: raise its last number" for n in (1, 3)]


def test_a_paragraph_with_two_requirements_is_found():
    assert problems_of_requirements(paragraphs_of(TEXT, "one.md")) == ["one.md:11: AA-3 has 2 requirements; one each"]


def test_the_index_is_read():
    text = "| AA | [1 Title](one.md) | 12 | |\n| BB | [2 Other](two.md) | 3 | 1, 2 |\n| not an id | x | 1 | |\n"
    assert index(text) == {"AA": Series(12, frozenset()), "BB": Series(3, frozenset({1, 2}))}


SOURCE = """
import pytest
pytestmark = pytest.mark.spec("AA-1")
@pytest.mark.spec("AA-2", "AA-3")
def test_one(): ...
@pytest.mark.parametrize("a", [pytest.param(1, marks=pytest.mark.spec("AA-4"))])
async def test_two(a): ...
@pytest.mark.spec("AA-5")
class TestThree:
    @pytest.mark.spec("AA-6")
    def test_four(self): ...
def helper(): ...
"""


def test_every_way_of_citing_is_found():
    found = {(paragraph_id, test.name) for paragraph_id, test in cited_in(SOURCE, "test_a.py")}
    assert found == {
        ("AA-1", "test_one"), ("AA-1", "test_two"), ("AA-2", "test_one"), ("AA-3", "test_one"), ("AA-4", "test_two"),
        ("AA-5", "TestThree::test_four"), ("AA-6", "TestThree::test_four"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('@pytest.mark.spec("AA-1")\ndef helper(): ...', "test_a.py:2: a citation that no test has"),
        ("@pytest.mark.spec(NAME)\ndef test_one(): ...", "test_a.py:1: a citation is a plain string"),
        ("@pytest.mark.spec(1)\ndef test_one(): ...", "test_a.py:1: a citation is a plain string"),
    ],
)
def test_a_citation_that_nothing_can_check_is_an_error(source, message):
    with pytest.raises(ValueError, match=message):
        list(cited_in(source, "test_a.py"))


def test_requirements_without_a_test_and_citations_of_nothing_are_found():
    found = list(paragraphs_of(TEXT, "one.md"))
    test = Test("test_a.py", "test_one")
    assert problems_of_citations(found, {"AA-1": {test}, "AA-3": {test}}) == []
    assert problems_of_citations(found, {"AA-1": {test}, "AA-2": {test}}) == [
        "one.md:11: no test cites AA-3", "test_a.py::test_one cites AA-2, which does not exist",
    ]  # fmt: skip
