"""Explained slices are the surest and the worst, each of another patient."""

import numpy as np
import pandas as pd
import pytest
from tiny import CHEST

from fl_rsna.reporting.images.explanations import OF_HEADLINE, OF_OTHERS, Kind, extreme, pick
from fl_rsna.task import ICH

THRESHOLDS = dict.fromkeys(ICH.labels, 0.4)


@pytest.fixture
def table() -> pd.DataFrame:
    """30 patients of 4 slices with random probabilities; epidural has no positive slice."""
    rng = np.random.default_rng(0)
    columns = {"patient_id": np.repeat([f"p{number}" for number in range(30)], 4)}
    for label in ICH.labels:
        columns[f"label_{label}"] = (rng.random(120) < 0.5) * (label != "epidural")
        columns[f"probability_{label}"] = rng.random(120).astype(np.float32)
    return pd.DataFrame(columns)


@pytest.fixture
def hand() -> pd.DataFrame:
    labels, found = [1, 1, 1, 0, 0, 0, 0], [0.9, 0.4, 0.1, 0.39, 0.4, 0.8, 0.2]
    return pd.DataFrame({"label_any": labels, "probability_any": found, "patient_id": list("aabbcca")})


def test_kinds_by_hand(hand: pd.DataFrame) -> None:
    found = {kind.value: extreme(hand, "any", kind, 0.4).tolist() for kind in Kind}
    assert found == {
        "true positive": [0, 1],  # at the threshold is above it
        "false positive": [5, 4],
        "false negative": [2],
        "true negative": [6, 3],
    }


def test_every_slice_is_of_one_kind(table: pd.DataFrame) -> None:
    rows = np.concatenate([extreme(table, "any", kind, 0.4) for kind in Kind])
    assert sorted(rows) == list(range(len(table)))


def test_picked_are_the_most_extreme_of_different_patients(table: pd.DataFrame) -> None:
    picked = pick(table, ICH, THRESHOLDS, np.ones(len(table)))
    assert [label for label, _, _ in picked][:16] == ["any"] * 16
    assert {label for label, _, _ in picked} == {*ICH.labels} - {"epidural"}
    for label in ICH.labels:
        for kind in Kind:
            rows = [row for of, what, row in picked if (of, what) == (label, kind)]
            most = (OF_HEADLINE if label == "any" else OF_OTHERS).get(kind, 0)
            assert len(rows) == (most if label != "epidural" else 0)
            assert table["patient_id"].iloc[rows].is_unique
            first = extreme(table, label, kind, 0.4)
            assert rows[:1] == first[: len(rows[:1])].tolist()


def test_true_negatives_show_brain(table: pd.DataFrame) -> None:
    share = np.arange(120) / 120
    picked = pick(table, ICH, THRESHOLDS, share)
    assert {kind for _, kind, row in picked if share[row] < 0.49} == {*Kind} - {Kind.true_negative}


def test_classes_are_picked_too(table: pd.DataFrame) -> None:
    names = dict(zip(("any", "subdural", "subarachnoid", "intraventricular"), CHEST.labels, strict=True))
    renamed = {f"{what}_{old}": f"{what}_{new}" for old, new in names.items() for what in ("label", "probability")}
    picked = pick(table.rename(columns=renamed), CHEST, dict.fromkeys(CHEST.labels, 0.5), np.ones(len(table)))
    assert picked[0][:2] == ("typical", Kind.true_positive)
