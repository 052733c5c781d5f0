"""Decide in which runs a site's part in a round can be repeated; replay, the report and the documents use this one list.

| kind of run | repeated |
|---|---|
| any strategy, averaging, task, stage=slice or sequence, on one machine or a Ray cluster | every site that finished the round |
| stage=both | both: the run itself is the second stage, `<run>/slice` the first |
| baseline=central | the one site `pooled` |
| baseline=local | `<run>/alone/<site>` |
| experiment=gap | `<run>/federated`, `<run>/central` and what is under `<run>/local` |
| stage=stacking | each fold, `<run>/fold-1` and so on, and the rounds of a network; not those of trees |
| between real machines | no: data and memory stay at the sites |
| run.keep=last | no |
"""

from pathlib import Path
from typing import Any

from fl_rsna.common.reading import refuse_unreadable
from fl_rsna.run_folder.run_folder import ALONE, COPY, read_config
from fl_rsna.settings.runtime import EngineName, Keep
from fl_rsna.settings.stages import Baseline, Stacker, Stage

RUN = "config.yaml"


def unrepeatable(run: Path) -> str | None:
    """Say in one sentence why no site's part in a round of this run can be repeated, and what to do; None where it can."""
    return of_its_kind(run) or not_kept(run)


def of_its_kind(run: Path) -> str | None:
    """Say why rounds of this kind of run cannot be repeated; None where they can. Raises ValueError for a folder that is no run's."""
    if not (run / RUN).is_file():
        if (run / "federated" / RUN).is_file():
            return f"run: {run} is three runs; give {run / 'federated'}, {run / 'central'} or one under {run / 'local' / ALONE}"
        raise ValueError(f"run: expected a run folder with {RUN}, got {run}; give runs/<name>")
    config = settings_of(run)
    if config["engine"]["name"] == EngineName.deployment:
        return f"run: {run} was between real machines, whose data and memory are theirs; only what was on one machine can be repeated"
    if config["baseline"] == Baseline.local and run.absolute().parent.name != ALONE:
        return f"run: in {run} every site trained by itself; give {run / ALONE / '<site>'}"
    if config["stage"] == Stage.stacking and config["stacking"]["stacker"] == Stacker.xgboost:
        return f"run: {run} grows trees on what all sites have grown before, which is not kept by round; give a fold's run, {run / 'fold-1'}"
    return None


def not_kept(run: Path) -> str | None:
    """Say why rounds cannot be repeated because the run did not keep the model that each began with; None where it did."""
    if settings_of(run)["run"]["keep"] == Keep.all:
        return None
    return f"run: only runs with run.keep=all can be repeated by round, and {run} kept its last round alone; train with run.keep=all"


def site_memory_of(run: Path) -> Path:
    """Find the folder of what the sites of a simulation keep; for a fold or a site alone it lies in the run that this is a part of."""
    whole = run.absolute().parent.parent if run.absolute().parent.name == ALONE else run.absolute().parent
    inside = (run / "site_memory").exists() or not (whole / RUN).is_file()
    return (run if inside else whole) / "site_memory"


def settings_of(run: Path) -> dict[str, Any]:
    """Read a run's config.yaml; raises ValueError when it is damaged."""
    found = read_config(run)
    with refuse_unreadable(run / RUN, "the settings of a run", COPY, key="run: "):
        return {name: found[name] for name in ("engine", "baseline", "stage", "stacking", "run", "train")}
