"""The controls are prevalence by bin, summable over sites."""

import numpy as np
import pandas as pd

from fl_rsna.learning.metrics.controls import BINS, Control, bins, control_scores, controls_of, count_table
from fl_rsna.task import COVID_CXR, ICH

INDEX = pd.DataFrame({"relative_position": [0.0, 0.5, 1.0, 1.0], "brain_hu_mean": [10.0, 35.0, 35.0, 90.0]})
LABELS = np.array([[0], [1], [1], [0]], np.float32)


def test_bins_hold_every_value() -> None:
    assert bins(INDEX, Control.position).tolist() == [0, 10, 19, 19]
    assert bins(INDEX, Control.brightness).tolist() == [0, 10, 10, 19]


def test_tables_count_slices_and_positives_and_add_up() -> None:
    table = count_table(INDEX, LABELS, Control.position)
    assert table.shape == (BINS, 2)
    assert table[19].tolist() == [2, 1]
    assert table.sum(0).tolist() == [4, 2]
    halves = count_table(INDEX[:2], LABELS[:2], Control.position) + count_table(INDEX[2:], LABELS[2:], Control.position)
    np.testing.assert_array_equal(halves, table)


def test_scores_are_the_shrunk_prevalence_of_the_bin() -> None:
    scores = control_scores(count_table(INDEX, LABELS, Control.position), INDEX, Control.position)
    np.testing.assert_allclose(scores[:, 0], [0.5 / 2, 1.5 / 2, 1.5 / 3, 1.5 / 3])


def test_a_film_is_told_by_its_view_and_its_grey() -> None:
    films = pd.DataFrame({"view": ["PA", "AP", "", "LL"], "grey_mean": [0.0, 0.26, 0.5, 1.0]})
    assert bins(films, Control.view).tolist() == [0, 1, 2, 2]
    assert bins(films, Control.grey).tolist() == [0, 5, 10, 19]


def test_every_task_has_its_own() -> None:
    assert controls_of(ICH.rendering) == (Control.position, Control.brightness)
    assert controls_of(COVID_CXR.rendering) == (Control.view, Control.grey)
