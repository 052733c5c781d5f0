"""What the sites' counts together decide before round 1: each label's prior, and how many slices without a finding are drawn."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fl_rsna.choices import Correction, LabelWeights, Sampling
from fl_rsna.config import TrainConfig
from fl_rsna.federation.messages import Instructions
from fl_rsna.federation.rollcall import Site
from fl_rsna.learning.loss import rare_label_weights
from fl_rsna.learning.sampling import kept_negatives
from fl_rsna.learning.site_round import positive_share
from fl_rsna.task import LabelKind, Task


def after_roll_call(told: Instructions, sites: Sequence[Site], task: Task) -> Instructions:
    """Instructions with what the counts of `sites` decide; the model they name corrects for what is drawn.

    Under train.sampling=under one share of the slices without the union label is kept at every site, so that the sites'
    priors keep their relation, and one correction holds for all.
    """
    told = _with_class_weights(replace(told, prior=prior_of(sites, task)), task)
    if told.train.sampling is not Sampling.under:
        return told
    kept = kept_of(sites, task, told.train.negatives, told.min_count)
    corrected = kept if told.train.correction is Correction.prior else 1.0
    return replace(told, kept=kept, model=replace(told.model, kept_negatives=corrected))


def _with_class_weights(told: Instructions, task: Task) -> Instructions:
    """Classes that are to count by how rare they are: the model they are trained with takes their weights off again."""
    by_class = task.kind is LabelKind.multi_class and told.train.label_weights is LabelWeights.prevalence
    if not by_class or told.train.correction is Correction.none:
        return told
    return replace(told, model=replace(told.model, class_weights=list(rare_label_weights(task, told.prior))))


def approximate(train: TrainConfig) -> str | None:
    """What somebody should know who draws by hard labels, learns soft ones and has the prior given back."""
    soft = {
        "train.mixup": train.mixup > 0,
        "train.smooth_z": train.smooth_z > 1,
        "train.soft_between": train.soft_between > 0,
        "train.label_smoothing": train.label_smoothing > 0,
    }
    if train.sampling is not Sampling.under or train.correction is not Correction.prior or not any(soft.values()):
        return None
    return (
        f"train.sampling=under: beside {' and '.join(key for key, is_on in soft.items() if is_on)} its correction of the prior, which "
        "takes labels for hard ones, is approximate, and probabilities lean low; say train.sampling=weighted, whose weights are exact"
    )


def by_own_counts(told: Instructions, site: Site, task: Task) -> Instructions:
    """The same for a site that trains by itself and knows its own counts only.

    Where it withholds them from the roll call those of all sites stand in: any share can be corrected for.
    """
    own = np.array(prior_of([site], task))
    known = np.array([_known(site, label) is not None for label in task.labels])
    prior = tuple(np.where(known, own, told.prior).tolist())
    if told.train.sampling is not Sampling.under or _known(site, task.union or "") is None:
        return _with_class_weights(replace(told, prior=prior), task)
    return replace(after_roll_call(told, [site], task), prior=prior)


def prior_of(sites: Sequence[Site], task: Task) -> tuple[float, ...]:
    """Share of positive training slices of all sites together, a label; of those that say how many they have."""
    shares = []
    for label in task.labels:
        known = _known_of_all(sites, label)
        positives, slices = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0)
        shares.append(positive_share(np.array([positives], np.float64), slices))
    return tuple(np.concatenate(shares).tolist())


def kept_of(sites: Sequence[Site], task: Task, wanted: float, min_count: int) -> float:
    """The share of slices without the union label to draw, so that `wanted` come to a positive one over all sites that tell.

    Raises ValueError when no site tells, and when no slice is positive.
    """
    assert task.union is not None
    known = _known_of_all(sites, task.union)
    if not known:
        raise ValueError(
            f"train.sampling: under needs a site that tells how many slices with {task.union} it has, but "
            f"privacy.min_count={min_count} keeps all of them to themselves; say train.sampling=all or weighted"
        )
    positives, slices = (sum(column) for column in zip(*known, strict=True))
    if positives == 0:
        raise ValueError(
            f"train.sampling: under needs training slices with {task.union}, got none; say train.sampling=all"
        )
    return kept_negatives(positives, slices, wanted)


def _known_of_all(sites: Sequence[Site], label: str) -> list[tuple[int, int]]:
    """Training slices with the label, and those of which it is known, of each site that tells."""
    held = [(count, site.counts["train"]) for site in sites if (count := _known(site, label)) is not None]
    return [(count, int(train.get("known", {}).get(label, train["slices"]))) for count, train in held]


def _known(site: Site, label: str) -> int | None:
    """Training slices with the label, None where the site does not tell."""
    found = site.counts["train"]["positives"].get(label)
    return None if found is None else int(found)
