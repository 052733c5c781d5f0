"""Stackings of two folds that take seconds, on tiny cohorts."""

import functools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app, select_entry
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.stages import Stage

FOLDS = 2


class Stopped(KeyboardInterrupt):
    """What ends a run from outside."""


def settings(**changes: object) -> Config:
    """One round of two folds at 24 px, with new BatchNorm statistics at the end, and three rounds of trees."""
    small = {
        "stage": Stage.stacking,
        "stacking__folds": FOLDS,
        "stacking__rounds": 3,
        "stacking__min_child_weight": 0.1,
    }
    return tiny_config(**{"rounds": 1, "model__image_size": 24, "model__recalibrate": True, **small, **changes})


def run(cohort: Cohort, folder: Path, config: Config, *, workers: int = 0, stop_at: str = "") -> dict[str, Any]:
    """Its summary; `stop_at` names the event of the whole at which it is ended, e.g. `round_end 2`."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if stop_at == f"{kind} {fields.get('round', fields.get('fold'))}":
            raise Stopped

    begun = lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,)))  # noqa: E731
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(make_server_app(begun, select_entry(config)), client, num_sites=len(cohort.sites), workers=workers)
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def with_folds(whole: Path, folder: Path) -> Path:
    """A new run folder in which the folds' models are there already."""
    for part in ("fold-1", "fold-2", "site_memory"):
        shutil.copytree(whole / part, folder / part)
    shutil.copyfile(whole / "owner.json", folder / "owner.json")
    return folder
