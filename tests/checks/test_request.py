"""What stands in the way of a run is said before anything is made for it, and by the doctor in the same sentence."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hidden_package import hide_package
from tiny import tiny_config

from fl_rsna.checks.doctor import examine
from fl_rsna.checks.request import (
    Request,
    check_asked_data,
    check_effects,
    check_on_cohort,
    refusals,
    request_image,
    true_of_data,
)
from fl_rsna.cli.command import run_command
from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.prepare import prepare
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.compose import list_arguments
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.effects import parse_typed_keys
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.settings.training import Sampling
from fl_rsna.simulation.simulation import run_federation, simulate

SMALL = [
    "demo.patients=9",
    "demo.slices_per_series=4",
    "demo.size=32",
    "model.image_size=32",
    "engine.workers=0",
    "rounds=1",
]
SMALL += ["partition.num_sites=2"]

REFUSED = {  # arguments beside those of a small demo that is not drawn yet -> how the refusal begins
    "resume=true": "resume: expected the run.name",
    "engine.name=deployment": "engine.name: expected local or ray",
    "stage=both baseline=local": "baseline: expected none or central",
    "data.dicom=x": "data.name: expected a name for your data",
    "data.name=mine data.dicom=x data.unlabelled=true": "data.unlabelled: expected false for a run",
    "data.name=mine data.dicom=x data.unannotated=[epidural]": "data.unannotated: expected nothing for a run",
    "predict=absent": "predict: expected a prepared set",
    "start=absent": "start: no model at absent",
    "start=file": "start: expected a .safetensors file",
    "stage=sequence sequence.encoder=absent": "sequence.encoder: expected a finished run",
    "model.pretrained=false model.weights=file": "model.weights: expected a state dict",
    "model=timm model.backbone=unheard_of": "model.",
    "partition.num_sites=100000": "partition.num_sites: expected at least 200001 patients",
    "partition.num_sites=5 partition.test=0.5": "partition.num_sites: expected at least 11 patients",
    "partition.folds=10": "partition.folds: expected at most 9",
    "partition.test=site-9": "partition.test: expected a share",
    "partition.test=[nobody]": "partition.test: expected patients of the data",
    "partition=explicit": "partition.assignment: expected a CSV",
    "partition=explicit partition.assignment=absent": "partition.assignment: expected a CSV in UTF-8",
    "partition=explicit partition.assignment=file": "partition.assignment: expected a CSV with the columns",
    "partition=origin": "partition.kind: expected origin of every patient",
    "partition=scanner partition.num_sites=1": "partition.num_sites: expected 2 or more sites by fingerprint",
    "partition=specialist partition.lacking=4": "partition.lacking: expected at most",
    "partition.noise={site-7:{labels:0.1}}": "partition.noise.site-7: no such site",
    "data.image=windows partition.noise={site-1:{blur:1}}": "partition.noise.site-1: expected labels alone",
    "strategy=krum": "strategy.name: krum with strategy.malicious=1 needs 5 sites a round, got 2",
    "strategy=bulyan baseline=gap": "strategy.name: bulyan with strategy.malicious=1 needs 7 sites a round, got 1",
    "strategy.min_sites=9 strategy.fraction=0.5": "strategy.min_sites: expected at most 2",
    "network.speeds={site-9:0.5}": "network.speeds: expected one of site-1, site-2, got site-9",
    "network.downtime={site-9:0.5}": "network.downtime: expected one of site-1, site-2, got site-9",
    "faults.sites={site-9:crash}": "faults.sites: expected one of site-1, site-2, got site-9",
    "partition.test=site-2 faults.sites={site-2:crash}": "faults.sites: expected one of site-1, got site-2",
    "faults.sites={site-1:crash@0}": "faults.sites: expected rounds from 1 up",
    "faults.sites={site-1:crash@9}": "faults.sites: expected a round from 1 to 1",
    "network.latency_s=inf": "network.latency_s: expected a finite number",
    "data.image=windows train.hu_shift=16": "train.hu_shift: expected images in Hounsfield units",
    "deploy.attempts=2": "deploy.attempts: expected python -m fl_rsna.coordinate",
}


class Doctor:
    """Runs simulate after it has noted what the doctor's list says of the very same request."""

    said: list[str]

    def __call__(self, config: Config) -> object:
        request = Request(config=config, typed=parse_typed_keys(list_arguments(), config))
        self.said = [str(error) for _, error in refusals(request)]
        return simulate(config)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("neither a model nor a table\n")
    return tmp_path


@pytest.mark.slow
def test_what_cannot_be_met_is_refused_before_anything_is_written(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in REFUSED.items():
        typed = [argument.replace(":", ": ") for argument in arguments.split()]  # as YAML wants mappings
        monkeypatch.setattr(sys, "argv", ["fl_rsna", *SMALL, *typed])
        doctor = Doctor()
        doctor.said = []
        with pytest.raises(SystemExit) as left:
            run_command(doctor)
        error = capfd.readouterr().err
        assert (left.value.code, error[:7], error.count("\n")) == (2, "error: ", 1), arguments
        refused = error.removeprefix("error: ").rstrip("\n")
        assert refused.startswith(sentence), (arguments, refused)
        assert refused in (doctor.said or [refused]), arguments  # or both commands refuse to read the arguments
        assert [path.name for path in here.iterdir()] == ["file"], arguments


def test_the_doctor_says_each_as_a_problem_and_goes_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["partition.num_sites=100000", "predict=absent", "strategy.window=5", "strategy=fednova"]
    monkeypatch.setattr(sys, "argv", ["fl_rsna", *SMALL, *arguments, "train.device=cpu"])
    with pytest.raises(SystemExit) as left:
        run_command(lambda config: examine(config, ()))
    said = capfd.readouterr().out.splitlines()
    assert left.value.code == 1
    for begin in (
        "problem  partition: partition.num_sites: expected at least 200001 patients",
        "problem  predict: predict: expected a prepared set",
        "problem  settings: strategy.window: expected strategy.averaging=window, without which it has no effect, got 5",
        "warning  strategy: strategy.name: fednova divides",
        "ok       device: ",
    ):
        assert sum(line.startswith(begin) for line in said) == 1, begin
    assert [path.name for path in here.iterdir()] == ["file"]


OWN = ["data.name=mine", "data.dicom=file", "data.labels=file"]


@pytest.mark.parametrize(
    ("story", "key", "arguments"),
    [(simulate, "engine", SMALL), (simulate, "prepare.engine", OWN), (prepare, "prepare.engine", OWN)],
)
def test_ray_that_is_not_installed_is_refused_in_one_sentence(
    story: Callable[[Config], object],
    key: str,
    arguments: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["fl_rsna", *arguments, f"{key}=ray"])
    with hide_package("ray"), pytest.raises(SystemExit) as left:
        run_command(story)
    name = "engine.name" if key == "engine" else key
    assert left.value.code == 2
    assert capfd.readouterr().err == (
        f"error: {name}: expected the package ray, which is not installed; pip install 'fl-rsna[ray]' or say {key}=local\n"
    )
    assert [path.name for path in here.iterdir()] == ["file"]


def on_cohort(cohort: Cohort, **changes: object) -> str:
    """What a run on a cohort would be refused for."""
    config = tiny_config(data__name="tiny", partition__name=cohort.folder.name, **changes)
    config.paths.sites = str(cohort.folder.parent)
    with pytest.raises(ValueError, match=": ") as refused:
        check_on_cohort(Request(config=config), cohort)
    return str(refused.value)


def test_what_a_cohort_decides_is_refused_before_a_run_is_made(cohort: Cohort) -> None:
    """Counts that are too small to leave a site, folds without patients, sites that are not there, another model's file."""
    assert on_cohort(cohort, privacy__min_count=500).startswith("privacy.min_count: expected at least 500 ")
    assert on_cohort(cohort, stage=Stage.stacking, stacking__folds=9).startswith("stacking.folds: expected at least 9")
    assert on_cohort(cohort, faults__sites={"site-9": "crash"}).startswith("faults.sites: expected one of site-1")
    assert on_cohort(cohort, strategy__name="krum").startswith("strategy.name: krum ")
    assert on_cohort(cohort, strategy__min_sites=4).startswith("strategy.min_sites: expected at most 3")
    local = on_cohort(cohort, strategy__name="multikrum", baseline=Baseline.local, partition__num_sites=9)
    assert "needs 5 sites a round, got 1" in local
    plain = tiny_config(data__name="tiny", train__sampling=Sampling.under, privacy__min_count=2)
    check_on_cohort(Request(config=plain), cohort)


def test_a_label_that_no_site_annotates_is_refused_before_a_run_is_made(own_cohort: Cohort) -> None:
    noise = {"unannotated": ["epidural"]}
    for site in own_cohort.sites:
        path = own_cohort.site_folder(site) / "site.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"noise": noise}))
    path = own_cohort.folder / "cohort.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"noise": dict.fromkeys(own_cohort.sites, noise)}))
    assert "expected a site that annotates epidural" in on_cohort(read_cohort(own_cohort.folder))


def test_a_run_that_goes_on_needs_nothing_it_began_with(cohort: Cohort, tmp_path: Path) -> None:
    """Its start file may be gone; its settings may not be others."""
    config = tiny_config(run__name="run", resume=True, start="gone", paths__runs=str(tmp_path))
    start_run(tmp_path / "run", config, cohort, "cpu", ())
    request = Request(config=config)
    check_on_cohort(request, cohort)
    assert "start" not in [what for what, _ in refusals(request)]
    config.seed = 7
    with pytest.raises(ValueError, match=r"^resume: .*seed differ"):
        check_on_cohort(request, cohort)


@pytest.mark.slow
def test_settings_of_sites_do_not_stop_the_pooled_part_of_a_gap(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=1, baseline=Baseline.central, faults__sites={"site-1": "crash"}, strategy__min_sites=3)
    run_federation(config, cohort, tmp_path / "run", ())


def test_words_about_data_that_are_there_must_be_true_of_them(here: Path) -> None:
    """A false argument is refused, a true one changes nothing; of the demo also what nobody typed, for it is drawn by default."""
    for name in ("mine", "demo"):
        (here / "prepared" / name).mkdir(parents=True)
        facts = {"image": "windows", "request": {"image": "windows", "size": 96, "hash_ids": True}}
        (here / "prepared" / name / "prepare.json").write_text(json.dumps(facts))

    def request(name: str, size: int, *typed: str) -> Request:
        return Request(config=tiny_config(data__name=name, data__size=size), typed=frozenset(typed))

    with pytest.raises(ValueError, match=r"^data\.size: expected 96, as prepared/mine was made with, got 64"):
        check_asked_data(request("mine", 64, "data.size"))
    check_asked_data(request("mine", 64))  # a default of the command, of which nobody spoke
    with pytest.raises(ValueError, match=r"^data\.image: expected windows, as prepared/demo was made with, got hu"):
        check_asked_data(request("demo", 96))
    true = request("mine", 96, "data.size")
    check_asked_data(true)
    assert "data.size" in true_of_data(true)
    assert request_image(true) is ImageKind.windows  # whatever data.image says
    check_effects(true)
    shifted = Request(config=tiny_config(data__name="mine", train__hu_shift=5.0), typed=frozenset({"train.hu_shift"}))
    with pytest.raises(ValueError, match=r"^train\.hu_shift: expected images in Hounsfield units"):
        check_effects(shifted)
