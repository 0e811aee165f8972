"""Key files: refused as damaged, or exactly what would be written for the key that is read."""

import functools
import os
import tempfile
from pathlib import Path

from interpeer._identity import _MAGIC, Identity, _format
from interpeer.errors import IdentityFileError
from tests.fuzz.source import Source


def feed(data: bytes) -> None:
    source = Source(data)
    kind = source.byte(3)
    content = source.rest()
    if kind == 1:
        content = _MAGIC + content
    elif kind == 2:  # a sound file, some of whose bytes are other ones
        whole = bytearray(_format(content[:32].ljust(32, b"\0")))
        for at, byte in zip(content[32::2], content[33::2], strict=False):
            whole[at % len(whole)] = byte
        content = bytes(whole)
    path = Path(folder().name, "key")
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)
    try:
        identity = Identity.load(path)
    except IdentityFileError as error:
        assert "damaged" in str(error)
        return
    assert _format(identity._seed) == content


@functools.cache
def folder() -> tempfile.TemporaryDirectory[str]:
    """Return one for the whole run: to make one for each input would take most of the time."""
    return tempfile.TemporaryDirectory()
