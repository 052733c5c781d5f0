"""Start a hospital's SuperNode: its folders and keys become the arguments of Flower's program, which replaces this process."""

import os
import shutil
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from fl_rsna.deployment.launch import environment
from fl_rsna.deployment.warm import start_warming
from fl_rsna.settings.training import Device

LOOPBACK = "127.0.0.1"
NODE_KEY, CA = "node.key", "ca.crt"  # the site's own key; the authority of the SuperLink's certificate
RUNTIME = {"--ssl-certfile": "runtime.crt", "--ssl-keyfile": "runtime.key", "--ssl-ca-certfile": "runtime-ca.crt"}
NO_PROXY = ("localhost", LOOPBACK)  # Flower's processes talk to each other here


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """The folders, keys and limits that a site is started with.

    `folder` is only read; all that is written goes to `state`. `name` is the site that the folder must be, `min_count` the least
    privacy.min_count of a run that the site takes part in, and `port` that of the SuperNode's API on loopback.
    """

    folder: Path
    state: Path
    keys: Path
    superlink: str  # host:port
    name: str | None = None
    min_count: int | None = None
    device: Device = Device.auto
    port: int | None = None

    @property
    def memory(self) -> Path:
        """Return the folder of packed images and of what the site keeps of runs."""
        return self.state / "memory"


def address_of(superlink: str) -> tuple[str, int]:
    """Split `host:port` into host and port; raises ValueError for any other text."""
    host, _, port = superlink.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or "/" in superlink or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"--superlink: expected host:port, e.g. superlink.example.org:9092, got {superlink}")
    return host, int(port)


def start_node(node: Node) -> NoReturn:
    """Become Flower's SuperNode; raises ValueError where it is not installed. Only this user can read the files it writes."""
    os.umask(0o077)
    found = node_environment(node)
    program = shutil.which("flower-supernode", path=found["PATH"])
    if program is None:
        raise ValueError("expected the program flower-supernode beside this Python, got none; install flwr>=1.42,<1.43")
    arguments = node_arguments(node, node.port or free_port())
    node.memory.mkdir(parents=True, exist_ok=True)
    start_warming(node.state, found)
    sys.stdout.flush()
    os.execve(program, [program, *arguments], found)


def node_arguments(node: Node, port: int) -> list[str]:
    """Build the command line of flower-supernode."""
    keys = node.keys.resolve()
    arguments = ["--superlink", node.superlink, "--root-certificates", str(keys / CA)]
    arguments += ["--auth-supernode-private-key", str(keys / NODE_KEY), "--host", LOOPBACK, "--port", str(port)]
    for option, name in RUNTIME.items():
        arguments += [option, str(keys / name)]
    return [*arguments, "--node-config", node_config(node)]


def node_config(node: Node) -> str:
    """Write the ClientApp's settings at this site in Flower's format; raises ValueError for a path that it cannot hold."""
    told = {
        "site-folder": _quote_toml("--folder", node.folder.resolve()),
        "memory-folder": _quote_toml("--state", node.memory.resolve()),
    }
    if node.min_count is not None:
        told["min-count"] = str(node.min_count)
    return " ".join(f"{key}={value}" for key, value in told.items())


def _quote_toml(option: str, path: Path) -> str:
    """Write a text as a TOML string in which Flower finds no other key and no escape; raises ValueError where that is impossible."""
    text = str(path)
    if not text.isprintable() or ("'" in text and ('"' in text or "\\" in text)):
        raise ValueError(f"{option}: expected a path without control signs and mixed quotes, got {text!r}; rename it")
    return f'"{text}"' if "'" in text else f"'{text}'"


def node_environment(node: Node) -> dict[str, str]:
    """Build the environment of the site's processes: few log lines, no proxy for loopback, no GPU where the device is the CPU."""
    found = environment(node.state)
    found.setdefault("FLWR_LOG_LEVEL", "WARNING")  # fl_rsna says a line of its own for each message
    known = found.get("no_proxy") or found.get("NO_PROXY") or ""
    past = ",".join(dict.fromkeys([*filter(None, known.split(",")), *NO_PROXY]))
    found |= {"NO_PROXY": past, "no_proxy": past}
    return found | ({"CUDA_VISIBLE_DEVICES": ""} if node.device is Device.cpu else {})


def free_port() -> int:
    """Find a port of loopback on which nothing listens at this moment."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])
