"""Print this peer's id; the key file is made at first use.

With the id others can allow this peer (interpeer send --allow ID). The key file is the whole secret: whoever has it is this
peer. It is never replaced, and not used if others can read it or if it is damaged.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from interpeer._cli import settings
from interpeer._cli.errors import DONE, CommandError
from interpeer._cli.output import Output
from interpeer._identity import Identity
from interpeer.errors import IdentityFileError

HELP = "print the peer id, making the key file at first use"
REACHES_PEERS = False
DATA_ON_STDOUT = False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--key", metavar="FILE", help="the key file (default: 'identity' in the state directory)")
    parser.add_argument("--state", metavar="DIR", help="the state directory (default: $XDG_STATE_HOME/interpeer)")


def run(options: argparse.Namespace, output: Output) -> int:
    resolved = settings.resolve(options)
    if resolved.seed is not None:
        identity, source = Identity.from_seed(resolved.seed), "INTERPEER_KEY"
    else:
        path = resolved.key or _default_path(resolved.state)
        identity, source = load_or_make(path), str(path)
    output.answer(str(identity.id), id=str(identity.id), key=source)
    return DONE


def load_or_make(path: Path) -> Identity:
    """Return the identity in a key file, making the file if there is none. Raises IdentityFileError."""
    if not os.path.lexists(path):
        identity = Identity.generate()
        try:
            identity.save(path)
        except IdentityFileError:
            if not os.path.lexists(path):
                raise
        else:
            return identity
    return Identity.load(path)


def _default_path(state: Path | None) -> Path:
    directory = state or settings.default_state()
    if directory is None:
        raise CommandError("there is no home directory to keep a key in: name a file with --key")
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory / "identity"
