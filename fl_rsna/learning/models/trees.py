"""Boosted trees as plain arrays: XGBoost grows them one at a time at a site; they are checked, read, written and evaluated without it.

A tree holds only what a prediction needs. XGBoost's own file also states the weight of the slices in every node. From that weight and
a leaf's value one can often infer how many slices, and how many positive slices, were there.
"""

import json
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.settings.stages import StackingConfig

Floats = NDArray[np.float32]
Places = NDArray[np.int64]

NOBODY = 2147483647  # number that XGBoost writes as the parent of a root
VERSION = [3, 0, 0]  # version of XGBoost's JSON
MOST_NODES = 4095  # most nodes of a tree that is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A tree of nodes [M], the root first: a slice goes left where x[feature] < value. A leaf has left = -1 and adds its value."""

    left: Places
    right: Places
    feature: Places
    value: Floats

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """Bool [M], true for leaves."""
        return self.left < 0

    def leaves(self, features: Floats) -> Places:
        """Return the node [N] of the leaf that each row of [N, F] reaches."""
        rows, at = np.arange(len(features)), np.zeros(len(features), np.int64)
        while (moving := ~self.is_leaf[at]).any():
            here, some = at[moving], rows[moving]
            lower = features[some, self.feature[here]] < self.value[here]
            at[moving] = np.where(lower, self.left[here], self.right[here])
        return at


Forest = list[Tree]


def margins(forest: Forest, features: Floats, prior: float) -> Floats:
    """Compute logits [N]: the logit of `prior` plus the values of all trees, added in their order."""
    found = np.full(len(features), np.log(prior / (1 - prior)), np.float32)
    for tree in forest:
        found += tree.value[tree.leaves(features)]
    return found


def leaf(value: float) -> Tree:
    """Return a tree of one leaf, with the same value for every slice."""
    nobody = np.full(1, -1, np.int64)
    return Tree(left=nobody, right=nobody, feature=np.zeros(1, np.int64), value=np.full(1, value, np.float32))


def to_json(forest: Forest, features: int, prior: float) -> bytes:
    """Write trees as XGBoost's JSON, with 0 for all sums over slices; equal trees give equal bytes."""
    model = {
        "cats": {"enc": [], "feature_segments": [], "sorted_idx": []},
        "gbtree_model_param": {"num_parallel_tree": "1", "num_trees": str(len(forest))},
        "iteration_indptr": list(range(len(forest) + 1)),
        "tree_info": [0] * len(forest),
        "trees": [_tree_to_json(number, tree, features) for number, tree in enumerate(forest)],
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
    """Read the trees in XGBoost's JSON; raises ValueError for anything but trees over `features` features."""
    try:
        model = json.loads(raw)["learner"]["gradient_booster"]["model"]
        return [_read(tree, features) for tree in model["trees"]]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f"expected trees as XGBoost writes them, got others ({type(error).__name__}: {error})"
        ) from None


def _tree_to_json(number: int, tree: Tree, features: int) -> dict[str, Any]:
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
    """Read one tree of XGBoost's JSON.

    Raises ValueError unless children come after their parents, each node but the root has one parent, and all numbers are valid.
    """
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


def xgboost() -> ModuleType:
    """Import XGBoost, which only growing a tree needs; raises ValueError without it."""
    try:
        import xgboost as found
    except ImportError:
        raise ValueError(
            "stacking.stacker: expected the package xgboost at every site, found none here; "
            "pip install 'fl-rsna[stacking]'"
        ) from None
    return found


def grow(
    features: Floats, labels: Floats, margin: Floats, config: StackingConfig, *, rate: float, seed: int, min_count: int
) -> Tree:
    """Grow a tree for one label [N] on features [N, F], to be added to logits `margin` [N]; its leaves are scaled by `rate`.

    By Chen and Guestrin 2016 (arXiv:1603.02754), on one thread, with rows and columns drawn here from `seed`: equal input gives
    equal trees. Slices of unknown label (NaN) are left out. With `min_count` above 1 the tree is pruned by `prune_tree`. Raises
    ValueError without XGBoost.
    """
    rng, known = np.random.default_rng(seed), np.flatnonzero(~np.isnan(labels))
    rows = np.sort(rng.choice(known, max(1, round(config.rows * len(known))), replace=False)) if len(known) else known
    width = features.shape[1]
    columns = np.sort(rng.choice(width, max(1, round(config.columns * width)), replace=False))
    if not len(rows):
        return leaf(0.0)
    own, truth, before = features[rows], labels[rows], margin[rows]
    library = xgboost()
    settings = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "base_score": 0.5,  # has no effect, as the margin is given
        "max_depth": config.depth,
        "eta": rate,
        # A leaf's weight is the sum of p (1 - p), at most 1/4 a slice: a leaf of weight k / 4 has at least k slices.
        "min_child_weight": max(config.min_child_weight, min_count / 4),
        "lambda": config.l2,
        "nthread": 1,
        "seed": 0,  # has no effect, as rows and columns are drawn above
        "verbosity": 0,
    }
    held = library.DMatrix(own[:, columns], label=truth, base_margin=before, nthread=1)
    (tree,) = from_json(bytes(library.train(settings, held, num_boost_round=1).save_raw("json")), len(columns))
    tree = Tree(left=tree.left, right=tree.right, feature=columns[tree.feature], value=tree.value)
    return prune_tree(tree, own, truth, before, min_count, l2=config.l2, rate=rate) if min_count > 1 else tree


def prune_tree(tree: Tree, features: Floats, labels: Floats, margin: Floats, k: int, *, l2: float, rate: float) -> Tree:
    """Prune a tree so that a site may send it where no count from 1 to k - 1 may be disclosed.

    A leaf's value is a ratio of sums over its slices; from a sum of few slices one can infer their number. So every split that
    leaves fewer than k slices on a side is removed. A leaf with 1 to k - 1 positives, or negatives, gets the value that k / 2 of
    them would give. A site with fewer than k positives or negatives in all returns one leaf of 0.
    """
    held = _sum_nodes(tree, tree.leaves(features), labels, margin)
    slices, positives = held[:, 0], held[:, 1]
    if min(positives[0], slices[0] - positives[0]) < k:
        return leaf(0.0)
    told = np.where(_few(positives, k), k / 2, np.where(_few(slices - positives, k), slices - k / 2, positives))
    values = rate * (told - held[:, 2]) / (held[:, 3] + l2)
    nodes: list[tuple[int, int, int, float]] = []  # left, right, feature, value

    def keep(node: int) -> int:
        """Append a node and all nodes below it, and return its number."""
        number, (left, right) = len(nodes), (int(tree.left[node]), int(tree.right[node]))
        splits = left >= 0 and min(slices[left], slices[right]) >= k
        exact = left < 0 and told[node] == positives[node]
        value = tree.value[node] if splits or exact else values[node]
        nodes.append((-1, -1, int(tree.feature[node]) if splits else 0, float(value)))
        if splits:
            nodes[number] = (keep(left), keep(right), *nodes[number][2:])
        return number

    keep(0)
    left, right, feature, value = zip(*nodes, strict=True)
    return Tree(
        left=np.array(left), right=np.array(right), feature=np.array(feature), value=np.array(value, np.float32)
    )


def _few(counts: NDArray[np.float64], k: int) -> NDArray[np.bool_]:
    return (counts > 0) & (counts < k)


def _sum_nodes(tree: Tree, at: Places, labels: Floats, margin: Floats) -> NDArray[np.float64]:
    """Sum over the slices of every node, [M, 4]: slices, positives, the probabilities p so far, and p (1 - p)."""
    found = 1 / (1 + np.exp(-margin.astype(np.float64)))
    columns = np.stack([np.ones_like(found), labels > 0, found, found * (1 - found)], axis=1)
    sums = np.zeros((len(tree.left), 4))
    np.add.at(sums, at, columns)
    for node in np.flatnonzero(~tree.is_leaf)[::-1]:  # children come after their parents
        sums[node] = sums[tree.left[node]] + sums[tree.right[node]]
    return sums
