"""Finish a run: choose the final model, score it at the sites and on the test site, and write model, predictions and summary.json.

BatchNorm's statistics of the final model can be estimated at the sites. Running statistics lag behind the weights: they are means over
the batches of a round in which the weights changed, and the sites' mean of them belongs to no model that a site trained. So the mean
model gets statistics of its own at the end (precise BatchNorm, Wu and Johnson 2021, arXiv:2105.07576); docs/gap.md measures the gain.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from flwr.app import MessageType
from numpy.typing import NDArray

from fl_rsna.common.hashes import write_table
from fl_rsna.federation.protocol.messages import instruct, num_bytes
from fl_rsna.federation.protocol.simulated import money
from fl_rsna.federation.server.aggregation import Asked, aggregate_replies
from fl_rsna.federation.server.ask import count_traffic, model_content, recorder, send
from fl_rsna.federation.server.checkpoint import Progress, StackProgress
from fl_rsna.federation.server.context import RunContext, prevalence_of, read_start_facts
from fl_rsna.federation.server.roll_call import sum_controls
from fl_rsna.federation.server.run_log import ModelFacts, read_model, write_model
from fl_rsna.federation.server.same_sites import rests_on
from fl_rsna.federation.server.scoring.site_scores import score_at_sites
from fl_rsna.federation.server.sequence import reweight_stages, stage_summary, whole_network
from fl_rsna.learning.metrics.figures import ClassesFigures, ClassesInBrief
from fl_rsna.learning.metrics.scorecard import (
    CardFigures,
    CardInBrief,
    HeldOutFigures,
    HeldOutInBrief,
    LabelFigures,
    LabelInBrief,
    ScorecardFigures,
    ScorecardInBrief,
)
from fl_rsna.learning.models.flat import FlatModel, flatten, layout_sha256, model_sha256
from fl_rsna.run_folder.run_folder import MODEL, PREDICTIONS, SCORECARDS, STACK_NETWORK
from fl_rsna.run_folder.summary import Rests, SummaryInBrief
from fl_rsna.settings.federation import Precision
from fl_rsna.settings.model import Norm, Trainable
from fl_rsna.settings.training import Select
from fl_rsna.strategies.fedavg import FEDAVG
from fl_rsna.strategies.find import find_strategy
from fl_rsna.strategies.strategy import Step, take_step

PHASE = "recalibration"
BEST, LAST = "checkpoints/best.safetensors", "checkpoints/last.safetensors"
TEST = "test_site"
More = Callable[[SummaryInBrief, NDArray[np.float32]], SummaryInBrief]


def is_recalibrated(context: RunContext) -> bool:
    """Tell whether BatchNorm's statistics of the final model are estimated: only where sites train and average them.

    A head over series has no BatchNorm, and its encoder keeps its statistics.
    """
    model, trains_all = context.config.model, context.config.train.trainable is Trainable.all
    return context.encoder is None and model.recalibrate and model.norm is Norm.average and trains_all


def recalibrate_model(context: RunContext, progress: Progress, model: FlatModel) -> FlatModel:
    """Give `model` the statistics that every site's training slices have under it, weighted as in training.

    A robust strategy aggregates them as it aggregates updates; no parameter changes. Bytes and failures are counted. The replies are
    recorded as those of the round after the last, which a run that was killed then repeats. Raises BelowQuorum.
    """
    config, round_ = context.config, progress.round + 1
    asked_for = find_strategy(config.strategy)
    strategy = asked_for if asked_for.robust else FEDAVG
    instructions = replace(
        context.instructions, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted), estimate=True, precision_up=Precision.fp32
    )  # fmt: skip
    content = model_content(model, instruct(instructions))
    asked = Asked(
        sites=context.sites,
        model=model,
        strategy=strategy,
        settings=config.strategy,
        train=config.train,
        round=round_,
        bytes_down=num_bytes(content),
    )
    arriving = send(context, context.sites, MessageType.TRAIN, content, round_)
    aggregate, _, replies = aggregate_replies(asked, arriving, recorder(context.run, PHASE, round_))
    step = Step(
        config=config.strategy, rate=1.0, round=round_, x=model.floats, aggregate=aggregate, num_sites=len(context.sites),
        stepped=context.stepped, trained=context.trained,
    )  # fmt: skip
    found, _ = take_step(strategy, step, {})
    count_traffic(progress, replies)
    return FlatModel(np.where(context.parameters, model.floats, found).astype(np.float32), model.integers)


def final_model(context: RunContext, progress: Progress) -> tuple[FlatModel, int]:
    """Return the final model and its round: the last, or the best by the sites' validation."""
    return (progress.shown, progress.round) if _takes_last(context, progress) else (progress.best, progress.best_round)


def describe_selection(context: RunContext, progress: Progress) -> Rests | None:
    """Describe the sites' answers that the choice of the round rests on; None where the last round is taken without a choice."""
    if _takes_last(context, progress):
        return None
    return rests_on(progress.choice, [site.name for site in context.sites])


def _takes_last(context: RunContext, progress: Progress) -> bool:
    return context.config.train.select is Select.last or progress.best_round == 0


def finish(
    context: RunContext,
    progress: Progress,
    more: More = lambda summary, found: {},
    folds: Sequence[str] = (),
) -> None:
    """Score the selected model at the sites and on the test site; write it, its predictions and summary.json. Raises BelowQuorum.

    `more` makes further keys of the summary from the summary and the test site's probabilities. `folds` are the hashes of the slice
    models under a stacker.
    """
    final, selected = final_model(context, progress)
    write_last(context, progress)
    if is_recalibrated(context):
        final = recalibrate_model(context, progress, final)
    context, stages = reweight_stages(context, progress, final)
    at_sites = score_at_sites(context, progress, final)
    found = context.test.probabilities(final)
    scores = context.test.scores(
        found, sum_controls(context.sites, context.test.task), context.config.seed, at_sites.points
    )
    write_table(context.run.folder / PREDICTIONS, context.test.predictions(found))
    network = whole_network(context, final)
    sha256 = model_sha256(flatten(network), layout_sha256(network))
    facts: ModelFacts = {
        "round": selected,
        "model_sha256": sha256,
        "prevalence": prevalence_of(context),
        "platt": at_sites.lines(),
        "operating_points": at_sites.describe_points(),
    }
    if folds:
        facts["folds"] = list(folds)
    write_of(context, final, MODEL if context.instructions.stack is None else STACK_NETWORK, facts)
    context.run.write_json(SCORECARDS, {TEST: scores, "sites": at_sites.cards})
    summary = run_facts(context, progress)
    summary |= {
        "model_sha256": sha256,
        "selected_round": selected,
        "recalibrated": is_recalibrated(context),
        "selected_by": "last round" if _takes_last(context, progress) else "validation loss",
        "selected_on": describe_selection(context, progress),
        "virtual_s": progress.virtual_s,
        "usd": _cost(context, progress),
        "test_site": test_site_in_brief(scores),
        "operating_points": at_sites.describe_points(),
        "sites": {site: in_brief(card) for site, card in at_sites.cards.items()},
        "tables": context.run.table_hashes(),
    }
    if stages is not None:
        summary["sequence"] = stage_summary(context, final, stages)
    summary |= more(summary, found)
    context.run.write_json("summary.json", summary)
    context.run.event(
        "run_end",
        model_sha256=summary["model_sha256"],
        selected_round=selected,
        selected_on=summary["selected_on"],
        wall_s=summary["wall_s"],
    )


def run_facts(context: RunContext, progress: Progress | StackProgress) -> SummaryInBrief:
    """Make the part of summary.json that every run has: settings, cohort, times and bytes, without its model and scores."""
    found: SummaryInBrief = {
        "status": "finished",
        "baseline": context.config.baseline.value,
        "run_id": progress.run_id,
        "rounds": progress.round,
        "started_from": read_start_facts(context.run),
        "prevalence": prevalence_of(context),
        "seed": context.config.seed,
        "task": context.instructions.task,
        "strategy": context.config.strategy.name,
        "engine": context.config.engine.name.value,
        "cohort": {"name": context.cohort.name, "sha256": context.cohort.sha256, "sites": len(context.sites)},
        "leaky": context.cohort.facts.get("leaky", False),
    }
    if context.instructions.model.crop.shows_truth:
        found["crops_from_truth"] = True
    found |= {
        "without_effect": context.run.without_effect,
        "wall_s": progress.seconds,
        "bytes_down": progress.bytes_down,
        "bytes_up": progress.bytes_up,
        "site_failures": progress.failures,
    }
    return found


def in_brief(card: ScorecardFigures) -> ScorecardInBrief:
    """Select the part of a site's scorecard for summary.json: counts, rankings, and figures of all classes together."""
    return {**_select_common(card), "log_loss": card["log_loss"]}


def test_site_in_brief(card: HeldOutFigures) -> HeldOutInBrief:
    """Select the part of the test site's scorecard for summary.json: counts, rankings, controls, and figures of all classes together."""
    return {
        **_select_common(card),
        "log_loss": card["log_loss"],
        "log_loss_interval": card["log_loss_interval"],
        "controls": card["controls"],
        "minus_controls": card["minus_controls"],
    }


def _select_common(card: CardFigures) -> CardInBrief:
    """Select the part that both have; figures of all classes are there only for a task of classes."""
    found: CardInBrief = {
        "slices": card["slices"],
        "patients": card["patients"],
        "exams": card["exams"],
        "resamples": card["resamples"],
        "slice": _select_rankings(card["slice"]),
        "exam": {how: _select_rankings(by_label) for how, by_label in card["exam"].items()},
    }
    if "classes" in card:
        levels = card["classes"]
        found["classes"] = {"slice": _select_overall(levels["slice"])}
        if "exam" in levels:
            found["classes"]["exam"] = _select_overall(levels["exam"])
    return found


def _select_rankings(by_label: Mapping[str, LabelFigures]) -> dict[str, LabelInBrief]:
    return {
        label: {"auroc": of["auroc"], "average_precision": of["average_precision"]} for label, of in by_label.items()
    }


def _select_overall(of: ClassesFigures) -> ClassesInBrief:
    return {
        "accuracy": of["accuracy"],
        "balanced_accuracy": of["balanced_accuracy"],
        "macro_auroc": of["macro_auroc"],
        "mean_average_precision": of["mean_average_precision"],
    }


def _cost(context: RunContext, progress: Progress) -> float:
    traffic = progress.bytes_down + progress.bytes_up
    return money(context.config.network, byte_count=traffic, seconds=progress.virtual_s, sites=len(context.sites))


def write_of(context: RunContext, flat: FlatModel, name: str, facts: ModelFacts) -> None:
    """Write a model of the run, with these facts and the run's ancestry, to the file `name` in its folder."""
    said = facts.copy()
    said["ancestry"] = [link.to_json() for link in context.ancestry]
    write_model(context.run, name, whole_network(context, flat), context.instructions, context.cohort, said)


def write_best(context: RunContext, progress: Progress) -> None:
    """Write the best model of the rounds so far to its own file."""
    write_of(context, progress.best, BEST, {"round": progress.best_round, "run_id": progress.run_id})


def read_best(context: RunContext, progress: Progress) -> FlatModel:
    """Read the best model of the rounds so far from its file; raises ValueError when the file was changed or is of another round."""
    of: dict[str, str | int] = {"round": progress.best_round, "run_id": progress.run_id}
    return read_model(context.run.folder / BEST, context.network, of)


def write_last(context: RunContext, progress: Progress) -> None:
    """Write the models of the run's last and best rounds to checkpoints/last.safetensors and checkpoints/best.safetensors."""
    if progress.round:
        write_of(context, progress.shown, LAST, {"round": progress.round, "run_id": progress.run_id})
    if progress.best_round:
        write_best(context, progress)
