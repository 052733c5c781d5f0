"""make demo-sites gives docker-compose.yml all it mounts, once, and to a user who may read it."""

import importlib
import os
from pathlib import Path
from types import ModuleType

import pytest
from package import ROOT

SETTINGS = [
    "demo.patients=12",
    "demo.slices_per_series=6",
    "demo.size=32",
    "data.size=32",
]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    return importlib.import_module("demo_sites")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_all_that_the_containers_mount_is_there_and_stays(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("FL_BIND=0.0.0.0\nCOHORT=mine\n")
    script.main(tmp_path, 3, SETTINGS)
    said = dict(line.split("=", 1) for line in (tmp_path / ".env").read_text().splitlines())
    uid = os.getuid() or script.UNPRIVILEGED
    assert said["FL_BIND"] == "0.0.0.0", "other lines stay"
    assert (said["COHORT"], said["FL_UID"], said["COMPOSE_FILE"]) == ("demo-3-sites", str(uid), "docker-compose.yml")
    mounted = ["certificates/superlink/ca.crt", "certificates/authorized", "runs", "site_data/demo-3-sites/test-site"]
    mounted += [f"{of}/site-{n}" for of in ("certificates/sites", "site_data/demo-3-sites") for n in (1, 2, 3)]
    owners = {path: (tmp_path / path).stat().st_uid for path in mounted}
    assert owners == dict.fromkeys(mounted, uid)
    keys = contents(tmp_path / "certificates")
    script.main(tmp_path, 3, SETTINGS)
    assert contents(tmp_path / "certificates") == keys
    script.make_keys(tmp_path / "certificates", ("site-1", "site-4"))
    more = contents(tmp_path / "certificates")
    assert {*more} - {*keys} == {
        "authorized/site-4.pub",
        *(f"sites/site-4/{name}" for name in ("ca.crt", "node.key", "runtime-ca.crt", "runtime.crt", "runtime.key")),
    }
    assert more["sites/site-4/ca.crt"] == keys["superlink/ca.crt"]


def test_only_what_a_compose_file_has_can_be_asked_for(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--sites: expected 3 or 5, got 4"):
        script.main(tmp_path, 4, SETTINGS)
    assert list(tmp_path.iterdir()) == []
