"""The frames of a payload: the core must read them as the twin does, whatever they are."""

from interpeer._core import probe_wire
from tests.models import wire


def feed(data: bytes) -> None:
    assert probe_wire.parse(data) == wire.read_frames(data)
