"""The names of a sweep's jobs: the settings that differ, as they were typed, safe in every file system and unique."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fl_rsna.cli.hydra_arguments import quote_paths
from fl_rsna.run_folder.sweep_settings import (
    LONGEST,
    find_fixed_settings,
    find_job_settings,
    find_varied_keys,
    folder_name,
    map_typed_settings,
    sweep_name,
)


@pytest.mark.parametrize(
    ("typed", "job", "settings"),
    [
        (["strategy=fedavg,fedbn", "rounds=2"], ["strategy=fedbn", "rounds=2"], ["strategy=fedbn"]),
        (["a=0.001,1e30"], ["a=1e+30"], ["a=1e30"]),
        (["a=choice(1e3,2)"], ["a=1000.0"], ["a=1e3"]),
        (["a=range(1,4)", "b=true"], ["a=2", "b=True"], ["a=2"]),
        (["+experiment=gap,kaggle"], ["+experiment=gap"], ["experiment=gap"]),
        (["partition.test=[a,b],[c]"], ["partition.test=[a,b]"], ["partition.test=[a,b]"]),
        (["a='x,y','z'"], ["a='x,y'"], ["a='x,y'"]),
        (["f={s: 'a,}'},{t: 2}"], ["f={s:'a,}'}"], ["f={s: 'a,}'}"]),
        (["a=sort(2,1)"], ["a=1"], ["a=1"]),
        (["a=1", "b=2"], ["a=1", "b=2"], ["a=1", "b=2"]),  # nothing was varied
    ],
)
def test_a_job_is_called_by_the_words_that_differ_as_they_were_typed(
    typed: list[str], job: list[str], settings: list[str]
) -> None:
    assert find_job_settings(job, find_fixed_settings(typed), map_typed_settings(typed)) == settings


def test_names_are_the_words_where_they_can_be() -> None:
    assert folder_name(["strategy=fedbn"]) == "strategy=fedbn"
    assert folder_name(["train.learning_rate=0.001", "seed=1"]) == "train.learning_rate=0.001+seed=1"
    assert folder_name([]) == "as-configured"


def test_names_are_safe_and_unique_whatever_was_typed() -> None:
    settings = [
        "a=[b,c]",
        "a=[b c]",
        "a=b/c",
        "a=b\\c",
        "a={b:c}",
        "a='b c'",
        "a=../c",
        "a=" + "x" * 300,
        "a=" + "x" * 301,
        "a=b=c",
        "a=é",
    ]
    names = [folder_name([setting]) for setting in settings]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._=+-]+", name)
        assert len(name) <= LONGEST


def test_the_same_words_are_the_same_sweep() -> None:
    settings = ["strategy=fedavg,fedbn", "rounds=2"]
    assert find_varied_keys(settings) == ["strategy"]
    assert sweep_name(settings) == sweep_name([*reversed(settings), "resume=true", "paths.runs=elsewhere"])
    assert sweep_name(settings) != sweep_name(["strategy=fedavg,fedbn", "rounds=3"])


@pytest.mark.parametrize(
    "setting", ["start=runs/s/strategy=fedbn+seed=1", "models=[runs/s/a=1,runs/b]", "start=r/a=1,r/a=2"]
)
def test_a_folder_named_by_settings_can_be_typed_as_it_stands(setting: str) -> None:
    read = OverridesParser.create().parse_override(quote_paths(setting))
    values = list(read.sweep_string_iterator()) if read.is_sweep_override() else [str(read.value())]
    assert "".join(values).replace("'", "").replace(", ", ",") == setting.partition("=")[2].replace("r/a=1,", "r/a=1")


@pytest.mark.parametrize(
    "setting", ["a=b", "a='b=c'", "faults.sites={site-1: crash@1}", "a=(b=c", "--multirun", "~a", "rounds=1=2"]
)
def test_other_settings_stay_as_they_are(setting: str) -> None:
    assert quote_paths(setting) == setting
