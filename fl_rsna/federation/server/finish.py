"""The end of a run: which round's model is final, its scores on the test site, and what all of it took.

BatchNorm's statistics of the final model can be estimated at the sites. A running statistic trails behind the weights it belongs
to: it is a mean over the batches of a round in which the weights moved, and the sites' mean is of models that none of them
trained. The mean model gets its own at the end (precise BatchNorm, Wu and Johnson 2021, arXiv:2105.07576); docs/gap.md has what
it is worth.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from flwr.app import MessageType
from numpy.typing import NDArray

from fl_rsna.common.hashes import write_table
from fl_rsna.federation.protocol.messages import instruct
from fl_rsna.federation.protocol.simulated import money
from fl_rsna.federation.rules.server_rules import ROBUST, Step, next_floats
from fl_rsna.federation.server.checkpoint import Progress, StackProgress
from fl_rsna.federation.server.context import RunContext, prevalence_of, read_start_facts, truth_shown
from fl_rsna.federation.server.replies import Asked, address, aggregate_replies
from fl_rsna.federation.server.roll_call import sum_controls
from fl_rsna.federation.server.run_log import read_model, recorder, write_model
from fl_rsna.federation.server.same_sites import rests_on
from fl_rsna.federation.server.scoring.site_scores import score_at_sites
from fl_rsna.federation.server.sequence import reweight_stages, stage_summary, whole_network
from fl_rsna.learning.metrics.classification import ACCURACIES, RANKINGS
from fl_rsna.learning.models.flat import FlatModel, flatten, layout_sha256, model_sha256
from fl_rsna.run_folder.run_folder import MODEL, PREDICTIONS, SCORECARDS, STACK_NETWORK, TABLES
from fl_rsna.settings.choices import Norm, Precision, Select, StrategyName, Trainable

PHASE = "recalibration"


def is_recalibrated(setting: RunContext) -> bool:
    """Whether the final model gets statistics of its own: only where the sites train with them, and average them.

    A head over series has none, and its encoder keeps those it came with.
    """
    model, trains_all = setting.config.model, setting.config.train.trainable is Trainable.all
    return setting.encoder is None and model.recalibrate and model.norm is Norm.average and trains_all


def recalibrate_model(setting: RunContext, progress: Progress, model: FlatModel) -> FlatModel:
    """`model` with the statistics that every site's training slices have under it, weighed as in training.

    A robust strategy takes them as it takes updates; no parameter changes. Counts bytes and failures. Raises BelowQuorum.

    It is written down as the round after the last, which a run that was killed at it plays again.
    """
    config, round_ = setting.config, progress.round + 1
    robust = config.strategy.name in ROBUST
    strategy = config.strategy if robust else replace(config.strategy, name=StrategyName.fedavg)
    told = replace(
        setting.told, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted), estimate=True, precision_up=Precision.fp32
    )  # fmt: skip
    messages, down = address(setting.sites, MessageType.TRAIN, model, instruct(told), round_)
    asked = Asked(
        sites=setting.sites, model=model, strategy=strategy, train=config.train, round=round_, bytes_down=down
    )
    arriving = setting.deliver(messages)
    folded, _, replies = aggregate_replies(asked, arriving, recorder(setting.run, PHASE, round_))
    step = Step(
        strategy=strategy, rate=1.0, round=round_, x=model.floats, folded=folded, num_sites=len(setting.sites),
        stepped=setting.stepped, trained=setting.trained,
    )  # fmt: skip
    found, _ = next_floats(step, {})
    progress.bytes_down += sum(reply.bytes_down for reply in replies)
    progress.bytes_up += sum(reply.bytes_up for reply in replies)
    progress.failures += sum(bool(reply.error) for reply in replies)
    return FlatModel(np.where(setting.parameters, model.floats, found).astype(np.float32), model.integers)


BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"
TEST = "test_site"

More = Callable[[dict[str, Any], NDArray[np.float32]], dict[str, Any]]


def final_model(setting: RunContext, progress: Progress) -> tuple[FlatModel, int]:
    """The model the run is for, and its round: the last, or the best by the sites' validation."""
    return (progress.shown, progress.round) if _takes_last(setting, progress) else (progress.best, progress.best_round)


def describe_selection(setting: RunContext, progress: Progress) -> dict[str, Any] | None:
    """On which sites' answers the choice of the round rests; nothing where the last round is taken whatever they say."""
    if _takes_last(setting, progress):
        return None
    return rests_on(progress.choice, [site.name for site in setting.sites])


def _takes_last(setting: RunContext, progress: Progress) -> bool:
    return setting.config.train.select is Select.last or progress.best_round == 0


def finish(
    setting: RunContext,
    progress: Progress,
    more: More = lambda summary, found: {},
    own: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Score the selected model at the sites and on the test site; write it, its predictions and summary.json. Raises BelowQuorum.

    `more` is what else the summary says, given itself and the test site's probabilities; `own` what else the model's file does.
    """
    final, selected = final_model(setting, progress)
    write_last(setting, progress)
    if is_recalibrated(setting):
        final = recalibrate_model(setting, progress, final)
    setting, stages = reweight_stages(setting, progress, final)
    at_sites = score_at_sites(setting, progress, final)
    found = setting.test.probabilities(final)
    scores = setting.test.scores(
        found, sum_controls(setting.sites, setting.test.task), setting.config.seed, at_sites.points
    )
    write_table(setting.run.folder / PREDICTIONS, setting.test.predictions(found))
    network = whole_network(setting, final)
    sha256 = model_sha256(flatten(network), layout_sha256(network))
    facts = {
        "round": selected,
        "model_sha256": sha256,
        "prevalence": prevalence_of(setting),
        "platt": at_sites.lines(),
        "operating_points": at_sites.describe_points(),
        **own,
    }
    write_of(setting, final, MODEL if setting.told.stack is None else STACK_NETWORK, facts)
    setting.run.write_json(SCORECARDS, {TEST: scores, "sites": at_sites.cards})
    summary = {
        **run_facts(setting, progress),
        "model_sha256": sha256,
        "selected_round": selected,
        "recalibrated": is_recalibrated(setting),
        "selected_by": "last round" if _takes_last(setting, progress) else "validation loss",
        "selected_on": describe_selection(setting, progress),
        "virtual_s": progress.virtual_s,
        "usd": _cost(setting, progress),
        TEST: in_brief(scores),
        "operating_points": at_sites.describe_points(),
        "sites": {site: in_brief(card) for site, card in at_sites.cards.items()},
        TABLES: setting.run.table_hashes(),
        **({} if stages is None else {"sequence": stage_summary(setting, final, stages, progress)}),
    }
    summary |= more(summary, found)
    setting.run.write_json("summary.json", summary)
    setting.run.event(
        "run_end",
        model_sha256=summary["model_sha256"],
        selected_round=selected,
        selected_on=summary["selected_on"],
        wall_s=summary["wall_s"],
    )


def run_facts(setting: RunContext, progress: Progress | StackProgress) -> dict[str, Any]:
    """What summary.json says of any run but its model and its scores."""
    return {
        "status": "finished",
        "baseline": setting.config.baseline.value,
        "run_id": progress.run_id,
        "rounds": progress.round,
        "started_from": read_start_facts(setting.run),
        "prevalence": prevalence_of(setting),
        "seed": setting.config.seed,
        "task": setting.told.task,
        "strategy": setting.config.strategy.name.value,
        "engine": setting.config.engine.name.value,
        "cohort": {"name": setting.cohort.name, "sha256": setting.cohort.sha256, "sites": len(setting.sites)},
        "leaky": setting.cohort.facts.get("leaky", False),
        **truth_shown(setting.told),
        "without_effect": setting.run.without_effect,
        "wall_s": progress.seconds,
        "bytes_down": progress.bytes_down,
        "bytes_up": progress.bytes_up,
        "site_failures": progress.failures,
    }


def in_brief(card: dict[str, Any]) -> dict[str, Any]:
    """A scorecard's counts, what ranks slices and exams, and figures of all classes; the whole of it is in scorecards.json."""

    def select_rankings(by_label: dict[str, Any]) -> dict[str, Any]:
        return {label: {name: of[name] for name in ("auroc", "average_precision")} for label, of in by_label.items()}

    def together(of_level: dict[str, Any]) -> dict[str, Any]:
        return {name: of_level[name] for name in (*ACCURACIES, *RANKINGS) if name in of_level}

    exams = {kind: select_rankings(by_label) for kind, by_label in card["exam"].items()}
    classes = {level: together(of_level) for level, of_level in card.get("classes", {}).items()}
    return {**card, "slice": select_rankings(card["slice"]), "exam": exams, **({"classes": classes} if classes else {})}


def _cost(setting: RunContext, progress: Progress) -> float:
    traffic = progress.bytes_down + progress.bytes_up
    return money(setting.config.network, byte_count=traffic, seconds=progress.virtual_s, sites=len(setting.sites))


def write_of(setting: RunContext, flat: FlatModel, name: str, facts: dict[str, Any]) -> None:
    said = {**facts, "ancestry": [link.to_json() for link in setting.ancestry]}
    write_model(setting.run, name, whole_network(setting, flat), setting.told, setting.cohort, said)


def write_best(setting: RunContext, progress: Progress) -> None:
    write_of(setting, progress.best, BEST, {"round": progress.best_round, "run_id": progress.run_id})


def read_best(setting: RunContext, progress: Progress) -> FlatModel:
    """The best model of the rounds so far, from its file; raises ValueError when that was changed or is another round's."""
    of = {"round": progress.best_round, "run_id": progress.run_id}
    return read_model(setting.run.folder / BEST, setting.network, of)


def write_last(setting: RunContext, progress: Progress) -> None:
    """Leave the models of the run's last and best rounds where people look for them."""
    if progress.round:
        write_of(setting, progress.shown, LAST, {"round": progress.round, "run_id": progress.run_id})
    if progress.best_round:
        write_best(setting, progress)
