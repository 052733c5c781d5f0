"""One more tree at one site, grown by XGBoost on what the trees so far leave unexplained."""

from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from fl_rsna.config import StackingConfig
from fl_rsna.learning.trees import Floats, Places, Tree, from_json, leaf


def xgboost() -> ModuleType:
    """The library, loaded when a tree is grown; raises ValueError without it."""
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
    """A tree for one label [N] on features [N, F], to be added to logits `margin` [N]; its leaves are times `rate`.

    Chen and Guestrin 2016 (arXiv:1603.02754), on one thread, with rows and columns drawn here from `seed`: the same
    input gives the same tree. Slices of unknown label (NaN) take no part. With `min_count` it is cut back: see `pruned`.
    """
    rng, known = np.random.default_rng(seed), np.flatnonzero(~np.isnan(labels))
    rows = np.sort(rng.choice(known, max(1, round(config.rows * len(known))), replace=False)) if len(known) else known
    width = features.shape[1]
    columns = np.sort(rng.choice(width, max(1, round(config.columns * width)), replace=False))
    if not len(rows):
        return leaf(0.0)
    own, truth, before = features[rows], labels[rows], margin[rows]
    tree = _grown(own[:, columns], truth, before, config, rate, min_count)
    tree = Tree(left=tree.left, right=tree.right, feature=columns[tree.feature], value=tree.value)
    return pruned(tree, own, truth, before, min_count, l2=config.l2, rate=rate) if min_count > 1 else tree


def _grown(
    features: Floats, labels: Floats, margin: Floats, config: StackingConfig, rate: float, min_count: int
) -> Tree:
    """As p (1 - p) is at most 1/4, a leaf of weight k / 4 has k slices: with `min_count` XGBoost looks for no smaller one."""
    library = xgboost()
    settings = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "base_score": 0.5,  # of no account: the margin is given
        "max_depth": config.depth,
        "eta": rate,
        "min_child_weight": max(config.min_child_weight, min_count / 4),
        "lambda": config.l2,
        "nthread": 1,
        "seed": 0,  # nothing is left to draw
        "verbosity": 0,
    }
    held = library.DMatrix(features, label=labels, base_margin=margin, nthread=1)
    raw = bytes(library.train(settings, held, num_boost_round=1).save_raw("json"))
    return from_json(raw, features.shape[1])[0]


def pruned(tree: Tree, features: Floats, labels: Floats, margin: Floats, k: int, *, l2: float, rate: float) -> Tree:
    """The tree as a site may send it when no count from 1 to k - 1 leaves it.

    A leaf's value is a ratio of sums over its slices: of few, one can tell how many. So no split leaves fewer than k
    slices on a side; and a leaf with 1 to k - 1 positives, or negatives, says what k / 2 of them would have it say. A
    site with fewer than k positives or negatives in all says nothing: one leaf of 0.
    """
    held = _held(tree, tree.leaves(features), labels, margin)
    slices, positives = held[:, 0], held[:, 1]
    if min(positives[0], slices[0] - positives[0]) < k:
        return leaf(0.0)
    told = np.where(_few(positives, k), k / 2, np.where(_few(slices - positives, k), slices - k / 2, positives))
    values = rate * (told - held[:, 2]) / (held[:, 3] + l2)
    nodes: list[tuple[int, int, int, float]] = []  # left, right, feature, value

    def keep(node: int) -> int:
        """Write a node and what is below it; its number."""
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


def _held(tree: Tree, at: Places, labels: Floats, margin: Floats) -> NDArray[np.float64]:
    """Of every node [M, 4]: slices, positives, and sums of the probabilities p so far and of p (1 - p)."""
    found = 1 / (1 + np.exp(-margin.astype(np.float64)))
    columns = np.stack([np.ones_like(found), labels > 0, found, found * (1 - found)], axis=1)
    sums = np.zeros((len(tree.left), 4))
    np.add.at(sums, at, columns)
    for node in np.flatnonzero(~tree.is_leaf)[::-1]:  # children come after their parents
        sums[node] = sums[tree.left[node]] + sums[tree.right[node]]
    return sums
