"""Sums from which sites choose together, and what the stages are worth beside each other."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.learning.inference.blending import BY_SIGMA, BY_WEIGHT, GRIDS, choose_stages, smooth_logits, stage_sums
from fl_rsna.learning.metrics.comparison import compare_stages
from fl_rsna.learning.metrics.metrics import auroc, log_loss
from fl_rsna.learning.models.series_head import as_probabilities, final_probabilities
from fl_rsna.task import ICH

DRAW = np.random.default_rng(0)
LABELS = (DRAW.random((40, 6)) < 0.3).astype(np.float32)
GOOD, BAD = ((3 * LABELS - 2 + DRAW.normal(0, noise, LABELS.shape)).astype(np.float32) for noise in (0.5, 6))
INDEX = pd.DataFrame({"patient_id": np.repeat(list("abcd"), 10), "series_id": "s", "rank": np.tile(range(10), 4)})
ALL = np.ones(6, bool)


def test_sums_of_sites_add_and_choose_what_is_better() -> None:
    whole = stage_sums(LABELS, BAD, GOOD, INDEX)
    halves = [stage_sums(LABELS[of], BAD[of], GOOD[of], INDEX[of]) for of in (slice(0, 20), slice(20, 40))]
    for name, grid in GRIDS.items():
        assert whole[name].shape == (6, grid)
        np.testing.assert_allclose(whole[name], halves[0][name] + halves[1][name])
    assert (choose_stages(whole, ALL)[1] > 0.7).all()
    assert (choose_stages(stage_sums(LABELS, GOOD, BAD, INDEX), ALL)[1] < 0.3).all()


def test_a_label_nobody_knows_keeps_the_slice_model() -> None:
    """One without a positive, and one whose sums were withheld."""
    sums = stage_sums(LABELS, BAD, GOOD, INDEX)
    sums = {name: np.where(np.arange(6)[:, None] == 2, 0, of) for name, of in sums.items()}
    sigmas, weights = choose_stages(sums, np.arange(6) != 4)
    assert (sigmas[[2, 4]].tolist(), weights[[2, 4]].tolist()) == ([0, 0], [0, 0])
    assert (weights[[0, 1, 3, 5]] > 0).all()
    found = final_probabilities(BAD, GOOD, weights, ICH)
    np.testing.assert_array_equal(found[:, [2, 4]], as_probabilities(BAD, ICH)[:, [2, 4]])


def test_one_patients_series_is_not_smoothed_into_anothers() -> None:
    """All series have one name; the first patient's slices are far from the others'."""
    logits = np.zeros((40, 6), np.float32)
    logits[:10] = 8
    np.testing.assert_allclose(smooth_logits(logits, INDEX, np.full(6, 2.0)), logits)


def test_the_sum_at_no_smoothing_and_at_no_head_is_the_slice_models_loss() -> None:
    sums = stage_sums(LABELS, BAD, GOOD, INDEX)
    np.testing.assert_allclose(sums[BY_SIGMA][:, 0], sums[BY_WEIGHT][:, 0])


def test_stages_are_compared_with_the_slice_model_on_the_same_draws() -> None:
    found = {
        "slice": as_probabilities(BAD, ICH),
        "head": as_probabilities(GOOD, ICH),
        "same": as_probabilities(BAD, ICH),
    }
    patients = np.array([f"p{n // 2}" for n in range(40)])
    told = compare_stages(LABELS, found, patients, ICH, seed=0, resamples=100)
    assert "minus_slice" not in told["slice"]
    for name, values in found.items():
        assert told[name]["log_loss"]["value"] == pytest.approx(log_loss(LABELS, values, ICH))
        assert told[name]["auroc"]["any"]["value"] == pytest.approx(auroc(LABELS[:, 0], values[:, 0]))
    apart = told["head"]["minus_slice"]
    assert apart["log_loss"]["value"] == pytest.approx(
        told["head"]["log_loss"]["value"] - told["slice"]["log_loss"]["value"]
    )
    assert apart["log_loss"]["high"] < 0
    same = told["same"]["minus_slice"]
    assert [same["log_loss"][side] for side in ("value", "low", "high")] == [0, 0, 0]
    assert same["auroc"]["any"]["value"] == 0


def test_a_slice_of_unknown_order_is_smoothed_into_nobody() -> None:
    order = np.where(np.arange(40) == 5, "unknown", "position")
    logits = np.zeros((40, 6), np.float32)
    logits[5] = 8
    np.testing.assert_allclose(smooth_logits(logits, INDEX.assign(order=order), np.full(6, 2.0)), logits)
    assert (smooth_logits(logits, INDEX, np.full(6, 2.0))[4] > 0).all()
