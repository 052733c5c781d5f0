"""One offline HTML page about one run."""

import json
from pathlib import Path
from typing import Any

from fl_rsna.cohort.whole import write_whole
from fl_rsna.reporting.figures import as_svg, curves, heterogeneity
from fl_rsna.reporting.pages import rendered
from fl_rsna.reporting.tables import RunRecord, read_run
from fl_rsna.runs import COHORT_VIEW


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path; raises ValueError without a run."""
    run = read_run(folder)
    view = folder / COHORT_VIEW
    page = rendered(
        "report.html.j2",
        run=run,
        curves=as_svg(curves(run)),
        heterogeneity=as_svg(heterogeneity(run.cohort, run.labels)) if run.cohort else None,
        view=json.loads(view.read_text()) if view.exists() else None,
        cost=_cost(run),
    )
    path = folder / "report.html"
    write_whole(path, page)
    return path


def _cost(run: RunRecord) -> list[dict[str, Any]]:
    """One row a site: how often it took part, what it computed and what travelled."""
    rows = []
    for site, part in run.sites.groupby("site", sort=False):
        trained = part[part["phase"] == "train"]
        rows.append(
            {
                "site": site,
                "rounds": int(trained["loss"].notna().sum()),
                "failed": int(part["error"].notna().sum()),
                "train_s": float(trained["seconds"].sum()),
                "bytes_down": int(part["bytes_down"].sum()),
                "bytes_up": int(part["bytes_up"].sum()),
            }
        )
    return rows
