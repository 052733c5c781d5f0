"""One offline HTML page about one run."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.cohort.whole import write_whole
from fl_rsna.reporting.figures import as_data_uri, as_svg, curves
from fl_rsna.reporting.tables import RunRecord, interval, megabytes, read_run
from fl_rsna.runs import COHORT_PICTURE


def write_report(folder: Path) -> Path:
    """Write `report.html` into a run folder, finished or not, and return its path; raises ValueError without a run."""
    run = read_run(folder)
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "megabytes": megabytes}
    picture = folder / COHORT_PICTURE
    page = environment.get_template("report.html.j2").render(
        run=run,
        curves=as_svg(curves(run)),
        cohort_picture=as_data_uri(picture) if picture.exists() else None,
        cost=_cost(run),
    )
    path = folder / "report.html"
    write_whole(path, page.encode())
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
                "failed": int(part["loss"].isna().sum()),
                "train_s": float(trained["seconds"].sum()),
                "bytes_down": int(part["bytes_down"].sum()),
                "bytes_up": int(part["bytes_up"].sum()),
            }
        )
    return rows
