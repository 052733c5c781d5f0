"""What stays the same in every round of a run, and the checks before the first."""

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid
from numpy.typing import NDArray
from torch import nn

from fl_rsna.choices import EngineName, Keep, Stage
from fl_rsna.cohort.ancestry import Link
from fl_rsna.cohort.patients import comparable
from fl_rsna.cohort.sites import Cohort, counts
from fl_rsna.config import TEST_SITE, Config, ModelConfig
from fl_rsna.effects import cautions
from fl_rsna.federation.delivery import deliver, patience_s
from fl_rsna.federation.encoder import Encoder, encoder_of, model_of, warnings_of
from fl_rsna.federation.heartbeat import FOLDER, beating
from fl_rsna.federation.held_out import HeldOut
from fl_rsna.federation.material import new_network
from fl_rsna.federation.messages import Instructions
from fl_rsna.federation.named_sites import check_sites
from fl_rsna.federation.roll_counts import after_roll_call, approximate
from fl_rsna.federation.rollcall import (
    RollPatience,
    Site,
    call_roll,
    check_annotated,
    check_roll,
    check_single,
    hashed_patients,
    warn_of_placeholders,
)
from fl_rsna.federation.sequence_told import views_told
from fl_rsna.federation.start import first_model
from fl_rsna.federation.unseen import check_unseen, given_chains, read_ancestry, write_ancestry
from fl_rsna.learning.crop import TRUTH_SHOWN
from fl_rsna.learning.dataset import SiteData, open_for, writable_cache
from fl_rsna.learning.encoded import encode_site
from fl_rsna.learning.flat import FlatModel, layout_sha256, parameter_positions, positions
from fl_rsna.learning.model import set_training, shared_positions
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import choose_device, unwatched
from fl_rsna.runs import RunFolder
from fl_rsna.task import Task, named_task


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What stays the same in every round."""

    grid: Grid
    config: Config
    cohort: Cohort
    sites: list[Site]
    told: Instructions
    test: HeldOut
    run: RunFolder
    network: nn.Module  # for its names and shapes; models are flat vectors everywhere else
    initial: FlatModel  # of round 0
    parameters: NDArray[np.bool_]  # where parameters lie in a flat model
    stepped: NDArray[np.bool_]  # those that sites share: where strategies step; the rest is the sites' weighted mean
    trained: NDArray[np.bool_]  # and of these, those that sites train
    encoder: Encoder | None = None  # of the second stage
    ancestry: tuple[Link, ...] = ()  # whose images its models have seen
    sigmas: NDArray[np.float64] | None = (
        None  # and once they are chosen, the widths by which the slice model is smoothed
    )

    def deliver(self, messages: list[Message]) -> Iterator[Message]:
        """Replies to messages of one phase, within the time that the run gives sites that may be gone."""
        return deliver(self.grid, messages, timeout_s=patience_s(self.config), lost=self.config.strategy.lost)

    @property
    def exact(self) -> NDArray[np.bool_]:
        """Where BatchNorm's statistics lie, and what stays at sites: no precision rounds it."""
        return ~self.stepped


def call_sites(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> Setting:
    """Roll call and everything that must be right before a site trains."""
    task = named_task(config.data.task)
    encoder = encoder_of(config, cohort, run) if config.stage is Stage.sequence else None
    told = first_instructions(config, cohort, encoder)
    weights = None if config.model.weights is None or encoder else Path(config.model.weights)
    network = new_network(told, task, cohort.image, derive_seed(config.seed, "initial model"), weights)
    initial = first_model(config, cohort, network, run)
    told = replace(told, layout_sha256=layout_sha256(network))
    there = cohort.site_folder(TEST_SITE)
    cache = writable_cache(there, run.packed(cohort.sha256))
    with beating(packing_beats(config, run), TEST_SITE, 0, packing=True) as on_packed:
        held_out = open_for(told.model, there, cache=cache, on_packed=on_packed)
    ancestry = read_ancestry(run)
    chains = given_chains(config) if ancestry is None else {}
    unknown = check_unseen(config, cohort, held_out.index, chains)
    sites = call_roll(grid, told, roll_patience(config, run, len(cohort.sites)), expected=len(cohort.sites))
    strangers = hashed_patients(comparable(held_out.index, told.group_key), told.salt)
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
    stepped = shared_positions(network, told.model)
    trained = stepped & positions(network, (name for name, value in network.named_parameters() if value.requires_grad))
    check_annotated(sites, task, config.train.sampling)
    single = check_single(sites, told.model, config.train.trainable) if encoder is None else []
    told = after_roll_call(told, sites, task)
    setting = Setting(
        grid=grid,
        config=config,
        cohort=cohort,
        sites=sites,
        told=replace(told, target=target_of(config, told.prior, task)),
        test=held_out_site(held_out, task, told, encoder),
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
    run.forget_end()  # nothing refuses it any more
    announce(setting)
    for text in (*unknown, *single, *cautions(config), *_warnings(config, told, encoder, parameters.size)):
        run.event("warning", text=text)
    return setting


def packing_beats(config: Config, run: RunFolder) -> Path | None:
    """Where the server of a simulation says how far it is with the test site's images."""
    return None if config.engine.name is EngineName.deployment else run.folder / FOLDER


def roll_patience(config: Config, run: RunFolder, expected: int) -> RollPatience:
    """How long the roll call waits: longer for answers than for nodes, for a site packs its images before it answers."""
    deployed = config.engine.name is EngineName.deployment

    def on_answer(here: int) -> None:
        if deployed and here < expected:  # of a simulation the heartbeats tell
            run.event("answered", sites=here, expected=expected)

    return RollPatience(
        nodes_s=patience_s(config),
        answers_s=config.deploy.first_timeout_s if deployed else None,
        on_wait=lambda here: run.event("waiting", sites=here, expected=expected),
        on_answer=on_answer,
    )


def _warnings(config: Config, told: Instructions, encoder: Encoder | None, values: int) -> list[str]:
    """What whoever asked should know before round 1."""
    known = [approximate(config.train)] if encoder is None else warnings_of(encoder, values)
    return [text for text in (*known, TRUTH_SHOWN if told.model.crop.shows_truth else None) if text is not None]


def held_out_site(data: SiteData, task: Task, told: Instructions, encoder: Encoder | None) -> HeldOut:
    """The test site, with features of its own slices in the second stage: one copy, as they are."""
    if encoder is None:
        return HeldOut(data, task, told)
    told = replace(told, sequence=replace(told.sequence or encoder.told, copies=1))
    assert told.sequence is not None
    views, device = views_told(told.sequence, told.train), choose_device(told.train.device)
    encode_site(encoder.saved.network, data, views, task, told.train, device, unwatched)
    return HeldOut(data, task, told)


def first_instructions(config: Config, cohort: Cohort, encoder: Encoder | None) -> Instructions:
    """What sites are told at the roll call; later messages add to it. The salt is new in every run."""
    return Instructions(
        task=config.data.task.value,
        model=model_told(config, encoder),
        train=config.train,
        strategy=config.strategy,
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
        sequence=None if encoder is None else encoder.told,
    )


def model_told(config: Config, encoder: Encoder | None) -> ModelConfig:
    """The slice model's settings, in the second stage the encoder's own; no path on this machine is among them."""
    return replace(config.model, weights=None) if encoder is None else model_of(encoder.saved)


def stacks(config: Config) -> bool:
    """Whether folds of the sites' training parts matter to a run: to a stacking, or to the model of one of its folds."""
    return config.stage is Stage.stacking or config.stacking.left_out is not None


def announce(setting: Setting, rounds: int | None = None) -> None:
    """Write down who takes part, what they hold and how many rounds there will be, as configured unless said."""
    test = counts(setting.test.data.index, setting.test.task)
    held = {**{site.name: site.counts for site in setting.sites}, TEST_SITE: test}
    facts = setting.cohort.facts
    known = {"leaky": facts.get("leaky", False), "noise": facts.get("noise", {})}
    unannotated = {site.name: sorted(site.unannotated) for site in setting.sites if site.unannotated}
    said = {"unannotated": unannotated} if unannotated else {}
    shown = {"task": setting.told.task, **truth_shown(setting.told)}
    setting.run.event("roll_call", sites=held, rounds=rounds or setting.config.rounds, **known, **said, **shown)


def truth_shown(told: Instructions) -> dict[str, bool]:
    """The stamp of a run whose model was shown what the annotations decide; of any other nothing."""
    return {"crops_from_truth": True} if told.model.crop.shows_truth else {}


def target_of(config: Config, prior: tuple[float, ...], task: Task) -> tuple[float, ...]:
    """The prevalence to train for, a label: as stated, else the sites' own; nothing where none is stated."""
    stated = config.match.prevalence
    return tuple(stated.get(label, share) for label, share in zip(task.labels, prior, strict=True)) if stated else ()


def prevalence_of(setting: Setting) -> dict[str, dict[str, float]]:
    """By label: the share of positive training slices, and the one that the model's probabilities are meant for."""
    told, labels = setting.told, setting.test.task.labels
    return {
        "training": dict(zip(labels, told.prior, strict=True)),
        "meant": dict(zip(labels, told.target or told.prior, strict=True)),
    }
