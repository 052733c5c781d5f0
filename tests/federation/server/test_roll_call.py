"""The roll call refuses what must not train together, naming the site."""

import dataclasses
import json
import shutil
from functools import partial
from pathlib import Path

import pytest
from edited import edit_json, write_hashed
from flwr.app import ConfigRecord, Context, Message, MessageType, RecordDict
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.id_scheme import id_scheme
from fl_rsna.federation.engines.local import LocalGrid, identify, run_local
from fl_rsna.federation.protocol.messages import CONFIG, VERSION, read_instructions
from fl_rsna.federation.server.roll_call import Site, check_roll, check_single
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.reporting.record.events import sentence
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm, Trainable
from fl_rsna.task import COVID_CXR
from fl_rsna.version import code_version

PARTS = {"train": {"slices": 3}, "validation": {"slices": 1}}


def site(number: int, **changes: object) -> Site:
    same = {
        "version": code_version(),
        "cohort_sha256": "abc",
        "task": "ich",
        "image": "hu",
        "counts": PARTS,
        "controls": {},
        "patients": frozenset({f"p{number}"}),
        "ids": "plain",
    }
    return Site(name=f"site-{number}", node_id=number, **{**same, **changes})  # type: ignore[arg-type]


def check(*sites: Site, test: frozenset[str] = frozenset({"t"})) -> None:
    check_roll(list(sites), cohort_sha256="abc", task="ich", test_patients=test, test_ids="plain", image="hu")


def test_a_sound_roll_passes() -> None:
    check(site(1), site(2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (site(2, cohort_sha256="other"), "expected cohort abc, got other at site-2"),
        (site(2, version="0.0.1"), "as here, got 0.0.1 at site-2; install the same version"),
        (site(2, image="windows"), "expected images of kind hu, got windows at site-2"),
        (site(2, task="chest"), "expected task ich, got chest at site-2"),
        (site(2, counts={"train": {"slices": 0}, "validation": {"slices": 1}}), "expected train images at site-2"),
        (site(2, counts={"train": {"slices": 4}}), "expected validation images at site-2"),
        (site(2, patients=frozenset({"p1", "x"})), "site-1 and site-2 share 1 patients"),
        (site(2, patients=frozenset({"t"})), "site-2 and the test site share 1 patients"),
        (dataclasses.replace(site(2), name="site-1"), "site-1 2 times"),
    ],
)
def test_refusals_name_the_site(wrong: Site, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(site(1), wrong)


def test_a_site_of_one_image_is_refused_where_batchnorm_cannot_train_and_told_where_it_can() -> None:
    one = site(2, counts={"train": {"slices": 1}, "validation": {"slices": 1}})
    with pytest.raises(ValueError, match=r"two training images or more at site-2, got one.*model\.norm=group"):
        check_single([site(1), one], ModelConfig(image_size=32), Trainable.all)
    (said,) = check_single([site(1), one], ModelConfig(image_size=64), Trainable.all)
    assert said.startswith("site-2 has one training image")
    for norm in (Norm.group, Norm.frozen):
        assert check_single([one], ModelConfig(image_size=32, norm=norm), Trainable.all) == []
    assert check_single([one], ModelConfig(image_size=32), Trainable.head) == []
    assert check_single([site(1)], ModelConfig(image_size=32), Trainable.all) == []


SALTED, OTHER = id_scheme(True, "a secret"), id_scheme(True, "another")


@pytest.mark.parametrize(
    ("schemes", "test_ids", "said"),
    [
        ((SALTED, OTHER), SALTED, "at site-1, the test site; hashed under salt .* at site-2"),
        ((SALTED, SALTED), "plain", "at site-1, site-2; as in the files at the test site"),
        ((SALTED, None), SALTED, "at site-1, the test site; not written down at site-2"),
        ((None, None), None, "not written down at site-1, site-2, the test site"),
        (("sha256-16/unsalted", "sha256-16/unsalted"), SALTED, "hashed without a salt at site-1, site-2"),
    ],
)
def test_patients_that_cannot_be_compared_are_refused_until_the_user_says_so(
    schemes: tuple[str | None, str | None], test_ids: str | None, said: str
) -> None:
    sites = [site(number + 1, ids=ids) for number, ids in enumerate(schemes)]
    ask = partial(check_roll, sites, cohort_sha256="abc", task="ich", test_patients=frozenset("t"), test_ids=test_ids)
    with pytest.raises(ValueError, match=f"^roll call: unknown whether a patient is at two .*{said}") as refused:
        ask()
    assert str(refused.value).endswith("or say allow_unknown_patients=true")
    assert "secret" not in str(refused.value)
    assert ask(allow_unknown=True) in str(refused.value)
    sites[1] = dataclasses.replace(sites[1], patients=frozenset({"p1"}))
    with pytest.raises(ValueError, match="site-1 and site-2 share 1 patients"):
        ask(allow_unknown=True)


@pytest.mark.parametrize("ids", [SALTED, "plain", "sha256-16/unsalted"])
def test_patients_that_were_hashed_alike_are_compared(ids: str) -> None:
    sites = [site(1, ids=ids), site(2, ids=ids)]
    assert check_roll(sites, cohort_sha256="abc", task="ich", test_patients=frozenset("t"), test_ids=ids) is None


def test_whoever_waits_for_sites_is_told_how_many_are_there(cohort: Cohort, tmp_path: Path) -> None:
    """They come one after the other: 1 of 3, then 2, then the roll call."""

    class Late(LocalGrid):
        looks = 0

        def get_node_ids(self) -> list[int]:
            self.looks += 1
            return list(super().get_node_ids())[: (self.looks + 1) // 2]

    config, run = tiny_config(rounds=1), tmp_path / "run"
    server = make_server_app(lambda context: (config, cohort, start_run(run, config, cohort, "cpu", ())))
    identify()
    client = partial(app_for_cohort, cohort.folder, run / "site_memory")
    server(Late(client, len(cohort.sites), 0), Context(1, 1, {}, RecordDict(), {}))
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [(event["event"], event["sites"]) for event in events[:2]] == [("waiting", 1), ("waiting", 2)]
    assert events[2]["event"] == "roll_call"
    assert sentence(events[1]) == "waiting for sites: 2 of 3 are there"


def begun(cohort: Cohort, run: Path, config: Config) -> None:
    """A run in this process as far as it comes."""
    server = make_server_app(lambda context: (config, cohort, start_run(run, config, cohort, "cpu", ())))
    client = partial(app_for_cohort, cohort.folder, run / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)


def test_a_site_that_holds_another_task_or_other_labels_is_one_sentence(own_cohort: Cohort, tmp_path: Path) -> None:
    """As where a hospital gives its SuperNode the folder of another study: nothing of it is packed or counted."""
    other = tiny_cohort(tmp_path / "chest", COVID_CXR, ImageKind.grey)
    mine = own_cohort.site_folder("site-2")
    kept = mine.rename(tmp_path / "kept")
    shutil.copytree(other.site_folder("site-1"), mine)
    said = r"roll call: site-1 cannot take part: expected data of task ich, got task covid_cxr here; give this site"
    with pytest.raises(ValueError, match=said):  # the name is the one that it states
        begun(own_cohort, tmp_path / "run", tiny_config())
    assert not (mine / "packed").exists()
    shutil.rmtree(mine)
    kept.rename(mine)
    facts = json.loads((mine / "site.json").read_text())
    edit_json(mine / "site.json", {"labels": facts["labels"][:3]})
    with pytest.raises(ValueError, match="roll call: site-2 cannot take part: expected the labels any, epidural"):
        begun(own_cohort, tmp_path / "run-2", tiny_config())
    write_hashed(mine / "site.json", {**facts, "cohort_sha256": "0" * 64, "image": "windows"})
    with pytest.raises(ValueError, match="roll call: expected images of kind hu, got windows at site-2"):
        begun(own_cohort, tmp_path / "run-3", tiny_config())


def test_a_server_of_another_version_is_named_before_its_words_are_read() -> None:
    """It may know settings that this one does not."""
    record = ConfigRecord({"instructions": '{"unknown": 1}', VERSION: "9.9 (code 0)"})
    message = Message(RecordDict({CONFIG: record}), 1, MessageType.QUERY)
    with pytest.raises(
        ValueError, match=r"expected fl_rsna 9\.9 .* as at the server, got .* here; install the same version"
    ):
        read_instructions(message)
