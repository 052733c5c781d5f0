"""A blend lies between its models, and its weights are chosen from sums that sites add up."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from fl_rsna.learning.inference.blending import WEIGHTS, blend_sums, choose_weights, enforce_union, loss_sums
from fl_rsna.learning.inference.ensemble_weights import combine_logits, convex_weights, out_of_fold, sums_at
from fl_rsna.learning.models.series_head import blend_logits
from fl_rsna.task import ICH


def models(n: int = 2000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n, 2] and three models' logits [3, n, 2]: two that see different halves of the truth, one that guesses."""
    rng = np.random.default_rng(seed)
    parts = rng.normal(0, 1.5, (2, n, 2))
    labels = (rng.random((n, 2)) < expit(parts.sum(0) - 1)).astype(np.float64)
    return labels, np.stack([1.6 * parts[0] - 0.8, 1.6 * parts[1] - 0.8, rng.normal(0, 1, (n, 2))])


def test_the_ends_are_the_models_themselves() -> None:
    _, (a, b, _) = models()
    assert np.array_equal(blend_logits(a, b, np.array([0.0, 1.0])), np.stack([a[:, 0], b[:, 1]], 1))
    assert blend_logits(a, b, np.array([0.5, 0.5])) == pytest.approx((a + b) / 2)


def test_sums_of_sites_add_and_the_chosen_blend_beats_both() -> None:
    labels, (a, b, _) = models()
    whole = blend_sums(labels, a, b)
    assert whole.shape == (2, len(WEIGHTS))
    assert blend_sums(labels[:300], a[:300], b[:300]) + blend_sums(labels[300:], a[300:], b[300:]) == pytest.approx(
        whole
    )
    chosen = choose_weights(whole)
    assert (np.abs(chosen - 0.5) < 0.15).all()
    assert (loss_sums(labels, blend_logits(a, b, chosen)) < whole[:, [0, -1]].min(axis=1)).all()


def test_two_equal_models_and_labels_nobody_knows_take_the_first() -> None:
    labels, (a, b, _) = models()
    assert (choose_weights(blend_sums(labels, a, a)) == 0).all()
    assert (choose_weights(blend_sums(np.full_like(labels, np.nan), a, b)) == 0).all()


def test_convex_weights_are_the_least_loss_on_the_simplex() -> None:
    labels, members = models()
    weights = convex_weights(lambda at: sums_at(labels, members, at), models=3, labels=2)
    assert weights.sum(1) == pytest.approx(1)
    assert (weights >= 0).all()
    for label in range(2):
        best = minimize(
            lambda w, label=label: sums_at(labels, members, np.tile(w, (2, 1))).loss[label] / len(labels),
            np.full(3, 1 / 3),
            bounds=[(0, 1)] * 3,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
            options={"ftol": 1e-12},
        )
        assert weights[label] == pytest.approx(best.x, abs=2e-3)


def test_convex_weights_need_a_handful_of_sums_which_add_over_sites() -> None:
    labels, members = models()
    asked: list[np.ndarray] = []

    def ask(at: np.ndarray):  # type: ignore[no-untyped-def]
        asked.append(at)
        return sums_at(labels[:700], members[:, :700], at) + sums_at(labels[700:], members[:, 700:], at)

    apart = convex_weights(ask, models=3, labels=2)
    assert len(asked) <= 8
    assert apart == pytest.approx(convex_weights(lambda at: sums_at(labels, members, at), models=3, labels=2), abs=1e-6)


def test_a_better_model_takes_all_and_unknown_labels_leave_weights_equal() -> None:
    labels, members = models()
    labels[:, 1] = np.nan
    sure = np.stack([8 * labels[:, [0, 0]] - 4, members[2], -members[2]])
    weights = convex_weights(lambda at: sums_at(labels, sure, at), models=3, labels=2)
    assert weights[0] == pytest.approx([1, 0, 0], abs=1e-6)
    assert weights[1] == pytest.approx(np.full(3, 1 / 3))
    assert combine_logits(sure, weights)[:, 0] == pytest.approx(sure[0][:, 0], abs=1e-4)


def test_the_gradient_and_curvature_are_those_of_the_loss() -> None:
    labels, members = models(50)
    at, small = np.array([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]), 1e-5
    sums = sums_at(labels, members, at)
    for m in range(3):
        step = np.zeros_like(at)
        step[:, m] = small
        ahead, behind = sums_at(labels, members, at + step), sums_at(labels, members, at - step)
        assert (ahead.loss - behind.loss) / (2 * small) == pytest.approx(sums.gradient[:, m], rel=1e-5)
        assert (ahead.gradient - behind.gradient) / (2 * small) == pytest.approx(sums.curvature[:, m], rel=1e-4)


def test_the_union_is_no_less_likely_than_any_other_label() -> None:
    found = enforce_union(np.array([[0.1, 0.2, 0.3, 0.1, 0.0, 0.2], [0.9, 0.2, 0.3, 0.1, 0.0, 0.2]]), ICH)
    assert found[:, 0] == pytest.approx([0.3, 0.9])
    assert found[:, 1:] == pytest.approx(np.array([[0.2, 0.3, 0.1, 0.0, 0.2]] * 2))


def test_a_patients_own_slices_have_no_part_in_the_weights_of_its_fold() -> None:
    labels, members = models(400)
    patients = np.arange(400) // 4
    before = out_of_fold(labels, members, patients, seed=0)
    turned = labels.copy()
    turned[:4] = 1 - turned[:4]
    assert out_of_fold(turned, members, patients, seed=0)[:4] == pytest.approx(before[:4])
    assert not np.allclose(out_of_fold(turned, members, patients, seed=0), before)
