"""What a stacker sees: exact values by hand, anatomical order, and nothing of another series."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.learning.inference.stacking import GRID, LOGIT, feature_names, stack_features


def expit(logits: list[float]) -> np.ndarray:
    return (1 / (1 + np.exp(-np.array(logits, np.float64))))[:, None]


def index(ranks: list[int], series: list[str] | None = None) -> pd.DataFrame:
    names = series or ["e"] * len(ranks)
    return pd.DataFrame({"patient_id": "p", "series_id": names, "rank": ranks})


def features(frame: pd.DataFrame, logits: list[float]) -> pd.DataFrame:
    return pd.DataFrame(stack_features(frame, expit(logits)), columns=feature_names(["any"]))


def test_values_by_hand() -> None:
    found = features(index([0, 1, 2, 3]), [0.0, 1.0, 4.0, -1.0])
    assert list(found["logit/any"]) == [0, 1, 4, -1]
    assert list(found["neighbour-1/any"]) == [0, 0, 1, 4]  # the first slice stands in for what is before it
    assert list(found["neighbour+3/any"]) == [-1, -1, -1, -1]
    assert list(found["rolling3_mean/any"]) == pytest.approx([1 / 3, 5 / 3, 4 / 3, 2 / 3], abs=0.5 / GRID)
    assert list(found["rolling3_max/any"]) == [1, 4, 4, 4]
    assert list(found["rolling5_min/any"]) == [0, -1, -1, -1]
    assert list(found["rolling3_std/any"]) == pytest.approx(
        [np.std([0, 0, 1]), np.std([0, 1, 4]), np.std([1, 4, -1]), np.std([4, -1, -1])], abs=0.5 / GRID
    )
    assert set(found["series_mean/any"]) == {1.0}
    assert set(found["series_max/any"]) == {4.0}
    assert set(found["series_quantile_75/any"]) == {1.75}
    assert list(found["relative_position"]) == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=0.5 / GRID)


def test_order_is_anatomical_and_rows_stay_where_they_are() -> None:
    shuffled = [2, 0, 3, 1]
    logits = [0.0, 1.0, 4.0, -1.0]
    plain = features(index([0, 1, 2, 3]), logits)
    found = features(index(shuffled), [logits[rank] for rank in shuffled])
    pd.testing.assert_frame_equal(found, plain.iloc[shuffled].reset_index(drop=True))


def test_a_series_knows_nothing_of_another() -> None:
    together = index([0, 0, 1, 1, 2], ["a", "b", "a", "b", "a"])
    one = features(together, [0.5, 1, 1.5, -2, 0.25])
    other = features(together, [0.5, 9, 1.5, 7, 0.25])
    rows = [0, 2, 4]
    pd.testing.assert_frame_equal(one.iloc[rows], other.iloc[rows])
    alone = features(index([0, 1, 2]), [0.5, 1.5, 0.25])
    pd.testing.assert_frame_equal(one.iloc[rows].reset_index(drop=True), alone)


def test_one_series_name_at_two_patients_is_two_series() -> None:
    frame = index([0, 1, 0, 1]).assign(patient_id=["p", "p", "q", "q"])
    found = features(frame, [1.0, 2.0, 5.0, 6.0])
    assert list(found["series_max/any"]) == [2, 2, 6, 6]


def test_names_are_of_the_columns_and_say_nothing_but_predictions_and_place() -> None:
    names = feature_names(["any", "epidural"])
    assert len(set(names)) == len(names) == stack_features(index([0, 1]), np.full((2, 2), 0.5)).shape[1]
    kinds = {name.partition("/")[0].partition("_")[0].rstrip("+-0123456789") for name in names}
    assert kinds == {"logit", "neighbour", "rolling", "series", "relative"}


def test_values_lie_on_the_grid_and_are_finite_for_the_surest_models() -> None:
    found = stack_features(index([0, 1, 2]), np.array([[0.0], [1.0], [0.123456]]))
    assert np.isfinite(found).all()
    assert np.abs(found).max() == LOGIT
    assert np.array_equal(found * GRID, np.rint(found * GRID))


def test_a_series_of_one_slice_lies_in_the_middle() -> None:
    assert features(index([5]), [1.0])["relative_position"].item() == 0.5


def test_a_slice_of_unknown_order_is_its_own_neighbour_and_lies_in_the_middle() -> None:
    frame = index([0, 1, 2]).assign(order=["position", "position", "unknown"])
    found = features(frame, [0.0, 1.0, 4.0])
    assert list(found["neighbour+1/any"]) == [1, 1, 4]
    assert list(found["neighbour-1/any"]) == [0, 0, 4]
    assert list(found["rolling9_max/any"]) == [1, 1, 4]
    assert list(found["relative_position"]) == [0, 1, 0.5]
    assert set(found["series_max/any"]) == {4.0}  # it is of the series all the same
    nothing = features(frame.assign(order="unknown"), [0.0, 1.0, 4.0])
    assert list(nothing["neighbour+1/any"]) == [0, 1, 4]
    assert set(nothing["relative_position"]) == {0.5}
