"""Series in anatomical order, and numbers of geometry that know nothing of the scanner."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.cohort.prepared.index import COLUMNS
from fl_rsna.learning.data.series import PLACES, places_of, series_of


def index() -> pd.DataFrame:
    """Two patients who both have a series `a`, rows in no order; one slice by itself."""
    rows = [("p2", "a", 1), ("p1", "a", 2), ("p1", "a", 0), ("p2", "a", 0), ("p1", "b", 0), ("p1", "a", 1)]
    table = pd.DataFrame(rows, columns=["patient_id", "series_id", "rank"])
    return table.assign(image_id=[f"i{n}" for n in range(len(rows))])


def test_series_are_of_one_patient_and_from_the_lowest_slice_up() -> None:
    found = series_of(index(), np.arange(6))
    assert [rows.tolist() for rows in found] == [[2, 5, 1], [4], [3, 0]]
    assert [rows.tolist() for rows in series_of(index(), np.array([1, 2, 0]))] == [[2, 1], [0]]  # of the rows given
    assert series_of(index(), np.zeros(0, np.intp)) == []


def test_places_say_where_how_many_and_how_far() -> None:
    table = index().assign(
        step_below_mm=[5.0, 4.0, np.nan, np.nan, np.nan, 5.0], step_above_mm=[np.nan, np.nan, 5.0, 5.0, np.nan, 4.0]
    )
    found = places_of(table, series_of(table, np.arange(6)))
    assert found.shape == (6, PLACES)
    assert found[[2, 5, 1, 4], 0].tolist() == [-1, 0, 1, 0]
    assert found[5, 2:].tolist() == pytest.approx([0.5, 0.4, 1])
    assert found[4, 2:].tolist() == [0, 0, 0]  # alone
    assert found[4, 1] < found[0, 1] < found[1, 1] < 1
    assert not places_of(table, series_of(table, np.array([0, 3])))[[1, 2, 4, 5]].any()


def test_what_a_scanner_writes_changes_nothing() -> None:
    """Every column of an index but ids, order and steps may be anything."""
    used = {"image_id", "patient_id", "series_id", "rank", "step_below_mm", "step_above_mm"}
    table = index().assign(step_below_mm=5.0, step_above_mm=5.0)
    other = table.assign(**dict.fromkeys(COLUMNS.keys() - used, "GE BONE 120kV"))
    before, after = (places_of(of, series_of(of, np.arange(6))) for of in (table, other))
    np.testing.assert_array_equal(before, after)


def test_a_slice_of_unknown_order_has_no_place() -> None:
    table = index().assign(order=["position"] * 5 + ["unknown"])  # i1, i2 and i5 are p1's series a
    found = places_of(table, series_of(table, np.arange(6)))
    assert found[[2, 1, 5], 0].tolist() == [-1, 1, 0]
    assert len(set(found[[1, 2, 5], 1])) == 1
