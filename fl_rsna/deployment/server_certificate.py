"""The three files a TLS server here starts with, looked at before it starts."""

import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key

MAKE = "make them with scripts/make_certificates.py"
HERE = ip_address("127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """Paths, and what the certificate says of itself."""

    ca: Path
    certificate: Path
    key: Path
    subject: str
    hosts: tuple[str, ...]
    ends: datetime


def server_files(ca: Path, certificate: Path, key: Path) -> ServerFiles:
    """Raises ValueError when one is missing, unreadable, ended or of another family, and when others may read the key."""
    content = {path: _read(path) for path in (ca, certificate, key)}
    if mode := stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise ValueError(
            f"{key}: expected a key that its owner alone may read, got mode {0o600 | mode:o}; chmod 600 {key}"
        )
    authority, own = _parsed(ca, content[ca]), _parsed(certificate, content[certificate])
    for path, each in ((ca, authority), (certificate, own)):
        _check_time(path, each)
    _check_family(authority, own, content[key], certificate, key)
    names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if HERE not in names.get_values_for_type(x509.IPAddress):
        raise ValueError(
            f"{certificate}: expected one that is good for 127.0.0.1, too, got {own.subject.rfc4514_string()}; {MAKE}"
        )
    return ServerFiles(
        ca=ca,
        certificate=certificate,
        key=key,
        subject=own.subject.rfc4514_string(),
        hosts=tuple(str(name.value) for name in names),
        ends=own.not_valid_after_utc,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: expected a file that can be read, got {error.strerror}; {MAKE}") from None


def _parsed(path: Path, content: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise ValueError(f"{path}: expected a certificate in PEM, got something else; {MAKE}") from None


def _check_time(path: Path, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now >= certificate.not_valid_after_utc:
        raise ValueError(
            f"{path}: expected a certificate that is valid, got one that ended on {certificate.not_valid_after_utc:%Y-%m-%d}; {MAKE}"
        )
    if now < certificate.not_valid_before_utc:
        raise ValueError(
            f"{path}: expected a certificate that is valid, got one from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on; set the clock"
        )


def _check_family(authority: x509.Certificate, own: x509.Certificate, key: bytes, path: Path, key_path: Path) -> None:
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise ValueError(f"{path}: expected a certificate that ca.crt signed, got another's; {MAKE}") from None
    try:
        public = load_pem_private_key(key, None).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            f"{key_path}: expected a private key in PEM without a password, got something else; {MAKE}"
        ) from None
    if public != own.public_key():
        raise ValueError(f"{key_path}: expected the key of {path}, got another's; {MAKE}")
