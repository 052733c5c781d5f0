"""Whether the SuperLink can be reached from here as the SuperNode will: by name, over TLS, at the same time of day, known there."""

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

from fl_rsna.checkup.checks import Check, State
from fl_rsna.checkup.data_checks import each
from fl_rsna.deployment.flower_parts import as_flower_writes, part
from fl_rsna.deployment.key_checks import SOON, fingerprint, read_certificate, read_node_key
from fl_rsna.deployment.node import CA, NODE_KEY, Node, address_of
from fl_rsna.deployment.unreachable import TIMEOUT_S, no_link, proxy_for, why_not

AHEAD_S, BEHIND_S = SYSTEM_TIME_TOLERANCE, TIMESTAMP_TOLERANCE + SYSTEM_TIME_TOLERANCE  # of a node's clock: 5 s, 305 s
DATE_S = 2  # whole seconds, and a server may write them once a second
NO_INTERVAL = 0.0  # no heartbeat interval that Flower takes: it looks the key up first, and changes nothing

ok, warning, problem = State.ok, State.warning, State.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the SuperLink said, or why it did not."""

    check: Check
    date: str = ""  # of its clock
    ahead_s: float = 0.0  # of ours, by a second


def check_link(node: Node) -> list[Check]:
    """The way to the SuperLink, and what it says of this site; the later checks need the earlier."""
    try:
        context = trusting(node.keys / CA)
    except ValueError:
        return [Check(what="SuperLink", state=problem, found="not asked: the CA certificate above cannot be used")]
    checks = check_proxy(node)
    answer = ask(node, context)
    checks.append(answer.check)
    if answer.check.state is problem:
        return checks
    clock = check_clock(answer.ahead_s) if answer.date else _no_clock()
    return [*checks, clock, *each("registered", lambda: [check_registered(node)])]


def trusting(authority: Path) -> ssl.SSLContext:
    """Trusts this one authority. Raises ValueError when it cannot be read."""
    read_certificate(authority, "")
    try:
        return ssl.create_default_context(cafile=str(authority))
    except (ssl.SSLError, OSError) as error:
        raise ValueError(f"{authority} cannot be used: {error}") from None


def check_proxy(node: Node) -> list[Check]:
    """A proxy that the environment names, through which the SuperNode will go, too."""
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
    """It does; how long its certificate is valid is known where no proxy stands between."""
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
    """A node signs the time; the SuperLink refuses one more than 5 s ahead or 305 s behind its own clock."""
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


def _no_clock() -> Check:
    return Check(
        what="clock", state=warning, found="the SuperLink does not say its time", change="compare clocks by hand"
    )


def check_registered(node: Node) -> Check:
    """Whether the SuperLink knows this node's key."""
    return registered_by(asked_for(node), fingerprint(read_node_key(node.keys / NODE_KEY)))


def wait_until_admitted(node: Node, again_s: float = 10.0) -> None:
    """Wait while the SuperLink says that it does not know this node's key, where a SuperNode would end; whatever else, go on."""
    told = False
    while _code_of(asked_for(node)) == ApiErrorCode.FLEET_NODE_ACTIVATION_FAILED:
        if not told:
            key = fingerprint(read_node_key(node.keys / NODE_KEY))
            print(f"the SuperLink does not know the key {key} yet; waiting until the coordinator admits it", flush=True)
        told = True
        time.sleep(again_s)


def asked_for(node: Node) -> Exception | None:
    """Ask to be activated as a SuperNode does, with a heartbeat interval that no SuperLink takes: nothing changes there.

    What is raised then says whether the key is known; None would be a SuperLink that takes any interval.
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
    """Flower's number for a refusal."""
    told = FlowerError.from_json(error.response.text) if isinstance(error, httpx.HTTPStatusError) else None
    return told.code if told else None


def registered_by(error: Exception | None, key: str) -> Check:
    """What the SuperLink's refusal says of this node's key."""
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
