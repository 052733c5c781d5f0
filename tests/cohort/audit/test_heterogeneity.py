"""Distances and coefficients have the values one computes by hand."""

import numpy as np
import pandas as pd
import pytest

from fl_rsna.cohort.audit.heterogeneity import distance, gini, heterogeneity, prevalence, rarest
from fl_rsna.cohort.audit.slices import Kind, Slices


def slices(rows: list[tuple[str, str, str, float, float]]) -> Slices:
    """Rows of (site, part, patient, label a, label b)."""
    table = pd.DataFrame(rows, columns=["site", "part", "patient", "a", "b"])
    ids = table[["patient"]].rename(columns={"patient": Kind.patient})
    return Slices(places=table[["site", "part"]], ids=ids, labels=table[["a", "b"]], site="site", part="part")


@pytest.mark.parametrize(
    ("sizes", "value"),
    [([5, 5, 5], 0), ([1, 3], 1 / 4), ([3, 1], 1 / 4), ([0, 0, 0, 4], 3 / 4), ([1, 2, 3, 4], 1 / 4), ([7], 0), ([0, 0], 0)],
)  # fmt: skip
def test_gini(sizes: list[int], value: float) -> None:
    assert gini(sizes) == pytest.approx(value)


def test_distance_is_0_for_equal_and_1_for_disjoint_distributions() -> None:
    assert distance(np.array([1.0, 2.0, 0.0]), np.array([2.0, 4.0, 0.0])) == pytest.approx(0, abs=1e-7)
    assert distance(np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 3.0])) == pytest.approx(1)


def test_distance_by_hand() -> None:
    """p = (1, 0), q = (1/2, 1/2), m = (3/4, 1/4): divergence (log2(4/3) + log2(2/3)/2 + log2(2)/2) / 2."""
    by_hand = np.sqrt((np.log2(4 / 3) + np.log2(2 / 3) / 2 + 0.5) / 2)
    assert distance(np.array([1.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(by_hand)


def test_distance_is_never_nan_for_nearly_equal_distributions() -> None:
    shares = np.random.default_rng(0).random((500, 7))
    assert (distance(shares, shares * (1 + 1e-15)) >= 0).all()


def test_the_rarest_label_is_that_of_fewest_patients() -> None:
    """Label 0 has two patients, label 1 one."""
    assert rarest(np.array([[True, False], [True, True], [False, False]])).tolist() == [0, 1, 2]


def test_sites_without_a_label_in_common_are_at_distance_1() -> None:
    table = slices(
        [("x", "train", "p", 1, 0), ("x", "train", "q", 1, 0), ("y", "train", "r", 0, 1), ("y", "test", "s", 0, 1)]
    )
    for found in heterogeneity(table).distances.values():
        assert (found.mean, found.largest, found.farthest) == (pytest.approx(1), pytest.approx(1), ("x", "y"))


def test_sites_alike_are_at_distance_0_from_each_other_and_the_pool() -> None:
    rows = [(site, "train", f"{site}{n}", float(n % 2), 0.0) for site in "xyz" for n in range(4)]
    found = heterogeneity(slices(rows))
    assert (found.gini_patients, found.gini_slices, found.held_out) == (0, 0, ())
    for distances in found.distances.values():
        assert distances.mean == pytest.approx(0, abs=1e-7)
        assert distances.to_pool == pytest.approx(dict.fromkeys("xyz", 0), abs=1e-7)
        assert distances.by_chance is not None
        assert distances.by_chance > 0  # small sites differ by chance alone


def test_patients_and_slices_are_two_distributions() -> None:
    """Each site has one patient with a, one without; at x most slices show a, at y most do not."""
    rows = [("x", "train", "p", 1.0, 0.0)] * 3 + [("x", "train", "q", 0.0, 0.0), ("y", "train", "r", 1.0, 0.0)]
    found = heterogeneity(slices([*rows, *[("y", "train", "s", 0.0, 0.0)] * 3])).distances
    assert found["patients_by_rarest_label"].mean == pytest.approx(0, abs=1e-7)
    assert found["slices_by_label_set"].mean == pytest.approx(distance(np.array([3.0, 1.0]), np.array([1.0, 3.0])))


def test_the_test_site_is_compared_with_the_pool_only() -> None:
    rows = [
        ("x", "train", "p", 1, 0),
        ("y", "train", "q", 1, 0),
        ("y", "validation", "r", 1, 0),
        ("z", "test", "s", 0, 1),
    ]
    found = heterogeneity(slices([*rows, ("z", "test", "t", 0, 1)]))  # type: ignore[list-item]
    assert found.held_out == ("z",)
    assert found.gini_patients == gini([1, 2])
    distances = found.distances["patients_by_rarest_label"]
    assert (distances.mean, distances.to_pool["z"]) == (pytest.approx(0, abs=1e-7), pytest.approx(1))


def test_without_labels_or_with_one_site_there_are_sizes_but_no_distances() -> None:
    table = slices([("x", "train", "p", 1, 0), ("x", "test", "q", 0, 0)])
    assert heterogeneity(table).distances["slices_by_label_set"].mean is None
    bare = Slices(places=table.places, ids=table.ids, labels=table.labels[[]], site="site", part="part")
    assert heterogeneity(bare).distances == {}
    assert prevalence(bare, ["site"])["x"].patients == 2


def test_prevalence_counts_slices_and_patients_whose_label_is_known() -> None:
    """p has label a on one of two slices; q's only label is unknown; the slice without a patient counts as a slice."""
    rows = [("x", "train", "p", 1.0, 0.0), ("x", "train", "p", 0.0, 0.0), ("x", "train", "q", float("nan"), 1.0)]
    rows += [("x", "test", None, 1.0, 0.0)]  # type: ignore[list-item]
    found = prevalence(slices(rows), ["site"])["x"]
    assert (found.patients, found.slices) == (2, 4)
    assert (found.of_slices["a"].count, found.of_slices["a"].known, found.of_slices["a"].share) == (2, 3, 2 / 3)
    assert (found.of_patients["a"].count, found.of_patients["a"].known) == (1, 1)
    assert (found.of_patients["b"].count, found.of_patients["b"].known) == (1, 2)
    parts = prevalence(slices(rows), ["site", "part"])
    assert (parts["x/train"].slices, parts["x/test"].slices, parts["x/test"].patients) == (3, 1, 0)
    assert parts["x/test"].of_patients["a"].share is None


def test_the_order_of_rows_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (f"site-{n % 3}", "train", f"p{n % 20:02d}", float(rng.random() < 0.4), float(rng.random() < 0.2))
        for n in range(60)
    ]
    shuffled = [rows[at] for at in rng.permutation(len(rows))]
    assert heterogeneity(slices(rows)) == heterogeneity(slices(shuffled))
    assert prevalence(slices(rows), ["site", "part"]) == prevalence(slices(shuffled), ["site", "part"])
