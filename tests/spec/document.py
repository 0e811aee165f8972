"""The specification as data: its paragraphs, its tables, and the tables of the source that they must agree with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "docs/spec"
CORE, INTERFACE = ROOT / "src/_core", ROOT / "src/interpeer/_core"

REQUIREMENT = re.compile(r"(?<!`)\bMUST\b")
START = re.compile(r"^\*\*\[([A-Z]{2}-\d+)\]\*\* ")


@dataclass(frozen=True)
class Paragraph:
    """A numbered paragraph, up to the next one or the next heading."""

    id: str
    place: str
    """Such as `04-handshake.md:17`."""
    text: str

    @property
    def requirements(self) -> int:
        """How often it says MUST; between backticks the word is only mentioned."""
        return len(REQUIREMENT.findall(self.text))

    def tables(self) -> list[list[list[str]]]:
        """Return its tables: rows of cells, the head included."""
        tables: list[list[list[str]]] = []
        is_inside = False
        for line in self.text.splitlines():
            if line.startswith("|") and not is_inside:
                tables.append([])
            is_inside = line.startswith("|")
            if is_inside and not set(line) <= set("|- "):
                tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        return tables


def paragraphs_of(text: str, name: str) -> Iterator[Paragraph]:
    """Yield the paragraphs of one chapter."""
    lines = text.splitlines()
    starts = [i for i, line in enumerate(lines) if START.match(line)]
    for i in starts:
        end = next((j for j in range(i + 1, len(lines)) if START.match(lines[j]) or lines[j].startswith("#")), len(lines))
        match = START.match(lines[i])
        assert match
        yield Paragraph(match[1], f"{name}:{i + 1}", "\n".join(lines[i:end]).strip())


def chapters(folder: Path = SPEC) -> dict[str, str]:
    """Return the text of each chapter by its file's name."""
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.glob("[0-9]*.md"))}


def paragraphs(folder: Path = SPEC) -> list[Paragraph]:
    return [paragraph for name, text in chapters(folder).items() for paragraph in paragraphs_of(text, name)]


def paragraph(paragraph_id: str) -> Paragraph:
    return next(paragraph for paragraph in paragraphs() if paragraph.id == paragraph_id)


# --- the source ---


def names(module: str, prefix: str) -> list[str]:
    """Return the enumerators PREFIX_* of a module's interface with the values 0, 1, 2 and so on up to PREFIX_STATES."""
    found: list[str] = []
    for name, value in re.findall(rf"^    {prefix}_(\w+) = (\d+)\b", (INTERFACE / f"{module}.pxd").read_text(), re.MULTILINE):
        if name == "STATES":
            break
        if int(value) == len(found):
            found.append(name)
    return found


def array(module: str, name: str) -> list[str]:
    """Return the names in a constant array of a module, one after the other."""
    source = re.sub(r"#.*", "", (CORE / f"{module}.pyx").read_text())
    match = re.search(rf"^cdef uint8_t[\[\]0-9]* {name} = (\[.*?^\])", source, re.MULTILINE | re.DOTALL)
    assert match, f"{module}.pyx has no array {name}"
    return re.findall(r"[A-Z_]+", match[1])


def constants(*modules: str) -> dict[str, int]:
    """Return the named constants of these modules of the core, or of all, whose value is a plain number."""
    found = {}
    for path in (*sorted(CORE.glob("*.pyx")), *sorted(INTERFACE.glob("*.pxd"))):
        if modules and path.stem not in modules:
            continue
        for name, value in re.findall(r"^    ([A-Z][A-Z0-9_]+) = (0x[0-9A-Fa-f]+|\d+)\b(?! *<<)", path.read_text(), re.MULTILINE):
            found[name] = int(value, 0)
    return found
