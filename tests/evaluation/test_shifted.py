"""What evaluate says of a set's prevalence can be said to a run, with the setting it prints."""

import json
import shlex

import numpy as np
import pandas as pd
import pytest
from composed import compose_config

from fl_rsna.evaluation.label_shift import describe_readings, readings, write_prevalence_setting
from fl_rsna.learning.inference.label_shift import Shift, adjust_to_prevalence, estimate_shift
from fl_rsna.learning.metrics.operating_points import Platt, honest
from fl_rsna.task import ICH


def shift(here: list[float], known: list[bool]) -> Shift:
    shares = np.array(here)
    return Shift(prior=shares, likely=shares, here=shares, low=shares, high=shares, known=np.array(known))


def test_the_words_that_are_printed_set_the_prevalence() -> None:
    arguments = write_prevalence_setting(
        shift([0.14, 0.00004, 0.2, 0.1, 0.1, 0.1], [True, True, False, True, False, False]), ICH
    )
    assert arguments is not None
    stated = compose_config(shlex.split(arguments)).match.prevalence
    known = {ICH.labels[1]: 4e-5, ICH.labels[3]: 0.1}
    assert stated == pytest.approx({"any": 0.14, **known})


def test_one_label_is_set_by_its_key_and_an_unknown_one_is_refused() -> None:
    assert compose_config(["+match.prevalence.any=0.14"]).match.prevalence == {"any": 0.14}
    with pytest.raises(ValueError, match=r"^match.prevalence: expected any, .*, got fracture"):
        compose_config(["match.prevalence={fracture: 0.1}"])


@pytest.mark.parametrize("seed", range(3))
def test_the_union_rule_does_not_undo_the_match_of_the_union_label(seed: int) -> None:
    """Every label's mean is what it was matched to, the union label's too, and it is no less likely than any other."""
    rng = np.random.default_rng(seed)
    found = rng.beta(0.3, 3, (400, 6)).astype(np.float32)
    found[:, 0] = np.clip(found[:, 1:].max(axis=1) * rng.uniform(0.6, 2.0, 400), 0.01, 0.99)
    index = pd.DataFrame({"patient_id": np.repeat(np.arange(80), 5)})
    lines = {
        label: Platt(slope=1.0, intercept=0.0, prevalence=float(found[:, i].mean()))
        for i, label in enumerate(ICH.labels)
    }
    read = readings(found, found.astype(np.float64), index, lines, ICH, seed=0)
    straight = np.stack([honest(found[:, i], line) for i, line in enumerate(lines.values())], axis=1)
    alone = adjust_to_prevalence(straight, read.shift.prior, read.shift.here)
    assert (alone[:, 0] < alone[:, 1:].max(axis=1)).any(), "or there is nothing to bound"
    np.testing.assert_allclose(read.risky.mean(axis=0), alone.mean(axis=0), rtol=1e-6)
    assert (read.risky[:, 0] >= read.risky[:, 1:].max(axis=1)).all()
    np.testing.assert_array_equal(read.risky[:, 1:], alone[:, 1:])
    assert (read.moved, describe_readings(read, ICH)["union_rule"]) == (0.0, None)


def test_where_the_others_leave_the_union_label_no_room_the_summary_says_so() -> None:
    rng = np.random.default_rng(0)
    found = np.c_[rng.beta(1, 40, 400), rng.beta(1, 4, (400, 5))].astype(np.float32)
    index = pd.DataFrame({"patient_id": np.repeat(np.arange(80), 5)})
    lines = {
        label: Platt(slope=1.0, intercept=0.0, prevalence=float(found[:, i].mean()))
        for i, label in enumerate(ICH.labels)
    }
    read = readings(found, found.astype(np.float64), index, lines, ICH, seed=0)
    np.testing.assert_array_equal(read.risky[:, 0], read.risky[:, 1:].max(axis=1))
    assert read.moved > 0.1
    assert f"{read.moved:.4f} above" in describe_readings(read, ICH)["union_rule"]
    json.dumps(describe_readings(read, ICH), allow_nan=False)


def test_an_estimate_at_the_end_of_what_can_be_told_has_no_interval() -> None:
    rng = np.random.default_rng(0)
    found = np.c_[rng.uniform(1e-6, 1e-4, 500), rng.beta(1, 3, 500)]
    of = estimate_shift(found, np.array([0.3, 0.25]), np.repeat(np.arange(100), 5))
    assert of.likely[0] == pytest.approx(0.5 / 501)
    assert np.isnan([of.low[0], of.high[0]]).all()
    assert of.low[1] < of.likely[1] < of.high[1]
