"""Boosted trees as plain arrays: what XGBoost grew, checked, read and written without it.

A tree is what predicting needs and no more. XGBoost's own file has, beside that, how much weight of slices lay in every
node; from it and a leaf's value one can often tell how many slices, and how many positive ones, were there.
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

NOBODY = 2147483647  # XGBoost's parent of a root
VERSION = [3, 0, 0]  # of XGBoost's JSON
MOST_NODES = 4095  # of a tree that is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """Nodes [M], the root first: a slice goes left where x[feature] < value. A leaf has left = -1, and adds its value."""

    left: Places
    right: Places
    feature: Places
    value: Floats

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        return self.left < 0

    def leaves(self, features: Floats) -> Places:
        """The leaf [N] that each row of [N, F] comes to."""
        rows, at = np.arange(len(features)), np.zeros(len(features), np.int64)
        while (moving := ~self.is_leaf[at]).any():
            here, some = at[moving], rows[moving]
            lower = features[some, self.feature[here]] < self.value[here]
            at[moving] = np.where(lower, self.left[here], self.right[here])
        return at


Forest = list[Tree]


def margins(forest: Forest, features: Floats, prior: float) -> Floats:
    """Logits [N]: the prior's and what every tree adds, in their order."""
    found = np.full(len(features), base_margin(prior), np.float32)
    for tree in forest:
        found += tree.value[tree.leaves(features)]
    return found


def base_margin(prior: float) -> np.float32:
    return np.float32(np.log(prior / (1 - prior)))


def leaf(value: float) -> Tree:
    """A tree that says the same of every slice."""
    nobody = np.full(1, -1, np.int64)
    return Tree(left=nobody, right=nobody, feature=np.zeros(1, np.int64), value=np.full(1, value, np.float32))


def to_json(forest: Forest, features: int, prior: float) -> bytes:
    """XGBoost's JSON of these trees, without sums of any slice; the same trees give the same bytes."""
    model = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(forest))},
        "iteration_indptr": list(range(len(forest) + 1)),
        "tree_info": [0] * len(forest),
        "trees": [_written(number, tree, features) for number, tree in enumerate(forest)],
    }
    learner: dict[str, Any] = {
        "attributes": {},
        "feature_names": [],
        "feature_types": [],
        "gradient_booster": {"model": model, "name": "gbtree"},
        "learner_model_param": {
            "base_score": f"[{prior:.9E}]",
            "boost_from_average": "0",
            "num_class": "0",
            "num_feature": str(features),
            "num_target": "1",
        },
        "objective": {"name": "binary:logistic", "reg_loss_param": {"scale_pos_weight": "1"}},
    }
    return json.dumps({"learner": learner, "version": VERSION}).encode()


def from_json(raw: bytes, features: int) -> Forest:
    """The trees in XGBoost's JSON; raises ValueError for what are none over so many features."""
    try:
        model = json.loads(raw)["learner"]["gradient_booster"]["model"]
        return [_read(tree, features) for tree in model["trees"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"expected trees as XGBoost writes them, got others ({type(error).__name__}: {error})"
        ) from None


def _written(number: int, tree: Tree, features: int) -> dict[str, Any]:
    nodes = len(tree.left)
    parents = np.full(nodes, NOBODY, np.int64)
    inner = np.flatnonzero(~tree.is_leaf)
    parents[tree.left[inner]] = parents[tree.right[inner]] = inner
    nothing = [0.0] * nodes
    return {
        "base_weights": nothing,
        "categories": [],
        "categories_nodes": [],
        "categories_segments": [],
        "categories_sizes": [],
        "default_left": [0] * nodes,
        "id": number,
        "left_children": tree.left.tolist(),
        "loss_changes": nothing,
        "parents": parents.tolist(),
        "right_children": tree.right.tolist(),
        "split_conditions": [float(f"{value:.9g}") for value in tree.value],
        "split_indices": tree.feature.tolist(),
        "split_type": [0] * nodes,
        "sum_hessian": nothing,
        "tree_param": {
            "num_deleted": "0",
            "num_feature": str(features),
            "num_nodes": str(nodes),
            "size_leaf_vector": "1",
        },
    }


def _read(tree: dict[str, Any], features: int) -> Tree:
    """Children come after their parents, each has one, and every number is one."""
    left, right, feature = (
        np.array(tree[name], np.int64) for name in ("left_children", "right_children", "split_indices")
    )
    value = np.array(tree["split_conditions"], np.float32)
    nodes = len(left) if left.shape == right.shape == feature.shape == value.shape and left.ndim == 1 else 0
    inner = left[:nodes] >= 0
    if not (
        0 < nodes <= MOST_NODES
        and np.isfinite(value).all()
        and np.array_equal(np.sort(np.concatenate([left[inner], right[inner]])), np.arange(1, nodes))
        and (np.minimum(left, right)[inner] > np.flatnonzero(inner)).all()
        and (right[~inner] < 0).all()
        and ((feature >= 0) & (feature < features)).all()
    ):
        raise ValueError(f"expected a tree over {features} features, got one that is none")
    return Tree(left=left, right=right, feature=np.where(inner, feature, 0), value=value)
