"""What is shown of interpeer.testing works: each example of its page, and of its docstrings."""

import doctest
import importlib
import pkgutil
import re

import pytest

import interpeer.testing

MODULES = [f"interpeer.testing.{module.name}" for module in pkgutil.iter_modules(interpeer.testing.__path__)]


def test_the_examples_of_the_page_run(root):
    page = (root / "docs" / "testing.md").read_text(encoding="utf-8")
    examples = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert len(examples) == 11
    names = {"__name__": "example"}
    for number, example in enumerate(examples, 1):
        exec(compile(example, f"docs/testing.md, example {number}", "exec"), names)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_docstrings_run(name):
    failed, _tried = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_every_public_name_is_described():
    for name in interpeer.testing.__all__:
        assert getattr(interpeer.testing, name).__doc__, name
