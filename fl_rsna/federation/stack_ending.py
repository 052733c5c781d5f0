"""The end of a stacking: the trees of every label's best round, their scores, and what they gain over the folds' mean."""

import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fl_rsna.cohort.hashed import write_table
from fl_rsna.cohort.whole import write_whole
from fl_rsna.federation.compared import rests_on
from fl_rsna.federation.ending import TEST, in_brief, run_facts
from fl_rsna.federation.fold_runs import FoldRun
from fl_rsna.federation.held_out import HeldOut
from fl_rsna.federation.messages import TREE_COUNTS
from fl_rsna.federation.records import recorder
from fl_rsna.federation.rollcall import summed_controls
from fl_rsna.federation.scoring import AtSites, scored_by
from fl_rsna.federation.setting import Setting
from fl_rsna.federation.tree_rounds import Forests, Stacking
from fl_rsna.learning.metrics import compare_aurocs
from fl_rsna.learning.paired_loss import compare_losses
from fl_rsna.learning.saved import FORMAT
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.stack_features import feature_names
from fl_rsna.learning.stacked import stack_sha256, trees_sha256
from fl_rsna.learning.trees import to_json
from fl_rsna.reading import hashed_json
from fl_rsna.runs import PREDICTIONS, SCORECARDS, STACKER, TABLES

SUMS = (
    "wall_s",
    "virtual_s",
    "usd",
    "bytes_down",
    "bytes_up",
    "site_failures",
)  # over the folds' runs and the stacker's


def finish_trees(stacking: Stacking, folds: list[FoldRun]) -> None:
    """Score the chosen trees at the sites and on the test site; write them, their predictions and summary.json."""
    setting, progress = stacking.setting, stacking.progress
    chosen, best = progress.chosen(), progress.best_rounds()
    at_sites = _score_at_sites(stacking, chosen)
    found, seed = stacking.probabilities(chosen), setting.config.seed
    scores = setting.test.scores(found, summed_controls(setting.sites, setting.test.task), seed, at_sites.points)
    write_table(setting.run.folder / PREDICTIONS, setting.test.predictions(found))
    sha256, size = _write(stacking, folds, chosen, best, at_sites)
    setting.run.write_json(SCORECARDS, {TEST: scores, "sites": at_sites.cards})
    own = {
        "stacker": setting.config.stacking.stacker.value,
        "method": setting.config.stacking.method.value,
        "features": stacking.test.shape[1],
        "selected_rounds": best,
        "model_bytes": size,
    }
    summary = {
        **run_facts(setting, progress),
        "stage": setting.config.stage.value,
        "recalibrated": False,
        "selected_by": "validation loss",
        "selected_on": _selected_on(stacking),
        "virtual_s": 0.0,
        "usd": 0.0,
        "model_sha256": sha256,
        "selected_round": max(best.values()),
        TEST: in_brief(scores),
        "operating_points": at_sites.chosen(),
        "sites": {site: in_brief(card) for site, card in at_sites.cards.items()},
        TABLES: setting.run.table_hashes(),
        "stacking": {**own, **stack_summary(setting, folds, found, stacking.mean)},
    }
    summary |= of_all_parts(summary, folds)
    setting.run.write_json("summary.json", summary)
    named = ("model_sha256", "selected_round", "selected_on", "wall_s")
    setting.run.event("run_end", **{name: summary[name] for name in named})


def _selected_on(stacking: Stacking) -> dict[str, Any]:
    """On which sites' answers the choice of rounds rests, of the label whose choice rests on least."""
    names = [site.name for site in stacking.setting.sites]
    found = [rests_on(choice, names) for choice in stacking.progress.choices.values()]
    return max(found, key=lambda rests: (len(rests["unknown"]), len(rests["carried"])))


def of_all_parts(summary: dict[str, Any], folds: list[FoldRun]) -> dict[str, Any]:
    """Of a stacker's own summary what is of the folds, too: times, bytes, failures, and the hash of the whole model."""
    sums = {name: summary[name] + sum(fold.summary[name] for fold in folds) for name in SUMS}
    return {**sums, "model_sha256": stack_sha256(shas_of(folds), summary["model_sha256"])}


def shas_of(folds: list[FoldRun]) -> list[str]:
    """The hashes of the folds' models, in their order."""
    return [str(fold.summary["model_sha256"]) for fold in folds]


def stack_summary(
    setting: Setting, folds: list[FoldRun], found: NDArray[np.float32], mean: NDArray[np.float32]
) -> dict[str, Any]:
    """What summary.json says of the parts, and of the stacker against the mean of the folds' models on the test site."""
    scores = setting.test.scores(mean, summed_controls(setting.sites, setting.test.task), setting.config.seed, None)
    return {
        "folds": [_of_fold(fold) for fold in folds],
        "mean_of_folds": in_brief(scores),
        "against_mean_of_folds": compared(setting.test, found, mean, setting.config.seed),
    }


def compared(test: HeldOut, found: NDArray[np.float32], mean: NDArray[np.float32], seed: int) -> dict[str, Any]:
    """The stacker minus the mean of the folds' models, paired over patients: log loss, and AUROC by label."""
    labels, patients = test.labels, test.slices[test.task.group_key].to_numpy()
    areas = {
        label: compare_aurocs(
            labels[:, i], found[:, i], [mean[:, i]], patients, seed=derive_seed(seed, "bootstrap", label)
        ).difference
        for i, label in enumerate(test.task.labels)
    }
    loss_seed = derive_seed(seed, "bootstrap", "log loss")
    loss = compare_losses(labels, found, mean, patients, task=test.task, seed=loss_seed)
    return {"log_loss": asdict(loss), "auroc": {label: asdict(area) for label, area in areas.items()}}


def _score_at_sites(stacking: Stacking, chosen: Forests) -> AtSites:
    """As every run's end: written down as the round after the last; bytes and failures count."""
    setting, progress, told = stacking.setting, stacking.progress, stacking.told
    messages, down = stacking.messages(stacking.able, TREE_COUNTS, chosen, told)
    found = scored_by(
        setting, told, stacking.able, messages, down, lambda phase: recorder(setting.run, phase, told.round)
    )
    progress.bytes_down += sum(reply.bytes_down for reply in found.replies)
    progress.bytes_up += sum(reply.bytes_up for reply in found.replies)
    progress.failures += sum(bool(reply.error) for reply in found.replies)
    return replace(found, asked=len(setting.sites))


def _write(
    stacking: Stacking, folds: list[FoldRun], chosen: Forests, best: dict[str, int], at_sites: AtSites
) -> tuple[str, int]:
    """stacker.json, with each label's trees as XGBoost itself reads them; their hash, and how many bytes it has."""
    setting, width = stacking.setting, stacking.test.shape[1]
    priors = dict(zip(chosen, setting.told.prior, strict=True))
    content = {
        "format": FORMAT,
        "task": setting.told.task,
        "folds": shas_of(folds),
        "features": feature_names(setting.test.task.labels),
        "prior": priors,
        "selected_rounds": best,
        "platt": at_sites.lines(),
        "operating_points": at_sites.chosen(),
        "ancestry": [link.to_json() for link in setting.ancestry],
        "trees": {label: json.loads(to_json(forest, width, priors[label])) for label, forest in chosen.items()},
    }
    sha256 = trees_sha256(content)
    whole = {**content, "model_sha256": sha256}
    write_whole(setting.run.folder / STACKER, hashed_json(whole, indent=None))
    return sha256, len(json.dumps(whole).encode())


def _of_fold(fold: FoldRun) -> dict[str, Any]:
    kept = ("run_id", "model_sha256", "selected_round", *SUMS)
    scores, own = fold.summary[TEST], {name: fold.summary[name] for name in kept}
    areas = {label: of["auroc"] for label, of in scores["slice"].items()}
    return {"folder": fold.folder.name, **own, "log_loss": scores["log_loss"], "auroc": areas}
