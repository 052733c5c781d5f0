"""List everything that can be refused before a run: simulate and coordinate refuse by this list, and doctor says what they would refuse.

A check raises ValueError with the sentence that every command says. The checks in REQUEST need only the settings and what lies on this
disk; they run before anything is drawn, prepared, assigned to sites or written. Those in ON_COHORT need the cohort and run before the run's folder is
made. Add here every new refusal that can be known before round 1, so that users learn of it at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from fl_rsna.cohort.partition.assignment import read_site_names
from fl_rsna.cohort.prepared.index import Prepared, hash_id, read_facts
from fl_rsna.cohort.sites.noise import noise_of_sites
from fl_rsna.cohort.sites.site_folders import Cohort, counts, read_cohort
from fl_rsna.cohort.steps import (
    TEST_SET,
    check_demo,
    check_named,
    cohort_brought,
    cohort_name,
    plan_partition,
    plan_sites,
)
from fl_rsna.evaluation.evaluate import check_predict
from fl_rsna.federation.protocol.minimum_count import suppress_counts
from fl_rsna.federation.server.context import check_unseen, read_chains, read_start_model
from fl_rsna.federation.server.encoder import check_encoder, read_encoder
from fl_rsna.federation.server.roll_call import Site, check_annotated, compute_draw_share
from fl_rsna.federation.server.site_settings import check_sites
from fl_rsna.federation.stages import stages
from fl_rsna.learning.data.crop import squares
from fl_rsna.learning.data.dataset import read_site
from fl_rsna.learning.data.folds import check_patients
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.trees import xgboost
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.train import choose_device, layer_rates
from fl_rsna.phantom.chest.cohort import patient_id as chest_patient_id
from fl_rsna.phantom.head.cohort import patient_id
from fl_rsna.reporting.trackers.follow import check_packages
from fl_rsna.run_folder.run_folder import ENCODER, MANIFEST, check_same, is_begun, is_new, kind_of, kinds_of
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind, PrepareEngine, is_demo
from fl_rsna.settings.effects import refuse_typed
from fl_rsna.settings.fields import Asked, Command
from fl_rsna.settings.model import check_model
from fl_rsna.settings.partition import TEST_SITE, UNANNOTATED, Group, PartitionKind
from fl_rsna.settings.runtime import EngineName, check_ray
from fl_rsna.settings.stages import Stacker, Stage
from fl_rsna.settings.training import Sampling
from fl_rsna.task import LabelKind, Rendering, Task, find_task

MOST_DRAWN = 10**6  # patients whose assignment is tried before they are drawn


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A command with its settings and the keys that were typed; `cohort` is the one that a coordinator has."""

    config: Config
    command: Command = Command.simulate
    typed: frozenset[str] = frozenset()
    cohort: Cohort | None = None

    @property
    def folder(self) -> Path | None:
        """Return the run's folder; None for a run that is named by the time."""
        name = self.config.run.name
        return None if name is None else Path(self.config.paths.runs) / name

    @property
    def goes_on(self) -> bool:
        """Check whether a run that is there already is resumed, with the model that it began with."""
        if not self.config.resume or self.folder is None:
            return False
        return (self.folder / MANIFEST).exists() or any(self.folder.glob(f"*/{MANIFEST}"))  # the manifest of a part

    @property
    def data_folder(self) -> Path:
        return Path(self.config.paths.prepared) / self.config.data.name


Check = Callable[[Request], object]


def check_request(request: Request) -> None:
    """Raise ValueError for the first reason why a run cannot begin, before anything is made for it."""
    for _, check in REQUEST:
        check(request)


def check_on_cohort(request: Request, cohort: Cohort) -> None:
    """Raise ValueError for the first reason why a run cannot begin on this cohort, before the run's folder is made."""
    for _, check in ON_COHORT:
        check(request, cohort)


def refusals(request: Request) -> Iterator[tuple[str, ValueError]]:
    """Yield every refusal of a run that can be found without making anything, each with what it is about."""
    for what, check in REQUEST:
        try:
            check(request)
        except ValueError as error:
            yield what, error
    cohort = request.cohort or _cohort_there(request.config)
    if cohort is None:
        return
    for what, check_with in ON_COHORT:
        try:
            check_with(request, cohort)
        except ValueError as error:
            yield what, error


def check_resumed(request: Request) -> None:
    """Raise ValueError for resume=true without a run.name."""
    if request.config.resume and request.config.run.name is None:
        raise ValueError("resume: expected the run.name of the run to go on with, got none; say run.name=<name>")


def check_libraries(request: Request) -> None:
    """Raise ValueError when a package is missing that only these settings need."""
    config = request.config
    check_packages(config.tracking)
    if config.engine.name is EngineName.ray:
        check_ray("engine.name")
    if config.prepare.engine is PrepareEngine.ray and config.data.dicom is not None:
        check_ray("prepare.engine")
    if config.stage is Stage.stacking and config.stacking.stacker is Stacker.xgboost:
        xgboost()


def check_engine(request: Request) -> None:
    """Raise ValueError for a simulation on the engine of a deployment."""
    if request.command is Command.simulate and request.config.engine.name is EngineName.deployment:
        raise ValueError(
            "engine.name: expected local or ray, got deployment; between machines use python -m fl_rsna.coordinate"
        )


def check_run_name(request: Request) -> None:
    """Raise ValueError when the run's folder exists and is not to be resumed, or is none that this run can go on with."""
    folder, config = request.folder, request.config
    if folder is not None:
        is_new(folder, kinds_of(kind_of(config), config, folder), resume=config.resume, begun=is_begun(folder))


def check_asked_data(request: Request) -> None:
    """Raise ValueError for data without the labels to train on, and for settings that contradict the prepared data."""
    config = request.config
    check_named(config)
    if request.command is not Command.simulate:
        return
    if config.data.dicom is not None and config.data.unlabelled:
        raise ValueError(
            "data.unlabelled: expected false for a run, which learns from labels, got true; "
            "prepare such data with python -m fl_rsna.prepare and score them with python -m fl_rsna.evaluate"
        )
    if config.data.dicom is not None and config.data.unannotated:
        raise ValueError(
            f"data.unannotated: expected nothing for a run on one machine, got {', '.join(config.data.unannotated)}; "
            "say partition.noise={<site>: {unannotated: [...]}}, or make a site of its own with python -m fl_rsna.own_site"
        )
    if not request.data_folder.exists() or config.data.dicom is not None:
        return
    if is_demo(config.data):
        check_demo(config, request.data_folder)
    for key, made in _read_preparation(request).items():
        asked = getattr(config.data, key)
        if (is_demo(config.data) or f"data.{key}" in request.typed) and asked != made:
            raise ValueError(
                f"data.{key}: expected {made}, as {request.data_folder} was made with, got {asked}; "
                "choose another data.name, or delete that folder to make it again"
            )


def _read_preparation(request: Request) -> dict[str, Any]:
    """Read the settings that the prepared images were made with: image, size and hash_ids, where prepare.json states them."""
    missing = f"data.name: no prepared data at {request.data_folder}; run python -m fl_rsna.prepare first"
    made = read_facts(request.data_folder / "prepare.json", missing).get("request", {})
    return {key: made[key] for key in ("image", "size", "hash_ids") if key in made}


def true_of_data(request: Request) -> frozenset[str]:
    """List the keys of data.* that state what the prepared data are already; they change nothing, and need no warning."""
    if request.command is not Command.simulate or not (request.data_folder / "prepare.json").exists():
        return frozenset()
    made, data = _read_preparation(request), request.config.data
    return frozenset(f"data.{key}" for key in made if made[key] == getattr(data, key))


def check_planned_sites(request: Request) -> None:
    """Raise ValueError for sites that cannot be made and for settings of sites that will not exist, as far as is known yet."""
    config, task = request.config, find_task(request.config.data.task)
    cohort = request.cohort or _cohort_there(config)
    if cohort is not None and request.command is Command.coordinate:
        check_sites(config, cohort.sites)
        return
    if config.data.dicom is None and request.data_folder.exists():
        planned = plan_partition(config)
        sites = planned.sites if isinstance(planned, Cohort) else [site.name for site in planned.sites]
        check_sites(config, [name for name in sites if name != TEST_SITE])
        return
    if cohort is not None:
        check_sites(config, (cohort if config.data.dicom is not None else cohort_brought(config)).sites)
        return
    part = config.partition
    by_patient = part.group is Group.patient or not (part.kind == PartitionKind.explicit or isinstance(part.test, list))
    if is_demo(config.data) and config.data.dicom is None and config.demo.patients <= MOST_DRAWN and by_patient:
        kind = PartitionKind.iid if part.kind == PartitionKind.dirichlet else part.kind  # findings are not known yet
        by_numbers = replace(config, partition=replace(part, kind=kind, noise={}))
        sites = [site.name for site in plan_sites(by_numbers, _undrawn(config, task)).sites]
    elif part.kind == PartitionKind.explicit:
        sites = [] if part.assignment is None else read_site_names(Path(part.assignment), part.group)
    else:
        numbered = [f"site-{number}" for number in range(1, min(part.num_sites, MOST_DRAWN) + 1)]
        sites = [name for name in numbered if name != part.test]
    if part.kind in (PartitionKind.scanner, PartitionKind.origin):
        # the most that there can be
        sites = [f"site-{number}" for number in range(1, min(part.num_sites, MOST_DRAWN) + 1)]
    there = [name for name in sites if name != TEST_SITE]
    noise_of_sites(part.noise, [*there, TEST_SITE], request_image(request), part.seed)
    check_sites(config, there)


def _undrawn(config: Config, task: Task) -> Prepared:
    """Describe the synthetic cohort before it is drawn: its patients under their own ids, and no finding."""
    demo, data, group = config.demo, config.data, config.partition.group
    per_patient = demo.slices_per_series if task.rendering is Rendering.hounsfield and group is Group.slice else 1
    make = patient_id if task.rendering is Rendering.hounsfield else chest_patient_id
    named = [make(demo.seed, patient) for patient in range(demo.patients)]
    patients = [hash_id(name, data.salt) for name in named] if data.hash_ids else named
    index = pd.DataFrame({task.group_key: patients}).loc[lambda table: table.index.repeat(per_patient)]
    index = index.reset_index(drop=True)
    index["series_id"] = index[task.group_key]
    index["image_id"] = [f"image {number}" for number in range(len(index))]
    index["fingerprint"] = ["a" if number % 2 else "b" for number in range(len(index))]  # there are several scanners
    index["origin"] = ""
    return Prepared(
        folder=Path(config.paths.prepared) / data.name,
        task=task.name,
        labels=task.labels,
        image=data.image,
        size=data.size,
        index_sha256="",
        index=index.assign(**dict.fromkeys(task.labels, 0)),
    )


def check_set_to_predict(request: Request) -> None:
    """Raise ValueError when predict= names a set that is neither there nor prepared by this command."""
    config = request.config
    to_come = config.data.dicom is not None and config.predict == TEST_SET.format(config.data.name)
    if request.command is Command.simulate and not to_come:
        check_predict(config, request_image(request))


def check_networks(request: Request) -> None:
    """Raise ValueError when the network cannot be built, or when the weights, start model or encoder do not fit it."""
    config, image = request.config, request_image(request)
    check_model(config.model, replace(config.data, image=image), config.train.trainable)
    if config.stage is Stage.sequence:
        kept = None if request.folder is None else request.folder / ENCODER
        saved = read_encoder(str(kept if kept is not None and kept.exists() else config.sequence.encoder))
        check_encoder(saved, config.data.task, image)
        return
    with torch.device("meta"):  # shapes without values
        network = build_model(replace(config.model, pretrained=False), find_task(config.data.task), image, seed=0)
    layer_rates(network, list_trainable_parameters(network), 1.0, config.train.layer_decay)
    if request.goes_on:
        return
    if config.model.weights is not None:
        build_model(config.model, find_task(config.data.task), image, seed=0, weights=Path(config.model.weights))
    if config.start is not None:
        read_start_model(config, find_task(config.data.task), image, network)


def check_effects(request: Request) -> None:
    """Raise ValueError for a typed setting that acts nowhere in this run."""
    asked = Asked(config=request.config, command=request.command, image=request_image(request))
    refuse_typed(asked, request.typed - true_of_data(request))


def check_same_run(request: Request, cohort: Cohort) -> None:
    """Raise ValueError when a resumed run is asked for with other settings or data than it began with."""
    if request.goes_on and request.folder is not None:
        for part, where in stages(request.config, request.folder):
            if (where / MANIFEST).exists():
                check_same(where, part, cohort)


def check_images_shown(request: Request, cohort: Cohort) -> None:
    """Raise ValueError when the test site's index lacks what the model's crop needs, or predict's set has other images.

    Also raise it when a model that the run starts from has seen the test site's images.
    """
    if request.command is Command.simulate:
        check_predict(request.config, cohort.image)
    index = read_site(cohort.site_folder(TEST_SITE))[2]
    if request.config.stage is not Stage.sequence:
        squares(index, request.config.model.crop)
    if not request.goes_on:
        check_unseen(request.config, cohort, index, read_chains(request.config))


def check_counts(request: Request, cohort: Cohort) -> None:
    """Raise ValueError when a site has too few patients or positives for under-sampling, stacking or privacy.min_count."""
    config, task = request.config, find_task(request.config.data.task)
    folds = config.stage is Stage.stacking or config.stacking.left_out is not None
    lacks = any(noise.get(UNANNOTATED) for noise in cohort.facts.get("noise", {}).values())
    counted = config.train.sampling is Sampling.under or config.privacy.min_count > 1 or folds or lacks
    if request.command is Command.coordinate or not counted:
        return
    sites = [_as_called(config, cohort, name, task) for name in cohort.sites]
    for site in sites if folds else ():
        check_patients(site.name, site.counts["train"]["patients"] or config.stacking.folds, config.stacking.folds)
    check_annotated(sites, task, config.train.sampling)
    if config.train.sampling is Sampling.under:
        compute_draw_share(sites, task, config.train.negatives, config.privacy.min_count)


def _as_called(config: Config, cohort: Cohort, name: str, task: Task) -> Site:
    """Build the counts of a site's answer to the roll call from its folder."""
    facts, _, index, _ = read_site(cohort.site_folder(name))
    held = suppress_counts(counts(index, task), config.privacy.min_count, exclusive=task.kind is LabelKind.multi_class)
    unknown = frozenset(label for label in facts["labels"] if index[label].isna().all())
    return Site(
        name=name,
        node_id=0,
        version="",
        cohort_sha256=cohort.sha256,
        task=task.name,
        counts=held,
        controls={},
        patients=frozenset(),
        unannotated=unknown,
    )


def request_image(request: Request) -> ImageKind:
    """Find the kind of a run's images: of the cohort or the prepared data, else as they will be prepared."""
    cohort = request.cohort or _cohort_there(request.config)
    if cohort is not None:
        return cohort.image
    facts = request.data_folder / "prepare.json"
    if request.config.data.dicom is None and facts.exists():
        return ImageKind(read_facts(facts, "")["image"])
    return request.config.data.image


def _cohort_there(config: Config) -> Cohort | None:
    folder = Path(config.paths.sites) / cohort_name(config)
    return read_cohort(folder) if (folder / "cohort.json").exists() else None


REQUEST: tuple[tuple[str, Check], ...] = (  # checks that others rely on come first, settings without effect last
    ("resume", check_resumed),
    ("packages", check_libraries),
    ("device", lambda request: choose_device(request.config.train.device)),
    ("engine", check_engine),
    ("run.name", check_run_name),
    ("data", check_asked_data),
    ("network", check_networks),
    ("partition", check_planned_sites),
    ("predict", check_set_to_predict),
    ("settings", check_effects),
)
ON_COHORT: tuple[tuple[str, Callable[[Request, Cohort], object]], ...] = (
    ("sites", lambda request, cohort: check_sites(request.config, cohort.sites)),
    ("resume", check_same_run),
    ("images", check_images_shown),
    ("counts", check_counts),
)
