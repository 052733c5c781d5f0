"""The pages of the steps before a run: one offline HTML file for prepared data, one for a cohort."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.cohort.audit.heterogeneity import PATIENTS
from fl_rsna.cohort.audit.heterogeneity import heterogeneity as heterogeneity_of
from fl_rsna.cohort.audit.slices import Kind, Slices
from fl_rsna.cohort.prepared.index import COLUMNS, Prepared, read_facts
from fl_rsna.cohort.prepared.prepare import read_rejected
from fl_rsna.cohort.sites.noise import PIXEL_SIZE, noise_from
from fl_rsna.cohort.sites.noise import describe_noise as noise_said
from fl_rsna.cohort.sites.site_folders import Cohort, read_site_files
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.ownership import refuse_stranger
from fl_rsna.common.reading import parse_csv
from fl_rsna.learning.data.site_noise import scan_of
from fl_rsna.reporting.images import contact_sheets as sheets
from fl_rsna.reporting.images.contact_sheets import NO_LABEL
from fl_rsna.reporting.pages import census
from fl_rsna.reporting.record.cells import format_cell
from fl_rsna.reporting.record.matplotlib import as_svg, heterogeneity
from fl_rsna.reporting.record.run_record import interval, megabytes
from fl_rsna.reporting.record.wording import format_count, task_words
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE, PartitionKind
from fl_rsna.task import Rendering, Task

SITES_SHOWN = 12
ONLY_OF = {  # settings that mean something to one kind of partition
    "alpha": PartitionKind.dirichlet,
    "sigma": PartitionKind.quantity,
    "lacking": PartitionKind.specialist,
}

MARK = b'<meta name="generator" content="fl_rsna">'  # in every page


def write_prepare_page(prepared: Prepared, task: Task) -> Path:
    """Write prepare.html into the prepared folder, labelled or not; the same folder gives the same bytes."""
    folder, index, kind, labels = prepared.folder, prepared.index, prepared.image, prepared.labels
    facts = read_facts(folder / "prepare.json", f"data.name: no prepared data at {folder}")
    images, specific = folder / "images", [label for label in labels if label != task.union]
    counted = census.positives(index, labels)
    if labels:
        by, sheet = "label", sheets.label_sheet(index, images, kind, labels, specific, task.picture)
    elif task.rendering is Rendering.radiograph:
        by, sheet = "view", sheets.view_sheet(index, images, kind, task.picture)
    else:
        by, sheet = "height", sheets.height_sheet(index, images, kind)
    page = render_page(
        "prepare.html.j2",
        name=folder.name,
        facts=facts,
        stored=_describe_format(kind),
        shown_as=_describe_view(kind),
        hu=kind is ImageKind.hu,
        series=task.rendering is Rendering.hounsfield,
        words=task_words(task),
        positives=counted,
        headline=next((row for row in counted if row["label"] == task.headline), None),
        sheet=sheet,
        sheet_by=by,
        windows=sheets.window_sheet(index, images, kind, specific),
        noise=sheets.noise_sheet(index, images, kind),
        boxes=sheets.box_sheet(index, images, kind),
        fingerprints=census.fingerprints(index).to_dict("records"),
        limit=census.FINGERPRINTS_SHOWN,
        stored_as=census.count_file_values(index),
        measures=census.measures(index),
        flags=census.flags(index),
        rejects=census.reject_reasons(facts["rejected"]),
        rejected=census.reject_rows(read_rejected(folder)),
    )
    write_page(folder / "prepare.html", page)
    return folder / "prepare.html"


def write_partition_page(cohort: Cohort, task: Task) -> Path:
    """Write partition.html into a cohort's folder."""
    facts: dict[str, Any] = {"leaky": False, "made_of": {}, "lacks": {}, "noise": {}, **cohort.facts}
    parts = [part for by_part in facts["sites"].values() for part in by_part.values()]
    shares = [_share(facts["sites"][site], task.headline) for site in cohort.sites]
    page = render_page(
        "partition.html.j2",
        words=task_words(task),
        facts=facts,
        made_of={site: [_describe_fingerprint(value) for value in values] for site, values in facts["made_of"].items()},
        settings=_settings_that_count(facts["settings"]),
        training_sites=cohort.sites,
        slices=sum(part["slices"] for part in parts),
        headline=task.headline,
        least=min(shares),
        most=max(shares),
        heterogeneity=as_svg(heterogeneity(facts["sites"], list(cohort.labels))),
        view=cohort_view(cohort),
    )
    write_page(cohort.folder / "partition.html", page)
    return cohort.folder / "partition.html"


def cohort_view(cohort: Cohort) -> dict[str, Any]:
    """What pages show of a cohort beside its counts, as plain values for JSON: slices by site and label, headers, rejects."""
    here = tuple(site for site in cohort.sites if cohort.site_folder(site).is_dir())  # none, between machines
    shown = _spread_sites(here)
    matrix, headers, dealt = [], [], []
    for site in (*here, TEST_SITE):
        folder = cohort.site_folder(site)
        index = _read_index(folder, cohort.labels)
        if site != TEST_SITE:
            dealt.append(index.reindex(columns=["patient_id", *cohort.labels]).assign(site=site))
        index = index.assign(**{label: 0 for label in cohort.labels if label not in index})
        headers.append({"site": [site], **census.site_facts(index)})
        if site in shown:
            scan = scan_of(noise_from(cohort.facts.get("noise", {}).get(site, {})), site)
            matrix.append(sheets.site_row(site, index, folder / "images", cohort.image, cohort.labels, scan))
    exclusive = not any(row["cells"][-1]["slices"] for row in matrix)  # nothing is without a label
    if exclusive:
        matrix = [{**row, "cells": row["cells"][:-1]} for row in matrix]
    return {
        "columns": [*cohort.labels, *([] if exclusive else [NO_LABEL])],
        "shown_as": _describe_view(cohort.image),
        "matrix": matrix,
        "hidden": len(headers) - len(matrix),
        "census": headers,
        "label_shift": _label_shift(dealt, cohort.labels),
        "rejected": census.reject_reasons(cohort.facts["prepared"].get("rejected", {})),
    }


def _label_shift(dealt: Sequence[pd.DataFrame], labels: Sequence[str]) -> dict[str, Any] | None:
    """How unlike the labels of training sites are, as cohort.heterogeneity measures it over patients; None of fewer than two."""
    if len(dealt) < 2:
        return None
    rows = pd.concat(dealt, ignore_index=True)
    ids = pd.DataFrame({Kind.patient: rows["patient_id"]})
    found = heterogeneity_of(Slices(places=rows[["site"]], ids=ids, labels=rows[list(labels)], site="site", part=None))
    distances = found.distances.get(PATIENTS)
    return {**asdict(distances), "farthest": list(distances.farthest or ())} if distances else None


def write_page(path: Path, page: bytes) -> None:
    """Write a page, over an earlier one too; raises ValueError where a file of that name is none of fl_rsna's."""
    refuse_stranger(path, lambda earlier: MARK in earlier)
    write_whole(path, page)


def render_page(template: str, **what: Any) -> bytes:
    """A page from one of our templates; every value is escaped."""
    return (
        _templates().get_template(template).render(**what).encode(errors="backslashreplace")
    )  # a path need not be UTF-8


@functools.cache
def _templates() -> Environment:
    """Our templates, each compiled once."""
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {
        "interval": interval,
        "megabytes": megabytes,
        "counted": format_count,
        "noise": noise_said,
        "said": format_cell,
    }
    environment.filters |= filters
    return environment


def _settings_that_count(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What decided who is where, as it is typed; hashes of files each on a line of their own."""
    kind, folds = settings.get("kind"), settings.get("folds")
    idle = {name for name, of in ONLY_OF.items() if of != kind} | {"test" if folds else "fold"}
    idle |= {"num_sites"} if kind == PartitionKind.explicit else set()
    shown: dict[str, Any] = {}
    for name, value in settings.items():
        if name == "noise":
            continue  # it has a table of its own
        if isinstance(value, dict):
            shown |= {f"{file} {name.removeprefix('files_')}": digest for file, digest in value.items()}
        elif value is not None and name not in idle:
            shown[name] = str(value).lower() if isinstance(value, bool) else value
    return shown


def _describe_fingerprint(value: str) -> str:
    """What makes a natural site, a header fingerprint in its words: `not stated · 12u-1024 · none · 36/80`."""
    return " · ".join(word or "not stated" for word in value.split("|"))


def _spread_sites(sites: Sequence[str]) -> set[str]:
    """The test site and so many training sites, at equal steps of their numbers, that SITES_SHOWN are shown."""
    room = min(SITES_SHOWN - 1, len(sites))
    return {TEST_SITE} | {sites[round(n * (len(sites) - 1) / max(1, room - 1))] for n in range(room)}


def _read_index(folder: Path, labels: Sequence[str]) -> pd.DataFrame:
    """What the pages need of a site's index, without labels that it does not annotate; names stay text, empty ones are not missing."""
    wanted = {*census.SITE_COLUMNS, *PIXEL_SIZE, *labels}
    texts = {name: str for name in wanted if name in COLUMNS and COLUMNS[name].dtype == "str"}
    _, raw = read_site_files(folder)
    table = parse_csv(folder / "index.csv", raw, usecols=lambda name: name in wanted, dtype=texts)
    return table.fillna({name: "" for name in texts if name in table})


def _share(parts: dict[str, Any], label: str) -> float:
    slices = sum(part["slices"] for part in parts.values())
    return float(sum(part["positives"][label] for part in parts.values()) / slices) if slices else 0.0


def _describe_format(kind: ImageKind) -> str:
    match kind:
        case ImageKind.hu:
            return "16-bit grey, HU + 1024"
        case ImageKind.windows:
            return "8-bit RGB: brain, subdural and soft tissue window"
        case ImageKind.grey:
            return "16-bit grey, black to white, dense is white"


def _describe_view(kind: ImageKind) -> str:
    match kind:
        case ImageKind.hu:
            return "Brain window, 0 to 80 HU"
        case ImageKind.windows:
            return "The stored colours: brain window in red, subdural in green, soft tissue in blue"
        case ImageKind.grey:
            return "The film as it is meant to be seen"
