"""Labels smoothed along z and soft between positives, in anatomical order whatever the order of the index."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.learning.training.targets import build_train_labels
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import LabelKind


def index_of(ranks: list[int], series: list[str], split: str = "train") -> pd.DataFrame:
    return pd.DataFrame({"patient_id": series, "series_id": "s", "rank": ranks, "split": split})


def column(values: list[float]) -> np.ndarray:  # type: ignore[type-arg]
    return np.array(values, np.float32)[:, None]


def test_smoothing_is_the_mean_of_neighbours_in_anatomical_order() -> None:
    index = index_of([2, 0, 3, 1, 0, 1], ["a", "a", "a", "a", "b", "b"])
    labels = column([1, 0, 1, 0, 1, 0])  # in order of rank: a 0 0 1 1, b 1 0
    found = build_train_labels(index, labels, TrainConfig(smooth_z=3), LabelKind.multi_label)
    np.testing.assert_allclose(found[:, 0], [2 / 3, 0, 1, 1 / 3, 1 / 2, 1 / 2])
    assert labels[0, 0] == 1  # the site's own labels stay


def test_a_missing_neighbour_is_no_neighbour() -> None:
    """As where slices of one series were assigned to several sites."""
    index = index_of([0, 1, 4], ["a"] * 3)
    found = build_train_labels(index, column([1, 1, 0]), TrainConfig(smooth_z=5), LabelKind.multi_label)
    np.testing.assert_allclose(found[:, 0], [1, 1, 0])


def test_between_first_and_last_positive_a_negative_is_soft() -> None:
    index = index_of([5, 1, 2, 3, 4, 0, 0], ["a"] * 6 + ["b"])
    found = build_train_labels(
        index, column([0, 1, 0, 0, 1, 0, 0]), TrainConfig(soft_between=0.3), LabelKind.multi_label
    )
    np.testing.assert_allclose(found[:, 0], [0, 1, 0.3, 0.3, 1, 0, 0])


@pytest.mark.parametrize("settings", [{"smooth_z": 3}, {"soft_between": 0.3}, {"smooth_z": 5, "soft_between": 0.3}])
def test_a_union_stays_at_least_each_of_the_others(settings: dict[str, float]) -> None:
    rng = np.random.default_rng(0)
    index = index_of(rng.permutation(40).tolist(), rng.choice(["a", "b"], 40).tolist())
    others = (rng.random((40, 3)) < 0.2).astype(np.float32)
    labels = np.concatenate([others.max(1, keepdims=True), others], axis=1)
    found = build_train_labels(index, labels, TrainConfig(**settings), LabelKind.multi_label)  # type: ignore[arg-type]
    assert (found[:, 1:] <= found[:, :1] + 1e-6).all()
    assert ((found >= 0) & (found <= 1)).all()
    assert not np.array_equal(found, labels)


def test_classes_smoothed_are_distributions() -> None:
    rng = np.random.default_rng(0)
    labels = np.eye(4, dtype=np.float32)[rng.integers(0, 4, 20)]
    found = build_train_labels(
        index_of(list(range(20)), ["a"] * 20), labels, TrainConfig(smooth_z=3), LabelKind.multi_class
    )
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)


def test_only_training_rows_change_and_unknown_stays_unknown() -> None:
    index = index_of([0, 1, 2], ["a"] * 3)
    labels = np.array([[1, np.nan], [0, np.nan], [1, np.nan]], np.float32)
    settings = TrainConfig(smooth_z=3, soft_between=0.3)
    found = build_train_labels(index, labels, settings, LabelKind.multi_label)
    assert np.isnan(found[:, 1]).all()
    np.testing.assert_allclose(found[:, 0], [0.65, 2.3 / 3, 0.65])
    np.testing.assert_array_equal(
        build_train_labels(index.assign(split="validation"), labels, settings, LabelKind.multi_label), labels
    )


def test_label_smoothing_takes_a_share_of_every_training_label() -> None:
    index, config = index_of([0, 1], ["a"] * 2), TrainConfig(label_smoothing=0.2)
    classes = np.eye(4, dtype=np.float32)[:2]
    found = build_train_labels(index, classes, config, LabelKind.multi_class)
    np.testing.assert_allclose(found, [[0.85, 0.05, 0.05, 0.05], [0.05, 0.85, 0.05, 0.05]], atol=1e-6)
    labels = np.array([[1, 0, np.nan], [0, 0, 1]], np.float32)
    found = build_train_labels(index, labels, config, LabelKind.multi_label)
    np.testing.assert_allclose(found, [[0.9, 0.1, np.nan], [0.1, 0.1, 0.9]], atol=1e-6)
    untouched = build_train_labels(index.assign(split="validation"), labels, config, LabelKind.multi_label)
    np.testing.assert_array_equal(untouched, labels)


def test_a_slice_of_unknown_order_is_smoothed_with_nobody() -> None:
    index = index_of([0, 1, 2, 3], ["a"] * 4).assign(order=["position"] * 3 + ["unknown"])
    config = TrainConfig(smooth_z=3, soft_between=0.3)
    found = build_train_labels(index, column([1, 0, 1, 1]), config, LabelKind.multi_label)
    np.testing.assert_allclose(found[:, 0], [0.65, 2.3 / 3, 0.65, 1], rtol=1e-6)
