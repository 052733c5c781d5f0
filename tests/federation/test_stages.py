"""What two stages are asked for with, and what of it is refused."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from composed import compose_config
from tiny import tiny_config

from fl_rsna.federation.protocol.messages import SequenceInstructions, parse_record, shape_of
from fl_rsna.federation.stages import stages
from fl_rsna.settings.model import Trainable
from fl_rsna.settings.stages import Stage
from fl_rsna.settings.training import Sampling
from fl_rsna.task import ICH


def test_one_stage_is_the_run_as_it_was_asked_for() -> None:
    config = tiny_config()
    assert stages(config, Path("runs/a")) == [(config, Path("runs/a"))]
    assert stages(config, Path("runs/a"))[0][0] is config


def test_both_are_a_slice_run_inside_that_of_the_head() -> None:
    config = compose_config(
        ["stage=both", "train.trainable=head", "train.sampling=weighted", "sequence.rounds=7", "run.name=mine"]
    )
    (first, inside), (second, folder) = stages(config, Path("runs/mine"))
    assert (inside, folder) == (Path("runs/mine/slice"), Path("runs/mine"))
    unstaged = replace(config, stage=Stage.slice, run=replace(config.run, name="slice"))
    assert json.dumps(asdict(first)) == json.dumps(asdict(unstaged))
    assert (second.stage, second.sequence.encoder, second.rounds) == (Stage.sequence, "runs/mine/slice", 7)
    assert (second.train.trainable, second.train.sampling) == (Trainable.all, Sampling.all)
    assert second.train.learning_rate == config.sequence.learning_rate
    assert config.stage is Stage.both  # as it was


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("stage=sequence", r"sequence\.encoder: expected a run or model file for stage=sequence, got nothing"),
        ("stage=both sequence.encoder=runs/a", r"sequence\.encoder: expected nothing with stage=both"),
        ("sequence.encoder=runs/a", r"sequence\.encoder: expected nothing with stage=slice"),
        ("stage=both baseline=gap", "baseline: expected none or central with stage=both, got gap"),
        ("stage=both baseline=local", "baseline: expected none or central"),
        ("stage=sequence sequence.encoder=a start=b", "start: expected nothing with stage=sequence"),
        ("stage=stacking start=b", "start: expected nothing with stage=stacking, .*, got b; leave it out"),
        ("stacking.left_out=0 start=b", r"start: expected nothing with stacking\.left_out"),
        ("sequence.width=12", r"sequence\.width: expected a multiple of 8 from 8 to 1024, got 12"),
        ("sequence.copies=0", r"sequence\.copies: expected 1 or more, got 0"),
        ("sequence.dropout=1", r"sequence\.dropout: expected 0 to less than 1, got 1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(arguments: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        compose_config(arguments.split())


def test_what_a_site_is_told_comes_back_from_json() -> None:
    told = SequenceInstructions(
        encoder_id="e",
        encoder_layout="l",
        copies=2,
        features=3,
        head="gru",
        width=8,
        layers=1,
        dropout=0.1,
        weights=(0.5,) * 6,
    )  # type: ignore[arg-type]
    again = parse_record(SequenceInstructions, json.loads(json.dumps(asdict(told))))
    assert again == told
    assert shape_of(again, ICH).labels == 6
