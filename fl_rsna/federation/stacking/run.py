"""Run a stacking: a slice model for each fold, its predictions of the patients it never saw, and a stacker, a second model, on them.

A stacker that is a network along the series has the rounds, strategies and end of any run. A stacker of trees ends with each label's
best round, its scores, and its gain over the mean of the folds' models.
"""

import copy
import json
import secrets
from dataclasses import replace

import numpy as np
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.hashes import write_table
from fl_rsna.common.reading import dump_hashed_json
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.messages import TREE_COUNTS, StackInstructions, head_training
from fl_rsna.federation.server.ask import BelowQuorum, count_traffic, recorder
from fl_rsna.federation.server.checkpoint import STACK_STATE, StackProgress, load_stack
from fl_rsna.federation.server.context import RunContext, announce, call_sites
from fl_rsna.federation.server.finish import TEST, finish, in_brief, run_facts, test_site_in_brief, write_last
from fl_rsna.federation.server.roll_call import sum_controls
from fl_rsna.federation.server.rounds import begin, play_rounds
from fl_rsna.federation.server.run_log import write_round
from fl_rsna.federation.server.same_sites import rests_on
from fl_rsna.federation.server.scoring.held_out_site import HeldOut
from fl_rsna.federation.server.scoring.site_scores import AtSites, collect_scores
from fl_rsna.federation.site.stage_data import check_tables, in_index, new_network, of_stack
from fl_rsna.federation.stacking.folds import FoldRun, ask_folds, mean_on_test_site, play_folds
from fl_rsna.federation.stacking.trees import Forests, Stacking, play_trees
from fl_rsna.learning.inference.stacking import feature_names, stack_features, stack_sha256, trees_sha256
from fl_rsna.learning.metrics.comparison import compare_losses
from fl_rsna.learning.metrics.figures import StageFigures
from fl_rsna.learning.metrics.metrics import compare_aurocs
from fl_rsna.learning.models.classifier import set_training
from fl_rsna.learning.models.flat import flatten, layout_sha256, parameter_positions, positions
from fl_rsna.learning.models.saved import FORMAT
from fl_rsna.learning.models.trees import to_json
from fl_rsna.learning.training.train import choose_device
from fl_rsna.run_folder.run_folder import PREDICTIONS, SCORECARDS, STACKER, RunFolder
from fl_rsna.run_folder.summary import FoldSummary, StackedScores, SummaryInBrief
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import Norm
from fl_rsna.settings.stages import Stacker


def finish_trees(stacking: Stacking, folds: list[FoldRun]) -> None:
    """Score the chosen trees at the sites and on the test site; write them, their predictions and summary.json."""
    context, progress = stacking.context, stacking.progress
    chosen, best = progress.best_forests(), progress.best_rounds()
    at_sites = _score_at_sites(stacking, chosen)
    found, seed = stacking.probabilities(chosen), context.config.seed
    scores = context.test.scores(found, sum_controls(context.sites, context.test.task), seed, at_sites.points)
    write_table(context.run.folder / PREDICTIONS, context.test.predictions(found))
    sha256, size = _write(stacking, folds, chosen, best, at_sites)
    context.run.write_json(SCORECARDS, {TEST: scores, "sites": at_sites.cards})
    names = [site.name for site in context.sites]
    rests = [rests_on(choice, names) for choice in progress.choices.values()]
    summary = run_facts(context, progress)
    summary |= {
        "stage": context.config.stage.value,
        "recalibrated": False,
        "selected_by": "validation loss",
        "selected_on": max(
            rests, key=lambda of: (len(of["unknown"]), len(of["carried"]))
        ),  # the label whose choice rests on the fewest answers
        "virtual_s": 0.0,
        "usd": 0.0,
        "model_sha256": sha256,
        "selected_round": max(best.values()),
        "test_site": test_site_in_brief(scores),
        "operating_points": at_sites.describe_points(),
        "sites": {site: in_brief(card) for site, card in at_sites.cards.items()},
        "tables": context.run.table_hashes(),
    }
    scored = stack_summary(context, folds, found, stacking.mean)
    summary["stacking"] = {
        "stacker": context.config.stacking.stacker.value,
        "method": context.config.stacking.method.value,
        "features": stacking.test.shape[1],
        "selected_rounds": best,
        "model_bytes": size,
        "folds": scored["folds"],
        "mean_of_folds": scored["mean_of_folds"],
        "against_mean_of_folds": scored["against_mean_of_folds"],
    }
    summary |= of_all_parts(summary, folds)
    context.run.write_json("summary.json", summary)
    context.run.event(
        "run_end",
        model_sha256=summary["model_sha256"],
        selected_round=summary["selected_round"],
        selected_on=summary["selected_on"],
        wall_s=summary["wall_s"],
    )


def of_all_parts(summary: SummaryInBrief, folds: list[FoldRun]) -> SummaryInBrief:
    """Return the values of a stacker's summary that include the folds: times, bytes, failures, and the hash of the whole model."""
    parts = [fold.summary for fold in folds]
    return {
        "wall_s": summary["wall_s"] + sum(part["wall_s"] for part in parts),
        "virtual_s": summary["virtual_s"] + sum(part["virtual_s"] for part in parts),
        "usd": summary["usd"] + sum(part["usd"] for part in parts),
        "bytes_down": summary["bytes_down"] + sum(part["bytes_down"] for part in parts),
        "bytes_up": summary["bytes_up"] + sum(part["bytes_up"] for part in parts),
        "site_failures": summary["site_failures"] + sum(part["site_failures"] for part in parts),
        "model_sha256": stack_sha256(shas_of(folds), summary["model_sha256"]),
    }


def shas_of(folds: list[FoldRun]) -> list[str]:
    """Return the hashes of the folds' models in their order."""
    return [fold.summary["model_sha256"] for fold in folds]


def stack_summary(
    context: RunContext, folds: list[FoldRun], found: NDArray[np.float32], mean: NDArray[np.float32]
) -> StackedScores:
    """Describe for summary.json the folds' models, their mean, and the stacker minus that mean on the test site."""
    scores = context.test.scores(mean, sum_controls(context.sites, context.test.task), context.config.seed, None)
    return {
        "folds": [_of_fold(fold) for fold in folds],
        "mean_of_folds": test_site_in_brief(scores),
        "against_mean_of_folds": compare_with_mean(context.test, found, mean, context.config.seed),
    }


def compare_with_mean(test: HeldOut, found: NDArray[np.float32], mean: NDArray[np.float32], seed: int) -> StageFigures:
    """Estimate the stacker minus the mean of the folds' models, paired over patients: log loss, and AUROC by label."""
    labels, patients = test.labels, test.slices[test.task.group_key].to_numpy()
    areas = {
        label: compare_aurocs(
            labels[:, i], found[:, i], [mean[:, i]], patients, seed=derive_seed(seed, "bootstrap", label)
        ).difference.to_json()
        for i, label in enumerate(test.task.labels)
    }
    loss_seed = derive_seed(seed, "bootstrap", "log loss")
    loss = compare_losses(labels, found, mean, patients, task=test.task, seed=loss_seed)
    return {"log_loss": loss.to_json(), "auroc": areas}


def _score_at_sites(stacking: Stacking, chosen: Forests) -> AtSites:
    """Score the trees at the sites as every final model; the replies are recorded as those of the round after the last."""
    context, progress, instructions = stacking.context, stacking.progress, stacking.instructions
    content = stacking.content(stacking.able, chosen, instructions)
    found = collect_scores(
        context,
        instructions,
        stacking.able,
        TREE_COUNTS,
        content,
        lambda phase: recorder(context.run, phase, instructions.round),
    )
    count_traffic(progress, found.replies)
    return replace(found, asked=len(context.sites))


def _write(
    stacking: Stacking, folds: list[FoldRun], chosen: Forests, best: dict[str, int], at_sites: AtSites
) -> tuple[str, int]:
    """Write stacker.json, with each label's trees as XGBoost itself reads them; return their hash, and the number of bytes."""
    context, width = stacking.context, stacking.test.shape[1]
    priors = dict(zip(chosen, context.instructions.prior, strict=True))
    content = {
        "format": FORMAT,
        "task": context.instructions.task,
        "folds": shas_of(folds),
        "features": feature_names(context.test.task.labels),
        "prior": priors,
        "selected_rounds": best,
        "platt": at_sites.lines(),
        "operating_points": at_sites.describe_points(),
        "ancestry": [link.to_json() for link in context.ancestry],
        "trees": {label: json.loads(to_json(forest, width, priors[label])) for label, forest in chosen.items()},
    }
    sha256 = trees_sha256(content)
    whole = {**content, "model_sha256": sha256}
    write_whole(context.run.folder / STACKER, dump_hashed_json(whole, indent=None))
    return sha256, len(json.dumps(whole).encode())


def _of_fold(fold: FoldRun) -> FoldSummary:
    summary = fold.summary
    scores = summary["test_site"]
    return {
        "folder": fold.folder.name,
        "run_id": summary["run_id"],
        "model_sha256": summary["model_sha256"],
        "selected_round": summary["selected_round"],
        "wall_s": summary["wall_s"],
        "virtual_s": summary["virtual_s"],
        "usd": summary["usd"],
        "bytes_down": summary["bytes_down"],
        "bytes_up": summary["bytes_up"],
        "site_failures": summary["site_failures"],
        "log_loss": scores["log_loss"],
        "auroc": {label: of["auroc"] for label, of in scores["slice"].items()},
    }


def stack_by_network(context: RunContext, folds: list[FoldRun]) -> None:
    """Train a network on the folds' predictions and finish the run.

    Raises BelowQuorum and FloatingPointError as an ordinary run does; the last models are then in checkpoints/.
    """
    mean = mean_on_test_site(context, folds)
    second = _second(context, folds, mean)
    announce(second)
    progress = begin(second)
    try:
        asked = ask_folds(context, folds)
        if progress.round == 0:
            progress.bytes_down, progress.bytes_up = asked.bytes_down, asked.bytes_up
            progress.failures, progress.seconds = asked.failures, asked.seconds
        second = replace(second, sites=asked.sites(second))
        play_rounds(second, progress)
    except (BelowQuorum, FloatingPointError):
        write_last(second, progress)
        raise

    def more(summary: SummaryInBrief, found: NDArray[np.float32]) -> SummaryInBrief:
        scored, added = stack_summary(second, folds, found, mean), of_all_parts(summary, folds)
        added["stage"] = context.config.stage.value
        added["stacking"] = {
            "stacker": context.config.stacking.stacker.value,
            "parameters": int(second.parameters.sum()),
            "folds": scored["folds"],
            "mean_of_folds": scored["mean_of_folds"],
            "against_mean_of_folds": scored["against_mean_of_folds"],
        }
        return added

    finish(second, progress, more, shas_of(folds))


def _second(context: RunContext, folds: list[FoldRun], mean: NDArray[np.float32]) -> RunContext:
    """Make the context of the stacker's rounds, whose test site has the predictions of the mean of the folds' models."""
    config, task, data = _config_of(context.config), context.test.task, context.test.data
    shape = config.sequence
    stack = StackInstructions(
        runs=tuple(fold.run_id for fold in folds), width=shape.width, layers=shape.layers, dropout=shape.dropout
    )
    model = replace(context.instructions.model, norm=Norm.average, recalibrate=False)
    instructions = replace(
        context.instructions, model=model, train=config.train, learning_rate=config.train.learning_rate, stack=stack
    )
    network = new_network(instructions, task, data.image, derive_seed(config.seed, "initial stacker"))
    set_training(network, config.model.norm, config.train.trainable)
    logits = in_index(data.index, context.test.predictions(mean), task)
    instructions = replace(instructions, layout_sha256=layout_sha256(network))
    return replace(
        context,
        config=config,
        instructions=instructions,
        test=HeldOut(
            data, task, instructions, of_stack(data, task, instructions, logits, choose_device(config.train.device))
        ),
        network=network,
        initial=flatten(network),
        parameters=parameter_positions(network),
        stepped=parameter_positions(network),
        trained=positions(network, (name for name, _ in network.named_parameters())),
    )


def _config_of(config: Config) -> Config:
    """Return the settings with rounds and training of the stacker, which has no BatchNorm, in place of the slice models'."""
    found, own = copy.deepcopy(config), config.sequence
    found.rounds = own.rounds or config.stacking.rounds
    found.model = replace(config.model, norm=Norm.average, recalibrate=False)
    found.train = head_training(config)
    return found


def run_stacking(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train a model of every fold and a stacker on them, and write the whole run folder; fold-1, fold-2, ... lie in it.

    A killed run goes on in the fold or the round it was at. Raises ValueError before anything is trained when the roll
    call refuses; BelowQuorum and FloatingPointError as an ordinary run.
    """
    context = call_sites(grid, config, cohort, run)
    folds = play_folds(grid, config, cohort, run)
    match config.stacking.stacker:
        case Stacker.xgboost:
            announce(context, config.stacking.rounds)
            stacking = _begin(context, folds)
            play_trees(stacking)
            finish_trees(stacking, folds)
        case Stacker.cnn:
            stack_by_network(context, folds)


def _begin(context: RunContext, folds: list[FoldRun]) -> Stacking:
    """Read the state from the folder's checkpoint, or make that of round 0 after asking every site about every fold."""
    path, task, mean = context.run.checkpoints / STACK_STATE, context.test.task, mean_on_test_site(context, folds)
    features = stack_features(context.test.slices, mean)
    if path.exists():
        progress, tables = load_stack(path, features.shape[1], context.run.identity())
        check_tables(context.run.site_memory, progress.able, progress.runs)
        changed = context.run.rewind(progress.round, tables)
        context.run.event("resumed", round=progress.round)
        for text in changed:
            context.run.event("warning", text=text)
        return Stacking(context=context, progress=progress, test=features, mean=mean)
    context.run.rewind(-1)
    asked = ask_folds(context, folds)
    progress = StackProgress(
        run_id=secrets.token_hex(8),
        runs=[fold.run_id for fold in folds],
        able=asked.able,
        forests={label: [] for label in task.labels},
        bytes_down=asked.bytes_down,
        bytes_up=asked.bytes_up,
        failures=asked.failures,
        seconds=asked.seconds,
    )
    stacking = Stacking(context=context, progress=progress, test=features, mean=mean)
    write_round(context.run, task, 0, {**context.test.point(mean), "seconds": progress.seconds})
    stacking.save()
    return stacking
