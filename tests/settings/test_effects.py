"""A setting that acts nowhere is refused or named, and every setting says where it acts."""

import itertools
import json
from functools import cache
from pathlib import Path
from typing import Any, cast

import pytest
from composed import compose_config
from omegaconf import OmegaConf
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.effects import (
    cautions,
    find_need,
    parse_typed_keys,
    refuse_typed,
    without_effect,
)
from fl_rsna.settings.fields import Asked, Command, list_settings
from fl_rsna.settings.reference import conf_folder
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.training import Optimizer
from fl_rsna.simulation.simulation import PARTS, run_federation
from fl_rsna.strategies.find import STRATEGIES


@cache
def chosen(*groups: str) -> Config:
    return compose_config(groups)


def asked(arguments: str, command: Command = Command.simulate) -> tuple[Asked, frozenset[str]]:
    """What arguments ask for: groups as Hydra composes them, each set of them once, and settings on top."""
    groups = [argument for argument in arguments.split() if (conf_folder() / argument.partition("=")[0]).is_dir()]
    others = [argument for argument in arguments.split() if argument not in groups]
    if "strategy." in arguments:
        config = compose_config(arguments.split())
    else:
        merged = OmegaConf.merge(OmegaConf.structured(chosen(*groups)), OmegaConf.from_dotlist(others))
        config = cast(Config, OmegaConf.to_object(merged))
    return Asked(config=config, command=command, image=config.data.image), parse_typed_keys(arguments.split(), config)


def test_every_need_can_be_asked_in_every_configuration() -> None:
    """A need that reads a setting which is not there would fail only where somebody chose what it belongs to."""
    configs = [Config(strategy=strategy.settings()) for strategy in STRATEGIES.values()]
    for config, command in itertools.product(configs, Command):
        for key, _, declared in list_settings(config):
            for need in declared.needs:
                found = need.holds(Asked(config=config, command=command, image=ImageKind.hu))
                assert isinstance(found, bool), (key, need.arguments)


@pytest.mark.slow
def test_the_defaults_and_every_choice_under_conf_act() -> None:
    """Nobody who takes an experiment as it is hears of settings without effect."""
    for path in sorted(conf_folder().glob("*/*.yaml")):
        if path.parent.name in ("model", "tracking"):  # which only name one, and are many
            continue
        found, _ = asked(f"{path.parent.name}={path.stem}")
        assert without_effect(found) == {}, path


REFUSED = {
    "data.image=windows train.hu_shift=16": "train.hu_shift",
    "data.image=windows train.hu_noise=0.2": "train.hu_noise",
    "train.brightness=0.2": "train.brightness",
    "train.contrast=0.2": "train.contrast",
    "strategy.mu=0.5": "strategy.mu",
    "strategy=scaffold strategy.mu=0.5": "strategy.mu",
    "strategy.q=0.2": "strategy.q",
    "strategy.mu=0.01": "strategy.mu",  # what no strategy but its own has, whatever its value
    "strategy=fedadagrad strategy.beta_1=0.5": "strategy.beta_1",
    "strategy=fedavgm strategy.tau=0.1": "strategy.tau",
    "strategy=fedadam strategy.server_momentum=0.5": "strategy.server_momentum",
    "strategy.trim=0.1": "strategy.trim",
    "strategy=fedmedian strategy.malicious=2": "strategy.malicious",
    "strategy=krum strategy.chosen=3": "strategy.chosen",
    "strategy=fedprox strategy.temperature=0.1": "strategy.temperature",
    "strategy.alpha=0.1": "strategy.alpha",
    "strategy.personal=0.5": "strategy.personal",
    "strategy.adjustment=0.5": "strategy.adjustment",
    "strategy.ema_decay=0.5": "strategy.ema_decay",
    "strategy.averaging=ema strategy.window=5": "strategy.window",
    "strategy=fedmedian strategy.server_learning_rate=0.5": "strategy.server_learning_rate",
    "strategy=krum strategy.server_schedule=cosine": "strategy.server_schedule",
    "strategy.lost=wait": "strategy.lost",
    "baseline=central strategy.fraction=0.5": "strategy.fraction",
    "baseline=central network.speeds.site-1=0.5": "network.speeds",
    "sequence.width=64": "sequence.width",
    "sequence.copies=4": "sequence.copies",
    "stage=stacking stacking.stacker=cnn sequence.head=cnn": "sequence.head",
    "stage=stacking sequence.learning_rate=0.1": "sequence.learning_rate",
    "stacking.depth=2": "stacking.depth",
    "stage=stacking stacking.stacker=cnn stacking.l2=2": "stacking.l2",
    "stage=sequence sequence.encoder=x model.tta=2": "model.tta",
    "stage=sequence sequence.encoder=x train.mixup=0.2": "train.mixup",
    "stage=sequence sequence.encoder=x sequence.copies=1 train.rotate_deg=5": "train.rotate_deg",
    "train.momentum=0.9": "train.momentum",
    "train.focal_gamma=1": "train.focal_gamma",
    "train.negatives=2": "train.negatives",
    "train.mixup_share=0.2": "train.mixup_share",
    "train.local_steps=5 train.local_epochs=2": "train.local_epochs",
    "train.trainable=head train.layer_decay=0.5": "train.layer_decay",
    "model.norm=group model.norm_momentum=0.5": "model.norm_momentum",
    "partition.alpha=0.1": "partition.alpha",
    "partition.sigma=2": "partition.sigma",
    "partition.lacking=2": "partition.lacking",
    "partition=explicit partition.num_sites=3": "partition.num_sites",
    "data.name=mine demo.patients=30": "demo.patients",
    "task=covid_cxr demo.slices_per_series=8": "demo.slices_per_series",
    "data.name=mine data.size=64": "data.size",
    "data.labels=x.csv": "data.labels",
    "data.hash_ids=false data.salt=x": "data.salt",
    "prepare.engine=ray": "prepare.engine",
    "engine.gpus_per_worker=0.5": "engine.gpus_per_worker",
    "tracking.project=mine": "tracking.project",
    "deploy.patience_s=5": "deploy.patience_s",
    "faults.slowdown=3": "faults.slowdown",
}


@pytest.mark.parametrize("arguments", REFUSED)
def test_what_somebody_typed_and_acts_nowhere_is_refused_by_its_key(arguments: str) -> None:
    with pytest.raises(ValueError, match=rf"^{REFUSED[arguments]}: expected .*, without which it has no effect, got "):
        refuse_typed(*asked(arguments))


def test_a_refusal_says_what_to_say_instead() -> None:
    with pytest.raises(ValueError, match=r"got 16\.0; say train\.brightness and train\.contrast$"):
        refuse_typed(*asked("data.image=windows train.hu_shift=16"))


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ("train=heavy data.image=windows", "train.hu_shift"),  # a file chose it
        ("sequence.width=128", "sequence.width"),  # somebody typed the default
        ("strategy.min_sites=2", "strategy.min_sites"),  # a bound that does not bind
        ("rounds=3 train.patience=2", "train.patience"),
        ("faults=poison baseline=central", "faults.sites"),
    ],
)
def test_what_else_acts_nowhere_is_named_and_not_refused(arguments: str, key: str) -> None:
    found, typed = asked(arguments)
    refuse_typed(found, typed)
    assert key in without_effect(found, typed)


@pytest.mark.parametrize(
    "arguments",
    [
        "data.image=windows train.hu_shift=0",  # what asks for nothing is no contradiction
        "train.flip=false stage=sequence sequence.encoder=x sequence.copies=1",
        "strategy=fedmedian strategy.weighting=equal",
        "data.image=windows train.brightness=0.2 train.contrast=0.2",
        "strategy=moon strategy.mu=0.5 strategy.temperature=0.2",
        "strategy.mu=0",
        "stage=stacking stacking.stacker=cnn sequence.width=16",
        "rounds=4 train.patience=2",
        "strategy.fraction=0.5 strategy.min_sites=2",
    ],
)
def test_what_acts_or_asks_for_nothing_is_taken(arguments: str) -> None:
    found, typed = asked(arguments)
    refuse_typed(found, typed)
    assert without_effect(found, typed) == {}


def test_what_another_command_reads_is_refused_with_its_name() -> None:
    for arguments, command, other in (
        ("engine=ray engine.workers=2", Command.coordinate, "simulate"),
        ("partition.num_sites=2", Command.coordinate, "simulate"),
        ("predict=x", Command.coordinate, "simulate"),
        ("rounds=3", Command.prepare, "simulate"),
        ("deploy.attempts=2", Command.simulate, "coordinate"),
    ):
        found, typed = asked(arguments, command)
        (key,) = {key for key in typed if find_need(key, found)}
        assert find_need(key, found) == f"python -m fl_rsna.{other}"
    taken, typed = asked("partition.name=x strategy.lost=wait deploy.attempts=2", Command.coordinate)
    assert without_effect(taken, typed) == {}


def test_words_name_settings_also_by_a_part_of_them() -> None:
    arguments = ["network.speeds.site-1=0.5", "+match.prevalence.any=0.1", "train=heavy", "rounds=3", "~predict"]
    assert parse_typed_keys(arguments, Config()) == {"network.speeds", "match.prevalence", "rounds"}


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def test_a_run_names_them_at_its_start_and_in_its_summary(cohort: Cohort, tmp_path: Path) -> None:
    """The kind of the images is the cohort's, whatever the settings say."""
    config = tiny_config(rounds=1, train__brightness=0.2, strategy__window=5, data__image=ImageKind.windows)
    run_federation(config, cohort, tmp_path / "run", ())
    named = {
        "train.brightness": "images without Hounsfield units, windows or films",
        "strategy.window": "strategy.averaging=window",
    }
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["without_effect"] == named
    said = [event["text"] for event in lines(tmp_path / "run") if event["event"] == "warning"]
    assert len([text for text in said if "has no effect" in text]) == 2
    assert said[1] == "strategy.window: has no effect in this run, which would need strategy.averaging=window"


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_strategies_whose_papers_assume_sgd_say_so_under_another_optimizer(strategy: str) -> None:
    adaptive, plain = (
        tiny_config(strategy__name=strategy, train__optimizer=optimizer)
        for optimizer in (Optimizer.adamw, Optimizer.sgd)
    )
    warned = strategy in ("fednova", "feddyn")
    assert cautions(plain) == []
    assert [text.startswith(f"strategy.name: {strategy} ") for text in cautions(adaptive)] == [True] * warned


@pytest.mark.parametrize(
    ("salt", "hash_ids", "warned"),
    [("", True, 0), ("pepper", True, 1), ("pepper", False, 0), ("5637ebbab8769328365851fd92e225db", True, 0)],
)
def test_a_salt_that_can_be_guessed_is_said_once(salt: str, hash_ids: bool, warned: int) -> None:
    found = cautions(tiny_config(data__salt=salt, data__hash_ids=hash_ids))
    assert [text.startswith("data.salt: expected 32 random hexadecimal digits") for text in found] == [True] * warned
    assert "pepper" not in "".join(found)


def test_a_gap_is_asked_for_as_a_whole() -> None:
    """What acts in one of its three parts acts; each by itself would name some."""
    found, typed = asked("baseline=gap strategy.fraction=0.5 network.speeds.site-1=0.5")
    assert without_effect(found, typed) == {}
    assert Baseline.central in PARTS.values()
