"""Whether two models were asked about the same validation slices is a matter of ids and labels, not of how they are stored."""

import numpy as np
import pandas as pd

from fl_rsna.evaluation.ensemble import same_slices
from fl_rsna.task import ICH


def table(labels: list[list[float]], kind: type[np.generic] = np.float32) -> pd.DataFrame:
    columns = {f"label_{label}": np.array(labels, np.float32)[:, i].astype(kind) for i, label in enumerate(ICH.labels)}
    return pd.DataFrame({"image_id": [f"s{number}" for number in range(len(labels))], **columns})


LABELS = [[1.0, 1, 0, 0, 0, 0], [0.0] * 6]
UNKNOWN = [[1.0, np.nan, 0, 0, 0, 0], [0.0, np.nan, 0, 0, 0, 0]]


def test_a_stackings_labels_are_those_of_an_ordinary_run() -> None:
    assert same_slices(table(LABELS, np.int8), table(LABELS), ICH)
    assert same_slices(table(UNKNOWN), table(UNKNOWN), ICH)


def test_other_labels_and_other_slices_are_told_apart() -> None:
    other = [LABELS[0], [1.0, 0, 1, 0, 0, 0]]
    assert not same_slices(table(LABELS, np.int8), table(other), ICH)
    assert not same_slices(table(LABELS), table(UNKNOWN), ICH)
    assert not same_slices(table(LABELS), table(LABELS).iloc[:1], ICH)
    assert not same_slices(table(LABELS), table(LABELS).assign(image_id=["s0", "s2"]), ICH)
