"""config.toml and the environment: settings, or one line that says what cannot be meant."""

import argparse
import functools
import tempfile
from pathlib import Path

from interpeer._cli import settings
from interpeer._cli.errors import Misuse
from tests.fuzz.source import Source

NAMES = ("listen", "timeout", "network", "bootstrap", "give", "no_lan", "no_roles", "key")


def feed(data: bytes) -> None:
    source = Source(data)
    environ: dict[str, str] = {}
    if source.byte(2):
        name = NAMES[source.byte(len(NAMES))]
        environ[f"INTERPEER_{name.upper()}"] = source.take(source.byte()).decode("utf-8", "replace")
    environ["XDG_CONFIG_HOME"] = folder().name
    Path(folder().name, "interpeer", "config.toml").write_bytes(source.rest())
    try:
        found = settings.resolve(argparse.Namespace(), environ)
    except Misuse as error:
        assert str(error)
        return
    assert 0 < found.timeout <= 86_400 and found.network and found.as_give()


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Return one for the whole run: to make one for each input would take most of the time."""
    made = tempfile.TemporaryDirectory()
    Path(made.name, "interpeer").mkdir()
    return made
