"""Run Flower's SuperLink in this process, always with TLS, node authentication and the gate."""

import errno
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import uvicorn

from fl_rsna.common.ownership import hold_lock
from fl_rsna.deployment.flower_internals import superlink_app
from fl_rsna.deployment.gate import add_gate
from fl_rsna.deployment.keys.certificates import ServerFiles, server_files
from fl_rsna.deployment.launch import environment

DATABASE = "superlink.db"
INNER = "127.0.0.1"  # the address that Flower's own processes call
ANY = ("0.0.0.0", "::")
# set, they would open ports beside the gate
OTHER_PORTS = ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API")
SITES_QUESTION = (
    "Heartbeat interval 0.0 is out of bounds"  # a site provokes it to ask for admission (site_checks/link.py)
)
KEEP_ALIVE_S, ENDS_WITHIN_S = 75, 3


def run_superlink(certificates: Path, state: Path, host: str, port: int) -> bool:
    """Serve until SIGTERM or Ctrl-C with the state in `state`; return whether it served at all.

    Raises ValueError for certificates, a folder, an address or a port that cannot be used.
    """
    files = server_files(*(certificates / name for name in ("ca.crt", "server.crt", "server.key")))
    with _sole_user(state):
        sockets = open_sockets(host, port)
        _enter(state)
        server = uvicorn.Server(_configure_server(files, state, sockets[0].getsockname()[1]))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn ends in order, then raises the signal again
        address, at = sockets[-1].getsockname()[:2]
        shown, days = f"[{address}]" if ":" in address else address, (files.ends - datetime.now(UTC)).days
        certificate = f"certificate {files.subject} for {', '.join(files.hosts)}"
        _say(f"https://{shown}:{at}, {certificate}, ends {files.ends:%Y-%m-%d} ({days} days)")
        with suppress(KeyboardInterrupt):
            server.run(sockets=sockets)
        return server.started


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Bind `host`, and 127.0.0.1 where that is another address, at one port; return the sockets, `host` last.

    Raises ValueError that names --host or --port, whichever cannot be used.
    """
    try:
        address = ipaddress.ip_address(INNER if host == "localhost" else host)
    except ValueError:
        raise ValueError(f"--host: expected an IP address of this machine or 0.0.0.0 for all, got {host!r}") from None
    first = _bind_socket(str(address), port)
    if str(address) in (*ANY, INNER):
        return [first]
    try:
        return [_bind_socket(INNER, first.getsockname()[1]), first]
    except BaseException:
        first.close()
        raise


def _bind_socket(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        return socket.create_server((address, port), family=family, backlog=2048, dualstack_ipv6=address == "::")
    except (OSError, OverflowError) as error:
        if getattr(error, "errno", None) in (errno.EADDRINUSE, errno.EACCES) or isinstance(error, OverflowError):
            raise ValueError(
                f"--port: expected a free port, got {port} at {address}: {error}; choose another"
            ) from None
        raise ValueError(f"--host: expected an address of this machine, got {address}: {error}") from None


def _configure_server(files: ServerFiles, state: Path, port: int) -> uvicorn.Config:
    """Configure the server around the gate: it ignores headers that name another peer, speaks TLS 1.3 and logs no requests."""
    app = add_gate(superlink_app(_list_arguments(files, state, port)), _say)
    config = uvicorn.Config(
        app,
        ssl_certfile=files.certificate,
        ssl_keyfile=files.key,
        proxy_headers=False,
        server_header=False,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=ENDS_WITHIN_S,
    )
    config.load()
    if config.ssl is None:
        raise ValueError("expected uvicorn to serve TLS, got a plain server; nothing was started")
    config.ssl.minimum_version = ssl.TLSVersion.TLSv1_3
    return config


def _list_arguments(files: ServerFiles, state: Path, port: int) -> list[str]:
    """Build the options of Flower's SuperLink. The address is the one that Flower's own processes call."""
    paths = {"--ssl-ca-certfile": files.ca, "--ssl-certfile": files.certificate, "--ssl-keyfile": files.key}
    return [
        *(part for option, path in paths.items() for part in (option, str(path.resolve()))),
        *("--host", INNER, "--port", str(port)),
        *("--database", str(state.resolve() / DATABASE)),
        *("--isolation", "subprocess"),
        "--enable-supernode-auth",
        "--disable-runtime-dependency-installation",
    ]


@contextmanager
def _sole_user(state: Path) -> Iterator[None]:
    """Make the folder, which only its owner can read, and lock it for the body. Raises ValueError where another SuperLink has it."""
    with ExitStack() as stack:
        try:
            state.mkdir(parents=True, mode=0o700, exist_ok=True)
            stack.enter_context(hold_lock(state / DATABASE))
        except ValueError:
            raise ValueError(
                f"--state: expected a folder no other SuperLink uses, got {state}; choose another, or end the other one"
            ) from None
        except OSError as error:
            raise ValueError(f"--state: expected a folder that can be written, got {state}: {error.strerror}") from None
        yield


def _enter(state: Path) -> None:
    """Set the environment of this process and of those it starts, and let Flower log warnings and errors only."""
    os.environ.update(environment(state))
    os.environ.setdefault("FLWR_LOG_LEVEL", "WARNING")
    for name in OTHER_PORTS:
        os.environ.pop(name, None)
    flower = logging.getLogger("flwr")
    flower.setLevel(os.environ["FLWR_LOG_LEVEL"])
    flower.addFilter(lambda record: SITES_QUESTION not in record.getMessage())
    plain = logging.StreamHandler()  # Flower's handler writes colours into log files
    plain.setFormatter(logging.Formatter("superlink: %(levelname)s: %(message)s"))
    flower.handlers[:] = [plain]


def _say(sentence: str) -> None:
    print(f"superlink: {sentence}", flush=True)
