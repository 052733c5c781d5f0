"""Make the keys and certificates of a federation, and check those that a TLS server here starts with.

Keys are EC P-384; certificates are X.509 as in RFC 5280. The coordinator's own authority signs the SuperLink's certificate and
nothing else: its name constraints (RFC 5280, 4.2.1.10) admit only the names the SuperLink was made with. A site proves itself by
its node key, not by a certificate. The certificate that a site has is for the SuperNode's own port on 127.0.0.1, and the key of
the authority that signed it is deleted at once.
"""

import ipaddress
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Key = ec.EllipticCurvePrivateKey
CA_DAYS, LEAF_DAYS = 1826, 397  # 5 years; 13 months
LOOPBACK = ("localhost", "127.0.0.1", "::1")  # the names by which Flower's own processes connect
SLACK = timedelta(hours=1)  # for clocks that are behind this machine's
DNS_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*", re.I
)
MAKE = "make them with python -m fl_rsna.keys"
HERE = ip_address("127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A private key and the certificate of its public half."""

    key: Key
    certificate: x509.Certificate


def new_key() -> Key:
    """Make a private key (EC P-384)."""
    return ec.generate_private_key(ec.SECP384R1())


def make_authority(name: str, hosts: Sequence[str], days: int = CA_DAYS) -> Identity:
    """Make an authority that can sign only for `hosts` and loopback names, and for no other authority."""
    key = new_key()
    subject = _subject(name)
    constraints = x509.NameConstraints([_as_subtree(host) for host in _with_loopback(hosts)], None)
    builder = (
        _builder(subject, subject, key, days, None)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(constraints, critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
    )
    return Identity(key=key, certificate=builder.sign(key, hashes.SHA384()))


def make_server(authority: Identity, name: str, hosts: Sequence[str], days: int = LEAF_DAYS) -> Identity:
    """Make a server's key and certificate for `hosts` and loopback, valid no longer than its authority.

    Raises ValueError for a host that the authority does not admit.
    """
    check_admitted(authority.certificate, hosts)
    key, signer = new_key(), authority.certificate
    names = x509.SubjectAlternativeName([as_name(host) for host in _with_loopback(hosts)])
    builder = (
        _builder(_subject(name), signer.subject, key, days, signer.not_valid_after_utc)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    return Identity(key=key, certificate=builder.sign(authority.key, hashes.SHA384()))


def check_admitted(authority: x509.Certificate, hosts: Iterable[str]) -> None:
    """Raise ValueError for a host that the authority was not made with, and for an authority that has expired."""
    if authority.not_valid_after_utc <= datetime.now(UTC):
        raise ValueError(
            f"the authority ended on {authority.not_valid_after_utc:%Y-%m-%d}; make a new one in a new folder"
        )
    admitted = authority.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    for host in hosts:
        if _as_subtree(host) not in admitted:
            raise ValueError(
                f"--host {host}: expected one the authority was made with, {', '.join(str(name.value) for name in admitted)}; "
                "for another host make a new authority in a new folder"
            )


def as_name(host: str) -> x509.GeneralName:
    """Read an IP address or a DNS name. Raises ValueError for any other text, and for wildcards."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        if not DNS_NAME.fullmatch(host) or host.replace(".", "").isdigit():
            raise ValueError(f"--host: expected a DNS name or an IP address, without a port, got {host!r}") from None
        return x509.DNSName(host.lower())


def private_pem(key: Key) -> bytes:
    """Write a private key as PEM, without a password."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def private_openssh(key: Key) -> bytes:
    """Write a private key in OpenSSH's format, which flower-supernode reads."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())


def public_openssh(key: Key, comment: str) -> bytes:
    """Write a public key as one line in OpenSSH's format, as in authorized_keys."""
    line = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    return line + b" " + comment.replace(" ", "_").encode() + b"\n"


def certificate_pem(certificate: x509.Certificate) -> bytes:
    """Write a certificate as PEM."""
    return certificate.public_bytes(Encoding.PEM)


def load_authority(key_pem: bytes, certificate_pem: bytes) -> Identity:
    """Read an authority's key and certificate. Raises ValueError when they are unreadable or do not belong together."""
    key, certificate = load_pem_private_key(key_pem, None), x509.load_pem_x509_certificate(certificate_pem)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ValueError("the authority's key and certificate do not belong together")
    return Identity(key=key, certificate=certificate)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Key, days: int, latest: datetime | None
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    end = now + timedelta(days=days)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(end if latest is None else min(end, latest))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _with_loopback(hosts: Sequence[str]) -> list[str]:
    """List the hosts and the loopback names, each once and in one notation."""
    return list(dict.fromkeys(str(as_name(host).value) for host in (*hosts, *LOOPBACK)))


def _as_subtree(host: str) -> x509.GeneralName:
    """Write one host for a name constraint; an address is a network of one."""
    name = as_name(host)
    return x509.IPAddress(ipaddress.ip_network(name.value)) if isinstance(name, x509.IPAddress) else name


def _usage(authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """The paths of a TLS server's files, with the subject, hosts and end of its certificate."""

    ca: Path
    certificate: Path
    key: Path
    subject: str
    hosts: tuple[str, ...]
    ends: datetime


def server_files(ca: Path, certificate: Path, key: Path) -> ServerFiles:
    """Check the files that a TLS server starts with.

    Raises ValueError when one is missing, unreadable, expired or does not belong to the others, and when others may read the key.
    """
    content = {path: _read(path) for path in (ca, certificate, key)}
    if mode := stat.S_IMODE(key.stat().st_mode) & 0o077:
        raise ValueError(
            f"{key}: expected a key that its owner alone may read, got mode {0o600 | mode:o}; chmod 600 {key}"
        )
    authority, own = _parse_certificate(ca, content[ca]), _parse_certificate(certificate, content[certificate])
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


def _parse_certificate(path: Path, content: bytes) -> x509.Certificate:
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
