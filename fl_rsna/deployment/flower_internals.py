"""Call the parts of Flower that have no public name (1.42): its SuperLink as an app, and its Control API.

Where a version of Flower has moved one of them, nothing is started and the sentence names it. Whoever upgrades Flower adapts this module.
"""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from fl_rsna.deployment.gate import App
from fl_rsna.deployment.launch import bypass_proxy

UNREGISTERED, ENDED = "unregistered", "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A SuperNode as the SuperLink knows it; `public_key` in Flower's bytes (as_flower_writes), `status` one of Flower's names."""

    node_id: int
    name: str
    public_key: bytes
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowerRun:
    """A run as the SuperLink knows it: whether it has ended, why, and the settings of its run-config."""

    run_id: int
    ended: bool
    details: str
    config: Mapping[str, str]


def part(module: str, name: str) -> Any:
    """Import `name` from Flower's `module`. Raises ValueError where this version of Flower does not have it."""
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError):
        raise ValueError(
            f"expected {module}.{name} in Flower, got version {version('flwr')} without it; install flwr>=1.42,<1.43"
        ) from None


def superlink_app(arguments: Sequence[str]) -> App:
    """Make Flower's SuperLink an ASGI app that runs as `flower-superlink` does with these arguments; they must turn on node authentication.

    The app checks the identity of nodes only, so serve it behind `gate.add_gate` only.
    """
    program = "flwr.superlink.cli.flower_superlink"
    parse, lifespan = part(program, "_parse_superlink_lifespan_config"), part(program, "SuperLinkLifespan")
    create = part("flwr.superlink.main", "create_app")
    before, sys.argv = sys.argv, ["flower-superlink", *arguments]
    try:
        app: App = create(parse(), lifespan)
    finally:
        sys.argv = before
    if getattr(getattr(app, "state", None), "enable_supernode_auth", None) is not True:
        raise ValueError(
            f"expected Flower {version('flwr')} to authenticate nodes, got an app that does not; install flwr>=1.42,<1.43"
        )
    return app


@contextmanager
def control(superlink: str, ca: bytes) -> Iterator["Control"]:
    """Open the Control API of the SuperLink at `host:port` on this machine, over TLS; `ca` is the authority's certificate."""
    client = part("flwr.supercore.control", "ControlHttpClient")
    versions = part("flwr.supercore.interceptors", "RuntimeVersionHttpInterceptor")
    os.environ.update(bypass_proxy())
    opened = client.from_server_address(
        superlink, insecure=False, root_certificates=ca, interceptors=[versions(component_name="flwr CLI")]
    )
    try:
        yield Control(opened)
    finally:
        opened.close()


class Control:
    """The calls of the Control API that a coordinator makes. Each raises httpx.HTTPError where the SuperLink does not answer or refuses."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def nodes(self) -> list[Node]:
        """List all nodes that were ever registered."""
        asked = part("flwr.proto.control_pb2", "ListNodesRequest")()
        return [
            Node(node_id=node.node_id, name=node.name, public_key=node.public_key, status=node.status)
            for node in self._client.ListNodes(asked).nodes_info
        ]

    def register(self, name: str, public_key: bytes) -> None:
        """Admit the node that has this key."""
        asked = part("flwr.proto.control_pb2", "RegisterNodeRequest")
        self._client.RegisterNode(asked(public_key=public_key, name=name))

    def unregister(self, node_id: int) -> None:
        """Refuse this node from now on, for good."""
        self._client.UnregisterNode(part("flwr.proto.control_pb2", "UnregisterNodeRequest")(node_id=node_id))

    def start(self, bundle: bytes, config: Mapping[str, str]) -> int:
        """Start a run of the app in `bundle` with the run-config `config`; return the run's id."""
        fab = part("flwr.supercore.fab", "Fab")(hashlib.sha256(bundle).hexdigest(), bundle, {})
        asked = part("flwr.proto.control_pb2", "StartRunRequest")(
            fab=part("flwr.common.serde", "fab_to_proto")(fab),
            override_config=part("flwr.common.serde", "user_config_to_proto")(dict(config)),
        )
        return int(self._client.StartRun(asked).run_id)

    def runs(self) -> list[FlowerRun]:
        """List all runs that were ever started."""
        asked = part("flwr.proto.control_pb2", "ListRunsRequest")()
        return [
            FlowerRun(
                run_id=run.run_id,
                ended=run.status.status == ENDED,
                details=run.status.details,
                config={key: value.string for key, value in run.override_config.items()},
            )
            for run in self._client.ListRuns(asked).run_dict.values()
        ]

    def stop(self, run_id: int) -> None:
        """Stop a run."""
        self._client.StopRun(part("flwr.proto.control_pb2", "StopRunRequest")(run_id=run_id))


def as_flower_writes(key: ec.EllipticCurvePublicKey) -> bytes:
    """Write a public key in the bytes by which Flower knows a node."""
    written: bytes = part("flwr.supercore.primitives.asymmetric", "public_key_to_bytes")(key)
    return written
