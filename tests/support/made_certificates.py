"""Keys and certificates of any validity, for tests; and a TLS server of a few lines that answers as a SuperLink would."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def signed(
    name: str,
    signer: Signed | None = None,
    hosts: Sequence[str] = LOOPBACK,
    start_days: float = -1,
    end_days: float = 365,
) -> Signed:
    """A certificate valid between these days from now; an authority's own without a signer."""
    key, now = ec.generate_private_key(ec.SECP384R1()), datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    names = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
    own = (signer or Signed(key=key, certificate=None)).key  # type: ignore[arg-type]
    usage = x509.KeyUsage(True, False, False, False, False, signer is None, signer is None, False, False)
    builder = (
        x509.CertificateBuilder(subject_name=subject, issuer_name=signer.certificate.subject if signer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + timedelta(days=start_days))
        .not_valid_after(now + timedelta(days=end_days))
        .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(own.public_key()), critical=False)
    )
    if signer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Signed(key=key, certificate=builder.sign(own, hashes.SHA256()))


def pem(of: Signed) -> bytes:
    return of.certificate.public_bytes(Encoding.PEM)


def private(key: ec.EllipticCurvePrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def write_private(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def write_keys(folder: Path, authority: Signed) -> Path:
    """A site's folder of keys, as its SuperNode wants it."""
    folder.mkdir(parents=True)
    own = signed("own authority")
    runtime = signed("runtime", own)
    write_private(folder / "node.key", private(ec.generate_private_key(ec.SECP384R1()), PrivateFormat.OpenSSH))
    write_private(folder / "runtime.key", private(runtime.key))
    (folder / "runtime.crt").write_bytes(pem(runtime))
    (folder / "runtime-ca.crt").write_bytes(pem(own))
    (folder / "ca.crt").write_bytes(pem(authority))
    return folder


@contextmanager
def superlink(
    certificate: Signed,
    folder: Path,
    codes: Sequence[int | None] = (2003,),
    status: int = 400,
    health: int = 200,
    date: str = "",
) -> Iterator[str]:
    """host:port of a server that answers /health, and POSTs with Flower's errors of these codes in turn, the last one for ever."""
    left = list(codes)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(health, b"ok")

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            code = left.pop(0) if len(left) > 1 else left[0]
            self._say(status, json.dumps({"code": code, "detail": "refused"} if code else {"detail": "no"}).encode())

        def _say(self, status_: int, body: bytes) -> None:
            self.send_response_only(status_)
            self.send_header("Date", date or self.date_time_string())
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    write_private(folder / "server.key", private(certificate.key))
    (folder / "server.crt").write_bytes(pem(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.crt", folder / "server.key")
    with serving(Handler, context) as port:
        yield f"127.0.0.1:{port}"


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None) -> Iterator[int]:
    """A server's port; it speaks TLS where it has a context. What a client breaks off is not said."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass

        def finish_request(self, request: object, client_address: object) -> None:
            assert isinstance(request, socket.socket)
            secure = context.wrap_socket(request, server_side=True) if context else request
            super().finish_request(secure, client_address)

    server = Quiet(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
