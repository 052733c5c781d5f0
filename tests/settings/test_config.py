"""Every choice under conf/ composes, and what is unknown, mistyped or contradictory is refused by name."""

import os
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from composed import compose_config
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from package import ROOT

from fl_rsna.cohort.steps import cohort_name
from fl_rsna.settings.compose import list_arguments, quote_value
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings
from fl_rsna.settings.reference import conf_folder
from fl_rsna.settings.validation import FOLDER_NAMES, check

CHOICES = sorted((path.parent.name, path.stem) for path in conf_folder().glob("*/*.yaml"))


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes(group: str, choice: str) -> None:
    assert isinstance(compose_config([f"{group}={choice}"]), Config)


def test_every_group_has_a_choice() -> None:
    assert {group for group, _ in CHOICES} == {path.name for path in conf_folder().iterdir() if path.is_dir()}


@pytest.mark.parametrize(
    "argument", ["nothing=1", "model.nothing=1", "rounds=many", "data.image=unheard_of", "model=unheard_of"]
)
def test_unknown_and_mistyped_are_refused(argument: str) -> None:
    with pytest.raises(HydraException):
        compose_config([argument])


def test_settings_composed_in_python_were_not_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HydraConfig.instance(), "cfg", None)
    assert list_arguments() == []


@pytest.mark.parametrize("argument", ["+nothing=1", "+model.nothing=1"])
def test_added_keys_are_refused_by_name(argument: str) -> None:
    with pytest.raises(ValueError, match=argument[1:].partition("=")[0]):
        compose_config([argument])


@pytest.mark.parametrize(
    ("argument", "key"),
    [
        ("data.task=unheard_of", "data.task"),
        ("strategy.name=unheard_of", "strategy.name"),
        ("model.name=unheard_of", "model.name"),
        ("partition.kind=unheard_of", "partition.kind"),
        ("rounds=0", "rounds"),
        ("partition.alpha=0", "partition.alpha"),
        ("data.unlabelled=true data.labels=labels.csv", "data.labels"),
        ("partition.test=1", "partition.test"),
        ("strategy.quorum=1.5", "strategy.quorum"),
        ("train.learning_rate=-1", "train.learning_rate"),
        ("train.learning_rate=nan", "train.learning_rate"),
        ("data.name=a/b", "data.name"),
        ("run.name=..", "run.name"),
        ("engine.workers=-1", "engine.workers"),
        ("engine.gpus_per_worker=1.5", "engine.gpus_per_worker"),
        ("engine.address=auto", "engine.address"),
        ("engine=ray engine.address=head", "engine.address"),
        ("engine=ray engine.address=auto engine.workers=2", "engine.workers"),
        ("model.name=efficientnet_b3", "model.pretrained"),
        ("model.pretrained=false model.norm=frozen", "model.norm"),
        ("model.neighbours=-1", "model.neighbours"),
        ("model.tta=0", "model.tta"),
        ("model.tta=9", "model.tta"),
        ("train.layer_decay=0", "train.layer_decay"),
        ("train.layer_decay=1.1", "train.layer_decay"),
        ("model.window=learned data.image=windows", "model.window"),
        ("model.crop=lungs", "model.crop"),
        ("model.crop=boxes_leaky", "model.crop"),
        ("data.task=covid_cxr model.crop=head", "model.crop"),
        ("model.window=personal train.trainable=head", "model.window"),
        ("model=timm model.backbone=null", "model.backbone"),
        ("model.backbone=densenet121", "model.backbone"),
        ("model=densenet121 model.pretrained=true", "model.pretrained"),
        ("model.weights=README.md", "model.weights"),
        ("model.pretrained=false model.weights=nowhere.pth", "model.weights"),
        ("train.local_steps=0", "train.local_steps"),
        ("strategy.trim=0.5", "strategy.trim"),
        ("faults.deadline_s=0", "faults.deadline_s"),
        ("faults.sites={site-1:crash@0}", "faults.sites"),
        ("faults.sites={site-1:nan@3-2}", "faults.sites"),
        ("rounds=3 faults.sites={site-1:crash@9}", "faults.sites"),
        ("stage=both rounds=3 sequence.rounds=5 faults.sites={site-1:crash@6}", "faults.sites"),
        ("partition.test='0.3'", "partition.test"),
        ("train.batch_size=2.5", "train.batch_size"),
        ("network.speeds={site-1:0}", "network.speeds"),
        ("network.downtime={site-1:1}", "network.downtime"),
        ("network.precision_down=int8", "network.precision_down"),
        ("train.smooth_z=2", "train.smooth_z"),
        ("train.smooth_z=0", "train.smooth_z"),
        ("train.cutout=1", "train.cutout"),
        ("train.hu_noise=-0.1", "train.hu_noise"),
        ("train.mixup=-1", "train.mixup"),
        ("train.mixup_share=0", "train.mixup_share"),
        ("train.soft_between=1", "train.soft_between"),
        ("train.negatives=0", "train.negatives"),
        ("train.focal_gamma=-1", "train.focal_gamma"),
        ("train.label_smoothing=1", "train.label_smoothing"),
        ("train.batch_size=1", "train.batch_size"),
        ("train.batch_size=most", "train.batch_size"),
        ("train.batch_size=null", "train.batch_size"),
        ("task=covid_cxr data.image=hu", "data.image"),
        ("data.image=grey", "data.image"),
        ("data.task=covid_cxr", "data.image"),
        ("task=covid_cxr model.neighbours=1", "model.neighbours"),
        ("task=covid_cxr train.hu_shift=5", "train.hu_shift"),
        ("task=covid_cxr train.smooth_z=3", "train.smooth_z"),
        ("task=covid_cxr train.soft_between=0.3", "train.soft_between"),
        ("task=covid_cxr train.sampling=under", "train.sampling"),
        ("task=covid_cxr stage=both", "stage"),
        ("data.unannotated=[fracture]", "data.unannotated"),
        ("task=covid_cxr data.unannotated=[atypical]", "data.unannotated"),
        ("task=covid_cxr partition.noise={site-1:{unannotated:[atypical]}}", "partition.noise"),
        ("partition.noise={site-1:{unannotated:[fracture]}}", "partition.noise.site-1.unannotated"),
        ("strategy=fedavg_logit_adjusted train.sampling=weighted train.correction=none", "train.correction"),
        ("strategy=scaffold strategy.weighting=examples", "strategy.weighting"),
        ("strategy.name=scaffold", "strategy.weighting"),
        ("strategy=feddyn strategy.server_learning_rate=0.5", "strategy.server_learning_rate"),
        ("strategy=feddyn strategy.server_schedule=cosine", "strategy.server_schedule"),
    ],
)
def test_values_out_of_range_and_contradictions_name_the_key(argument: str, key: str) -> None:
    with pytest.raises(ValueError, match=f"^{key}: expected "):
        compose_config(argument.split())


def paths_of(settings: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every setting by its key, with its default."""
    for field in fields(settings):
        value, key = getattr(settings, field.name), f"{path}.{field.name}".lstrip(".")
        yield from paths_of(value, key) if is_dataclass(value) else [(key, value)]


@pytest.mark.parametrize("number", [float("inf"), -float("inf"), float("nan"), 2**63, -(10**400)])
def test_a_number_that_is_none_is_refused_wherever_it_stands(number: float) -> None:
    """As a setting, and below one that is a mapping or a list; before anything else is looked at."""
    for key, default in paths_of(Config()):
        group, _, name = key.rpartition(".")
        inside: list[Any] = []
        if isinstance(default, dict):
            inside = [{"site-1": number}, {"site-1": {"blur": [number]}}]
        for value in [number, [number], *inside]:
            config = Config()
            setattr(getattr(config, group) if group else config, name, value)
            with pytest.raises(ValueError, match=rf"^{key}[\w.-]*: expected a (finite )?number"):
                check(config)


@pytest.mark.parametrize(
    "argument", ["network.latency_s=inf", "network.speeds={site-1:nan}", "train.learning_rate=1e400"]
)
def test_words_that_are_no_number_are_refused(argument: str) -> None:
    with pytest.raises(ValueError, match="expected a finite number"):
        compose_config([argument])


def test_every_number_has_a_range_and_every_setting_a_meaning() -> None:
    """A new setting must say what it means, and a numeric one what it may be."""
    for key, value, declared in list_settings(Config()):
        assert declared.meaning, key
        number = isinstance(value, int | float) and not isinstance(value, bool)
        assert (declared.within is not None) >= number, key
    assert set(FOLDER_NAMES) == {"data.name", "partition.name", "run.name", "predict"}


def test_defaults_are_valid() -> None:
    check(Config())


def test_cohort_name_changes_with_every_partition_setting_and_nothing_else() -> None:
    arguments = [
        "partition.num_sites=5",
        "partition=dirichlet",
        "partition.seed=1",
        "partition.test=0.3",
        "partition.validation=0.3",
        "data.name=x",
    ]
    names = {cohort_name(compose_config([argument])) for argument in ["rounds=6", *arguments]}
    assert len(names) == len(arguments) + 1
    assert cohort_name(compose_config(["rounds=3", "seed=7"])) == cohort_name(compose_config([]))
    assert cohort_name(compose_config(["partition.name=mine"])) == "mine"


def test_conf_is_found_in_a_checkout() -> None:
    assert conf_folder() == ROOT / "conf"


ODD = (
    "a b",
    "a,b",
    "a=b",
    "[x]",
    "{x}",
    "it's",
    'say "x"',
    "Charité 東京",
    "a\\",
    "a\\'",
    "${x}",
    "$HOME",
    "null",
    "1e3",
    "#1",
    "(x)",
    "~",
    "a:b",
    " ",
)


@pytest.mark.parametrize("name", ODD)
def test_a_quoted_word_is_read_as_it_was(name: str) -> None:
    assert compose_config([f"run.name={quote_value(name)}"]).run.name == name


@pytest.mark.parametrize("key", ["run.name", "data.name", "paths.runs", "paths.sites", "paths.prepared"])
def test_folders_to_write_into_are_utf8_and_files_to_read_need_not_be(key: str) -> None:
    config, strange = Config(), os.fsdecode(b"caf\xe9")
    group, name = key.split(".")
    setattr(getattr(config, group), name, strange)
    with pytest.raises(ValueError, match=rf"{key}: expected a path in UTF-8, got 'caf\\udce9'"):
        check(config)
    config = Config()
    config.data.dicom = config.data.labels = strange
    check(config)
