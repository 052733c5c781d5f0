"""Options are found wherever they stand among the arguments, and what is none of Hydra's is refused in one sentence."""

import pytest

from fl_rsna.cli.hydra_arguments import split_options


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("rounds=1 --multirun seed=0,1", "--multirun rounds=1 seed=0,1"),
        ("-m rounds=1", "-m rounds=1"),
        ("rounds=1 --cfg job", "--cfg job rounds=1"),
        ("rounds=1 --cfg=job seed=1", "--cfg=job rounds=1 seed=1"),
        ("seed=1 --info rounds=2", "--info seed=1 rounds=2"),
        ("+match.prevalence.any=0.1 ~task", "+match.prevalence.any=0.1 ~task"),
    ],
)
def test_options_come_first_and_words_keep_their_order(typed: str, read: str) -> None:
    options, arguments = split_options(typed.split(), "rounds=5")
    assert [*options, *arguments] == read.split()


@pytest.mark.parametrize("option", ["--colour=5", "--qqq", "-x"])
def test_an_option_that_is_none_is_refused(option: str) -> None:
    with pytest.raises(ValueError, match=rf"^{option}: expected key=value settings.*--help lists them$"):
        split_options(["seed=1", option], "rounds=5")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("--multirn", "--multirun"), ("--multi-run", "--multirun"), ("--confg-name=x", "--config-name")],
)
def test_the_option_that_was_meant_is_named(typed: str, meant: str) -> None:
    with pytest.raises(ValueError, match=rf"got an option that is none; did you mean {meant}\?$"):
        split_options([typed], "rounds=5")
