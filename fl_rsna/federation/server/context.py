"""Make the context of a run, which is the same in every round, and check it before the first round.

The initial model comes from the run's seed or from the weights that `start` names. A model that is given to a run must never
have seen the test site's patients: its scores on them would be no test.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import nn

from fl_rsna.cohort.prepared.patients import comparable
from fl_rsna.cohort.sites.absent_labels import describe_absent_labels
from fl_rsna.cohort.sites.ancestry import Link, chain_links, link_from, own_link, patients_sha256
from fl_rsna.cohort.sites.provenance import Chain, Patients, before, chain_of, find_image_roles, is_clear
from fl_rsna.cohort.sites.site_folders import Cohort, PartCounts, counts
from fl_rsna.common.plugins import MODELS, STRATEGIES, TASKS, versions_of
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.delivery import deliver, patience_s
from fl_rsna.federation.protocol.messages import Instructions, to_views
from fl_rsna.federation.server.encoder import Encoder, encoder_of, model_of, warnings_of
from fl_rsna.federation.server.roll_call import (
    RollPatience,
    Site,
    approximate,
    call_roll,
    check_annotated,
    check_roll,
    check_single,
    hash_patients,
    warn_of_placeholders,
    with_label_priors,
)
from fl_rsna.federation.server.scoring.held_out_site import HeldOut
from fl_rsna.federation.server.site_settings import check_sites
from fl_rsna.federation.site.heartbeat import FOLDER, keep_heartbeat
from fl_rsna.federation.site.stage_data import new_network
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.learning.data.dataset import SiteData, open_for, writable_cache
from fl_rsna.learning.inference.features import encode_site
from fl_rsna.learning.models.classifier import find_shared_positions, set_training
from fl_rsna.learning.models.flat import FlatModel, flatten, layout_sha256, parameter_positions, positions
from fl_rsna.learning.models.saved import SavedModel, facts_in, read_saved
from fl_rsna.learning.training.train import choose_device, ignore_progress
from fl_rsna.run_folder.run_folder import ANCESTRY, ENCODER, MANIFEST, MODEL, RunFolder
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.effects import cautions
from fl_rsna.settings.model import RunModel, to_run_model
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.runtime import EngineName, Keep
from fl_rsna.settings.stages import Stage
from fl_rsna.task import Task, find_task


def first_model(config: Config, cohort: Cohort, network: nn.Module, run: RunFolder) -> FlatModel:
    """Return the weights of round 0: those of `network`, or of config.start, which is then written into the run's manifest.

    A run that goes on has its weights in its checkpoint. Raises ValueError for a model of another task, kind of images or layout.
    """
    begun = run.read_json(MANIFEST)
    if config.start is None or "start" in begun:
        return flatten(network)
    saved = read_start_model(config, find_task(config.data.task), cohort.image, network)
    run.write_json(MANIFEST, {**begun, "start": {"file": str(saved.path), "model_sha256": saved.sha256}})
    return flatten(saved.network)


def read_start_model(config: Config, task: Task, image: ImageKind, network: nn.Module) -> SavedModel:
    """Read the model that `start` names. Raises ValueError for one of another task, labels, kind of images or layout than `network`."""
    given = Path(str(config.start))
    path = given / MODEL if given.is_dir() else given
    try:
        saved = read_saved(path)
    except ValueError as error:
        raise ValueError(f"start: {str(error).removeprefix('model: ')}") from None
    if saved.two_stage is not None:
        raise ValueError(
            f"start: expected a model of single slices, got {path}, which has a head over series; give the slice model under it, "
            f"{ENCODER} in its run's folder, or the run that it is of"
        )
    for what, expected, got in (
        ("task", task.name, saved.task.name),
        ("labels", task.labels, saved.task.labels),
        ("images", image.value, saved.image.value),
    ):
        if got != expected:
            raise ValueError(f"start: expected a model for {what} {expected}, got one for {got} in {path}")
    if layout_sha256(saved.network) != layout_sha256(network):
        raise ValueError(
            f"start: expected a {config.model.name} as model.* describes it, got the weights of a {saved.config.name} "
            f"of other shapes in {path}; repeat its model settings"
        )
    return saved


def read_start_facts(run: RunFolder) -> dict[str, str] | None:
    """Read file and hash of the model that a run began with from its manifest; None where the weights came from the seed."""
    found: dict[str, str] | None = run.read_json(MANIFEST).get("start")
    return found


def list_model_files(config: Config) -> dict[str, Path]:
    """List the files of models that a run's settings name, by the name of the setting."""
    found = {
        "start": config.start,
        "sequence.encoder": config.sequence.encoder,
        "model.weights": config.model.weights,
    }
    paths = {key: Path(given) for key, given in found.items() if given is not None}
    return {key: path / MODEL if path.is_dir() else path for key, path in paths.items()}


def read_chains(config: Config) -> dict[str, Chain]:
    """Read the ancestry of the models that a run is given, by the name of the setting."""
    return {key: before(key, chain_of(facts_in(file), file)) for key, file in list_model_files(config).items()}


def check_unseen(config: Config, cohort: Cohort, test: pd.DataFrame, chains: dict[str, Chain]) -> list[str]:
    """Refuse a model that was trained or chosen on patients of the index `test`; return a warning for each model of which that is unknown.

    An unknown one is refused, too, unless config.allow_unknown_patients is set. A model is accepted where a roll call found none of
    these patients in its cohort: where that is this cohort, or another with the same test site. Raises ValueError.
    """
    unknown, files, key = [], list_model_files(config), "patient_id"
    patients = Patients(index=test, ids=cohort.ids, cohort_sha256=cohort.sha256)
    for setting, chain in chains.items():
        links = tuple(link for link in chain.links if not is_clear(link, test[key], cohort.ids, cohort.sha256))
        seen = find_image_roles(patients, [replace(chain, links=links)])
        if seen.images:
            raise ValueError(
                f"{setting}: expected a model that never saw the test site's patients, got {files[setting]}: "
                f"{seen.images} of their {len(test)} images are of patients who trained it or "
                "helped to choose it; take a model of this cohort, or partition as that one was partitioned"
            )
        if seen.why:
            said = f"{setting}: unknown whether {files[setting]} saw the test site's patients ({'; '.join(seen.why)})"
            if not config.allow_unknown_patients:
                raise ValueError(f"{said}; give a model of which that is known, or say allow_unknown_patients=true")
            unknown.append(said)
    return unknown


def read_ancestry(run: RunFolder) -> tuple[Link, ...] | None:
    """Read the links that a run which goes on has written; None for a run that begins."""
    if not (run.folder / ANCESTRY).exists():
        return None
    return tuple(link_from(said) for said in run.read_json(ANCESTRY)["links"])


def write_ancestry(
    run: RunFolder, cohort: Cohort, test: pd.DataFrame, chains: Sequence[Chain], *, compared: bool
) -> tuple[Link, ...]:
    """Write the links of a run's models into its folder and return them; `compared` says that the roll call could compare patients."""
    can_tell = compared and not cohort.facts.get("leaky", False)
    own = own_link(
        cohort.folder, cohort.sha256, cohort.ids, patients_sha256(test["patient_id"], cohort.ids) if can_tell else None
    )
    links = chain_links(own, [link for chain in chains for link in chain.links])
    run.write_json(ANCESTRY, {"links": [link.to_json() for link in links]})
    manifest = run.read_json(MANIFEST)
    run.write_json(MANIFEST, {**manifest, "ancestry": [link.to_json(patients=False) for link in links]})
    return links


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The parts of a run that stay the same in every round."""

    grid: Grid
    config: Config
    cohort: Cohort
    sites: list[Site]
    instructions: Instructions
    test: HeldOut
    run: RunFolder
    network: nn.Module  # for its names and shapes; models are flat vectors everywhere else
    initial: FlatModel  # the model of round 0
    parameters: NDArray[np.bool_]  # which values of a flat model are parameters
    stepped: NDArray[
        np.bool_
    ]  # which of them sites share: strategies step there; other values are the sites' weighted mean
    trained: NDArray[np.bool_]  # which of the stepped values sites train
    encoder: Encoder | None = None  # of the second stage
    ancestry: tuple[Link, ...] = ()  # the cohorts whose images its models have seen
    sigmas: NDArray[np.float64] | None = None  # by label: the chosen width of smoothing of the slice model, in slices

    def deliver(self, messages: list[Message]) -> Iterator[Message]:
        """Send the messages of one phase and yield the replies that come within the run's time limit."""
        return deliver(self.grid, messages, timeout_s=patience_s(self.config), lost=self.config.strategy.lost)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Mark the values that no precision rounds: BatchNorm's statistics, and the values personal to sites."""
        return ~self.stepped


def call_sites(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> RunContext:
    """Call the roll and check everything that must hold before a site trains. Raises ValueError."""
    task = find_task(config.data.task)
    encoder = encoder_of(config, cohort, run) if config.stage is Stage.sequence else None
    instructions = first_instructions(config, cohort, encoder)
    weights = None if config.model.weights is None or encoder else Path(config.model.weights)
    network = new_network(instructions, task, cohort.image, derive_seed(config.seed, "initial model"), weights)
    initial = first_model(config, cohort, network, run)
    instructions = replace(instructions, layout_sha256=layout_sha256(network))
    there = cohort.site_folder(TEST_SITE)
    cache = writable_cache(there, run.cache_folder(cohort.sha256))
    with keep_heartbeat(heartbeat_folder(config, run), TEST_SITE, 0, packing=True) as on_packed:
        held_out = open_for(instructions.model, there, cache=cache, on_packed=on_packed)
    ancestry = read_ancestry(run)
    chains = read_chains(config) if ancestry is None else {}
    unknown = check_unseen(config, cohort, held_out.index, chains)
    sites = call_roll(grid, instructions, roll_patience(config, run, len(cohort.sites)), expected=len(cohort.sites))
    strangers = hash_patients(comparable(held_out.index, instructions.group_key), instructions.salt)
    incomparable = check_roll(
        sites,
        cohort_sha256=cohort.sha256,
        task=task.name,
        test_patients=strangers,
        test_ids=held_out.ids,
        image=held_out.image.value,
        allow_unknown=config.allow_unknown_patients,
    )
    unknown += [] if incomparable is None else [f"roll call: {incomparable}"]
    unknown += warn_of_placeholders(sites, held_out.index)
    check_sites(config, cohort.sites)
    parameters = parameter_positions(network)
    set_training(network, config.model.norm, config.train.trainable)
    stepped = find_shared_positions(network, instructions.model)
    trained = stepped & positions(network, (name for name, value in network.named_parameters() if value.requires_grad))
    check_annotated(sites, task, config.train.sampling)
    single = check_single(sites, instructions.model, config.train.trainable) if encoder is None else []
    instructions = with_label_priors(instructions, sites, task)
    context = RunContext(
        grid=grid,
        config=config,
        cohort=cohort,
        sites=sites,
        instructions=replace(instructions, target=target_of(config, instructions.prior, task)),
        test=prepare_test_site(held_out, task, instructions, encoder),
        run=run,
        network=network,
        initial=initial,
        parameters=parameters,
        stepped=stepped,
        trained=trained,
        encoder=encoder,
        ancestry=ancestry
        or write_ancestry(run, cohort, held_out.index, list(chains.values()), compared=incomparable is None),
    )
    run.forget_end()  # all checks have passed
    absent = describe_absent_labels(announce(context), task)
    for text in (
        *absent,
        *unknown,
        *single,
        *cautions(config),
        *_warnings(config, instructions, encoder, parameters.size),
    ):
        run.event("warning", text=text)
    return context


def heartbeat_folder(config: Config, run: RunFolder) -> Path | None:
    """Return the folder for heartbeats of a simulation's server; None in a deployment."""
    return None if config.engine.name is EngineName.deployment else run.folder / FOLDER


def roll_patience(config: Config, run: RunFolder, expected: int) -> RollPatience:
    """Return how long the roll call waits: longer for answers than for nodes, because a site packs its images before it answers."""
    deployed = config.engine.name is EngineName.deployment

    def on_answer(here: int) -> None:
        if deployed and here < expected:  # a simulation has heartbeats
            run.event("answered", sites=here, expected=expected)

    return RollPatience(
        nodes_s=patience_s(config),
        answers_s=config.deploy.first_timeout_s if deployed else None,
        on_wait=lambda here: run.event("waiting", sites=here, expected=expected),
        on_answer=on_answer,
    )


def _warnings(config: Config, instructions: Instructions, encoder: Encoder | None, values: int) -> list[str]:
    """Return the warnings that the settings of a run give before round 1."""
    known = [approximate(config.train)] if encoder is None else warnings_of(encoder, values)
    return [text for text in (*known, TRUTH_SHOWN if instructions.model.crop.shows_truth else None) if text is not None]


def prepare_test_site(data: SiteData, task: Task, instructions: Instructions, encoder: Encoder | None) -> HeldOut:
    """Prepare the test site; in the second stage compute features of its slices, of one copy without augmentation."""
    if encoder is None:
        return HeldOut(data, task, instructions)
    instructions = replace(instructions, sequence=replace(instructions.sequence or encoder.instructions, copies=1))
    assert instructions.sequence is not None
    views, device = to_views(instructions.sequence, instructions.train), choose_device(instructions.train.device)
    encode_site(encoder.saved.network, data, views, task, instructions.train, device, ignore_progress)
    return HeldOut(data, task, instructions)


def first_instructions(config: Config, cohort: Cohort, encoder: Encoder | None) -> Instructions:
    """Make the instructions of the roll call, to which later messages add; the salt is new in every run."""
    return Instructions(
        task=config.data.task,
        model=select_model_config(config, encoder),
        train=config.train,
        strategy=config.strategy,
        plugins=versions_of(
            {
                STRATEGIES: config.strategy.name,
                MODELS: select_model_config(config, encoder).name,
                TASKS: config.data.task,
            }
        ),
        faults=config.faults,
        precision_up=config.network.precision_up,
        seed=config.seed,
        run_id="",
        round=0,
        learning_rate=config.train.learning_rate,
        layout_sha256="",  # of the network that these settings make
        salt=secrets.token_hex(16),
        group_key=cohort.facts["disjoint"]["by"],
        min_count=config.privacy.min_count,
        stacking=config.stacking if stacks(config) else None,
        keep_all=config.run.keep is Keep.all,
        sequence=None if encoder is None else encoder.instructions,
    )


def select_model_config(config: Config, encoder: Encoder | None) -> RunModel:
    """Return the slice model's settings, in the second stage those of the encoder, without a path on this machine."""
    return to_run_model(replace(config.model, weights=None)) if encoder is None else model_of(encoder.saved)


def stacks(config: Config) -> bool:
    """Tell whether a run divides the sites' training parts into folds: a stacking, or the run of one of its folds."""
    return config.stage is Stage.stacking or config.stacking.left_out is not None


def announce(context: RunContext, rounds: int | None = None) -> dict[str, dict[str, PartCounts]]:
    """Record who takes part, their counts, and the number of rounds: `rounds` if given, else the setting. Return the counts by site."""
    test = counts(context.test.data.index, context.test.task)
    held = {**{site.name: site.counts for site in context.sites}, TEST_SITE: test}
    facts = context.cohort.facts
    known = {"leaky": facts.get("leaky", False), "noise": facts.get("noise", {})}
    unannotated = {site.name: sorted(site.unannotated) for site in context.sites if site.unannotated}
    said = {"unannotated": unannotated} if unannotated else {}
    shown = {"crops_from_truth": True} if context.instructions.model.crop.shows_truth else {}
    plugins = {"plugins": context.instructions.plugins} if context.instructions.plugins else {}
    context.run.event(
        "roll_call",
        sites=held,
        rounds=rounds or context.config.rounds,
        **known,
        **said,
        task=context.instructions.task,
        **shown,
        **plugins,
    )
    return held


def target_of(config: Config, prior: tuple[float, ...], task: Task) -> tuple[float, ...]:
    """Return by label the prevalence to train for: the stated one, else the sites' own; empty where none is stated."""
    stated = config.match.prevalence
    return tuple(stated.get(label, share) for label, share in zip(task.labels, prior, strict=True)) if stated else ()


def prevalence_of(context: RunContext) -> dict[str, dict[str, float]]:
    """Return by label the share of positive training slices, and the prevalence that the model's probabilities are meant for."""
    instructions, labels = context.instructions, context.test.task.labels
    return {
        "training": dict(zip(labels, instructions.prior, strict=True)),
        "meant": dict(zip(labels, instructions.target or instructions.prior, strict=True)),
    }
