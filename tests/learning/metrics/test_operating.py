"""Operating points see counts alone, sites' counts add up to the pool's, and points are what their names say."""

import inspect
import json

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from tiny import CHEST

from fl_rsna.learning.metrics.classification import predict_positive
from fl_rsna.learning.metrics.exams import aggregates
from fl_rsna.learning.metrics.metrics import label_losses, slice_losses
from fl_rsna.learning.metrics.operating_points import (
    BINS,
    EDGES,
    TEMPERATURES,
    OperatingPoints,
    calibrate,
    choose,
    choose_points,
    choose_temperature,
    loss_by_temperature,
    score_counts,
    site_sums,
)
from fl_rsna.task import ICH, LabelKind, Task


def scored(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities [n, 6], too sure of themselves by a factor of 2 in the logit."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (n, 6))
    labels = (rng.random((n, 6)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    return labels, (1 / (1 + np.exp(-2 * logits))).astype(np.float32)


def temperatures(labels: np.ndarray, found: np.ndarray, task: Task = ICH) -> dict[str, float | None]:
    return choose_temperature(loss_by_temperature(labels, found, task), task.labels, score_counts(labels, found))


def test_a_bins_edge_is_its_lowest_probability() -> None:
    counts = score_counts(np.ones((BINS, 1), np.float32), EDGES[:, None])
    assert counts.shape == (1, 2, BINS)
    assert (counts[0, 1] == 1).all()
    assert counts[0, 0].sum() == 0
    ends = score_counts(np.zeros((2, 1), np.float32), np.array([[0.0], [1.0]], np.float32))
    assert (ends[0, 0, 0], ends[0, 0, -1]) == (1, 1)


def test_counts_above_an_edge_are_those_of_the_slices() -> None:
    labels, found = scored()
    counts = score_counts(labels, found)
    for edge in (0, 300, 512, 700):
        for label in range(6):
            flagged = predict_positive(found[:, label], EDGES[edge])
            assert counts[label, 1, edge:].sum() == (flagged & (labels[:, label] == 1)).sum()
            assert counts[label, 0, edge:].sum() == (flagged & (labels[:, label] == 0)).sum()


@pytest.mark.parametrize("task", [ICH, CHEST], ids=["labels", "classes"])
def test_sites_choose_what_the_pool_would(task: Task) -> None:
    labels, found = (rows[:, : len(task.labels)] for rows in scored())
    if task is CHEST:
        labels, found = np.eye(4, dtype=np.float32)[labels.argmax(1)], found / found.sum(1, keepdims=True)
    patients, series = np.arange(400) // 10, np.arange(400) // 5
    sites = [patients % 7 == site for site in range(7)]
    parts = [site_sums(labels[rows], found[rows], patients[rows], series[rows], task) for rows in sites]
    added = {name: sum(part[name] for part in parts) for name in parts[0]}
    pooled = choose(site_sums(labels, found, patients, series, task), task)
    assert choose(added, task) == pooled  # type: ignore[arg-type]
    levels = [pooled.slice, *pooled.exam.values()]
    assert list(pooled.exam) == [*aggregates(task.kind)]
    assert all(one != other for i, one in enumerate(levels) for other in levels[:i])


def test_points_are_chosen_from_counts_and_nothing_else() -> None:
    assert list(inspect.signature(choose_points).parameters) == ["counts", "labels"]
    labels, found = scored()
    counts, order = score_counts(labels, found), np.random.default_rng(0).permutation(400)
    assert choose_points(score_counts(labels[order], found[order]), ICH.labels) == choose_points(counts, ICH.labels)


def test_points_hold_what_they_promise_and_the_next_edge_does_not() -> None:
    labels, found = scored()
    for i, points in enumerate(choose_points(score_counts(labels, found), ICH.labels).values()):
        positive = labels[:, i] == 1

        def rates(edge: int, column: int = i, positive: np.ndarray = positive) -> tuple[float, float]:
            flagged = predict_positive(found[:, column], EDGES[edge])
            return flagged[positive].mean(), (~flagged)[~positive].mean()

        sensitive, specific, youden = (int(np.flatnonzero(threshold == EDGES)[0]) for threshold in points.values())
        assert rates(sensitive)[0] >= 0.95 > rates(sensitive + 1)[0]
        assert rates(specific)[1] >= 0.90 > rates(specific - 1)[1]
        assert sum(rates(youden)) == pytest.approx(max(sum(rates(edge)) for edge in range(BINS)))


def test_nineteen_of_twenty_is_95_percent() -> None:
    found = np.r_[np.linspace(0.1, 0.9, 20), 0.01][:, None]
    labels = np.r_[np.ones(20), 0].astype(np.float32)[:, None]
    threshold = choose_points(score_counts(labels, found), ["x"])["x"]["sensitivity_95"]
    assert predict_positive(found[:20, 0], threshold).sum() == 19  # type: ignore[arg-type]


@pytest.mark.parametrize("only", [0, 1])
def test_a_label_of_one_class_has_no_points(only: int) -> None:
    labels, found = np.full((50, 1), only, np.float32), np.linspace(0, 1, 50)[:, None]
    assert set(choose_points(score_counts(labels, found), ["x"])["x"].values()) == {None}
    labels, found = np.tile(labels, 6), np.tile(found, 6)
    assert set(temperatures(labels, found).values()) == {None}


def test_a_temperature_that_nothing_holds_is_not_given() -> None:
    """Probabilities on the right side of one half always are better the surer they are."""
    labels = np.tile(np.arange(50) % 2, (6, 1)).T.astype(np.float32)
    assert set(temperatures(labels, 0.3 + 0.4 * labels).values()) == {None}


def test_a_temperature_of_one_changes_nothing() -> None:
    labels, found = scored()
    np.testing.assert_allclose(calibrate(found, 1.0), found, rtol=1e-6)
    assert TEMPERATURES[50] == pytest.approx(1)
    losses = loss_by_temperature(labels, found, ICH)
    np.testing.assert_allclose(losses[:, 50], label_losses(labels, found).sum(0), rtol=1e-6)


def test_the_temperature_is_the_best_there_is() -> None:
    """Logits were doubled, so the temperature is about 2, and within a step of the grid of the continuous optimum."""
    labels, found = scored(4000)
    for i, temperature in enumerate(temperatures(labels, found).values()):
        best = minimize_scalar(
            lambda t, i=i: label_losses(labels[:, i], calibrate(found[:, i], t)).sum(),
            bounds=(0.2, 5),
            method="bounded",
        )
        assert temperature == pytest.approx(2, rel=0.15)
        assert temperature == pytest.approx(best.x, rel=0.047)


def test_classes_share_one_temperature_and_stay_probabilities() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 1.5, (3000, 4))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.eye(4, dtype=np.float32)[[rng.choice(4, p=row) for row in shares]]
    sure = np.exp(3 * logits) / np.exp(3 * logits).sum(1, keepdims=True)
    sums = loss_by_temperature(labels, sure, CHEST)
    assert sums.shape == (1, len(TEMPERATURES))
    found = temperatures(labels, sure, CHEST)
    assert list(found) == list(CHEST.labels)
    assert len(set(found.values())) == 1
    assert found["typical"] == pytest.approx(3, rel=0.1)
    calm = calibrate(sure, found["typical"], LabelKind.multi_class)  # type: ignore[arg-type]
    np.testing.assert_allclose(calm.sum(1), 1)
    assert slice_losses(labels, calm, CHEST).mean() < slice_losses(labels, sure, CHEST).mean()


def test_operating_points_survive_json() -> None:
    labels, found = scored()
    points = choose_points(score_counts(labels, found), ICH.labels)
    exam = {"max": points, "noisy_or": points}
    chosen = OperatingPoints(slice=points, exam=exam, temperatures=temperatures(labels, found))
    stored = {"chosen_on": "validation parts of the sites", **chosen.to_json()}
    assert OperatingPoints.from_json(json.loads(json.dumps(stored))) == chosen
