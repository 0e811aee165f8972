"""A self-signed certificate for TLS where nobody asks whose it is, made with libsodium, so that no other package is needed.

An X.509 certificate is a few nested values in DER, signed with Ed25519 (RFC 5280, RFC 8410). The key lasts as long as the
process: tunnels prove who is at their ends inside, and measurements need not.
"""

from __future__ import annotations

import base64
import ctypes
import datetime
import os
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from interpeer import _sodium

HOST = "localhost"
SEED_BYTES, PUBLIC_BYTES, SECRET_BYTES, SIGNATURE_BYTES = 32, 32, 64, 64

_INTEGER, _BITS, _OCTETS, _OBJECT, _TEXT, _TIME, _SEQUENCE, _SET = 0x02, 0x03, 0x04, 0x06, 0x0C, 0x17, 0x30, 0x31
_VERSION, _EXTENSIONS, _DNS_NAME = 0xA0, 0xA3, 0x82
_ED25519 = bytes.fromhex("2b6570")
_COMMON_NAME = bytes.fromhex("550403")
_ALTERNATIVE_NAME = bytes.fromhex("551d11")


@contextmanager
def certificate_file() -> Generator[tuple[Path, str]]:
    """Give a file with a certificate and its key, as long as the block lasts, and the certificate alone as PEM."""
    certificate, key = make_certificate()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "server.pem")
        path.touch(mode=0o600)
        path.write_text(certificate + key)
        yield path, certificate


def make_certificate() -> tuple[str, str]:
    """Return certificate and private key as PEM."""
    seed = os.urandom(SEED_BYTES)
    public, secret = _key_pair(seed)
    body = _body(public)
    certificate = _der(_SEQUENCE, body, _der(_SEQUENCE, _der(_OBJECT, _ED25519)), _der(_BITS, b"\0", _sign(body, secret)))
    key = _der(_SEQUENCE, _der(_INTEGER, b"\0"), _der(_SEQUENCE, _der(_OBJECT, _ED25519)), _der(_OCTETS, _der(_OCTETS, seed)))
    return _pem("CERTIFICATE", certificate), _pem("PRIVATE KEY", key)


def _body(public: bytes) -> bytes:
    """Return what is signed: who, from when to when, which key."""
    algorithm = _der(_SEQUENCE, _der(_OBJECT, _ED25519))
    name = _der(_SEQUENCE, _der(_SET, _der(_SEQUENCE, _der(_OBJECT, _COMMON_NAME), _der(_TEXT, HOST.encode()))))
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    alternatives = _der(_OCTETS, _der(_SEQUENCE, _der(_DNS_NAME, HOST.encode())))
    return _der(
        _SEQUENCE,
        _der(_VERSION, _der(_INTEGER, b"\x02")),
        _der(_INTEGER, b"\x01" + os.urandom(15)),
        algorithm,
        name,
        _der(_SEQUENCE, _time(now - day), _time(now + day)),
        name,
        _der(_SEQUENCE, algorithm, _der(_BITS, b"\0", public)),
        _der(_EXTENSIONS, _der(_SEQUENCE, _der(_SEQUENCE, _der(_OBJECT, _ALTERNATIVE_NAME), alternatives))),
    )


def _der(tag: int, *parts: bytes) -> bytes:
    """Return one value in DER: tag, length, content."""
    content = b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes([tag, length]) + content
    size = length.to_bytes(-(-length.bit_length() // 8), "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def _time(moment: datetime.datetime) -> bytes:
    return _der(_TIME, moment.strftime("%y%m%d%H%M%SZ").encode())


def _pem(label: str, der: bytes) -> str:
    text = base64.b64encode(der).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""))


def _key_pair(seed: bytes) -> tuple[bytes, bytes]:
    public, secret = ctypes.create_string_buffer(PUBLIC_BYTES), ctypes.create_string_buffer(SECRET_BYTES)
    if _sodium.library().crypto_sign_seed_keypair(public, secret, seed) != 0:
        raise RuntimeError("libsodium's crypto_sign_seed_keypair failed")
    return public.raw, secret.raw


def _sign(message: bytes, secret: bytes) -> bytes:
    signature = ctypes.create_string_buffer(SIGNATURE_BYTES)
    if _sodium.library().crypto_sign_detached(signature, None, message, ctypes.c_ulonglong(len(message)), secret) != 0:
        raise RuntimeError("libsodium's crypto_sign_detached failed")
    return signature.raw
