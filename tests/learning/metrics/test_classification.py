"""Classes that exclude each other: figures by hand and by scikit-learn's, average precision by VOC's definition, and honest intervals."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as reference

from fl_rsna.learning.metrics.bootstrap import draw_patients
from fl_rsna.learning.metrics.classification import class_scores, compare_macro_aurocs, confusion, macro_auroc

NAMES = ("a", "b", "c", "d")
MEANS = ("accuracy", "balanced_accuracy", "macro_auroc", "mean_average_precision")


def one_hot(classes: Any) -> NDArray[np.float32]:
    return np.eye(len(NAMES), dtype=np.float32)[np.asarray(classes)]


def case(
    seed: int, rows: int = 80, *, tied: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Classes [N], of which each is there, probabilities [N, 4] and patients [N] of one class each."""
    rng = np.random.default_rng(seed)
    patients = rng.integers(0, 40, rows)
    classes = np.r_[np.arange(4), rng.integers(0, 4, 36)][patients]
    classes[:4] = np.arange(4)
    scores = np.exp(one_hot(classes) + rng.normal(0, 1, (rows, 4)))
    found = scores / scores.sum(1, keepdims=True)
    return classes, np.round(found, 1) if tied else found, patients


def scored(
    classes: Any, found: NDArray[np.floating], patients: Any, names: tuple[str, ...] = NAMES, resamples: int = 200
) -> dict[str, Any]:
    drawn = draw_patients(np.asarray(patients), seed=1, resamples=resamples)
    return class_scores(one_hot(classes), found, drawn, names)


def values(scores: dict[str, Any]) -> list[float]:
    return [scores[name]["value"] for name in MEANS]


def test_confusion_by_hand() -> None:
    """Patient 1 is drawn twice and patient 0 never in the second column; of equal probabilities the first class is named."""
    found = np.array([[0.7, 0.3, 0, 0], [0.1, 0.2, 0.3, 0.4], [0.4, 0.4, 0.1, 0.1], [0, 0, 1, 0]])
    drawn = draw_patients(np.array([0, 1, 1, 1]), seed=0, resamples=1)
    drawn.weights[:, 1] = 0, 2
    cells = confusion(one_hot([0, 0, 1, 2]), found, drawn)
    assert cells[..., 0].tolist() == [[1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert cells[..., 1].tolist() == [[0, 0, 0, 2], [2, 0, 0, 0], [0, 0, 2, 0], [0, 0, 0, 0]]
    scores = class_scores(one_hot([0, 0, 1, 2]), found, drawn, NAMES)
    assert scores["confusion"]["a"]["d"]["count"] == 1
    assert scores["confusion"]["a"]["d"]["share"]["value"] == 0.5
    assert scores["confusion"]["d"]["a"]["share"]["value"] is None  # no row of that class
    assert scores["accuracy"]["value"] == 0.5
    assert [of["accuracy"]["value"] for of in scores["classes"].values()] == [0.5, 0.0, 1.0, None]


@pytest.mark.parametrize("seed", range(40))
def test_figures_equal_scikit_learns(seed: int) -> None:
    classes, found, patients = case(seed, tied=seed % 2 == 1)
    scores, named = scored(classes, found, patients, resamples=0), found.argmax(1)
    assert scores["accuracy"]["value"] == pytest.approx(reference.accuracy_score(classes, named))
    assert scores["balanced_accuracy"]["value"] == pytest.approx(reference.balanced_accuracy_score(classes, named))
    expected = np.mean([reference.roc_auc_score(classes == i, found[:, i]) for i in range(4)])
    assert scores["macro_auroc"]["value"] == pytest.approx(expected)
    if seed % 2 == 0:  # scikit-learn takes classes together only where probabilities add up to 1
        whole = reference.roc_auc_score(classes, found, multi_class="ovr", average="macro")
        assert scores["macro_auroc"]["value"] == pytest.approx(whole)
    counts = [[cell["count"] for cell in row.values()] for row in scores["confusion"].values()]
    assert counts == reference.confusion_matrix(classes, named, labels=range(4)).tolist()


def voc(positive: NDArray[np.bool_], found: NDArray[np.floating]) -> float:
    """PASCAL VOC 2010, from its definition: the area under precision made to fall, recall by recall."""
    points = []
    for threshold in sorted(set(found.tolist()), reverse=True):
        flagged = found >= threshold
        points.append(((positive & flagged).sum() / positive.sum(), (positive & flagged).sum() / flagged.sum()))
    area, before = 0.0, 0.0
    for recall, _ in points:
        area += (recall - before) * max(precision for other, precision in points if other >= recall)
        before = recall
    return area


@pytest.mark.parametrize("seed", range(20))
def test_average_precision_is_vocs(seed: int) -> None:
    classes, found, patients = case(seed, tied=seed % 2 == 1)
    scores = scored(classes, found, patients, resamples=0)
    by_class = [of["voc_average_precision"]["value"] for of in scores["classes"].values()]
    assert by_class == pytest.approx([voc(classes == i, found[:, i]) for i in range(4)])
    assert scores["mean_average_precision"]["value"] == pytest.approx(np.mean(by_class))


def test_figures_are_carried_through_draws() -> None:
    """A draw is the data with patients as often as they are drawn."""
    classes, found, patients = case(3)
    drawn = draw_patients(patients, seed=0, resamples=1)
    rows = np.repeat(np.arange(len(classes)), drawn.weights[drawn.member, 1])
    again = scored(classes[rows], found[rows], patients[rows], resamples=0)
    swapped = draw_patients(patients, seed=0, resamples=1)
    swapped.weights[:, 0] = swapped.weights[:, 1]
    assert values(class_scores(one_hot(classes), found, swapped, NAMES)) == pytest.approx(values(again))


def test_the_order_of_rows_does_not_matter() -> None:
    classes, found, patients = case(5, tied=True)
    order = np.random.default_rng(0).permutation(len(classes))
    assert scored(classes[order], found[order], patients[order]) == scored(classes, found, patients)


def test_classes_in_another_order_have_the_same_figures() -> None:
    classes, found, patients = case(7)
    turned = np.array([2, 0, 3, 1])  # what stands where
    names = tuple(NAMES[i] for i in turned)
    plain, other = (
        scored(classes, found, patients),
        scored(turned.argsort()[classes], found[:, turned], patients, names),
    )
    for name in NAMES:
        assert other["confusion"][name]["a"]["count"] == plain["confusion"][name]["a"]["count"]
        for of in ("accuracy", "voc_average_precision"):
            assert other["classes"][name][of] == pytest.approx(plain["classes"][name][of])
    for of in MEANS:
        assert other[of] == pytest.approx(plain[of])


def test_a_perfect_model_is_as_sure_as_its_rarest_class_has_patients() -> None:
    classes = np.repeat([0, 1, 2, 3], [40, 30, 20, 10])
    scores = scored(classes, one_hot(classes), np.arange(100))
    for name in MEANS:
        assert (scores[name]["value"], scores[name]["high"]) == (1, 1)
    for name in MEANS[1:]:
        assert scores[name]["low"] == pytest.approx(0.025 ** (1 / 10))  # ten of ten right
        assert (scores[name]["positives"], scores[name]["positive_patients"]) == (10, 10)
    assert scores["accuracy"]["low"] == pytest.approx(0.025 ** (1 / 100))
    assert scores["accuracy"]["positives"] == 100


def test_a_class_of_few_patients_has_no_interval_and_gives_none_to_means() -> None:
    """Twenty rows of the last class, of four patients."""
    classes = np.repeat([0, 1, 2, 3], 20)
    patients = np.r_[np.arange(60), 60 + np.arange(20) % 4]
    rng = np.random.default_rng(0)
    found = one_hot(classes) + 2 * rng.random((80, 4))
    scores = scored(classes, found, patients)
    for name in MEANS[1:]:
        assert scores[name]["value"] is not None
        assert scores[name]["low"] is scores[name]["high"] is None
    assert scores["accuracy"]["low"] < scores["accuracy"]["value"] < scores["accuracy"]["high"]
    assert scores["classes"]["d"]["accuracy"]["low"] is None
    assert scores["confusion"]["d"]["d"]["share"]["low"] is None
    assert scores["classes"]["a"]["accuracy"]["low"] is not None


def test_without_a_row_of_a_class_there_is_no_mean_over_classes() -> None:
    classes = np.arange(60) % 3
    scores = scored(classes, one_hot(classes) + 0.1, np.arange(60))
    assert [scores[name]["value"] for name in MEANS] == [1, None, None, None]
    assert scores["balanced_accuracy"]["positives"] == 0


def test_a_control_is_scored_as_the_model_is() -> None:
    """The same figure, interval and support as the scorecard's own; a score that is the same of all is worth a half."""
    classes, found, patients = case(3)
    card = class_scores(one_hot(classes), found, draw_patients(patients, seed=7, resamples=200), NAMES)
    assert asdict(macro_auroc(one_hot(classes), found, patients, seed=7, resamples=200)) == card["macro_auroc"]
    assert macro_auroc(one_hot(classes), np.full_like(found, 0.25), patients, seed=7, resamples=0).value == 0.5


def test_macro_aurocs_are_compared_over_the_same_draws() -> None:
    classes, found, patients = case(9, 200)
    other = found + np.random.default_rng(1).normal(0, 0.2, found.shape)
    against = compare_macro_aurocs(one_hot(classes), found, [other, found], patients, seed=0, resamples=300)
    areas = [values(scored(classes, of, patients))[2] for of in (found, other)]
    assert against.difference.value == pytest.approx(areas[0] - (areas[0] + areas[1]) / 2)
    assert against.ratio.value == pytest.approx(2 * areas[0] / (areas[0] + areas[1]))
    same = compare_macro_aurocs(one_hot(classes), found, [found], patients, seed=0, resamples=300).difference
    assert (same.value, same.low, same.high) == (0, 0, 0)
