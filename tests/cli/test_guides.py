"""The --help of the commands with settings: short enough, complete, and made of the declarations."""

import pytest
from package import COMMANDS, ROOT

from fl_rsna.cli.guess import read_arguments
from fl_rsna.cli.guides import CHOICES, GUIDES, SHOWN, list_command_keys, write_help
from fl_rsna.cli.start import find_topic
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings
from fl_rsna.settings.reference import list_default_choices, list_groups
from fl_rsna.settings.suggest import list_keys


@pytest.mark.parametrize("name", sorted(GUIDES))
def test_a_help_fits_two_screens_and_explains_every_setting_it_shows(name: str) -> None:
    guide, said = GUIDES[name], write_help(name)
    lines = said.splitlines()
    assert (len(lines) <= 80, max(map(len, lines)) <= 100) == (True, True)
    one_line = " ".join(said.split())
    meanings = {key: declared.meaning for key, _, declared in list_settings(guide.schema())}
    for key in guide.main:
        assert f" {key}=" in one_line
        assert f"{meanings[key]} (" in one_line
    assert len(guide.examples) == 3
    assert (ROOT / guide.page).is_file()
    assert name in COMMANDS


def test_type_default_and_range_are_those_of_the_declaration() -> None:
    assert (
        "rounds=10 number of rounds; in each, sites train and the server aggregates (whole number, 1 or more)"
        in " ".join(write_help("simulate").split())
    )
    assert "train.learning_rate=0.002 learning rate of a site's optimizer (number, more than 0)" in " ".join(
        write_help("simulate", "train.learning_rate").split()
    )
    assert "(adamw, sgd)" in write_help("simulate", "train.optimizer")


@pytest.mark.parametrize("name", sorted(GUIDES))
def test_the_words_of_every_example_are_known(name: str) -> None:
    keys = list_keys() if GUIDES[name].schema is Config else list_command_keys(name)
    for arguments in GUIDES[name].examples:
        typed = arguments.split()
        assert read_arguments(name, typed, keys) == typed
        assert {argument.partition("=")[0] for argument in typed if "=" in argument} <= {*keys}


def test_all_has_every_setting_and_a_group_its_own() -> None:
    every = write_help("simulate", "all")
    for key, _, _ in list_settings(Config()):
        assert f"\n  {key}=" in f"\n{every}"
    assert "strategy.mu=" in every
    train = write_help("simulate", "train")
    assert ("train.momentum=" in train, "rounds=" in train) == (True, False)
    assert all(name in write_help("simulate", "model") for name in list_groups()["model"])


def test_an_unknown_topic_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(
        ValueError, match=r"--help trian: expected a group of settings, a key or all; did you mean --help train\?"
    ):
        write_help("simulate", "trian")


def test_every_group_says_what_it_chooses_and_the_default() -> None:
    assert set(CHOICES) == set(list_groups()) >= set(SHOWN)
    assert set(list_default_choices()) == set(list_groups())
    assert "strategy=fedavg " in write_help("simulate")


@pytest.mark.parametrize(
    ("arguments", "topic"),
    [
        ("rounds=5", None),
        ("--help", ""),
        ("rounds=5 -h", ""),
        ("--help data", "data"),
        ("--help=data rounds=5", "data"),
        ("--help rounds=5", ""),
        ("-m --help -m", ""),
    ],
)
def test_help_is_found_among_the_arguments(arguments: str, topic: str | None) -> None:
    assert find_topic(arguments.split()) == topic
