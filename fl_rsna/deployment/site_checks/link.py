"""Check whether the SuperNode will reach the SuperLink from here: its name, TLS, the clocks, and whether the SuperLink knows the site's key.

Every reason for a failure has its own sentence, with what to do.
"""

import http.client
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
from cryptography import x509
from flwr.common.constant import SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE
from flwr.supercore.error import ApiErrorCode, FlowerError

from fl_rsna.checks.check import Check, State
from fl_rsna.checks.data import each
from fl_rsna.deployment.flower_internals import as_flower_writes, part
from fl_rsna.deployment.site_checks.keys import SOON, fingerprint, read_certificate, read_node_key
from fl_rsna.deployment.site_node import CA, NODE_KEY, Node, address_of

TIMEOUT_S = 10.0
OTHER_NAME, NOT_YET, ENDED = (62, 64), 9, 10  # OpenSSL's error numbers X509_V_ERR_*
OTHER_SIGNER = (18, 19, 20, 21)
AHEAD_S, BEHIND_S = SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE  # a node's clock: 5, 305 s
DATE_S = 2  # seconds: Date has whole ones, and a server may update it once a second
NO_INTERVAL = 0.0  # an interval that Flower refuses after it has looked up the key
ok, warning, problem = State.ok, State.warning, State.problem


def no_link(found: str, change: str) -> Check:
    """Make the problem that the SuperLink cannot be reached."""
    return Check(what="SuperLink", state=State.problem, found=found, change=change)


def proxy_for(host: str) -> str:
    """Find the proxy by which this machine reaches a host; empty where it connects directly."""
    known = urllib.request.getproxies()
    found = known.get("https") or known.get("all") or ""
    return "" if urllib.request.proxy_bypass(host) else found


def why_not(node: Node, cause: object) -> Check:
    """Say why a connection failed and what to do."""
    host, port = address_of(node.superlink)
    match cause:
        case ssl.SSLCertVerificationError():
            return _explain_certificate(node, cause)
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
            change = "ask the people who run the network between: something there ends it"
            return no_link(f"the connection to {node.superlink} is closed before TLS is set up", change)
    said = str(cause)
    if "Tunnel connection failed" in said:
        found = f"the proxy {proxy_for(host)} does not let {node.superlink} through ({said})"
        return no_link(found, "have it allow CONNECT to that port")
    return no_link(f"{node.superlink} cannot be reached: {said}", "ask the people who run the network")


def _explain_certificate(node: Node, error: ssl.SSLCertVerificationError) -> Check:
    host = address_of(node.superlink)[0]
    shown = _fetch_certificate(node)
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
    """Say which other authority signed the certificate: a newer one of the coordinator's, or that of a proxy that opens TLS."""
    ours = read_certificate(node.keys / CA, "").subject
    issuer = shown.issuer.rfc4514_string() if shown else "an authority that could not be seen"
    found = f"the certificate at {node.superlink} is signed by another authority than ca.crt, {issuer}"
    if shown is not None and shown.issuer == ours:
        change = "it has the same name, so ask the coordinator for the new superlink/ca.crt"
    else:
        change = "if that is your own network's, its proxy opens TLS: have it pass this host untouched; else ask for the right ca.crt"
    return no_link(found, change)


def _fetch_certificate(node: Node) -> x509.Certificate | None:
    """Fetch the certificate that the SuperLink's address shows, trusted or not, to say what is wrong with it; send nothing else."""
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The SuperLink's answer, or the reason why there was none."""

    check: Check
    date: str = ""  # the time by the SuperLink's clock
    ahead_s: float = 0.0  # how far this machine's clock is ahead, to a second


def check_link(node: Node) -> list[Check]:
    """Check the connection to the SuperLink and what it says of this site; each check needs those before it."""
    try:
        context = build_tls_context(node.keys / CA)
    except ValueError:
        return [Check(what="SuperLink", state=problem, found="not asked: the CA certificate above cannot be used")]
    checks = check_proxy(node)
    answer = ask(node, context)
    checks.append(answer.check)
    if answer.check.state is problem:
        return checks
    no_date = "the SuperLink does not say its time"
    no_clock = Check(what="clock", state=warning, found=no_date, change="compare clocks by hand")
    clock = check_clock(answer.ahead_s) if answer.date else no_clock
    return [*checks, clock, *each("registered", lambda: [check_registered(node)])]


def build_tls_context(authority: Path) -> ssl.SSLContext:
    """Make a TLS context that trusts only this authority. Raises ValueError when the file cannot be read."""
    read_certificate(authority, "")
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"{authority} cannot be used: {error}") from None


def check_proxy(node: Node) -> list[Check]:
    """Report a proxy that the environment names, because the SuperNode will use it as well."""
    proxy = proxy_for(address_of(node.superlink)[0])
    if not proxy:
        return []
    found = f"HTTPS_PROXY={proxy} carries everything to the SuperLink, the checks below as well"
    change = f"if it need not, say no_proxy={address_of(node.superlink)[0]}"
    return [Check(what="proxy", state=warning, found=found, change=change)]


def ask(node: Node, context: ssl.SSLContext) -> Answer:
    """Ask for the SuperLink's health over TLS."""
    before = datetime.now(UTC)
    try:
        with urllib.request.urlopen(f"https://{node.superlink}/health", timeout=TIMEOUT_S, context=context) as reply:
            headers: Message = reply.headers
    except urllib.error.HTTPError as error:
        found = f"{node.superlink} answers over TLS, but with {error.code} {error.reason}: no SuperLink"
        return Answer(check=no_link(found, "check host and port with the coordinator"))
    except (urllib.error.URLError, OSError, http.client.HTTPException) as error:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        return Answer(check=why_not(node, cause))
    middle = before + (datetime.now(UTC) - before) / 2
    date = str(headers.get("Date") or "")
    ahead = (middle - parsedate_to_datetime(date)).total_seconds() - 0.5 if date else 0.0  # Date has whole seconds
    return Answer(check=_answers(node, context), date=date, ahead_s=ahead)


def _answers(node: Node, context: ssl.SSLContext) -> Check:
    """Report that the SuperLink answers, and where no proxy is used, how long its certificate is valid."""
    host = address_of(node.superlink)[0]
    found = f"{node.superlink} answers over TLS, its certificate is signed by this CA for {host}"
    until = None if proxy_for(host) else _valid_until(node, context)
    if until is None:
        return Check(what="SuperLink", state=ok, found=found)
    found += f", valid until {until:%Y-%m-%d}"
    if until - datetime.now(UTC) < SOON:
        return Check(what="SuperLink", state=warning, found=found, change="have the coordinator make a new one")
    return Check(what="SuperLink", state=ok, found=found)


def _valid_until(node: Node, context: ssl.SSLContext) -> datetime | None:
    host, port = address_of(node.superlink)
    try:
        plain = socket.create_connection((host, port), TIMEOUT_S)
        with plain, context.wrap_socket(plain, server_hostname=host) as secure:
            shown = secure.getpeercert(binary_form=True)
    except OSError:
        return None
    return x509.load_der_x509_certificate(shown).not_valid_after_utc if shown else None


def check_clock(ahead_s: float) -> Check:
    """Check this machine's clock. A node signs the time, and the SuperLink refuses one more than 5 s ahead or 305 s behind its own."""
    side = "ahead of" if ahead_s > 0 else "behind"
    found = (
        f"{abs(ahead_s):.0f} s {side} the SuperLink's"
        if abs(ahead_s) >= DATE_S
        else f"as the SuperLink's, to {DATE_S} s"
    )
    change = "keep this machine's clock by NTP"
    if ahead_s >= AHEAD_S or -ahead_s >= BEHIND_S:
        refused = f"{found}; it takes {AHEAD_S} s ahead and {BEHIND_S} s behind"
        return Check(what="clock", state=problem, found=refused, change=change)
    if abs(ahead_s) >= AHEAD_S / 2:
        return Check(what="clock", state=warning, found=found, change=change)
    return Check(what="clock", state=ok, found=found)


def check_registered(node: Node) -> Check:
    """Check whether the SuperLink knows this node's key."""
    return check_activation(try_activation(node), fingerprint(read_node_key(node.keys / NODE_KEY)))


def wait_until_admitted(node: Node, again_s: float = 10.0) -> None:
    """Wait while the SuperLink says that it does not know this node's key, for then a SuperNode would end. Any other answer ends the wait."""
    told = False
    while _code_of(try_activation(node)) == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        if not told:
            key = fingerprint(read_node_key(node.keys / NODE_KEY))
            print(f"the SuperLink does not know the key {key} yet; waiting until the coordinator admits it", flush=True)
        told = True
        time.sleep(again_s)


def try_activation(node: Node) -> Exception | None:
    """Ask for activation as a SuperNode does, with a heartbeat interval that every SuperLink refuses, so that nothing changes there.

    Return the error, which says whether the key is known; None from a SuperLink that accepts the interval.
    """
    key = read_node_key(node.keys / NODE_KEY)
    signing = part("flwr.supernode.node_auth_http_interceptor", "NodeAuthHttpInterceptor")(key, key.public_key())
    asked = part("flwr.proto.fleet_pb2", "ActivateNodeRequest")
    request = asked(public_key=as_flower_writes(key.public_key()), heartbeat_interval=NO_INTERVAL)
    client = part("flwr.supernode.fleet_http_client", "FleetHttpClient").from_server_address(
        node.superlink, insecure=False, root_certificates=str(node.keys / CA), interceptors=[signing]
    )
    try:
        with client:
            client.ActivateNode(request)
    except (httpx.HTTPError, RuntimeError) as error:
        return error
    return None


def _code_of(error: Exception | None) -> int | None:
    """Read Flower's number of a refusal; None for another error."""
    told = FlowerError.from_json(error.response.text) if isinstance(error, httpx.HTTPStatusError) else None
    return told.code if told else None


def check_activation(error: Exception | None, key: str) -> Check:
    """Turn the SuperLink's refusal into a check of whether it knows this node's key."""
    state = problem
    match _code_of(error):
        case ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
            return Check(what="registered", state=ok, found="the SuperLink knows this node's key")
        case ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
            found = f"the SuperLink does not know the key {key}"
            change = "send authorized/<site>.pub to the coordinator, and compare the fingerprint by telephone"
        case _ if isinstance(error, httpx.HTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
            found, change = "the SuperLink refuses what this node's key signs", "look at the clock above"
        case _ if error is None:
            state, found = warning, "it took a heartbeat interval that Flower refuses"
            change = "ask the coordinator which Flower runs there"
        case _:
            found, change = f"the SuperLink cannot be asked: {str(error).splitlines()[0]}", "ask the coordinator"
    return Check(what="registered", state=state, found=found, change=change)
