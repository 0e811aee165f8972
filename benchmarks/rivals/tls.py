"""TLS 1.3 over TCP: the baseline of `interpeer bench`, here with the certificate that all rivals have."""

from typing import Any

from benchmarks.rivals.certificate import certificate_file
from interpeer._bench.end import Control, Facts
from interpeer._bench.tls import dial, serve_with, version

__all__ = ["dial", "serve", "version"]


def serve(control: Control, *, part: str, loop: str, **_: Any) -> Facts | None:
    with certificate_file() as (path, certificate):
        return serve_with(control, path, certificate, part=part, loop=loop)
