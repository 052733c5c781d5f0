"""Run the baseline of a federation by the same code: train every site alone, and score each site's model at every site."""

from dataclasses import replace
from typing import cast

from flwr.serverapp import Grid

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.atomic import write_whole
from fl_rsna.federation.server.checkpoint import Progress
from fl_rsna.federation.server.context import RunContext, announce, call_sites
from fl_rsna.federation.server.finish import finish
from fl_rsna.federation.server.roll_call import Site, by_own_counts
from fl_rsna.federation.server.rounds import begin, play_rounds
from fl_rsna.federation.server.run_log import read_model
from fl_rsna.federation.server.scoring.held_out_site import HeldOut
from fl_rsna.federation.server.scoring.site_scores import ask_sites
from fl_rsna.learning.metrics.figures import EstimateFigures
from fl_rsna.learning.metrics.scorecard import ScorecardFigures, ScorecardInBrief
from fl_rsna.run_folder.run_end import end_in_folder
from fl_rsna.run_folder.run_folder import (
    ALONE,
    CONFIG,
    MANIFEST,
    RunFolder,
    is_begun,
    is_finished,
    read_summary,
    take_folder,
)
from fl_rsna.run_folder.summary import SummaryInBrief
from fl_rsna.settings.config import Config
from fl_rsna.task import MACRO

MatrixEntry = dict[str, float | dict[str, EstimateFigures] | None]  # `loss`, `auroc/<label>` and, by label, `auroc`


def run_alone(grid: Grid, config: Config, cohort: Cohort, run: RunFolder) -> None:
    """Train every site's own model as a federation of one, in alone/<site>/, and score each at every site.

    summary.json holds the scores of all models on the test site and `matrix`: model of site -> at site -> metrics on that site's
    validation part. A run that was killed goes on with the site it was at.
    """
    context = call_sites(grid, config, cohort, run)
    matrix, scores = dict[str, dict[str, MatrixEntry]](), dict[str, SummaryInBrief]()
    for site in context.sites:
        alone = _by_itself(context, site, _folder(run, site))
        with end_in_folder(alone.run, config):
            if not (alone.run.folder / "events.jsonl").exists():
                announce(alone)
            progress = begin(alone)
            if not is_finished(alone.run.folder):
                play_rounds(alone, progress)
                finish(alone, progress)
        matrix[site.name] = _at_every_site(context, alone, progress)
        scores[site.name] = cast(SummaryInBrief, read_summary(alone.run.folder))
        run.event("site_alone_done", site=site.name)
    first = next(iter(scores.values()))
    summary: SummaryInBrief = {
        "status": "finished",
        "baseline": config.baseline.value,
        "rounds": first["rounds"],
        "seed": first["seed"],
        "task": first["task"],
        "strategy": first["strategy"],
        "engine": first["engine"],
        "leaky": first["leaky"],
    }
    if context.instructions.model.crop.shows_truth:
        summary["crops_from_truth"] = True
    summary |= {
        "cohort": {"name": cohort.name, "sha256": cohort.sha256, "sites": len(context.sites)},
        "without_effect": run.without_effect,
        "wall_s": sum(score["wall_s"] for score in scores.values()),
        "alone": {
            site: {
                "run_id": score["run_id"],
                "model_sha256": score["model_sha256"],
                "test_site": score["test_site"],
                "operating_points": score["operating_points"],
            }
            for site, score in scores.items()
        },
        "matrix": matrix,
        "tables": run.table_hashes(),
    }
    run.write_json("summary.json", summary)
    run.event("run_end", sites=len(scores), wall_s=summary["wall_s"])


def _by_itself(context: RunContext, site: Site, run: RunFolder) -> RunContext:
    """Make the context of a federation of one site, whose instructions rest on that site's counts alone."""
    instructions, test = by_own_counts(context.instructions, site, context.test.task), context.test
    if instructions.model != context.instructions.model:
        test = HeldOut(test.data, test.task, instructions)
    return replace(context, sites=[site], instructions=instructions, test=test, run=run)


def _folder(run: RunFolder, site: Site) -> RunFolder:
    """Make the run folder of one site alone, with the settings of the whole run."""
    folder = run.folder / ALONE / site.name
    take_folder(folder, (ALONE,), resume=True, begun=is_begun(folder))
    alone = RunFolder(folder)
    alone.checkpoints.mkdir(exist_ok=True)
    write_whole(folder / CONFIG, (run.folder / CONFIG).read_bytes())
    begun = run.read_json(MANIFEST)
    alone.write_json(MANIFEST, {**begun, "id": f"{begun['id']}-{site.name}"})
    return alone


def _at_every_site(context: RunContext, alone: RunContext, progress: Progress) -> dict[str, MatrixEntry]:
    """Score one site's final model on the validation part of each site; sites that do not answer are left out."""
    model = read_model(alone.run.folder / "model.safetensors", alone.network)
    everywhere = replace(context, instructions=alone.instructions)
    found = ask_sites(everywhere, progress, model, lambda phase: lambda reply: None)
    return {site: matrix_entry(card) for site, card in found.cards.items()}


def matrix_entry(card: ScorecardFigures | ScorecardInBrief) -> MatrixEntry:
    """Select from a scorecard its entry in a matrix of models and sites: log loss, AUROCs and their intervals."""
    areas = {label: of_label["auroc"] for label, of_label in card["slice"].items()}
    if "classes" in card:
        areas[MACRO] = card["classes"]["slice"]["macro_auroc"]
    known = {f"auroc/{label}": area["value"] for label, area in areas.items() if area["value"] is not None}
    return {"loss": card["log_loss"]["value"], **known, "auroc": areas}
