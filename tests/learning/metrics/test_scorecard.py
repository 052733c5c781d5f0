"""The scorecard is plain JSON, agrees with its parts, and says what it cannot say."""

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.learning.inference.predict import exam_table
from fl_rsna.learning.metrics.bootstrap import draw_patients
from fl_rsna.learning.metrics.classification import class_scores
from fl_rsna.learning.metrics.exams import Aggregate, aggregates, exam_probabilities, group_exams
from fl_rsna.learning.metrics.metrics import auroc, average_precision, log_loss
from fl_rsna.learning.metrics.operating_points import OperatingPoints, choose, site_sums
from fl_rsna.learning.metrics.ranking import pr_points, roc_points
from fl_rsna.learning.metrics.scorecard import BINS, scorecard
from fl_rsna.task import ICH, Task

PATIENTS, SERIES, EACH = 24, 2, 6


def scored(task: Task = ICH) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Labels, probabilities, patients and series; a label each by patient in turn, the last label never."""
    rng = np.random.default_rng(0)
    patients = np.repeat(np.arange(PATIENTS), SERIES * EACH)
    series = np.repeat(np.arange(PATIENTS * SERIES), EACH)
    labels = np.zeros((len(patients), len(task.labels)), np.float32)
    kind = patients % (len(task.labels) - 1)
    labels[np.arange(len(patients)), kind] = task is CHEST or np.tile([0, 1], len(patients) // 2)
    logits = 2 * labels + rng.normal(0, 1, labels.shape)
    found = np.exp(logits) / np.exp(logits).sum(1, keepdims=True) if task is CHEST else 1 / (1 + np.exp(1 - logits))
    return labels, found.astype(np.float32), patients, series


def chosen(task: Task = ICH) -> OperatingPoints:
    return choose(site_sums(*scored(task), task), task)


def card(task: Task = ICH, settings: OperatingPoints | None = None, with_series: bool = True) -> dict[str, Any]:
    labels, found, patients, series = scored(task)
    return scorecard(
        labels, found, patients, series if with_series else None, task=task, settings=settings, seed=3, resamples=100
    )


def test_a_scorecard_is_plain_json_and_the_same_again() -> None:
    found = card(settings=chosen())
    assert json.loads(json.dumps(found, allow_nan=False)) == found == card(settings=chosen())
    assert (found["slices"], found["patients"], found["exams"]) == (288, 24, 48)
    assert set(found["exam"]) == {"max", "noisy_or"}


def test_values_are_those_of_the_single_metrics() -> None:
    labels, probabilities, patients, series = scored()
    found, exams = card(), group_exams(labels, patients, series)
    assert found["log_loss"]["value"] == pytest.approx(log_loss(labels, probabilities, ICH))
    for i, label in enumerate(ICH.labels):
        assert found["slice"][label]["auroc"]["value"] == pytest.approx(auroc(labels[:, i], probabilities[:, i]))
        for how in aggregates(ICH.kind):
            of_exams = exam_probabilities(probabilities, exams, how)[:, i]
            expected = average_precision(exams.labels[:, i], of_exams)
            assert found["exam"][how.value][label]["average_precision"]["value"] == pytest.approx(expected)


def test_a_label_that_never_was_has_numbers_only_where_they_mean_something() -> None:
    never = card(settings=chosen())["slice"][ICH.labels[-1]]
    assert never["auroc"]["positives"] == never["auroc"]["positive_patients"] == 0
    assert never["auroc"]["value"] is never["average_precision"]["value"] is never["brier"]["low"] is None
    assert never["brier"]["value"] > 0
    assert never["points"] == {"sensitivity_95": None, "specificity_90": None, "youden": None}
    assert never["temperature"] is never["calibration"]["after"] is None


def test_scores_of_exams_are_of_those_that_the_table_of_exams_calls_known() -> None:
    """Half of the slices of every other exam have no label; all of them speak for their exam."""
    labels, found, patients, series = scored()
    labels[(series % 2 == 1) & (np.arange(len(series)) % EACH < EACH // 2)] = np.nan
    labels[series == 4] = np.nan
    index = pd.DataFrame({"patient_id": patients, "study_id": "t", "series_id": series}).astype(str)
    table, card_ = (
        exam_table(index, found, labels, ICH),
        scorecard(labels, found, patients, series, task=ICH, settings=None, seed=3, resamples=100),
    )
    assert card_["slices"] == int((~np.isnan(labels[:, 0])).sum())
    for i, label in enumerate(ICH.labels[:-1]):
        known = table[f"label_{label}"].notna()
        assert 0 < known.sum() < len(table)
        area = card_["exam"]["max"][label]["auroc"]
        truth = table.loc[known, f"label_{label}"].to_numpy(np.float32)
        assert (area["positives"], area["negatives"]) == (truth.sum(), (1 - truth).sum())
        assert area["value"] == pytest.approx(auroc(truth, table.loc[known, f"max_{label}"].to_numpy()))
        counts = site_sums(labels, found, patients, series, ICH)["max"][i].sum(axis=1)
        assert counts.tolist() == [area["negatives"], area["positives"]]
        rows = ~np.isnan(labels[:, i])
        assert card_["slice"][label]["auroc"]["value"] == pytest.approx(auroc(labels[rows, i], found[rows, i]))


def test_what_nobody_labelled_changes_no_score_of_the_others() -> None:
    labels, found, patients, series = scored()
    whole = [np.r_[part, part] for part in (labels, found)]
    whole[0][len(labels) :] = np.nan
    more = np.r_[patients, patients + 100], np.r_[series, series + 100]
    again = scorecard(*whole, *more, task=ICH, settings=chosen(), seed=3, resamples=100)  # type: ignore[misc]
    assert again == card(settings=chosen())


def test_points_and_temperatures_are_applied_as_they_come() -> None:
    settings = chosen()
    found = card(settings=settings)
    for label in ICH.labels[:-1]:
        shown = found["slice"][label]
        assert {name: point["threshold"] for name, point in shown["points"].items()} == settings.slice[label]
        assert shown["points"]["sensitivity_95"]["sensitivity"]["value"] >= 0.95
        assert shown["points"]["specificity_90"]["specificity"]["value"] >= 0.90
        point = shown["points"]["youden"]
        assert point["tp"] + point["fp"] + point["tn"] + point["fn"] == 288
        assert point["sensitivity"]["value"] + point["false_negative_rate"]["value"] == pytest.approx(1)
        exam = found["exam"]["max"][label]["points"]["youden"]
        assert exam["threshold"] == settings.exam["max"][label]["youden"]
        assert shown["temperature"] == settings.temperatures[label]


def test_without_settings_or_series_nothing_is_made_up() -> None:
    found = card(with_series=False)
    assert (found["exams"], found["exam"]) == (0, {})
    assert found["slice"]["any"]["points"] == {}
    assert found["slice"]["any"]["calibration"]["after"] is None


def test_the_curve_holds_every_slice_once() -> None:
    curve = card()["slice"]["any"]["calibration"]["before"]["bins"]
    assert len(curve) == BINS
    assert sum(part["count"] for part in curve) == 288
    for part in curve:
        if part["count"]:
            assert part["low"] <= part["mean"] <= part["high"]
        else:
            assert part["mean"] is part["share"] is part["share_low"] is None


def test_classes_are_scored_one_against_the_rest() -> None:
    labels, probabilities, *_ = scored(CHEST)
    found = card(CHEST, chosen(CHEST))
    assert found["log_loss"]["value"] == pytest.approx(log_loss(labels, probabilities, CHEST))
    assert found["log_loss"]["low"] < found["log_loss"]["value"] < found["log_loss"]["high"]
    for i, label in enumerate(CHEST.labels):
        assert found["slice"][label]["auroc"]["value"] == pytest.approx(auroc(labels[:, i], probabilities[:, i]))
    assert found["slice"]["typical"]["calibration"]["after"]["brier"]["value"] > 0


def test_classes_are_scored_together_over_the_same_draws_and_labels_are_not() -> None:
    """At exam level the mean of an exam's slices is what is ranked, and the only thing."""
    labels, probabilities, patients, series = scored(CHEST)
    found, drawn = card(CHEST, chosen(CHEST)), draw_patients(patients, seed=3, resamples=100)
    assert found["classes"]["slice"] == class_scores(labels, probabilities, drawn, CHEST.labels)
    assert list(found["exam"]) == ["mean"]
    exams = group_exams(labels, patients, series)
    mean = exam_probabilities(probabilities, exams, Aggregate.mean)
    of_exams = class_scores(exams.labels, mean, drawn.of_rows(exams.patients), CHEST.labels)
    assert found["classes"]["exam"] == of_exams
    assert sum(cell["count"] for row in of_exams["confusion"].values() for cell in row.values()) == 48
    assert "exam" not in card(CHEST, with_series=False)["classes"]
    assert "classes" not in card()
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_curve_points_run_from_corner_to_corner_and_hold_the_area() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(3000) < 0.3).astype(np.float32)
    scores = (labels + rng.normal(0, 1, 3000)).astype(np.float32)
    roc, pr = roc_points(labels, scores), pr_points(labels, scores)
    assert len(roc["fpr"]) <= 200
    assert (roc["fpr"][0], roc["tpr"][0], roc["fpr"][-1], roc["tpr"][-1]) == (0, 0, 1, 1)
    assert np.trapezoid(roc["tpr"], roc["fpr"]) == pytest.approx(auroc(labels, scores), abs=0.002)
    assert len(pr["recall"]) <= 200
    assert (pr["recall"][0], pr["recall"][-1]) == (0, 1)
    assert np.trapezoid(pr["precision"], pr["recall"]) == pytest.approx(average_precision(labels, scores), abs=0.01)
    assert roc_points(labels * 0, scores) == {"fpr": [], "tpr": []}
    assert pr_points(labels * 0, scores) == {"recall": [], "precision": []}
