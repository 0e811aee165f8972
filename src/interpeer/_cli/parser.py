"""The command line's grammar, for argparse and for the shells' completion."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn, Protocol, cast, final

from interpeer._cli import settings
from interpeer._cli.errors import Misuse
from interpeer._cli.output import Output

COMMANDS = ("demo", "id", "up", "ping", "pipe", "send", "recv", "bench", "doctor")
LONG_RUNNING = ("up", "pipe", "send", "recv")
"""Those that tell events, one object a line."""
SHELLS = ("bash", "zsh", "fish")


class Command(Protocol):
    """What a module of `interpeer._cli.commands` has."""

    HELP: str
    REACHES_PEERS: bool
    DATA_ON_STDOUT: bool

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace, output: Output) -> int: ...


def command(name: str) -> Command:
    """Return a command's module."""
    module: ModuleType = importlib.import_module(f"interpeer._cli.commands.{name}")
    return cast(Command, module)


@final
class Parser(argparse.ArgumentParser):
    """Tell misuse by an exception, not by a page of usage."""

    def error(self, message: str) -> NoReturn:
        raise Misuse(f"{message}; see {self.prog} --help")


def make_parser() -> Parser:
    """Return the grammar of all commands."""
    everywhere = Parser(add_help=False, argument_default=argparse.SUPPRESS, allow_abbrev=False)
    everywhere.add_argument("--json", action="store_true", help="print JSON for programs: one object, or one a line")
    everywhere.add_argument("-v", "--verbose", action="count", help="say more on standard error; twice: everything")
    everywhere.add_argument("--no-color", action="store_true", help="no colours (so does NO_COLOR)")
    parser = Parser(
        prog="interpeer",
        description="Reach any peer by its public key.",
        epilog="interpeer COMMAND --help tells more. Exit codes: 0 done, 1 failed, 2 misuse, 130 interrupted.",
        parents=[everywhere],
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version")
    parser.add_argument("--completion", choices=SHELLS, help="print a script that completes commands and options in a shell")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in COMMANDS:
        module = command(name)
        sub = commands.add_parser(
            name, help=module.HELP, description=module.__doc__, parents=[everywhere], allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        module.add_arguments(sub)
        if module.REACHES_PEERS:
            settings.add_arguments(sub)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the words after `interpeer`. Raises Misuse; SystemExit(0) for --help."""
    options = make_parser().parse_args(arguments)
    if not (options.command or options.version or options.completion):
        raise Misuse(f"which command? There are {', '.join(COMMANDS)}; see interpeer --help")
    return options


def options_by_command() -> dict[str, list[tuple[str, str]]]:
    """Return for each command, and for "" what comes before one, the options and their help, for completion."""
    parser = make_parser()
    found = {"": _options(parser)}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            choices = cast(dict[str, Parser], action.choices)  # pyright: ignore[reportUnknownMemberType]
            found |= {name: _options(sub) for name, sub in choices.items()}
    return found


def _options(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    return [(name, action.help or "") for action in parser._actions for name in action.option_strings]
