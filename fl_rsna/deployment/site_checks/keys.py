"""Check that a site's keys and certificates are what its SuperNode needs: of the right kind, its own, private, and not about to expire."""

import ipaddress
import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from fl_rsna.checks.check import Check, State
from fl_rsna.checks.data import each
from fl_rsna.deployment.keys.certificates import public_openssh
from fl_rsna.deployment.keys.key_folder import key_fingerprint
from fl_rsna.deployment.site_node import CA, LOOPBACK, NODE_KEY, RUNTIME

SOON = timedelta(days=30)
OWN = "python -m fl_rsna.keys site --name <site>"

ok, warning, problem = State.ok, State.warning, State.problem


def check_keys(keys: Path) -> list[Check]:
    """Check all files in the folder of keys."""
    certificate, private, authority = (keys / name for name in RUNTIME.values())
    return [
        *each("node key", lambda: [check_node_key(keys / NODE_KEY)]),
        *each("CA certificate", lambda: [check_authority(keys / CA)]),
        *each("loopback TLS", lambda: [check_runtime(certificate, private, authority)]),
    ]


def check_node_key(path: Path) -> Check:
    """Check the node key and state its fingerprint, which can be compared over the telephone with what the coordinator got."""
    refused = _private(path)
    if refused is not None:
        return refused
    return Check(what="node key", state=ok, found=f"{path}, public part {fingerprint(read_node_key(path))}")


def read_node_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Read the node key. Raises ValueError for one that flower-supernode cannot use."""
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except FileNotFoundError:
        raise ValueError(f"no {path}; {OWN}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(
            f"{path} is no private key in OpenSSH's format without a passphrase ({error}); {OWN}"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise ValueError(f"{path} is not an elliptic curve key of P-384; {OWN}")
    return key


def fingerprint(key: ec.EllipticCurvePrivateKey) -> str:
    """Compute the fingerprint of a key's public part, as `ssh-keygen -l` and the coordinator show it."""
    return key_fingerprint(public_openssh(key, ""))


def check_authority(path: Path) -> Check:
    """Check the certificate of the coordinator's authority, by which this site recognizes the SuperLink."""
    change = "ask the coordinator for superlink/ca.crt and put it there"
    authority = read_certificate(path, change)
    try:
        is_authority = authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        is_authority = False
    if not is_authority:
        return Check(what="CA certificate", state=problem, found=f"{path} is no authority's certificate", change=change)
    return _check_dates("CA certificate", path, authority, change)


def check_runtime(certificate: Path, private: Path, authority: Path) -> Check:
    """Check the site's own certificate, with which Flower's processes on this machine speak TLS with each other."""
    refused = _private(private)
    if refused is not None:
        return refused
    own, signer = read_certificate(certificate, OWN), read_certificate(authority, OWN)
    try:
        key = load_pem_private_key(private.read_bytes(), None)
        own.verify_directly_issued_by(signer)
        names = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(
            f"{private} is no private key that can be read, or {certificate} is of another; {OWN}"
        ) from None
    except InvalidSignature:
        raise ValueError(f"{certificate} is not signed by {authority}; {OWN}") from None
    except x509.ExtensionNotFound:
        raise ValueError(f"{certificate} names no host; {OWN}") from None
    if key.public_key() != own.public_key():
        raise ValueError(f"{private} is not the key of {certificate}; {OWN}")
    if ipaddress.ip_address(LOOPBACK) not in names.get_values_for_type(x509.IPAddress):
        raise ValueError(f"{certificate} is not for {LOOPBACK}; {OWN}")
    return _check_dates("loopback TLS", certificate, own, OWN)


def read_certificate(path: Path, change: str) -> x509.Certificate:
    """Read a certificate. Raises ValueError with what to do (`change`) where there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(f"no {path}; {change}") from None
    except ValueError:
        raise ValueError(f"{path} is no certificate in PEM format; {change}") from None


def _check_dates(what: str, path: Path, certificate: x509.Certificate, change: str) -> Check:
    """Check that a certificate is valid now and for more than a few days."""
    now, start, end = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < start:
        found = f"{path} is not valid before {start:%Y-%m-%d %H:%M} UTC, here it is {now:%Y-%m-%d %H:%M}"
        return Check(what=what, state=problem, found=found, change="set this machine's clock")
    if now >= end:
        return Check(what=what, state=problem, found=f"{path} ended on {end:%Y-%m-%d}", change=change)
    state = warning if end - now < SOON else ok
    return Check(
        what=what, state=state, found=f"{path}, valid until {end:%Y-%m-%d}", change=change if state is warning else ""
    )


def _private(path: Path) -> Check | None:
    """Check who owns and who can read a private key; None where nothing is wrong."""
    what = "node key" if path.name == NODE_KEY else "loopback TLS"
    try:
        facts = path.stat()
    except OSError as error:
        return Check(what=what, state=problem, found=f"cannot read {path}: {error.strerror}", change=OWN)
    if not stat.S_ISREG(facts.st_mode):
        return Check(what=what, state=problem, found=f"{path} is no file", change=OWN)
    if facts.st_mode & 0o077:
        found = f"{path} can be read by others (mode {stat.S_IMODE(facts.st_mode):04o})"
        return Check(what=what, state=problem, found=found, change=f"chmod 600 {path}")
    if os.getuid() not in (0, facts.st_uid):
        found = f"{path} belongs to user {facts.st_uid}, this is {os.getuid()}"
        return Check(what=what, state=problem, found=found, change="run as its owner, or chown it")
    return None
