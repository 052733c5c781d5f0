"""python -m fl_rsna.simulate: a federated run over all sites of a cohort on this machine, and its report."""

import functools
import os
import shutil
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded: parallel over sites, not inside one

from fl_rsna.cohort.sites import Cohort
from fl_rsna.command import RunFailed, partition_asked, run_command
from fl_rsna.config import Config, EngineName
from fl_rsna.federation.client_app import app_for_cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.strategies import BelowQuorum
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.train import choose_device
from fl_rsna.reporting.console import Display, console
from fl_rsna.reporting.pages import cohort_view
from fl_rsna.reporting.report import write_report
from fl_rsna.reporting.tables import interval, read_run
from fl_rsna.runs import COHORT_VIEW, RunFolder, default_run_name, start_run
from fl_rsna.steps import adopt_cohort, cohort_for_run


def simulate(config: Config) -> dict[str, Any]:
    device = choose_device(config.train.device)
    settle_process()
    if not partition_asked(config):
        adopt_cohort(config)
    with Display() as display:
        cohort = cohort_for_run(config, display.step)
        folder = Path(config.paths.runs) / (config.run.name or default_run_name())
        run = start_run(folder, config, cohort.sha256, str(device), (display.event,))
        try:
            _run_engine(config, cohort, run)
        except (BelowQuorum, FloatingPointError) as error:
            raise RunFailed(f"{error}; see {folder / 'events.jsonl'}") from None
        except ValueError:
            if not (folder / "rounds.csv").exists():  # refused at the roll call, before anything was trained
                shutil.rmtree(folder)
            raise
        run.write_json(COHORT_VIEW, cohort_view(cohort))
    return _say_result(folder, write_report(folder))


def _run_engine(config: Config, cohort: Cohort, run: RunFolder) -> None:
    server_app = make_server_app(lambda context: (config, cohort, run))
    client_app = functools.partial(app_for_cohort, cohort.folder.resolve())
    match config.engine.name:
        case EngineName.local:
            run_local(server_app, client_app, num_sites=len(cohort.sites), workers=config.engine.workers)
        case EngineName.ray:
            from fl_rsna.federation.engines.ray import run_ray

            run_ray(
                server_app,
                client_app,
                num_sites=len(cohort.sites),
                workers=max(1, config.engine.workers),
                gpus_per_worker=config.engine.gpus_per_worker,
            )


def _say_result(folder: Path, report: Path) -> dict[str, Any]:
    """Print the final numbers and, last, where the report is; return the row a sweep's table shows."""
    run = read_run(folder)
    assert run.summary is not None
    scores = run.summary["test_site"]
    for label, score in scores["slice"].items():
        counted = f"{score['auroc']['positives']} of {scores['slices']} slices positive"
        console.print(f"test-site AUROC {label:<17} {interval(score['auroc'])}, {counted}", soft_wrap=True)
    for control, by_label in scores["controls"].items():
        console.print(f"{control} alone, {run.headline}: {interval(by_label[run.headline]['auroc'])}", soft_wrap=True)
    console.print(f"report: {report}", soft_wrap=True)
    return {
        "run": str(folder),
        f"test AUROC {run.headline} [95%]": interval(scores["slice"][run.headline]["auroc"]),
        "position alone": interval(scores["controls"]["position"][run.headline]["auroc"]),
        "log loss": f"{scores['log_loss']:.3f}",
        "seconds": f"{run.summary['wall_s']:.0f}",
        "model_sha256": run.summary["model_sha256"][:12],
    }


if __name__ == "__main__":
    run_command(simulate)
