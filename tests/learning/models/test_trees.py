"""Trees without XGBoost say what XGBoost says, carry no sums of slices, and are read only when they are trees."""

import json

import numpy as np
import pytest
import xgboost

from fl_rsna.learning.models.trees import Tree, from_json, grow, leaf, margins, prune_tree, to_json
from fl_rsna.settings.stages import StackingConfig

FEATURES, PRIOR = 5, 0.2


@pytest.fixture(scope="module")
def drawn() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    found = (np.rint(rng.normal(size=(300, FEATURES)) * 64) / 64).astype(np.float32)
    return found, (found[:, 0] + rng.normal(size=300) > 1).astype(np.float32)


def forest(drawn: tuple[np.ndarray, np.ndarray], trees: int, **changes: float) -> list[Tree]:
    config, found = StackingConfig(columns=1.0, **changes), list[Tree]()  # type: ignore[arg-type]
    for number in range(trees):
        before = margins(found, drawn[0], PRIOR)
        found.append(grow(*drawn, before, config, rate=0.3, seed=number, min_count=0))
    return found


def test_margins_are_those_of_xgboost_to_the_last_bit(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    trees = forest(drawn, 6)
    booster = xgboost.Booster()
    booster.load_model(bytearray(to_json(trees, FEATURES, PRIOR)))
    theirs = booster.predict(xgboost.DMatrix(drawn[0]), output_margin=True)
    assert np.array_equal(theirs, margins(trees, drawn[0], PRIOR))


def test_a_tree_by_a_tree_is_plain_boosting(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    """With all rows and columns, and one site, federated boosting is XGBoost's own."""
    trees = forest(drawn, 4, rows=1.0, depth=3)
    settings = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "base_score": PRIOR,
        "max_depth": 3,
        "eta": 0.3,
        "nthread": 1,
    }
    plain = xgboost.train(settings, xgboost.DMatrix(drawn[0], drawn[1]), 4)
    theirs = plain.predict(xgboost.DMatrix(drawn[0]), output_margin=True)
    assert margins(trees, drawn[0], PRIOR) == pytest.approx(theirs, abs=1e-5)


def test_writing_and_reading_is_the_identity(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    raw = to_json(forest(drawn, 3), FEATURES, PRIOR)
    assert to_json(from_json(raw, FEATURES), FEATURES, PRIOR) == raw


def test_the_same_seed_grows_the_same_bytes(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    one, other = (to_json(forest(drawn, 3), FEATURES, PRIOR) for _ in range(2))
    assert one == other


def test_nothing_but_what_predicting_needs_is_written(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    trees = json.loads(to_json(forest(drawn, 2), FEATURES, PRIOR))["learner"]["gradient_booster"]["model"]["trees"]
    for tree in trees:
        assert not any(any(tree[name]) for name in ("sum_hessian", "base_weights", "loss_changes"))


def test_thresholds_lie_on_the_public_grid(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    for tree in forest(drawn, 5):
        inner = tree.value[~tree.is_leaf] * 64
        assert np.array_equal(inner, np.rint(inner))


def test_slices_of_unknown_label_take_no_part(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = drawn
    config, nothing = StackingConfig(rows=1.0), np.zeros(len(labels), np.float32)
    hidden = labels.copy()
    hidden[200:] = np.nan
    whole = grow(features, hidden, nothing, config, rate=0.3, seed=1, min_count=0)
    part = grow(features[:200], labels[:200], nothing[:200], config, rate=0.3, seed=1, min_count=0)
    assert to_json([whole], FEATURES, PRIOR) == to_json([part], FEATURES, PRIOR)
    none = grow(features, np.full_like(labels, np.nan), nothing, config, rate=0.3, seed=1, min_count=0)
    assert to_json([none], FEATURES, PRIOR) == to_json([leaf(0.0)], FEATURES, PRIOR)


def two_splits() -> Tree:
    """x0 < 1 ? (x1 < 1 ? leaf : leaf) : leaf."""
    return Tree(
        left=np.array([1, 3, -1, -1, -1]), right=np.array([2, 4, -1, -1, -1]), feature=np.array([0, 1, 0, 0, 0]),
        value=np.array([1, 1, 0.7, -0.3, 0.4], np.float32),
    )  # fmt: skip


def held_back(features: np.ndarray, labels: np.ndarray, k: int) -> Tree:
    return prune_tree(two_splits(), features, labels, np.zeros(len(labels), np.float32), k, l2=1.0, rate=0.5)


def test_a_split_that_would_tell_of_few_slices_is_cut_back() -> None:
    """Of ten slices left of the first split, two are right of the second: with k=3 that split goes, with k=2 it stays."""
    features = np.array([[0, 0]] * 8 + [[0, 2]] * 2 + [[2, 0]] * 8, np.float32)
    labels = np.array([1] * 4 + [0] * 4 + [0] * 2 + [1] * 4 + [0] * 4, np.float32)
    kept, cut = held_back(features, labels, 2), held_back(features, labels, 3)
    assert sorted(kept.value[kept.is_leaf]) == sorted(two_splits().value[2:])
    assert [len(cut.left), cut.value[1]] == [3, pytest.approx(0.5 * (4 - 10 * 0.5) / (10 * 0.25 + 1))]


def test_a_leaf_of_few_positives_does_not_tell_how_few() -> None:
    features = np.array([[0, 0]] * 8 + [[2, 0]] * 8, np.float32)
    said = {}
    for positives in range(6):
        labels = np.array([1] * positives + [0] * (8 - positives) + [1] * 4 + [0] * 4, np.float32)
        exact = two_splits().value[3]
        said[positives] = [float(value) for value in held_back(features, labels, 4).value if value != exact]
    assert said[1] == said[2] == said[3]
    assert said[0] != said[1]  # none may be told


def test_a_site_with_too_few_in_all_says_nothing() -> None:
    features, labels = np.zeros((4, 2), np.float32), np.array([1, 0, 0, 0], np.float32)
    assert to_json([held_back(features, labels, 2)], 2, PRIOR) == to_json([leaf(0.0)], 2, PRIOR)


@pytest.mark.parametrize("k", [2, 5, 20])
def test_no_leaf_of_a_tree_grown_under_min_count_is_of_few(drawn: tuple[np.ndarray, np.ndarray], k: int) -> None:
    """And a leaf's value is the same whichever of its few positives are there."""
    features, labels = drawn
    config = StackingConfig(rows=1.0, columns=1.0, min_child_weight=0.0, depth=6)
    zeros = np.zeros(len(labels), np.float32)
    tree = grow(features, labels, zeros, config, rate=0.3, seed=0, min_count=k)
    free = grow(features, labels, zeros, config, rate=0.3, seed=0, min_count=0)
    assert 1 < len(tree.left) < len(free.left)
    at = tree.leaves(features)
    for node in np.unique(at):
        slices, positives = (at == node).sum(), labels[at == node].sum()
        assert slices >= k
        told = k / 2 if 0 < positives < k else slices - k / 2 if 0 < slices - positives < k else positives
        assert tree.value[node] == pytest.approx(0.3 * (told - slices / 2) / (slices / 4 + 1), rel=1e-5)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("left_children", [1, 3, -1, -1]),  # of another length
        ("left_children", [0, 3, -1, -1, -1]),  # a node below itself
        ("right_children", [1, 4, -1, -1, -1]),  # one child twice
        ("right_children", [2, 9, -1, -1, -1]),  # a child that is not there
        ("split_indices", [0, 7, 0, 0, 0]),  # a feature that is not there
        ("split_conditions", [1, float("nan"), 0, 0, 0]),
        ("split_conditions", [1, 1, "x", 0, 0]),
        ("split_indices", None),
    ],
)
def test_what_is_no_tree_is_refused(key: str, value: object) -> None:
    plain = json.loads(to_json([two_splits()], 2, PRIOR))
    plain["learner"]["gradient_booster"]["model"]["trees"][0][key] = value
    with pytest.raises(ValueError, match="expected"):
        from_json(json.dumps(plain).encode(), 2)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff\xfe"])
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ValueError, match="expected trees as XGBoost writes them"):
        from_json(raw, 2)
