"""The SuperLink as sites and strangers meet it: real TLS, real keys, real Flower, on this machine's loopback."""

import http.client
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.proto.fleet_pb2 import ActivateNodeRequest, PullMessagesRequest
from flwr.proto.node_pb2 import Node
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor
from package import ROOT

from fl_rsna.deployment.coordinator import sync_keys
from fl_rsna.deployment.flower_internals import as_flower_writes, control, part
from fl_rsna.deployment.gate import REFUSAL
from fl_rsna.deployment.keys.key_folder import CA, demo_files, server_files, site_files, write_new
from fl_rsna.deployment.launch import environment
from fl_rsna.deployment.superlink import open_sockets, run_superlink

pytestmark = pytest.mark.xdist_group("SuperLink")  # which the tests of one worker share


@dataclass(frozen=True)
class Running:
    """A SuperLink and the folder of its federation's keys."""

    process: subprocess.Popen[str]
    port: int
    keys: Path
    state: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def sync(self) -> list[str]:
        return sync_keys(self.address, self.keys / CA, self.keys / "authorized")


@contextmanager
def serving(keys: Path, state: Path) -> Iterator[Running]:
    begun = time.perf_counter()
    arguments = ["--certificates", str(keys / "superlink"), "--state", str(state), "--host", "127.0.0.1", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fl_rsna.superlink", *arguments],
        cwd=ROOT,
        env={**os.environ, "HTTPS_PROXY": "http://127.0.0.1:1"},  # a proxy that leads nowhere: nothing here may use it
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = said_until(process, "certificate")
        found = re.search(r"https://127\.0\.0\.1:(\d+), certificate CN=fl_rsna SuperLink .* ends \d{4}-\d\d-\d\d", line)
        assert found, line
        print(f"SuperLink listens after {time.perf_counter() - begun:.1f} s")
        yield Running(process=process, port=int(found[1]), keys=keys, state=state)
    finally:
        put_away(process)


def ended(running: Running) -> str:
    """What it said after its first line, once it has ended by SIGTERM."""
    begun = time.perf_counter()
    running.process.send_signal(signal.SIGTERM)
    running.process.wait(timeout=60)
    print(f"SuperLink ended after {time.perf_counter() - begun:.1f} s")
    assert running.process.stdout is not None
    with running.process.stdout as said:
        return said.read()


def put_away(process: subprocess.Popen[str]) -> None:
    """End it and close its output. Its own children end when it is reaped, so their end is not waited for before."""
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = tmp_path_factory.mktemp("federation")
    write_new(keys, demo_files(keys, ["superlink"], ["site-1", "site-2", "site-3"]))
    with serving(keys, keys / "state") as running:
        yield running


def node_key(keys: Path, site: str) -> ec.EllipticCurvePrivateKey:
    key = load_ssh_private_key((keys / f"sites/{site}/node.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def activated(running: Running, key: ec.EllipticCurvePrivateKey, ca: Path | None = None) -> int:
    """The node id a SuperNode with this key is given, by the first request it makes."""
    interceptor = NodeAuthHttpInterceptor(key, key.public_key())
    root = (ca or running.keys / CA).read_bytes()
    with FleetHttpClient.from_server_address(running.address, False, root, interceptors=[interceptor]) as client:
        asked = ActivateNodeRequest(public_key=as_flower_writes(key.public_key()), heartbeat_interval=30)
        return client.ActivateNode(asked).node_id


def pulled(running: Running, key: ec.EllipticCurvePrivateKey, node_id: int) -> int:
    """HTTP status of a SuperNode's request for its messages."""
    interceptor = NodeAuthHttpInterceptor(key, key.public_key())
    root = (running.keys / CA).read_bytes()
    with FleetHttpClient.from_server_address(running.address, False, root, interceptors=[interceptor]) as client:
        try:
            client.PullMessages(PullMessagesRequest(node=Node(node_id=node_id)))
        except httpx.HTTPStatusError as error:
            return error.response.status_code
    return 200


def asked(running: Running, method: str, path: str, source: str) -> tuple[int, str]:
    """Status and body of a request from an address of this machine."""
    context = ssl.create_default_context(cafile=running.keys / CA)
    connection = http.client.HTTPSConnection("127.0.0.1", running.port, context=context, source_address=(source, 0))
    connection.request(method, path, headers={"Content-Type": "application/protobuf"})
    answer = connection.getresponse()
    body = answer.read().decode(errors="replace")  # the nodes, once there are any, are no text
    connection.close()
    return answer.status, body


@pytest.mark.slow
def test_a_plaintext_client_is_refused(running: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    connection.request("GET", "/health")
    with pytest.raises((http.client.HTTPException, OSError)):
        connection.getresponse()


@pytest.mark.slow
def test_tls_is_1_3_or_nothing(running: Running) -> None:
    context = ssl.create_default_context(cafile=running.keys / CA)
    assert shake_hands(running, context) == "TLSv1.3"
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError):
        shake_hands(running, context)


def shake_hands(running: Running, context: ssl.SSLContext) -> str | None:
    plain = socket.create_connection(("127.0.0.1", running.port))
    with plain, context.wrap_socket(plain, server_hostname="superlink") as secure:
        return secure.version()


@pytest.mark.slow
def test_a_site_that_trusts_another_authority_does_not_connect(running: Running, tmp_path: Path) -> None:
    write_new(tmp_path, server_files(tmp_path, ["superlink"]))
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        activated(running, node_key(running.keys, "site-1"), tmp_path / CA)


@pytest.mark.slow
def test_runs_are_started_from_this_machine_alone(running: Running) -> None:
    for method, path in (("POST", "/v1/control/list-nodes"), ("POST", "/v1/runtime/acquire-task"), ("GET", "/docs")):
        assert asked(running, method, path, "127.0.0.2") == (403, REFUSAL)
        assert asked(running, method, path, "127.0.0.1")[0] != 403
    assert asked(running, "POST", "/v1/control/list-nodes", "127.0.0.1")[0] == 200
    assert asked(running, "GET", "/health", "127.0.0.2")[0] == asked(running, "GET", "/health", "127.0.0.1")[0] < 300


@pytest.mark.slow
def test_only_registered_keys_connect_and_a_revoked_one_never_again(running: Running) -> None:
    """In the order of a federation's life: unknown, registered, revoked, and back."""
    running.sync()
    with control(running.address, (running.keys / CA).read_bytes()) as api:
        assert {"site-1", "site-2"} <= {known.name for known in api.nodes()}
    assert running.sync() == []
    stranger = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(httpx.HTTPStatusError):
        activated(running, stranger)
    ours, others = node_key(running.keys, "site-1"), node_key(running.keys, "site-2")
    node_id = activated(running, ours)
    assert pulled(running, ours, node_id) == 200
    assert pulled(running, others, node_id) == pulled(running, stranger, node_id) == 401
    file = running.keys / "authorized/site-1.pub"
    line = file.read_bytes()
    file.unlink()
    assert [sentence.split(":")[0] for sentence in running.sync()] == ["unregistered site-1"]
    assert pulled(running, ours, node_id) == 401
    with pytest.raises(httpx.HTTPStatusError):
        activated(running, ours)
    file.write_bytes(line)
    with pytest.raises(ValueError, match=r"site-1.pub: expected a new key, got one that was unregistered before"):
        running.sync()
    file.unlink()
    shutil.rmtree(running.keys / "sites/site-1")
    write_new(running.keys, site_files("site-1"))
    assert [sentence.split(":")[0] for sentence in running.sync()] == ["registered site-1"]
    assert activated(running, node_key(running.keys, "site-1")) != node_id


@pytest.mark.slow
def test_flowers_own_supernode_connects_with_a_sites_folder_until_its_key_is_revoked(running: Running) -> None:
    running.sync()
    keys, begun = running.keys / "sites/site-3", time.perf_counter()
    arguments = [
        "--root-certificates",
        keys / "ca.crt",
        "--auth-supernode-private-key",
        keys / "node.key",
        "--port",
        free_port(),
    ]
    runtime = ["--ssl-certfile", keys / "runtime.crt", "--ssl-keyfile", keys / "runtime.key", "--ssl-ca-certfile"]
    program = str(Path(sys.executable).with_name("flower-supernode"))
    node = subprocess.Popen(
        [
            str(argument)
            for argument in (program, "--superlink", running.address, *arguments, *runtime, keys / "runtime-ca.crt")
        ],
        env=environment(running.keys / "node"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = threading.Timer(120, node.kill)
    deadline.start()
    try:
        said = said_until(node, "SuperNode ID")
        print(f"SuperNode is connected after {time.perf_counter() - begun:.1f} s")
        with control(running.address, (running.keys / CA).read_bytes()) as api:
            status = {known.name: known.status for known in api.nodes()}
        assert status["site-3"] == "online", said
        (running.keys / "authorized/site-3.pub").unlink()
        begun = time.perf_counter()
        assert [sentence.split(":")[0] for sentence in running.sync()] == ["unregistered site-3"]
        last = said_until(node, "SuperNode terminated")
        assert "SuperNode terminated" in last, last
        print(f"SuperNode has ended {time.perf_counter() - begun:.1f} s after its key was revoked")
    finally:
        deadline.cancel()
        put_away(node)


def said_until(process: subprocess.Popen[str], text: str) -> str:
    """What it says up to the line with this text, or its end."""
    said = []
    assert process.stdout is not None
    for line in process.stdout:
        said.append(line)
        if text in line:
            break
    return "".join(said)


@pytest.mark.slow
def test_it_is_quiet_keeps_its_state_and_ends_when_told(tmp_path: Path) -> None:
    write_new(tmp_path, demo_files(tmp_path, [], ["site-1"]))
    with serving(tmp_path, tmp_path / "state") as first:
        assert [sentence.split(":")[0] for sentence in first.sync()] == ["registered site-1"]
        key = node_key(tmp_path, "site-1")
        node_id = activated(first, key)
        assert {pulled(first, key, node_id) for _ in range(5)} == {200}
        assert {asked(first, "GET", "/docs", "127.0.0.2")[0] for _ in range(2)} == {403}
        refuses_a_second(first)
        said = ended(first).splitlines()
        ours = [line for line in said if line.startswith("superlink: ") and "WARNING" not in line]
        assert ours == ["superlink: refused GET '/docs' to 127.0.0.2, told once"]
        assert len(said) < 5, said  # Flower's own farewells, where the machine is slow
    with serving(tmp_path, tmp_path / "state") as second:
        assert second.sync() == []
        assert pulled(second, key, node_id) == 200
    assert first.process.returncode == 0


def refuses_a_second(running: Running) -> None:
    arguments = ["--certificates", str(running.keys / "superlink"), "--state", str(running.state)]
    command = [sys.executable, "-m", "fl_rsna.superlink", *arguments]
    twice = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (twice.returncode, twice.stdout, len(twice.stderr.splitlines())) == (2, "", 1)
    assert "no other SuperLink uses" in twice.stderr


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    write_new(tmp_path, server_files(tmp_path, []))
    return tmp_path / "superlink"


def test_a_taken_port_is_named(certificates: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for host in ("127.0.0.1", "localhost", "0.0.0.0", "::", "127.0.0.3"):
            with pytest.raises(ValueError, match=f"--port: expected a free port, got {port}"):
                run_superlink(certificates, tmp_path / "state", host, port)


@pytest.mark.parametrize("port", [-1, 65536])
def test_what_is_no_port_is_named(port: int, certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--port"):
        run_superlink(certificates, tmp_path / "state", "127.0.0.1", port)


@pytest.mark.parametrize("host", ["example.org", "", "192.0.2.1", "127.0.0.1:9092"])
def test_an_address_that_is_not_ours_is_named(host: str, certificates: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--host: expected"):
        run_superlink(certificates, tmp_path / "state", host, 0)


def test_a_state_folder_is_one_that_can_be_written_and_is_its_owners(certificates: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for state in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ValueError, match="--state: expected a folder that can be written"):
            run_superlink(certificates, state, "127.0.0.1", 65536)
    with pytest.raises(ValueError, match="--port"):
        run_superlink(certificates, tmp_path / "state", "127.0.0.1", 65536)
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    assert [path.name for path in (tmp_path / "state").iterdir()] == []


def test_nothing_is_made_where_certificates_are_missing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ca.crt: expected a file that can be read"):
        run_superlink(tmp_path / "none", tmp_path / "state", "127.0.0.1", 0)
    assert not (tmp_path / "state").exists()


def test_flowers_own_processes_find_it_whatever_it_listens_at() -> None:
    for host, addresses in {
        "0.0.0.0": ["0.0.0.0"],
        "::": ["::"],
        "localhost": ["127.0.0.1"],
        "127.0.0.3": ["127.0.0.1", "127.0.0.3"],
        "::1": ["127.0.0.1", "::1"],
    }.items():
        sockets = open_sockets(host, 0)
        assert sorted(each.getsockname()[0] for each in sockets) == addresses
        assert len({each.getsockname()[1] for each in sockets}) == 1
        socket.create_connection(("127.0.0.1", sockets[0].getsockname()[1])).close()
        for each in sockets:
            each.close()


def test_flowers_app_is_served_behind_the_gate_alone() -> None:
    used = [
        line.strip()
        for path in (ROOT / "fl_rsna").rglob("*.py")
        for line in path.read_text().splitlines()
        if "superlink_app(" in line and not line.startswith("def ")
    ]
    assert len(used) == 1
    assert "add_gate(superlink_app(" in used[0]


def test_a_part_of_flower_that_has_moved_is_named() -> None:
    for module, name in (("flwr.superlink.main", "create_it"), ("flwr.nowhere", "create_app")):
        with pytest.raises(ValueError, match=f"expected {module}.{name} in Flower"):
            part(module, name)
