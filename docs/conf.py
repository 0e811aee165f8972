"""How the documentation is made: ./run docs, or any tool that finds a conf.py here. The package must be installed."""

from __future__ import annotations

import argparse

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

import interpeer
from interpeer._cli.parser import COMMANDS, make_parser

project = "interpeer"
author = "The interpeer maintainers"
project_copyright = "The interpeer maintainers; Apache License 2.0"
release = version = interpeer.__version__

root_doc = "index"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"interpeer {release}"
nitpicky = True
nitpick_ignore_regex = [
    # other people's names (to look them up, the network would be needed), and our own that are not public
    ("py:.*", r"(_?asyncio|collections|concurrent|contextvars|os|pathlib|socket|subprocess|types|np)\..*|Buffer"),
    ("py:.*", r"(.*\.)?~?_\w+|.*_handle\.\w+|CoreEndpoint|NetNode|Realm"),
    ("py:.*", r"interpeer\.(testing\.)?_(core|driver|iterators|machine|port|realm|streams|udp|waiting)\..*"),
]
default_role = "code"
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True}
python_use_unqualified_type_names = True

GIVEN = {
    *(f"interpeer.{name}" for name in ("Channel", "Connection", "Identity", "Path", "Stream")),
    *(f"interpeer.{name}" for name in ("ChannelStats", "MessageStats", "PathStats", "Stats")),
    *(f"interpeer.blocking.{name}" for name in ("Channel", "Connection", "Stream")),
    *(f"interpeer.testing.{name}" for name in ("Host", "Packet", "SimLoop", "Wire", "WireStats")),
    *(f"interpeer.testing.natlab.{name}" for name in ("Host", "Internet", "Lan", "Machine", "Network", "Router")),
}
"""Classes whose objects a user is given: how they are made is not shown."""

OUTSIDE = {"../benchmarks/README.md": "benchmarks.md"}
"""Pages that are elsewhere in the checkout, and what shows them here."""


class CommandHelp(SphinxDirective):
    """Show what `interpeer COMMAND --help` prints, for each command: it cannot be out of date."""

    def run(self) -> list[nodes.Node]:
        parser = make_parser()
        (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
        shown: list[nodes.Node] = [nodes.literal_block(text=parser.format_help(), language="text")]
        for name in COMMANDS:
            section = nodes.section(ids=[f"interpeer-{name}"], names=[f"interpeer {name}"])
            section += nodes.title(text=f"interpeer {name}")
            section += nodes.literal_block(text=commands.choices[name].format_help(), language="text")
            shown.append(section)
        return shown


def lead_inside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Let links to pages outside of this folder lead to where they are shown."""
    for outside, inside in OUTSIDE.items():
        source[0] = source[0].replace(f"]({outside})", f"]({inside})")


def hide_constructor(app: Sphinx, what: str, name: str, *_: object) -> tuple[str, None] | None:
    return ("", None) if name in GIVEN else None


def setup(app: Sphinx) -> None:
    app.add_directive("command-help", CommandHelp)
    app.connect("source-read", lead_inside)
    app.connect("autodoc-process-signature", hide_constructor)
