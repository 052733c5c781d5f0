"""The names of a sweep's jobs: the words that differ, as they were typed, safe in every file system and unique."""

import re

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from fl_rsna.cli.words import quote_paths
from fl_rsna.run_folder.sweep_words import (
    LONGEST,
    find_fixed_words,
    find_job_words,
    find_varied_keys,
    folder_name,
    map_typed_words,
    sweep_name,
)


@pytest.mark.parametrize(
    ("typed", "job", "words"),
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
    typed: list[str], job: list[str], words: list[str]
) -> None:
    assert find_job_words(job, find_fixed_words(typed), map_typed_words(typed)) == words


def test_names_are_the_words_where_they_can_be() -> None:
    assert folder_name(["strategy=fedbn"]) == "strategy=fedbn"
    assert folder_name(["train.learning_rate=0.001", "seed=1"]) == "train.learning_rate=0.001+seed=1"
    assert folder_name([]) == "as-configured"


def test_names_are_safe_and_unique_whatever_was_typed() -> None:
    words = [
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
    names = [folder_name([word]) for word in words]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[A-Za-z0-9._=+-]+", name)
        assert len(name) <= LONGEST


def test_the_same_words_are_the_same_sweep() -> None:
    words = ["strategy=fedavg,fedbn", "rounds=2"]
    assert find_varied_keys(words) == ["strategy"]
    assert sweep_name(words) == sweep_name([*reversed(words), "resume=true", "paths.runs=elsewhere"])
    assert sweep_name(words) != sweep_name(["strategy=fedavg,fedbn", "rounds=3"])


@pytest.mark.parametrize(
    "word", ["start=runs/s/strategy=fedbn+seed=1", "models=[runs/s/a=1,runs/b]", "start=r/a=1,r/a=2"]
)
def test_a_folder_named_by_words_can_be_typed_as_it_stands(word: str) -> None:
    read = OverridesParser.create().parse_override(quote_paths(word))
    values = list(read.sweep_string_iterator()) if read.is_sweep_override() else [str(read.value())]
    assert "".join(values).replace("'", "").replace(", ", ",") == word.partition("=")[2].replace("r/a=1,", "r/a=1")


@pytest.mark.parametrize(
    "word", ["a=b", "a='b=c'", "faults.sites={site-1: crash@1}", "a=(b=c", "--multirun", "~a", "rounds=1=2"]
)
def test_other_words_stay_as_they_are(word: str) -> None:
    assert quote_paths(word) == word
