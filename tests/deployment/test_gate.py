"""The gate lets through what it lists, and nothing else, whoever asks and however they write it."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from fl_rsna.deployment.gate import REFUSAL, REMEMBERED, add_gate

Sent = list[MutableMapping[str, Any]]
AWAY = "10.0.0.9"
FLEET = "/v1/fleet/activate-node"
CONTROL = "/v1/control/start-run"
HOST, LENGTH = (b"host", b"superlink:9092"), (b"content-length", b"100")


def http(path: str, client: str | None = AWAY, method: str = "POST", **more: Any) -> dict[str, Any]:
    length = [LENGTH] if method == "POST" else []
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "headers": [HOST, *length],
        "client": (client, 50000) if client is not None else None,
    }
    return {**scope, **more}


async def inner(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inside"})


async def asked(*scopes: dict[str, Any], told: list[str] | None = None) -> Sent:
    sent: Sent = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "websocket.connect"}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    gate = add_gate(inner, (told if told is not None else []).append)
    for scope in scopes:
        await gate(scope, receive, send)
    return sent


def let_in(scope: dict[str, Any]) -> bool:
    sent = asyncio.run(asked(scope))
    assert len(sent) == 2
    if sent[0]["status"] == 200:
        return True
    assert (sent[0]["status"], sent[1]["body"]) == (403, REFUSAL.encode())
    return False


@pytest.mark.parametrize("client", [AWAY, "2001:db8::1", "127.0.0.1", None, "testclient"])
def test_anyone_reaches_the_fleet_api_and_asks_whether_it_lives(client: str | None) -> None:
    assert let_in(http(FLEET, client))
    assert let_in(http("/health", client, "GET"))


@pytest.mark.parametrize(
    "path",
    [
        CONTROL,
        "/v1/runtime/acquire-task",
        "/v1/responses",
        "/docs",
        "/openapi.json",
        "/",
        "",
        "*",
        "/v2/fleet/pull-messages",
    ],
)
@pytest.mark.parametrize(
    "client", [AWAY, "::ffff:10.0.0.9", "127.0.0.2", "127.1.1.1", "0.0.0.0", "::", "localhost", "", None]
)
def test_the_rest_is_for_this_machine(path: str, client: str | None) -> None:
    for method in ("POST", "GET", "OPTIONS"):
        assert not let_in(http(path, client, method))
        assert let_in(http(path, "127.0.0.1", method))


@pytest.mark.parametrize("client", ["127.0.0.1", "::1", "::ffff:127.0.0.1", "0:0:0:0:0:0:0:1", "::ffff:7f00:1"])
def test_this_machine_has_several_spellings(client: str) -> None:
    assert let_in(http(CONTROL, client))


@pytest.mark.parametrize(
    "path",
    [
        "//v1/fleet/activate-node",
        "/v1//fleet/activate-node",
        "/v1/fleet//activate-node",
        "/v1/fleet/../control/start-run",
        "/v1/fleet/./activate-node",
        "/v1/fleet/activate-node/",
        "/v1/fleet/activate-node/../../control/start-run",
        "/v1/fleet/",
        "/v1/fleet",
        "/v1/fleetx/activate-node",
        "/V1/FLEET/activate-node",
        "/v1/fleet/Activate-node",
        "/v1/fleet/activate-node;x",
        "/v1/fleet/activate-node?x",
        "/v1/fleet/activate-node\n",
        "/v1/fleet/activate-node\x00",
        "/v1/fleet/%2e%2e/control",
        "/v1/fleet/\uff0e\uff0e",
        "\\v1\\fleet\\activate-node",
        "https://superlink/v1/fleet/activate-node",
        "/health/",
        "/healthy",
    ],
)
def test_no_other_way_to_write_a_path_is_let_in(path: str) -> None:
    assert not let_in(http(path))
    assert not let_in(http(path, method="GET"))


@pytest.mark.parametrize(
    "raw", [b"/v1/fleet%2factivate-node", b"/v1/fleet/%61ctivate-node", b"//v1/fleet/activate-node", b"", None]
)
def test_a_path_that_was_encoded_is_refused(raw: bytes | None) -> None:
    assert not let_in(http(FLEET, raw_path=raw))


def test_a_prefix_is_refused() -> None:
    assert not let_in(http(FLEET, root_path="/v1"))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "CONNECT", "post"])
def test_the_fleet_api_is_posted_to(method: str) -> None:
    assert not let_in(http(FLEET, method=method))


@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE"])
def test_health_is_only_read(method: str) -> None:
    assert not let_in(http("/health", method=method))


@pytest.mark.parametrize(
    "host", [b"x/v1/runtime/pull-object?", b"x/", b"x#", b"a@b", b"x?y", b"x y", b"", b"[::1", b"x:port"]
)
def test_a_host_that_would_change_the_path_is_refused(host: bytes) -> None:
    assert not let_in(http(FLEET, headers=[(b"host", host), LENGTH]))


@pytest.mark.parametrize("lengths", [[], [b"67108865"], [b"-1"], [b"1e3"], [b""], [b"9" * 5000], [b"5", b"5"]])
def test_a_request_of_unknown_or_great_size_is_refused(lengths: list[bytes]) -> None:
    headers = [HOST, *((b"content-length", length) for length in lengths)]
    assert not let_in(http(FLEET, headers=headers))
    assert let_in(http(FLEET, headers=[HOST, (b"content-length", b"67108864")]))
    assert not let_in(http(FLEET, headers=[HOST, LENGTH, (b"transfer-encoding", b"chunked")]))


def test_one_host_is_named() -> None:
    assert not let_in(http(FLEET, headers=[LENGTH]))
    assert not let_in(http(FLEET, headers=[(b"host", b"a"), (b"host", b"b"), LENGTH]))
    for host in (b"superlink", b"127.0.0.1:9092", b"[::1]:9092", b"Super-Link.example.org:443"):
        assert let_in(http(FLEET, headers=[(b"host", host), LENGTH]))


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-for",
        b"X-Forwarded-For",
        b"forwarded",
        b"x-real-ip",
        b"via",
        b"true-client-ip",
        b"cf-connecting-ip",
    ],
)
def test_a_proxy_on_this_machine_does_not_open_the_gate(name: bytes) -> None:
    headers = [(b"host", b"superlink"), (name, b"127.0.0.1"), LENGTH]
    assert not let_in(http(CONTROL, "127.0.0.1", headers=headers))
    assert let_in(http(FLEET, "127.0.0.1", headers=headers))


@pytest.mark.parametrize("client", [AWAY, "127.0.0.1"])
def test_websockets_are_closed_before_they_open(client: str) -> None:
    sent = asyncio.run(asked({**http(FLEET, client), "type": "websocket"}))
    assert [message["type"] for message in sent] == ["websocket.close"]


def test_the_app_starts_and_stops_through_the_gate() -> None:
    assert len(asyncio.run(asked({"type": "lifespan"}))) == 2


def test_what_is_unknown_never_reaches_the_app() -> None:
    with pytest.raises(ValueError, match="got smoke"):
        asyncio.run(asked({"type": "smoke"}))


def test_each_address_is_told_once_on_one_line_and_not_without_end() -> None:
    told: list[str] = []
    long = "/v1/control/\n" + "x" * 500
    scopes = [http(long), http(CONTROL), *(http(CONTROL, f"10.{n // 250}.{n % 250}.1") for n in range(2 * REMEMBERED))]
    asyncio.run(asked(*scopes, told=told))
    assert AWAY in told[0]
    assert len(told) == REMEMBERED
    assert all(line.isprintable() and len(line) < 200 for line in told)
