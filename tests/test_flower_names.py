"""Flower's private names stand in one table here, and every one is there in the installed version."""

import ast
import importlib
import re
import tomllib

import pytest
from flwr.app import Message, RecordDict
from package import ROOT

from fl_rsna.federation.engines.local import identify

MODULES = sorted((ROOT / "fl_rsna").rglob("*.py"))
PUBLIC = {"flwr.app", "flwr.clientapp", "flwr.serverapp", "flwr.serverapp.strategy", "flwr.simulation"}
PRIVATE = {
    "flwr.cli.build": {"build_fab_from_disk"},
    "flwr.cli.install": {"install_from_fab"},
    "flwr.common.constant": {"ErrorCode", "SUPERLINK_NODE_ID", "SYSTEM_TIME_TOLERANCE", "TIMESTAMP_TOLERANCE"},
    "flwr.common.serde": {"fab_to_proto", "user_config_to_proto"},
    "flwr.proto.control_pb2": {
        "ListNodesRequest",
        "ListRunsRequest",
        "RegisterNodeRequest",
        "StartRunRequest",
        "StopRunRequest",
        "UnregisterNodeRequest",
    },
    "flwr.proto.fleet_pb2": {"ActivateNodeRequest"},
    "flwr.serverapp.strategy.fedopt": {"FedOpt"},
    "flwr.supercore.control": {"ControlHttpClient"},
    "flwr.supercore.error": {"ApiErrorCode", "FlowerError"},
    "flwr.supercore.fab": {"Fab"},
    "flwr.supercore.interceptors": {"RuntimeVersionHttpInterceptor"},
    "flwr.supercore.primitives.asymmetric": {"public_key_to_bytes"},
    "flwr.supercore.run": {"Run"},
    "flwr.supercore.task_identity": {"TaskIdentity"},
    "flwr.superlink.cli.flower_superlink": {"SuperLinkLifespan", "_parse_superlink_lifespan_config"},
    "flwr.superlink.main": {"create_app"},
    "flwr.supernode.fleet_http_client": {"FleetHttpClient"},
    "flwr.supernode.node_auth_http_interceptor": {"NodeAuthHttpInterceptor"},
}
REPLACED = ("flwr.supernode.runtime.run_clientapp", "flwr.superlink.runtime.run_serverapp")  # their install_from_fab


def find_used() -> dict[str, set[str]]:
    """By module of Flower that is not public: the names that the package imports from it, or looks up by `part`."""
    used: dict[str, set[str]] = {}
    for path in MODULES:
        strings: dict[str, str] = {}
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                    strings[name] = text
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.ImportFrom(module=str(module), names=names) if module.split(".")[0] == "flwr":
                    found = {alias.name for alias in names}
                case ast.Call(func=ast.Name(id="part"), args=[where, ast.Constant(value=str(name))]):
                    module = where.value if isinstance(where, ast.Constant) else strings[where.id]  # type: ignore[attr-defined]
                    found = {name}
                case _:
                    continue
            if module not in PUBLIC:
                used.setdefault(module, set()).update(found)
    return used


def test_private_names_are_the_listed_ones() -> None:
    assert find_used() == PRIVATE


@pytest.mark.parametrize("module", [*PRIVATE, *REPLACED])
def test_private_names_are_there(module: str) -> None:
    names = PRIVATE.get(module, {"install_from_fab"})
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


def test_metadata_keeps_what_the_engines_set() -> None:
    """The local engine numbers messages itself, and a lost node's error reply gets that node's id."""
    identify()
    told = Message(RecordDict(), dst_node_id=1, message_type="query").metadata
    assert {"_message_id", "_src_node_id"} <= told.__dict__.keys()


def test_sentences_name_the_range_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (wanted,) = (line.removeprefix("flwr") for line in project["dependencies"] if line.startswith("flwr"))
    named = {found for path in MODULES for found in re.findall(r"flwr(>=[\d.]+,<[\d.]+)", path.read_text())}
    assert named == {wanted}
