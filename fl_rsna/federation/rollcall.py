"""Before round 1: every node says which site it is and what it holds; the server refuses what must not train together."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from flwr.app import ConfigRecord, Message, MessageType, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_rsna.choices import Lost, Norm, Sampling, Trainable
from fl_rsna.cohort.dealing import site_number
from fl_rsna.cohort.id_scheme import as_texts, unlike_places
from fl_rsna.cohort.index import hash_id
from fl_rsna.cohort.patients import are_placeholders
from fl_rsna.config import ModelConfig
from fl_rsna.federation.delivery import deliver
from fl_rsna.federation.messages import CONFIG, FAILURE, SITE, VERSION, Instructions, failure_of, instruct
from fl_rsna.learning.controls import Control, controls_of
from fl_rsna.task import Task
from fl_rsna.version import code_version

POLL_S = 0.2
STRIDE = 32  # pixels of an image that one value of a network's last feature map stands for


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One answer to the roll call."""

    name: str
    node_id: int
    version: str  # of the code it runs
    cohort_sha256: str
    task: str
    counts: dict[str, Any]  # by part: patients, slices, positives a label; None is withheld
    controls: dict[str, list[list[int]]]
    patients: frozenset[str]  # salted hashes
    unannotated: frozenset[str] = frozenset()  # labels that it says nothing about
    image: str = ""  # the kind of its images, where it says
    ids: str | None = None  # how its patients' ids were made, by cohort/id_scheme.py
    placeholders: bool = False  # whether it holds images under ids such as ANONYMOUS, whose patients nobody can compare


@dataclass(frozen=True, slots=True, kw_only=True)
class RollPatience:
    """How long the roll call waits, None for as long as it takes; and who hears how far it is."""

    nodes_s: float | None  # until all nodes are there, and for one that went away
    answers_s: float | None  # for the answers: a site packs its images first
    on_wait: Callable[[int], None]  # nodes that are there
    on_answer: Callable[[int], None]  # sites that answered


def call_roll(grid: Grid, instructions: Instructions, patience: RollPatience, *, expected: int) -> list[Site]:
    """Wait for `expected` nodes, query each, and return the sites sorted by name.

    Raises ValueError when fewer nodes come in time or one cannot answer.
    """
    nodes = _wait_for_nodes(grid, expected, patience)
    told = instruct(instructions)
    told[VERSION] = code_version()
    content = RecordDict({CONFIG: told})
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
    """Refuse a wrong or doubled site, another version of the code, another cohort, task or kind of `image`, shared patients, and

    a site with nothing to train on.

    Where ids of two places were made in different ways nobody can tell whether they share patients: refused, too, unless
    `allow_unknown`; then the sentence that says so is returned.
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
            if site.counts.get(part, {}).get("slices", 0) == 0:
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
    """The warning of places whose images are under ids that stand for nobody; their patients are compared with no other place."""
    names = [site.name for site in sites if site.placeholders] + ["the test site"] * bool(are_placeholders(test).any())
    if not names:
        return []
    return [
        f"roll call: unknown whether a patient is at two places: {', '.join(names)} hold images under patient ids that stand for nobody, "
        "such as ANONYMOUS"
    ]


def check_annotated(sites: list[Site], task: Task, sampling: Sampling) -> None:
    """Refuse labels that no site annotates, and a draw by a label that one does not."""
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
    """Warnings of sites with one training image, from which BatchNorm learns nothing; raises ValueError where it cannot even train.

    A network's last feature map is one value of an image of 32 pixels, and one value has no variance.
    """
    learned = trainable is Trainable.all and model.norm not in (Norm.frozen, Norm.group)
    alone = [site.name for site in sites if site.counts["train"]["slices"] == 1] if learned else []
    if alone and model.image_size <= STRIDE:
        raise ValueError(
            f"roll call: expected two training images or more at {alone[0]}, got one, of which BatchNorm cannot learn at "
            f"model.image_size={model.image_size}; say model.norm=group or partition again with fewer sites"
        )
    return [f"{name} has one training image: its BatchNorm statistics are of that image alone" for name in alone]


def hashed_patients(patients: pd.Series, salt: str) -> frozenset[str]:
    """The test site's patients under the run's salt, comparable with the sites' answers."""
    return frozenset(hash_id(patient, salt) for patient in as_texts(patients))


def summed_controls(sites: list[Site], task: Task) -> dict[Control, NDArray[np.int64]]:
    """The control tables of all sites, added up: int64 [BINS, 1 + L] a control."""
    return {
        control: np.sum([site.controls[control.value] for site in sites], axis=0, dtype=np.int64)
        for control in controls_of(task.rendering)
    }


def _wait_for_nodes(grid: Grid, expected: int, patience: RollPatience) -> list[int]:
    end, told = math.inf if patience.nodes_s is None else time.monotonic() + patience.nodes_s, -1
    while len(nodes := sorted(grid.get_node_ids())) < expected:
        if time.monotonic() > end:
            raise ValueError(
                f"roll call: expected {expected} nodes, got {len(nodes)} within {patience.nodes_s:g} s (strategy.timeout_s); "
                "start the missing sites"
            )
        if len(nodes) != told:
            told = len(nodes)
            patience.on_wait(told)
        time.sleep(POLL_S)
    return nodes


def _speaker(reply: Message) -> str:
    """The site that answered with a failure, where it said who it is, else its node."""
    told = reply.content.get(FAILURE) if reply.has_content() else None
    site = told.get("site") if isinstance(told, ConfigRecord) else None
    return str(site) if site else f"node {reply.metadata.src_node_id}"


def _read(reply: Message) -> Site:
    failure = failure_of(reply)
    if failure is not None:
        raise ValueError(f"roll call: {_speaker(reply)} cannot take part: {failure[0]}")
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
