"""TLS of tunnels. It hides what is inside from middle boxes, and proves nothing: the handshake inside does that."""

from __future__ import annotations

import ssl
from pathlib import Path

from interpeer._certificate import certificate_file

ALPN = {"tls": ["interpeer"], "wss": ["http/1.1"]}


def server_context(transport: str, given: Path | str | None) -> ssl.SSLContext:
    """Return what a listener uses: the certificate and key in a PEM file, or made for the occasion. Raises OSError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(ALPN[transport])
    if given is not None:
        context.load_cert_chain(given)
        return context
    with certificate_file() as (path, _):
        context.load_cert_chain(path)
    return context


def caller_context(transport: str) -> ssl.SSLContext:
    """Return what a caller uses, who takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(ALPN[transport])
    return context
