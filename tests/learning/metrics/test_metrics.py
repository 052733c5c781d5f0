"""AUROC label by label and, of classes, over all of them: by hand."""

from dataclasses import replace

import numpy as np
import pytest

from fl_rsna.learning.metrics.metrics import aurocs
from fl_rsna.task import COVID_CXR, ICH, LabelKind

CLASSES = np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], np.float32)
FOUND = np.array([[0.7, 0.1, 0.1, 0.1], [0.1, 0.7, 0.1, 0.1], [0.1, 0.3, 0.2, 0.4], [0.1, 0.1, 0.5, 0.3]])
AREAS = {"negative": 1.0, "typical": 1.0, "indeterminate": 2 / 3, "atypical": 2 / 3}


def test_of_classes_their_mean_is_among_them() -> None:
    """Of indeterminate one of three others is above the one film that has it; so is one of atypical."""
    assert aurocs(CLASSES, FOUND, COVID_CXR) == pytest.approx({**AREAS, "macro": 5 / 6})


@pytest.mark.parametrize("asked", [None, [True, True, True, False]])
def test_without_one_class_there_is_no_mean(asked: list[bool] | None) -> None:
    """A class that nobody has, or one that is not asked for because too few have it: a mean would tell its AUROC."""
    labels, found = (CLASSES[:3], FOUND[:3]) if asked is None else (CLASSES, FOUND)
    areas = aurocs(labels, found, COVID_CXR, asked)
    assert areas["atypical"] is None
    assert areas["macro"] is None
    assert areas["negative"] == 1.0


def test_labels_have_no_mean_and_count_where_they_are_known() -> None:
    task = replace(
        ICH, labels=("any", "other"), published=("any", "other"), label_weights=(2.0, 1.0), kind=LabelKind.multi_label
    )
    labels = np.array([[1, np.nan], [0, 1], [0, 0]], np.float32)
    found = np.array([[0.9, 0.0], [0.2, 0.8], [0.3, 0.1]])
    assert aurocs(labels, found, task) == {"any": 1.0, "other": 1.0}
