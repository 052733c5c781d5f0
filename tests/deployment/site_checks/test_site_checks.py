"""What is wrong with a site's folders and keys is found before the day, and nothing is written by looking."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import PrivateFormat
from made_certificates import Signed, pem, private, signed, superlink, write_keys, write_private
from tiny import rewrite_site, tiny_cohort

from fl_rsna.checks.check import Check, State
from fl_rsna.cohort.prepared.index import hash_id
from fl_rsna.common.command_end import RunFailed
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.deployment.site_checks.folders import check_alike, check_identifiers, read_held
from fl_rsna.deployment.site_checks.keys import fingerprint, read_node_key
from fl_rsna.deployment.site_checks.readiness import check_here, examine_site, refuse_unready
from fl_rsna.deployment.site_node import Node
from fl_rsna.imaging.png_store import read_png, write_png

SALT, OTHER = "5637ebbab8769328365851fd92e225db", "0c1f62d8e94b7a35f1d20946be87c3a5"


@pytest.fixture(scope="module")
def authority() -> Signed:
    return signed("authority")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, authority: Signed) -> Path:
    """A site's folder with hashed ids, and keys; tests work on copies."""
    base = tmp_path_factory.mktemp("hospital")
    shutil.copytree(tiny_cohort(base / "cohort").site_folder("site-1"), base / "site")
    index = pd.read_csv(base / "site" / "index.csv")
    for name in ("patient_id", "study_id", "series_id"):
        index[name] = [hash_id(value, SALT) for value in index[name]]
    rewrite_site(base / "site", index, ids=id_scheme(True, SALT))
    write_keys(base / "keys", authority)
    return base


@pytest.fixture
def node(made: Path, tmp_path: Path) -> Node:
    for name in ("site", "keys"):
        shutil.copytree(made / name, tmp_path / name)
    return Node(
        folder=tmp_path / "site",
        state=tmp_path / "state",
        keys=tmp_path / "keys",
        superlink="127.0.0.1:1",
        name="site-1",
    )


def wrong(node: Node) -> dict[str, Check]:
    return {check.what: check for check in check_here(node) if check.state is not State.ok}


def test_a_site_that_is_ready(node: Node) -> None:
    assert wrong(node) == {}
    assert refuse_unready(node).says().startswith("site-1 of cohort sites")


def test_all_checks_write_nothing(
    node: Node, authority: Signed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "server").mkdir()
    with superlink(signed("server", authority), tmp_path / "server") as address:
        before = sorted(tmp_path.rglob("*"))
        examine_site(replace(node, superlink=address))
    assert sorted(tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "no problem, 0 to think about"
    assert fingerprint(read_node_key(node.keys / "node.key")) in " ".join(lines)
    assert {line.split()[1] for line in lines[:-1]} >= {
        "site:",
        "images:",
        "SuperLink:",
        "clock:",
        "registered:",
        "versions:",
    }


def test_a_problem_is_named_at_the_end(node: Node) -> None:
    (node.folder / "site.json").unlink()
    with pytest.raises(RunFailed, match="could not take part: site, SuperLink"):
        examine_site(node)


def test_a_start_refuses_with_the_first_problem(node: Node) -> None:
    with pytest.raises(ValueError, match=r"site: .* is site-1, not site-2; give --folder"):
        refuse_unready(replace(node, name="site-2"))


def change_index(node: Node, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    path = node.folder / "index.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)


def set_fact(node: Node, **facts: object) -> None:
    path = node.folder / "site.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))


def first_image(node: Node) -> Path:
    return node.folder / "images" / f"{pd.read_csv(node.folder / 'index.csv')['image_id'][0]}.png"


DAMAGE: dict[str, tuple[Callable[[Node], object], str, str]] = {
    "no site.json": (lambda node: (node.folder / "site.json").unlink(), "site", "no site.json"),
    "site.json of something else": (lambda node: (node.folder / "site.json").write_text("{}"), "site", "does not say"),
    "no index": (lambda node: (node.folder / "index.csv").unlink(), "site", "no index.csv"),
    "an empty index": (lambda node: (node.folder / "index.csv").write_text(""), "site", "cannot be read"),
    "a column is gone": (lambda node: change_index(node, lambda t: t.drop(columns="split")), "site", "no column split"),
    "nothing to validate": (
        lambda node: change_index(node, lambda t: t[t["split"] == "train"]), "site", "no images for validation",
    ),
    "the test site": (lambda node: set_fact(node, site="test-site"), "site", "not site-1"),
    "an image is gone": (lambda node: first_image(node).unlink(), "images", "1 of 20 are missing"),
    "an image is damaged": (lambda node: first_image(node).write_bytes(b"no"), "images", "no readable PNG"),
    "an image of another size": (
        lambda node: write_png(first_image(node), read_png(first_image(node))[:16]), "images", "16 x 32",
    ),
    "no images": (lambda node: shutil.rmtree(node.folder / "images"), "images", "no folder"),
    "state is a file": (lambda node: node.state.write_text(""), "state", "no folder"),
    "state is open": (lambda node: node.state.mkdir(mode=0o755), "state", "open to others"),
    "no node key": (lambda node: (node.keys / "node.key").unlink(), "node key", "cannot read"),
    "an open node key": (lambda node: (node.keys / "node.key").chmod(0o640), "node key", "mode 0640"),
    "a node key in PEM": (
        lambda node: write_private(node.keys / "node.key", private(ec.generate_private_key(ec.SECP384R1()))),
        "node key", "OpenSSH",
    ),
    "a node key of RSA": (
        lambda node: write_private(
            node.keys / "node.key",
            private(rsa.generate_private_key(65537, 2048), PrivateFormat.OpenSSH),  # type: ignore[arg-type]
        ),
        "node key", "P-384",
    ),
    "no CA": (lambda node: (node.keys / "ca.crt").unlink(), "CA certificate", "no "),
    "a CA that is none": (lambda node: (node.keys / "ca.crt").write_text("x"), "CA certificate", "PEM"),
    "a server's certificate as CA": (
        lambda node: (node.keys / "ca.crt").write_bytes(pem(signed("server", signed("authority")))),
        "CA certificate", "no authority's",
    ),
    "a CA that ended": (
        lambda node: (node.keys / "ca.crt").write_bytes(pem(signed("old", end_days=-0.5))), "CA certificate", "ended on",
    ),
    "a CA of tomorrow": (
        lambda node: (node.keys / "ca.crt").write_bytes(pem(signed("new", start_days=1))),
        "CA certificate", "not valid before",
    ),
    "a CA that ends soon": (
        lambda node: (node.keys / "ca.crt").write_bytes(pem(signed("old", end_days=20))), "CA certificate", "valid until",
    ),
    "another runtime key": (
        lambda node: write_private(node.keys / "runtime.key", private(ec.generate_private_key(ec.SECP384R1()))),
        "loopback TLS", "not the key of",
    ),
    "another runtime authority": (
        lambda node: (node.keys / "runtime-ca.crt").write_bytes(pem(signed("own authority"))), "loopback TLS", "not signed by",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_wrong_is_named(node: Node, name: str) -> None:
    damage, what, said = DAMAGE[name]
    damage(node)
    found = wrong(node)
    assert list(found) == [what]
    assert said in found[what].found
    assert found[what].change


def test_a_runtime_certificate_is_for_loopback(node: Node) -> None:
    own = signed("own authority")
    elsewhere = signed("runtime", own, hosts=["superlink.example.org"])
    write_private(node.keys / "runtime.key", private(elsewhere.key))
    (node.keys / "runtime.crt").write_bytes(pem(elsewhere))
    (node.keys / "runtime-ca.crt").write_bytes(pem(own))
    assert "not for 127.0.0.1" in wrong(node)["loopback TLS"].found


def test_state_inside_the_site_is_refused(node: Node) -> None:
    assert "inside --folder" in wrong(replace(node, state=node.folder / "state"))["state"].found


def test_identifiers_in_clear(node: Node) -> None:
    def check() -> Check:
        [found] = check_identifiers(read_held(node.folder))
        return found

    assert check().state is State.ok
    change_index(node, lambda table: table.assign(boxes="[]"))
    assert check().state is State.ok
    change_index(node, lambda table: table.assign(patient_name="Doe"))
    assert check().state is State.warning
    assert "patient_name" in check().found
    change_index(node, lambda table: table.drop(columns="patient_name").assign(patient_id=range(len(table))))
    assert check().state is State.warning
    hashed = hash_id("one", SALT)
    change_index(node, lambda table: table.assign(patient_id=[hashed] * (len(table) - 1) + ["1234567"]))
    assert check().state is State.problem


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(node: Node) -> None:
    first_image(node).chmod(0)
    assert "may not be read" in wrong(node)["images"].found


def test_a_salt_that_can_be_guessed_ends_a_start(node: Node) -> None:
    rewrite_site(node.folder, ids=id_scheme(True, "stroke-2026"))
    assert wrong(node)["identifiers"].state is State.problem
    with pytest.raises(
        ValueError, match=r"^identifiers: hashed under salt .* can be guessed .*python -m fl_rsna\.salt"
    ):
        refuse_unready(node)


@pytest.mark.parametrize(("salt", "problems"), [(SALT, 0), (OTHER, 1)])
def test_a_site_is_compared_with_those_of_its_cohort_that_lie_beside_it(node: Node, salt: str, problems: int) -> None:
    beside = node.folder.parent / "site-2"
    shutil.copytree(node.folder, beside)
    rewrite_site(beside, site="site-2", ids=id_scheme(True, salt))
    found = check_alike(read_held(node.folder))
    assert [check.state for check in found] == [State.problem] * problems
    assert all("at site-1" in check.found and "at site-2" in check.found for check in found)
    rewrite_site(beside, cohort="another")
    assert check_alike(read_held(node.folder)) == []


def test_a_plain_patient_id_beside_hashed_ones_is_seen(node: Node) -> None:
    change_index(node, lambda table: table.assign(local_id=table["patient_id"], placeholder="0"))
    [found] = check_identifiers(read_held(node.folder))
    assert found.state is State.ok
    change_index(node, lambda table: table.assign(local_id="0012345"))
    [found] = check_identifiers(read_held(node.folder))
    assert found.state is State.warning
    assert found.found.startswith("local_id as in the files")
