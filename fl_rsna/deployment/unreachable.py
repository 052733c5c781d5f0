"""Why the SuperLink cannot be reached from here: every way it fails is a sentence of its own, with what to do."""

import http.client
import socket
import ssl
import urllib.request
from datetime import UTC, datetime

from cryptography import x509

from fl_rsna.checkup.checks import Check, State
from fl_rsna.deployment.key_checks import read_certificate
from fl_rsna.deployment.node import CA, Node, address_of

TIMEOUT_S = 10.0
OTHER_NAME, NOT_YET, ENDED = (62, 64), 9, 10  # OpenSSL's X509_V_ERR_*
OTHER_SIGNER = (18, 19, 20, 21)


def no_link(found: str, change: str) -> Check:
    """No way to the SuperLink."""
    return Check(what="SuperLink", state=State.problem, found=found, change=change)


def proxy_for(host: str) -> str:
    """The proxy by which this machine reaches a host; empty when it goes there by itself."""
    known = urllib.request.getproxies()
    found = known.get("https") or known.get("all") or ""
    return "" if urllib.request.proxy_bypass(host) else found


def why_not(node: Node, cause: object) -> Check:
    """Why a connection failed, as a sentence of its own, with what to do."""
    host, port = address_of(node.superlink)
    match cause:
        case ssl.SSLCertVerificationError():
            return _untrusted(node, cause)
        case ssl.SSLError():
            found = f"{node.superlink} does not speak TLS as a SuperLink does ({cause.reason or cause})"
            return no_link(found, "check the port with the coordinator, and that nothing on the way opens TLS")
        case socket.gaierror():
            return no_link(f"the name {host} is not known here", "ask for the right name, or for an entry in DNS")
        case ConnectionRefusedError():
            change = "have the coordinator start it; check the port, and that no firewall rejects it"
            return no_link(f"nothing listens on port {port} of {host}", change)
        case TimeoutError():
            change = f"have the firewall let this machine open TCP connections to {host}:{port}"
            return no_link(f"no answer from {node.superlink} within {TIMEOUT_S:g} s: a firewall may drop it", change)
        case ConnectionResetError() | http.client.RemoteDisconnected():
            change = "ask whoever runs the network between: something there ends it"
            return no_link(f"the connection to {node.superlink} is closed before TLS is set up", change)
    said = str(cause)
    if "Tunnel connection failed" in said:
        found = f"the proxy {proxy_for(host)} does not let {node.superlink} through ({said})"
        return no_link(found, "have it allow CONNECT to that port")
    return no_link(f"{node.superlink} cannot be reached: {said}", "ask whoever runs the network")


def _untrusted(node: Node, error: ssl.SSLCertVerificationError) -> Check:
    host = address_of(node.superlink)[0]
    shown = _shown_certificate(node)
    match error.verify_code:
        case code if code in OTHER_NAME:
            found = f"the certificate at {node.superlink} is for {_names(shown)}, not for {host}"
            change = f"say --superlink with one of these, or have a certificate made with --host {host}"
        case code if code == ENDED:
            until = f" on {shown.not_valid_after_utc:%Y-%m-%d}" if shown else ""
            found = (
                f"the certificate at {node.superlink} ended{until}; here it is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            )
            change = "have the coordinator make a new one, or set this machine's clock"
        case code if code == NOT_YET:
            found = f"the certificate at {node.superlink} is not valid yet; here it is {datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
            change = "set this machine's clock"
        case code if code in OTHER_SIGNER:
            return _other_signer(node, shown)
        case _:
            found = f"the certificate at {node.superlink} is not to be trusted: {error.verify_message}"
            change = "ask the coordinator"
    return no_link(found, change)


def _other_signer(node: Node, shown: x509.Certificate | None) -> Check:
    """Another authority: a newer one of the coordinator's, or a proxy's that opens TLS on the way."""
    ours = read_certificate(node.keys / CA, "").subject
    issuer = shown.issuer.rfc4514_string() if shown else "an authority that could not be seen"
    found = f"the certificate at {node.superlink} is signed by another authority than ca.crt, {issuer}"
    if shown is not None and shown.issuer == ours:
        change = "it has the same name, so ask the coordinator for the new superlink/ca.crt"
    else:
        change = "if that is your own network's, its proxy opens TLS: have it pass this host untouched; else ask for the right ca.crt"
    return no_link(found, change)


def _shown_certificate(node: Node) -> x509.Certificate | None:
    """What is shown there, trusted or not, to say what is wrong with it; nothing is sent."""
    host, port = address_of(node.superlink)
    if proxy_for(host):
        return None
    try:
        return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, port), timeout=TIMEOUT_S).encode())
    except (OSError, ValueError):
        return None


def _names(shown: x509.Certificate | None) -> str:
    if shown is None:
        return "another name"
    try:
        names = shown.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return "no name at all"
    hosts = names.get_values_for_type(x509.DNSName)
    return ", ".join([*hosts, *map(str, names.get_values_for_type(x509.IPAddress))])
