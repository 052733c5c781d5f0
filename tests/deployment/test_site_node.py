"""What a hospital's SuperNode is started with."""

import os
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args
from flwr.supernode.cli.flower_supernode import _parse_args_run_supernode

from fl_rsna.deployment.site_node import Node, address_of, node_arguments, node_config, node_environment
from fl_rsna.settings.training import Device


def node(tmp_path: Path, **changes: object) -> Node:
    given = {"folder": tmp_path / "site", "state": tmp_path / "state", "keys": tmp_path / "keys", "superlink": "h:9092"}
    return Node(**{**given, **changes})  # type: ignore[arg-type]


def test_flower_understands_the_arguments(tmp_path: Path) -> None:
    arguments = _parse_args_run_supernode().parse_args(node_arguments(node(tmp_path), 9500))
    assert (arguments.superlink, arguments.host, arguments.port, arguments.insecure) == (
        "h:9092",
        "127.0.0.1",
        9500,
        False,
    )
    keys = tmp_path / "keys"
    assert arguments.root_certificates == str(keys / "ca.crt")
    assert arguments.auth_supernode_private_key == str(keys / "node.key")
    given = (arguments.ssl_certfile, arguments.ssl_keyfile, arguments.ssl_ca_certfile)
    assert given == tuple(str(keys / name) for name in ("runtime.crt", "runtime.key", "runtime-ca.crt"))


@pytest.mark.parametrize("name", ["site", "St. Mary's (north)", "a=1 b=2", 'the "new" site', r"back\slash"])
def test_the_client_app_is_told_the_folders(tmp_path: Path, name: str) -> None:
    told = parse_config_args([node_config(node(tmp_path, folder=tmp_path / name, min_count=5))])
    memory = str(tmp_path / "state" / "memory")
    assert told == {"site-folder": str(tmp_path / name), "memory-folder": memory, "min-count": 5}


def test_a_path_flower_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--folder: expected a path"):
        node_config(node(tmp_path, folder=tmp_path / 'it\'s "it"'))


def test_processes_of_a_site_find_each_other_past_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "hospital.example.org")
    found = node_environment(node(tmp_path))
    assert found["no_proxy"] == found["NO_PROXY"] == "hospital.example.org,localhost,127.0.0.1"
    assert "CUDA_VISIBLE_DEVICES" not in found or found["CUDA_VISIBLE_DEVICES"] == os.environ["CUDA_VISIBLE_DEVICES"]
    assert node_environment(node(tmp_path, device=Device.cpu))["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [("superlink:9092", ("superlink", 9092)), ("[::1]:1", ("::1", 1)), ("10.0.0.1:65535", ("10.0.0.1", 65535))],
)
def test_addresses(given: str, expected: tuple[str, int]) -> None:
    assert address_of(given) == expected


@pytest.mark.parametrize("given", ["superlink", "https://superlink:9092", ":9092", "superlink:0", "superlink:port", ""])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match="expected host:port"):
        address_of(given)
