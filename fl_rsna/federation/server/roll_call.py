"""Call the roll before round 1: every node names its site and its counts, and the server refuses sites that must not train together.

The sites' counts together decide each label's prior, and how many slices without a finding are drawn.
"""

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_rsna.cohort.partition.training_sites import site_number
from fl_rsna.cohort.prepared.index import hash_id
from fl_rsna.cohort.prepared.patients import are_placeholders
from fl_rsna.cohort.sites.site_folders import PartCounts
from fl_rsna.common.id_scheme import as_texts, unlike_places
from fl_rsna.federation.protocol.delivery import deliver
from fl_rsna.federation.protocol.messages import CONFIG, FAILURE, SITE, VERSION, Instructions, failure_of, instruct
from fl_rsna.learning.metrics.controls import Control, controls_of
from fl_rsna.learning.training.loss import rare_label_weights
from fl_rsna.learning.training.sampling import compute_kept_share, positive_share
from fl_rsna.settings.model import ModelConfig, Norm, Trainable
from fl_rsna.settings.strategy import Lost
from fl_rsna.settings.training import Correction, LabelWeights, Sampling, TrainConfig
from fl_rsna.task import LabelKind, Task
from fl_rsna.version import code_version

POLL_S = 0.2
STRIDE = 32  # pixels of an image that one value of a network's last feature map stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A site's answer to the roll call."""

    name: str
    node_id: int
    version: str  # of its code
    cohort_sha256: str
    task: str
    counts: dict[str, PartCounts]  # by part: train and validation
    controls: dict[str, list[list[int]]]
    patients: frozenset[str]  # salted hashes
    unannotated: frozenset[str] = frozenset()  # labels that it does not annotate
    image: str = ""  # the kind of its images, if it is known
    ids: str | None = None  # how its patients' ids were made, by common/id_scheme.py
    placeholders: bool = False  # whether it holds images under ids such as ANONYMOUS, whose patients cannot be compared


@dataclass(frozen=True, slots=True, kw_only=True)
class RollPatience:
    """The time limits of the roll call in seconds, None for no limit, and the functions that it calls while it waits."""

    nodes_s: float | None  # until all nodes are there, and for a node that went away
    answers_s: float | None  # until all sites have answered, which pack their images first
    on_wait: Callable[[int], None]  # gets the number of nodes that are there
    on_answer: Callable[[int], None]  # gets the number of sites that have answered


def call_roll(grid: Grid, instructions: Instructions, patience: RollPatience, *, expected: int) -> list[Site]:
    """Wait for `expected` nodes, query each, and return the sites sorted by name.

    Raises ValueError when fewer nodes come in time or one cannot answer.
    """
    nodes = _wait_for_nodes(grid, expected, patience)
    record = instruct(instructions)
    record[VERSION] = code_version()
    content = RecordDict({CONFIG: record})
    messages = [Message(content, node_id, MessageType.QUERY) for node_id in nodes]
    sites: list[Site] = []
    for reply in deliver(grid, messages, timeout_s=patience.answers_s, lost=Lost.wait, gone_s=patience.nodes_s):
        sites.append(_read(reply))
        patience.on_answer(len(sites))
    if len(sites) < len(nodes):
        raise ValueError(
            f"roll call: expected {len(nodes)} answers, got {len(sites)} within {patience.answers_s:g} s (deploy.first_timeout_s); "
            "look at the silent site's log"
        )
    return sorted(sites, key=lambda site: site_number(site.name))


def check_roll(
    sites: list[Site],
    *,
    cohort_sha256: str,
    task: str,
    test_patients: frozenset[str],
    test_ids: str | None,
    image: str | None = None,
    allow_unknown: bool = False,
) -> str | None:
    """Refuse sites that must not train together; raises ValueError.

    Refused are a site that answers twice, another version of the code, another cohort, task or kind of `image`, shared patients, and
    a site without training or validation slices. Where ids of two places were made in different ways it is unknown whether they share
    patients: that is refused, too, unless `allow_unknown` is set; then the sentence that says so is returned, else None.
    """
    names = [site.name for site in sites]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"roll call: expected every site once, got {name} {names.count(name)} times; give each node its own folder"
            )
    for site in sites:
        if site.version != code_version():
            raise ValueError(
                f"roll call: expected fl_rsna {code_version()} as here, got {site.version} at {site.name}; install the same version everywhere"
            )
        if site.task != task:
            raise ValueError(
                f"roll call: expected task {task}, got {site.task} at {site.name}; give it a folder of this cohort"
            )
        if image is not None and site.image and site.image != image:
            raise ValueError(
                f"roll call: expected images of kind {image}, got {site.image} at {site.name}; give it a folder of this cohort"
            )
        if site.cohort_sha256 != cohort_sha256:
            raise ValueError(
                f"roll call: expected cohort {cohort_sha256[:12]}, got {site.cohort_sha256[:12]} at {site.name}; copy the same cohort"
            )
    unknown = unlike_places([*((site.name, site.ids) for site in sites), ("the test site", test_ids)])
    if unknown is not None and not allow_unknown:
        raise ValueError(
            f"roll call: {unknown}; prepare all with the same data.salt, or say allow_unknown_patients=true"
        )
    for site in sites:
        for part in ("train", "validation"):
            held = site.counts.get(part)
            if held is None or held.get("slices", 0) == 0:
                raise ValueError(
                    f"roll call: expected {part} images at {site.name}, got none; partition again with fewer sites"
                )
    for i, one in enumerate(sites):
        if one.patients & test_patients:
            raise ValueError(
                f"roll call: {one.name} and the test site share {len(one.patients & test_patients)} patients; partition by patient"
            )
        for other in sites[i + 1 :]:
            if one.patients & other.patients:
                raise ValueError(
                    f"roll call: {one.name} and {other.name} share {len(one.patients & other.patients)} patients; partition by patient"
                )
    return unknown


def warn_of_placeholders(sites: list[Site], test: pd.DataFrame) -> list[str]:
    """Return a warning for places whose images have ids such as ANONYMOUS: their patients cannot be compared with other places."""
    names = [site.name for site in sites if site.placeholders] + ["the test site"] * bool(are_placeholders(test).any())
    if not names:
        return []
    return [
        f"roll call: unknown whether a patient is at two places: {', '.join(names)} hold images under patient ids that stand for nobody, "
        "such as ANONYMOUS"
    ]


def check_annotated(sites: list[Site], task: Task, sampling: Sampling) -> None:
    """Refuse labels that no site annotates, and sampling by a label that a site does not annotate; raises ValueError."""
    for label in task.labels:
        lacking = [site.name for site in sites if label in site.unannotated]
        if len(lacking) == len(sites):
            raise ValueError(
                f"roll call: expected a site that annotates {label}, got none of {len(sites)}; take one more, or all learn nothing of it"
            )
        if label != task.union or sampling is not Sampling.under:
            continue
        if lacking:
            raise ValueError(
                f"train.sampling: under draws by {label}, which {lacking[0]} does not annotate; say train.sampling=all or weighted"
            )
        for site in sites:
            held = site.counts["train"]
            if label in held.get("known", {}):
                raise ValueError(
                    f"train.sampling: under draws by {label}, which {held['known'][label]} of {held['slices']} training slices at "
                    f"{site.name} have; say train.sampling=all or weighted"
                )


def check_single(sites: list[Site], model: ModelConfig, trainable: Trainable) -> list[str]:
    """Return warnings for sites with one training image, from which BatchNorm learns nothing; raises ValueError where training is impossible.

    The last feature map of a network is a single value for an image of 32 pixels, and one value has no variance.
    """
    learned = trainable is Trainable.all and model.norm not in (Norm.frozen, Norm.group)
    alone = [site.name for site in sites if site.counts["train"]["slices"] == 1] if learned else []
    if alone and model.image_size <= STRIDE:
        raise ValueError(
            f"roll call: expected two training images or more at {alone[0]}, got one, of which BatchNorm cannot learn at "
            f"model.image_size={model.image_size}; say model.norm=group or partition again with fewer sites"
        )
    return [f"{name} has one training image: its BatchNorm statistics are of that image alone" for name in alone]


def hash_patients(patients: pd.Series, salt: str) -> frozenset[str]:
    """Hash the test site's patients with the run's salt, as sites hash theirs."""
    return frozenset(hash_id(patient, salt) for patient in as_texts(patients))


def sum_controls(sites: list[Site], task: Task) -> dict[Control, NDArray[np.int64]]:
    """Add up the control tables of all sites: int64 [BINS, 1 + L] for each control."""
    return {
        control: np.sum([site.controls[control.value] for site in sites], axis=0, dtype=np.int64)
        for control in controls_of(task.rendering)
    }


def _wait_for_nodes(grid: Grid, expected: int, patience: RollPatience) -> list[int]:
    end, known = math.inf if patience.nodes_s is None else time.monotonic() + patience.nodes_s, -1
    while len(nodes := sorted(grid.get_node_ids())) < expected:
        if time.monotonic() > end:
            raise ValueError(
                f"roll call: expected {expected} nodes, got {len(nodes)} within {patience.nodes_s:g} s (strategy.timeout_s); "
                "start the missing sites"
            )
        if len(nodes) != known:
            known = len(nodes)
            patience.on_wait(known)
        time.sleep(POLL_S)
    return nodes


def _read(reply: Message) -> Site:
    failure = failure_of(reply)
    if failure is not None:
        told = reply.content.get(FAILURE) if reply.has_content() else None
        site = told.get("site") if isinstance(told, ConfigRecord) else None
        speaker = str(site) if site else f"node {reply.metadata.src_node_id}"
        raise ValueError(f"roll call: {speaker} cannot take part: {failure[0]}")
    answer = reply.content.config_records[SITE]
    patients, unannotated = answer["patients"], answer.get("unannotated", [])
    assert isinstance(patients, list)
    assert isinstance(unannotated, list)
    return Site(
        name=str(answer["name"]),
        node_id=reply.metadata.src_node_id,
        version=str(answer.get("version", "one that does not say")),
        cohort_sha256=str(answer["cohort_sha256"]),
        task=str(answer["task"]),
        image=str(answer.get("image", "")),
        counts=json.loads(str(answer["counts"])),
        controls=json.loads(str(answer["controls"])),
        patients=frozenset(map(str, patients)),
        unannotated=frozenset(map(str, unannotated)),
        ids=str(answer.get("ids", ""))[:40] or None,
        placeholders=answer.get("placeholders") is True,
    )


def with_label_priors(instructions: Instructions, sites: Sequence[Site], task: Task) -> Instructions:
    """Add to the instructions the prior, and under train.sampling=under the share of slices to draw, that the counts of `sites` decide.

    Under train.sampling=under the same share of the slices without the union label is kept at every site. So the sites' priors keep
    their relation, and the model corrects for the share in the same way everywhere.
    """
    instructions = _with_class_weights(replace(instructions, prior=prior_of(sites, task)), task)
    if instructions.train.sampling is not Sampling.under:
        return instructions
    kept = compute_draw_share(sites, task, instructions.train.negatives, instructions.min_count)
    corrected = kept if instructions.train.correction is Correction.prior else 1.0
    return replace(instructions, kept=kept, model=replace(instructions.model, kept_negatives=corrected))


def _with_class_weights(instructions: Instructions, task: Task) -> Instructions:
    """Give the model the class weights of label_weights=prevalence, which it divides out of its probabilities; else change nothing."""
    by_class = task.kind is LabelKind.multi_class and instructions.train.label_weights is LabelWeights.prevalence
    if not by_class or instructions.train.correction is Correction.none:
        return instructions
    return replace(
        instructions,
        model=replace(instructions.model, class_weights=list(rare_label_weights(task, instructions.prior))),
    )


def approximate(train: TrainConfig) -> str | None:
    """Return a warning where the correction of the prior is approximate: sampling by hard labels, but training on soft ones."""
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


def by_own_counts(instructions: Instructions, site: Site, task: Task) -> Instructions:
    """Add to the instructions what a site's own counts decide, for a site that trains by itself.

    Where the site withholds a count in the roll call, the counts of all sites take its place: any share can be corrected for.
    """
    own = np.array(prior_of([site], task))
    known = np.array([_count_positives(site, label) is not None for label in task.labels])
    prior = tuple(np.where(known, own, instructions.prior).tolist())
    if instructions.train.sampling is not Sampling.under or _count_positives(site, task.union or "") is None:
        return _with_class_weights(replace(instructions, prior=prior), task)
    return replace(with_label_priors(instructions, [site], task), prior=prior)


def prior_of(sites: Sequence[Site], task: Task) -> tuple[float, ...]:
    """Compute by label the share of positive training slices over all sites that report their counts."""
    shares = []
    for label in task.labels:
        known = _collect_label_counts(sites, label)
        positives, slices = (sum(column) for column in zip(*known, strict=True)) if known else (0, 0)
        shares.append(positive_share(np.array([positives], np.float64), slices))
    return tuple(np.concatenate(shares).tolist())


def compute_draw_share(sites: Sequence[Site], task: Task, wanted: float, min_count: int) -> float:
    """Compute the share of slices without the union label to draw, so that over all sites there are `wanted` of them to one positive.

    Raises ValueError when no site reports its counts, and when no slice is positive.
    """
    assert task.union is not None
    known = _collect_label_counts(sites, task.union)
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
    return compute_kept_share(positives, slices, wanted)


def _collect_label_counts(sites: Sequence[Site], label: str) -> list[tuple[int, int]]:
    """Return, for each site that reports them, the training slices with the label and those for which it is known."""
    held = [(count, site.counts["train"]) for site in sites if (count := _count_positives(site, label)) is not None]
    return [(count, train.get("known", {}).get(label, train["slices"])) for count, train in held]


def _count_positives(site: Site, label: str) -> int | None:
    """Return the number of training slices with the label, None where the site does not report it."""
    return site.counts["train"]["positives"].get(label)
