"""What the containers may see and do, read from the files that say so; no engine is started."""

import fnmatch
import re
from typing import Any

import pytest
import yaml
from package import ROOT

FILES = sorted(path.name for path in ROOT.glob("docker-compose*.yml"))
LOCAL, MORE, GPU = "docker-compose.yml", "docker-compose.more-sites.yml", "docker-compose.gpu.yml"
REMOTE, ONE_SITE = "docker-compose.remote-sites.yml", "docker-compose.site.yml"
STANDALONE = (LOCAL, MORE, ONE_SITE)  # the others only add to these
DATA, KEYS = "./site_data/${COHORT}/", "./certificates/"


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text())
    assert isinstance(content, dict)
    return content


def services(*names: str) -> dict[str, dict[str, Any]]:
    return {f"{name}:{service}": said for name in names for service, said in read(name)["services"].items()}


def binds(service: dict[str, Any]) -> dict[str, bool]:
    """Folders and files of the host a service sees, and whether it may write there."""
    mounts = [mount for mount in service.get("volumes", []) if isinstance(mount, dict)]
    return {mount["source"]: not mount.get("read_only", False) for mount in mounts}


def volumes(service: dict[str, Any]) -> list[str]:
    return [str(mount).split(":")[0] for mount in service.get("volumes", []) if isinstance(mount, str)]


SITES = {name: said for name, said in services(LOCAL, MORE).items() if ":site-" in name}
ALL = services(*STANDALONE)


def test_every_file_is_known_here() -> None:
    assert set(FILES) == {LOCAL, MORE, GPU, REMOTE, ONE_SITE}
    assert [name.split(":")[1] for name in SITES] == [f"site-{number}" for number in range(1, 6)]


@pytest.mark.parametrize("name", FILES)
def test_both_versions_of_compose_read_it(name: str) -> None:
    """Without `version`, 1.27 and later and v2 take one common syntax; `build` is not BuildKit's."""
    content = read(name)
    assert not {"version", "name", "include"} & set(content)
    for service in content["services"].values():
        assert set(service.get("build", {"context", "args"})) <= {"context", "args"}


@pytest.mark.parametrize("name", SITES)
def test_a_site_sees_its_own_folder_and_keys_and_can_change_neither(name: str) -> None:
    site = name.split(":")[1]
    assert binds(SITES[name]) == {f"{DATA}{site}": False, f"{KEYS}sites/{site}": False}
    assert volumes(SITES[name]) == [site], "a state of its own"


def test_the_superlink_sees_no_site_and_none_of_their_keys() -> None:
    shared = {f"{DATA}cohort.json": False, f"{DATA}test-site": False, "./runs": True}
    assert binds(ALL[f"{LOCAL}:superlink"]) == {**shared, f"{KEYS}superlink": False}
    authorized, ca = f"{KEYS}authorized", f"{KEYS}superlink/ca.crt"
    assert binds(ALL[f"{LOCAL}:coordinator"]) == {**shared, authorized: False, ca: False}


def test_a_site_elsewhere_sees_what_it_is_told_of_alone() -> None:
    (said,) = services(ONE_SITE).values()
    seen = binds(said)
    assert [source.split(":")[0] for source in seen] == ["${SITE_FOLDER", "${SITE_KEYS"]
    assert not any(seen.values())


def test_the_door_holds_an_address_and_nothing_else() -> None:
    door = ALL[f"{LOCAL}:door"]
    assert door["entrypoint"] == ["sleep", "infinity"]
    assert "volumes" not in door


def test_no_state_is_shared() -> None:
    states = [volume for said in services(LOCAL, MORE).values() for volume in volumes(said)]
    assert len(states) == len(set(states))
    assert set(states) == {*read(LOCAL)["volumes"], *read(MORE)["volumes"]}


def test_only_the_server_is_published_and_only_when_asked_for() -> None:
    published = {name: said["ports"] for name, said in services(*FILES).items() if "ports" in said}
    assert list(published) == [f"{REMOTE}:door"], "whose address is the superlink's"
    (port,) = published[f"{REMOTE}:door"]
    assert port.startswith("${FL_BIND:-127.0.0.1}:"), "this machine alone, unless another address is named"


def test_sites_reach_the_superlink_alone() -> None:
    """It and the coordinator share one address, on which the superlink answers; its loopback is theirs alone."""
    assert read(LOCAL)["networks"] == {"federation": {"internal": True}}
    beside = [f"{LOCAL}:superlink", f"{LOCAL}:coordinator"]
    for name, said in services(LOCAL, MORE).items():
        if name in beside:
            assert said["network_mode"] == "service:door"
            assert "networks" not in said
        else:
            assert list(said["networks"]) == ["federation"]
            assert "network_mode" not in said
    assert services(LOCAL)[f"{LOCAL}:door"]["networks"]["federation"] == {"aliases": ["superlink"]}


def test_up_starts_no_run() -> None:
    started = [name.split(":")[1] for name, said in services(LOCAL, MORE).items() if "profiles" not in said]
    assert started == ["door", "superlink", *(f"site-{number}" for number in range(1, 6))]


@pytest.mark.parametrize("name", ALL)
def test_a_container_has_no_rights_it_does_not_need(name: str) -> None:
    said = ALL[name]
    assert re.fullmatch(r"\$\{FL_UID:\?[^}]+\}:\$\{FL_GID:\?[^}]+\}", said["user"]), (
        "no user is assumed, least of all root"
    )
    assert (said["read_only"], said["init"]) == (True, True)
    assert said["cap_drop"] == ["ALL"]
    assert said["security_opt"] == ["no-new-privileges:true"]
    assert {"mem_limit", "cpus", "logging"} <= set(said)


@pytest.mark.parametrize("name", services(*FILES))
def test_nothing_is_privileged_and_no_secret_is_written_down(name: str) -> None:
    said = services(*FILES)[name]
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "userns_mode", "env_file", "environment"} & set(said)
    assert not re.search(r"password|secret|token|docker\.sock", yaml.safe_dump(said), re.IGNORECASE)


def test_gpu_file_changes_no_mount() -> None:
    for said in services(GPU).values():
        assert set(said) <= {"image", "build", "deploy"}


DOCKERFILE = (ROOT / "Dockerfile").read_text()
STEPS = [line.split(maxsplit=1) for line in DOCKERFILE.splitlines() if re.match(r"[A-Z]+ ", line)]


def test_the_classic_builder_reads_the_dockerfile() -> None:
    assert not re.search(r"^# *syntax=|--mount=|--link|--chmod|--parents|<<-?['\"]?[A-Z]+", DOCKERFILE, re.MULTILINE)
    assert {step for step, _ in STEPS} <= {"FROM", "ARG", "ENV", "RUN", "WORKDIR", "COPY", "USER", "CMD"}


def test_the_image_runs_as_nobody_in_particular() -> None:
    (user,) = [said for step, said in STEPS if step == "USER"]
    assert all(int(number) >= 1000 for number in user.split(":"))


def test_torch_is_pinned_as_in_the_constraints() -> None:
    (pin,) = re.findall(r"^torch==.*$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    installs = [said for step, said in STEPS if step == "RUN" and "pip install" in said]
    assert installs[0].endswith(f" {pin}"), "the first thing to be installed"


def test_code_is_copied_after_its_dependencies_are_installed() -> None:
    order = [said for step, said in STEPS if step in ("RUN", "COPY")]
    code = next(i for i, said in enumerate(order) if said.startswith("fl_rsna "))
    dependencies = next(i for i, said in enumerate(order) if "requirements.txt" in said)
    assert dependencies < code
    assert not any("COPY . " in line for line in DOCKERFILE.splitlines())


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file of the project out: its last line that matches the path or a folder of it decides."""
    parts = path.split("/")
    heads = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    out = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        names = [part for head in heads for part in (head, head.split("/")[-1] if pattern.startswith("**/") else head)]
        if any(fnmatch.fnmatchcase(name, pattern.removeprefix("**/")) for name in names):
            out = not line.startswith("!")
    return out


def test_data_keys_and_runs_stay_out_of_the_image() -> None:
    private = [
        "site_data/demo/site-1/index.csv",
        "prepared/demo/index.parquet",
        "certificates/ca.key",
        ".env",
        ".git/HEAD",
    ]
    made = [
        "runs/a/model.safetensors",
        ".venv/bin/python",
        "evaluations/a.csv",
        "fl_rsna/__pycache__/a.pyc",
    ]
    assert [path for path in (*private, *made) if not ignored(path)] == []
    copied = [name for step, said in STEPS if step == "COPY" for name in said.split()[:-1]]
    assert [name for name in copied if ignored(name)] == []
    assert not ignored("fl_rsna/federation/server_app.py")
    assert not ignored("conf/config.yaml")
