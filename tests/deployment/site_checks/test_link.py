"""Every way in which a site cannot reach its SuperLink has a sentence of its own."""

import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from made_certificates import Signed, serving, signed, superlink, write_keys

from fl_rsna.checks.check import Check, State
from fl_rsna.deployment.site_checks.link import AHEAD_S, BEHIND_S, check_clock, check_link, wait_until_admitted, why_not
from fl_rsna.deployment.site_node import Node, free_port


@pytest.fixture(scope="module")
def authority() -> Signed:
    return signed("authority")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def node(tmp_path: Path, authority: Signed) -> Node:
    keys = write_keys(tmp_path / "keys", authority)
    return Node(folder=tmp_path, state=tmp_path / "state", keys=keys, superlink="127.0.0.1:1")


def looked(node: Node, superlink: str) -> dict[str, Check]:
    return {check.what: check for check in check_link(replace(node, superlink=superlink))}


def test_a_superlink_that_knows_this_node(node: Node, authority: Signed, tmp_path: Path) -> None:
    with superlink(signed("server", authority), tmp_path) as address:
        found = looked(node, address)
    assert {check.state for check in found.values()} == {State.ok}
    assert list(found) == ["SuperLink", "clock", "registered"]


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [(2004, 400, "does not know the key SHA256:"), (None, 401, "refuses what"), (None, 404, "cannot be asked")],
)
def test_a_superlink_that_refuses_this_node(
    node: Node, authority: Signed, tmp_path: Path, code: int | None, status: int, said: str
) -> None:
    with superlink(signed("server", authority), tmp_path, [code], status) as address:
        found = looked(node, address)["registered"]
    assert found.state is State.problem
    assert said in found.found


def test_a_start_waits_until_the_key_is_admitted(
    node: Node, authority: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with superlink(signed("server", authority), tmp_path, [2004, 2004, 2003]) as address:
        wait_until_admitted(replace(node, superlink=address), again_s=0)
    assert capsys.readouterr().out.count("waiting until the coordinator admits it") == 1
    wait_until_admitted(replace(node, superlink=f"127.0.0.1:{free_port()}"), again_s=0)  # the SuperNode's to wait for
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("given", "said", "change"),
    [
        (
            {"hosts": ["superlink.example.org", "10.1.2.3"]},
            "superlink.example.org, 10.1.2.3, not for 127.0.0.1",
            "--host",
        ),
        ({"end_days": -0.5}, "ended on", "new one"),
        ({"start_days": 1}, "not valid yet", "clock"),
    ],
)
def test_a_certificate_that_does_not_fit(
    node: Node, authority: Signed, tmp_path: Path, given: dict[str, object], said: str, change: str
) -> None:
    with superlink(signed("server", authority, **given), tmp_path) as address:  # type: ignore[arg-type]
        found = looked(node, address)
    assert list(found) == ["SuperLink"]  # nothing later is asked
    assert found["SuperLink"].state is State.problem
    assert said in found["SuperLink"].found
    assert change in found["SuperLink"].change


@pytest.mark.parametrize(("name", "change"), [("Inspector of the hospital", "proxy opens TLS"), ("authority", "new")])
def test_another_authority(node: Node, tmp_path: Path, name: str, change: str) -> None:
    """One with the same name is a newer one of the coordinator's, another may be a proxy's."""
    with superlink(signed("server", signed(name)), tmp_path) as address:
        found = looked(node, address)["SuperLink"]
    assert found.state is State.problem
    assert f"another authority than ca.crt, CN={name}" in found.found
    assert change in found.change


def test_a_certificate_that_ends_soon_is_worth_a_word(node: Node, authority: Signed, tmp_path: Path) -> None:
    with superlink(signed("server", authority, end_days=20), tmp_path) as address:
        assert looked(node, address)["SuperLink"].state is State.warning


def test_nobody_there(node: Node) -> None:
    assert "nothing listens" in looked(node, f"127.0.0.1:{free_port()}")["SuperLink"].found
    assert "not known here" in looked(node, "no-such-host.invalid:9092")["SuperLink"].found


def test_something_else_there(node: Node, authority: Signed, tmp_path: Path) -> None:
    with serving(BaseHTTPRequestHandler, None) as port:
        assert "does not speak TLS" in looked(node, f"127.0.0.1:{port}")["SuperLink"].found
    with superlink(signed("server", authority), tmp_path, health=404) as address:
        assert "no SuperLink" in looked(node, address)["SuperLink"].found


def test_a_proxy_that_lets_nothing_through(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    class Refusing(BaseHTTPRequestHandler):
        def do_CONNECT(self) -> None:
            self.send_error(403)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Refusing, None) as port:
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        found = looked(node, "superlink.invalid:9092")
    assert found["proxy"].state is State.warning
    assert "does not let superlink.invalid:9092 through" in found["SuperLink"].found


def test_a_clock_that_is_off(node: Node, authority: Signed, tmp_path: Path) -> None:
    date = format_datetime(datetime.now(UTC) - timedelta(seconds=60), usegmt=True)
    with superlink(signed("server", authority), tmp_path, date=date) as address:
        found = looked(node, address)["clock"]
    assert found.state is State.problem
    assert "ahead" in found.found


@pytest.mark.parametrize(
    ("ahead", "state"),
    [
        (0.4, State.ok),
        (AHEAD_S - 1.0, State.warning),
        (AHEAD_S + 0.1, State.problem),
        (1.0 - BEHIND_S, State.warning),
        (-BEHIND_S - 0.1, State.problem),
    ],
)
def test_how_far_clocks_may_be_apart(ahead: float, state: State) -> None:
    """As flwr.superlink.routers.fleet.node_auth counts."""
    assert check_clock(ahead).state is state


def test_without_a_usable_ca_nothing_is_asked(node: Node) -> None:
    (node.keys / "ca.crt").write_text("no certificate")
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0)
        [found] = looked(node, f"127.0.0.1:{listening.getsockname()[1]}").values()
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert found.state is State.problem


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (TimeoutError(), "a firewall may drop it"),
        (ConnectionResetError(), "is closed"),
        (OSError(101, "no net"), "no net"),
    ],
)
def test_what_a_network_may_do(node: Node, cause: OSError, said: str) -> None:
    found = why_not(node, cause)
    assert found.state is State.problem
    assert said in found.found
    assert found.change
