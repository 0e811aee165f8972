"""Every requirement has a mutant that still applies, and trying mutants tells the noticed from the others."""

import random
import re

import pytest

from tests.spec import mutate
from tests.spec.citations import requirements
from tests.spec.document import ROOT
from tests.spec.mutate import Mutant, chosen, mutants

PYTHON = "src/interpeer/_identity.py", "if to_base32(data) != text:"
CORE = "src/_core/reception.pyx", "    elif p[0] == MESSAGE_VERSIONS:"
OTHER_CORE = "src/_core/dial.pyx", "return d.state > DIAL_DOUBTFUL"
TRIED = [
    ("killed", Mutant("ID-7", *PYTHON, "if len(to_base32(data)) != len(text):")),
    ("SURVIVED", Mutant("ID-7", *PYTHON, f"{PYTHON[1]}  # as before")),
    ("broken", Mutant("ID-7", PYTHON[0], "no such line", "anything")),
    ("killed", Mutant("VR-3", *CORE, CORE[1].replace(":", " and p[1] == VERSION:"))),
    ("broken", Mutant("VR-3", *CORE, CORE[1].replace("p[0]", "no_such_name"))),
    ("SURVIVED", Mutant("VR-3", *OTHER_CORE, f"{OTHER_CORE[1]}  # as before")),  # nothing is left of those before
]


def test_every_requirement_has_a_mutant_and_every_mutant_a_requirement():
    assert {mutant.id for mutant in mutants()} == {paragraph.id for paragraph in requirements()}


@pytest.mark.parametrize("mutant", [pytest.param(mutant, id=mutant.id) for mutant in mutants()])
def test_mutant_applies_to_the_source_of_today(mutant):
    source = (ROOT / mutant.file).read_text()
    assert mutant.applied_to(source) != source


@pytest.mark.parametrize(
    ("source", "new", "message"),
    [
        ("a\n", "c", "X-1: f has 0 times, not once: 'b'"),
        ("b\nb\n", "c", "X-1: f has 2 times, not once: 'b'"),
        ("b\n", "b", "X-1: the mutant changes nothing"),
    ],
)
def test_a_mutant_that_does_not_apply_is_an_error(source, new, message):
    with pytest.raises(ValueError, match=message):
        Mutant("X-1", "f", "b", new).applied_to(source)


def test_mutants_are_chosen_by_id_or_drawn_by_seed():
    assert [mutant.id for mutant in chosen(["HS-13", "PK-16"], None, 0)] == ["PK-16", "HS-13"]
    assert chosen([], None, 0) == mutants()
    assert chosen([], 5, 1) == chosen([], 5, 1) != chosen([], 5, 2)
    assert len(chosen(["PK-16"], 5, 1)) == 1
    with pytest.raises(SystemExit, match="no mutant for XX-1"):
        chosen(["XX-1", "PK-16"], None, 0)


@pytest.mark.system
def test_a_mutant_is_killed_survives_or_is_broken(tmp_path, capsys, monkeypatch):
    """It takes a copy of everything that is built."""
    monkeypatch.setattr(mutate, "WORK", tmp_path)
    verdicts, some = zip(*TRIED, strict=True)
    assert mutate.run(list(some)) == 4
    said = re.findall("^(killed|SURVIVED|broken)", capsys.readouterr().out, re.MULTILINE)
    assert said == list(verdicts)


@pytest.mark.system
def test_a_sample_of_mutants_is_noticed(tmp_path, capsys, monkeypatch, seed):
    """Each is built, which takes a while; `./run mutate` tries them all."""
    monkeypatch.setattr(mutate, "WORK", tmp_path)
    some = random.Random(seed).sample(mutants(), 2)
    assert mutate.run(some) == 0, capsys.readouterr().out
