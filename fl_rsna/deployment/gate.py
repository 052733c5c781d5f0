"""Decide which requests reach a SuperLink: an ASGI layer around Flower's whole app.

Flower serves everything on one port: the Fleet API, where nodes prove their identity by a signature, and the Control and Runtime APIs,
which check no identity and start runs. From other machines only the Fleet API and GET /health are reached. The rest is for 127.0.0.1
and ::1: the SuperLink's own processes and a coordinator beside it.

The rule lists what is let through; everything else is refused. So are a path with an encoded or doubled slash, dots or capitals, an
unreadable peer, and a peer on this machine that forwards for another (a reverse proxy: any forwarding header). Flower reads a whole
request before it checks who sent it, so a request must state its size, and the size must be small; Flower sends arrays in pieces of 5 MiB.
"""

import ipaddress
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

REFUSAL = "This part of the SuperLink answers only on its own machine.\n"
FLEET = re.compile(r"/v1/fleet/[a-z][a-z0-9-]*")
HEALTH = "/health"
HERE = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
FORWARDING = re.compile(rb"forwarded|via|x-forwarded.*|.*-real-ip|.*client-ip|.*connecting-ip|x-original-.*")
# Frameworks parse Host and path together once more, so a Host with a slash in it would name another path.
HOST = re.compile(rb"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?", re.IGNORECASE)
LARGEST = 64 * 2**20  # bytes of a request from elsewhere
REMEMBERED = 1000  # addresses: the first refusal of so many is said


def add_gate(app: App, tell: Callable[[str], None]) -> App:
    """Wrap `app` in the gate, which calls `tell` with a sentence at the first refusal of each address."""
    refused: set[str] = set()

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and (is_here(scope) or is_for_all(scope))):
            await app(scope, receive, send)
            return
        peer = str((scope.get("client") or ("an unknown address",))[0])
        if peer not in refused and len(refused) < REMEMBERED:
            refused.add(peer)
            tell(
                f"refused {scope.get('method', scope['type'])!s:.20} {scope.get('path', '')!r:.80} to {peer}, told once"
            )
        await _refuse(scope["type"], receive, send)

    return gate


def is_here(scope: Scope) -> bool:
    """Check whether the peer is 127.0.0.1 or ::1 and forwards for nobody else."""
    client = scope.get("client")
    try:
        address = ipaddress.ip_address(client[0]) if client else None
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        address = address.ipv4_mapped or address
    return address in HERE and not any(FORWARDING.fullmatch(name.lower()) for name, _ in scope["headers"])


def is_for_all(scope: Scope) -> bool:
    """Check whether any machine may send this: a call of the Fleet API, whose signature Flower checks, or GET /health."""
    path, method, hosts = scope["path"], scope["method"], _values(scope, b"host")
    if scope.get("root_path") or scope.get("raw_path") != path.encode():  # it has a prefix, or is percent-encoded
        return False
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]) or _values(scope, b"transfer-encoding"):
        return False
    if method == "GET":
        return bool(path == HEALTH)
    lengths = _values(scope, b"content-length")
    is_small = (
        len(lengths) == 1 and re.fullmatch(rb"[0-9]{1,12}", lengths[0]) is not None and int(lengths[0]) <= LARGEST
    )
    return method == "POST" and FLEET.fullmatch(path) is not None and is_small


def _values(scope: Scope, header: bytes) -> list[bytes]:
    return [value for name, value in scope["headers"] if name.lower() == header]


async def _refuse(kind: str, receive: Receive, send: Send) -> None:
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403
        return
    if kind != "http":
        raise ValueError(f"expected http, websocket or lifespan, got {kind}")
    body = REFUSAL.encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
