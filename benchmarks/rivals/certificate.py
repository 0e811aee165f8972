"""A self-signed certificate for the rivals that speak TLS."""

import datetime
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

HOST = "localhost"


@contextmanager
def certificate_file() -> Iterator[tuple[Path, str]]:
    """Give a file with a certificate and its key, as long as the block lasts, and the certificate alone as PEM."""
    certificate, key = make_certificate()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "server.pem")
        path.write_text(certificate + key)
        yield path, certificate


def make_certificate() -> tuple[str, str]:
    """Return certificate and private key as PEM, on P-256: the curve that OpenSSL signs and verifies fastest."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, HOST)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode()
