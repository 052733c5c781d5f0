"""Write the pages of the steps before a run: one offline HTML file for prepared data and one for a cohort.

The tables of these pages say what a set of slices is: its labels, headers, marks and rejected files. The module also renders the
templates of all other pages.
"""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.cohort.audit.heterogeneity import PATIENTS
from fl_rsna.cohort.audit.heterogeneity import heterogeneity as heterogeneity_of
from fl_rsna.cohort.audit.slices import Kind, Slices
from fl_rsna.cohort.prepared.index import COLUMNS, Prepared, read_facts, series_by_order
from fl_rsna.cohort.prepared.patients import by_placeholder
from fl_rsna.cohort.prepared.prepare import read_rejected
from fl_rsna.cohort.prepared.series import Order
from fl_rsna.cohort.sites.noise import PIXEL_SIZE, noise_from
from fl_rsna.cohort.sites.noise import describe_noise as noise_said
from fl_rsna.cohort.sites.site_folders import Cohort, read_site_files
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.ownership import refuse_stranger
from fl_rsna.common.reading import parse_csv
from fl_rsna.imaging.dicom.rejections import MEANING
from fl_rsna.learning.data.site_noise import scan_of
from fl_rsna.reporting.images import contact_sheets as sheets
from fl_rsna.reporting.images.contact_sheets import NO_LABEL, SiteRow
from fl_rsna.reporting.record.cells import format_cell
from fl_rsna.reporting.record.matplotlib import SHARES, as_svg, heterogeneity
from fl_rsna.reporting.record.run_record import interval, megabytes
from fl_rsna.reporting.record.wording import format_count, task_words
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE, PartitionKind
from fl_rsna.task import Rendering, Task

FINGERPRINTS_SHOWN = 15
REJECTS_SHOWN = 50
FINGERPRINT = ("scanner", "bit type", "padding", "header window")  # the parts of a value of the column fingerprint
STORED = (
    ("transfer syntax", ("transfer_syntax",)),
    ("rows × columns", ("rows", "columns")),
    ("origin", ("origin",)),
    ("view", ("view",)),
)
VALUES_SHOWN = 6  # of each row of STORED
MEASURES = (  # (what, column, digits, by series)
    ("pixel spacing, mm", "row_spacing_mm", 3, False),
    ("slice thickness, mm", "thickness_mm", 2, False),
    ("step between slices, mm", "step_above_mm", 2, False),
    ("images a series", "slices", 0, True),
    ("height of a series, mm", "range_mm", 1, True),
    ("gantry tilt, degrees", "tilt_deg", 1, False),
    ("mean brain HU", "brain_hu_mean", 1, False),
    ("share of brain pixels", "brain_share", 3, False),
)
SITE_MEASURES = tuple(
    row for row in MEASURES if row[1] in ("row_spacing_mm", "thickness_mm", "step_above_mm", "slices", "tilt_deg")
)
FLAGS = ("noise", "repeated_position", "place_filled", "wrapped_12_bit", "sign_restored")
SITE_COLUMNS = {
    "image_id",
    "patient_id",
    "series_id",
    "relative_position",
    "brain_hu_mean",
    "fingerprint",
    "view",
    *FLAGS,
} | {row[1] for row in SITE_MEASURES}
TRANSFER_SYNTAXES = {
    "1.2.840.10008.1.2": "implicit little endian",
    "1.2.840.10008.1.2.1": "explicit little endian",
    "1.2.840.10008.1.2.1.99": "deflated little endian",
    "1.2.840.10008.1.2.2": "explicit big endian",
    "1.2.840.10008.1.2.4.50": "JPEG baseline, lossy",
    "1.2.840.10008.1.2.4.51": "JPEG extended, lossy",
    "1.2.840.10008.1.2.4.57": "JPEG lossless, process 14",
    "1.2.840.10008.1.2.4.70": "JPEG lossless",
    "1.2.840.10008.1.2.4.80": "JPEG-LS lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS near lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.5": "RLE lossless",
}

ORDERS: dict[str, str] = {
    Order.position: "series ordered by ImagePositionPatient along the slice normal",
    Order.slice_location: "series without positions, ordered by SliceLocation, which is taken to grow towards the head",
    Order.instance_number: "series without positions, ordered by InstanceNumber, which is taken to grow towards the head",
    Order.unknown: "series whose headers say nothing of order: listed by image_id, no slice has a place or neighbours",
}

MEANINGS = {reason.value: meaning for reason, meaning in MEANING.items()}
Setting = str | int | float | bool | list[str]


class LabelCounts(TypedDict):
    """The slices, series and patients with a label or with none; `share`, 0 to 1, is that of the slices."""

    label: str
    slices: int
    share: float
    series: int
    patients: int


class StoredValue(TypedDict):
    """A value that files state, with its slices and their share, 0 to 1, of all slices."""

    what: str
    value: str
    slices: int
    share: float


class Measure(TypedDict):
    """A number that headers state, as text, and how often it is missing."""

    what: str
    least: str
    median: str
    most: str
    missing: int


class Flag(TypedDict):
    """A mark, how many slices or series have it, and what it means."""

    what: str
    count: int
    meaning: str


class RejectReason(TypedDict):
    """A reason of rejection, how many files it rejected, and what it means."""

    reason: str
    files: int
    meaning: str


class LabelShift(TypedDict):
    """Jensen-Shannon distances, 0 to 1, between the labels of training sites; None where they are undefined."""

    mean: float | None
    largest: float | None
    farthest: list[str]
    by_chance: float | None
    to_pool: dict[str, float]


class CohortView(TypedDict):
    """The content of pages on a cohort beside its counts: slices by site and label, headers by site, label shift, rejects."""

    columns: list[str]
    shown_as: str
    matrix: list[SiteRow]
    hidden: int
    census: list[dict[str, list[str]]]
    label_shift: LabelShift | None
    rejected: list[RejectReason]


def positives(index: pd.DataFrame, labels: Sequence[str]) -> list[LabelCounts]:
    """Count the slices, series and patients with each label and with none, and the share of slices."""
    masks = {label: index[label] == 1 for label in labels}
    masks |= {"none": index[list(labels)].max(axis=1) == 0} if labels else {}
    return [
        {
            "label": label,
            "slices": int(mask.sum()),
            "share": float(mask.mean()),
            "series": int(index.loc[mask, "series_id"].nunique()),
            "patients": int(index.loc[mask, "patient_id"].nunique()),
        }
        for label, mask in masks.items()
    ]


def fingerprints(index: pd.DataFrame) -> pd.DataFrame:
    """Count slices and patients by scanner, bit type, padding and header window, most slices first; none without the column."""
    if "fingerprint" not in index:
        return pd.DataFrame(columns=["slices", "patients", "share", *FINGERPRINT])
    found = index.groupby("fingerprint", sort=True)["patient_id"].agg(slices="size", patients="nunique")
    words = [[word or "not stated" for word in str(name).rsplit("|", 3)] for name in found.index]
    table = found.assign(share=found["slices"] / len(index)).reset_index(drop=True)
    named: pd.DataFrame = pd.concat([table, pd.DataFrame(words, columns=list(FINGERPRINT))], axis=1)
    return named.sort_values("slices", ascending=False, kind="stable")


def count_file_values(index: pd.DataFrame) -> list[StoredValue]:
    """Count slices by what else the files say: transfer syntax, rows and columns, origin, view; the rarest values in one row.

    A value is in words, such as `512 × 512`, `JPEG lossless` or `not stated`.
    """
    rows: list[StoredValue] = []
    for what, columns in STORED:
        if set(columns) <= set(index.columns):
            counts = index.groupby(list(columns), sort=True).size().sort_values(ascending=False, kind="stable")
            named = []
            for key, slices in counts.head(VALUES_SHOWN).items():
                words = [str(part) for part in (key if isinstance(key, tuple) else (key,))]
                name = " × ".join(TRANSFER_SYNTAXES.get(word, word) or "not stated" for word in words)
                named.append((name, int(slices)))
            rarer = counts.iloc[VALUES_SHOWN:]
            named += [(f"{len(rarer)} more", int(rarer.sum()))] if len(rarer) else []
            rows += [{"what": what, "value": name, "slices": n, "share": n / len(index)} for name, n in named]
    return rows


def measures(index: pd.DataFrame) -> list[Measure]:
    """Compute the least, median and greatest of the numbers that headers state, as text, and count the missing ones."""
    rows: list[Measure] = []
    for what, column, digits, by_series in MEASURES:
        if column in index:
            values = _of_each(index, column, by_series)
            low, middle, high = (_format_number(value, digits) for value in values.quantile([0, 0.5, 1]))
            ends = index["series_id"].nunique() if column == "step_above_mm" else 0  # nothing above the highest slice
            missing = int(values.isna().sum()) - ends
            rows.append({"what": what, "least": low, "median": middle, "most": high, "missing": missing})
    return rows


def flags(index: pd.DataFrame) -> list[Flag]:
    """Count the slices or series that have each mark, and say what the mark means."""
    marks = {name.replace("_", " "): (int(index[name].sum()), COLUMNS[name].meaning) for name in FLAGS if name in index}
    if "position_mm" in index:
        marks["no geometry"] = int(index["position_mm"].isna().sum()), "no position in the header, or none that can be"
    for order, series in series_by_order(index).items():
        marks[f"order: {order.replace('_', ' ')}"] = series, ORDERS[order]
    if "png_sha256" in index:
        equal = int(index["png_sha256"].duplicated(keep=False).sum())
        marks["equal pixels"] = equal, "another image has the same pixels"
    if "step_above_mm" in index:
        steps = index.groupby("series_id")["step_above_mm"].agg(["min", "max"])
        uneven = int((steps["max"] - steps["min"] > 0.1).sum())
        marks["uneven steps"] = uneven, "series whose steps differ by more than 0.1 mm"
    for name, held in by_placeholder(index).items():
        apart = f"as {held['patients']} patients of as many places" if held["patients"] > 1 else "as one patient"
        said = f"a PatientID that stands for nobody, on {held['studies']} studies: taken {apart}, compared with no other site"
        marks[f"placeholder {name}"] = held["images"], said
    return [{"what": what, "count": count, "meaning": meaning} for what, (count, meaning) in marks.items()]


def site_facts(index: pd.DataFrame) -> dict[str, list[str]]:
    """Summarize a site's headers in lines by heading; the headings depend only on the columns of the index."""
    kinds = fingerprints(index)
    facts = {name: _commonest(kinds, name) for name in FINGERPRINT} if "fingerprint" in index else {}
    if "view" in index:
        views = index["view"].replace("", "not stated").value_counts(normalize=True)
        facts["view"] = _commonest(views.rename("share").rename_axis("view").reset_index(), "view")
    for what, column, digits, by_series in SITE_MEASURES:
        if column in index:
            facts[what] = _span(_of_each(index, column, by_series), digits)
    for name in FLAGS:
        if name in index:
            facts[name.replace("_", " ")] = [f"{index[name].mean():.1%}" if len(index) else "–"]
    return facts


def reject_reasons(rejected: Mapping[str, int]) -> list[RejectReason]:
    """List the reasons of rejection with their meanings, most files first."""
    most_first = sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"reason": reason, "files": count, "meaning": MEANINGS.get(reason, "")} for reason, count in most_first]


def reject_rows(table: pd.DataFrame) -> list[dict[str, str]]:
    """Select up to REJECTS_SHOWN rows of rejected.csv, the first of every reason before more of any, sorted by reason."""
    each = max(1, REJECTS_SHOWN // max(1, table["reason"].nunique()))
    first = table.groupby("reason", sort=False).head(each).head(REJECTS_SHOWN)
    more = table.drop(first.index).head(REJECTS_SHOWN - len(first))
    return pd.concat([first, more]).sort_values(["reason", "path"]).to_dict("records")  # type: ignore[return-value]


def _commonest(kinds: pd.DataFrame, name: str) -> list[str]:
    """Describe the two commonest kinds with their shares, and how many more there are: `12u-1024 60%`, `16s-1024 38%`, `2 more`."""
    shares = kinds.groupby(name)["share"].sum().sort_values(ascending=False, kind="stable")
    shown = [f"{value} {share:.0%}" for value, share in shares.head(2).items()]
    return shown + ([f"{len(shares) - 2} more"] if len(shares) > 2 else []) or ["–"]


def _span(values: pd.Series, digits: int) -> list[str]:
    """Format the median and the range: `0.449`, `0.391–0.488`; the range is left out when all values are equal."""
    low, middle, high = values.quantile([0, 0.5, 1])
    ends = [f"{_format_number(low, digits)}–{_format_number(high, digits)}"] if high > low else []
    return [_format_number(middle, digits), *ends]


def _of_each(index: pd.DataFrame, column: str, by_series: bool) -> pd.Series:
    return index.drop_duplicates("series_id")[column] if by_series else index[column]


def _format_number(value: float, digits: int) -> str:
    return f"{value + 0:.{digits}f}" if value == value else "–"  # + 0: no negative zero


SITES_SHOWN = 12
ONLY_OF = {  # settings that mean something to one kind of partition
    "alpha": PartitionKind.dirichlet,
    "sigma": PartitionKind.quantity,
    "lacking": PartitionKind.specialist,
}
STORED_AS = {
    ImageKind.hu: "16-bit grey, HU + 1024",
    ImageKind.windows: "8-bit RGB: brain, subdural and soft tissue window",
    ImageKind.grey: "16-bit grey, black to white, dense is white",
}
SHOWN_AS = {
    ImageKind.hu: "Brain window, 0 to 80 HU",
    ImageKind.windows: "The stored colours: brain window in red, subdural in green, soft tissue in blue",
    ImageKind.grey: "The film as it is meant to be seen",
}

MARK = b'<meta name="generator" content="fl_rsna">'  # in every page


def write_prepare_page(prepared: Prepared, task: Task) -> Path:
    """Write prepare.html into the folder of prepared data, and return its path; the same folder gives the same bytes."""
    folder, index, kind, labels = prepared.folder, prepared.index, prepared.image, prepared.labels
    facts = read_facts(folder / "prepare.json", f"data.name: no prepared data at {folder}")
    images, specific = folder / "images", [label for label in labels if label != task.union]
    counted = positives(index, labels)
    if labels:
        by, sheet = "label", sheets.label_sheet(index, images, kind, labels, specific, task.picture)
    elif task.rendering is Rendering.radiograph:
        by, sheet = "view", sheets.view_sheet(index, images, kind, task.picture)
    else:
        by, sheet = "height", sheets.height_sheet(index, images, kind)
    page = render_page(
        "prepare.html.j2",
        name=folder.name,
        title=task.title,
        facts=facts,
        stored=STORED_AS[kind],
        shown_as=SHOWN_AS[kind],
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
        fingerprints=fingerprints(index).to_dict("records"),
        limit=FINGERPRINTS_SHOWN,
        stored_as=count_file_values(index),
        measures=measures(index),
        flags=flags(index),
        rejects=reject_reasons(facts["rejected"]),
        rejected=reject_rows(read_rejected(folder)),
    )
    write_page(folder / "prepare.html", page)
    return folder / "prepare.html"


def write_partition_page(cohort: Cohort, task: Task) -> Path:
    """Write partition.html into a cohort's folder, and return its path."""
    facts = {"made_of": {}, "lacks": {}, "noise": {}, **cohort.facts}  # which cohort.json has where there are any
    parts = [part for by_part in facts["sites"].values() for part in by_part.values()]
    shares = []
    for site in cohort.sites:
        held = list(facts["sites"][site].values())
        slices = sum(part["slices"] for part in held)
        shares.append(sum(part["positives"][task.headline] for part in held) / slices if slices else 0.0)
    made_of = {  # header fingerprints in words: `not stated · 12u-1024 · none · 36/80`
        site: [" · ".join(word or "not stated" for word in value.split("|")) for value in values]
        for site, values in facts["made_of"].items()
    }
    page = render_page(
        "partition.html.j2",
        title=task.title,
        words=task_words(task),
        facts=facts,
        made_of=made_of,
        settings=_settings_that_count(facts["settings"]),
        training_sites=cohort.sites,
        slices=sum(part["slices"] for part in parts),
        headline=task.headline,
        least=min(shares),
        most=max(shares),
        heterogeneity=as_svg(heterogeneity(facts["sites"], list(cohort.labels)), SHARES),
        view=cohort_view(cohort),
    )
    write_page(cohort.folder / "partition.html", page)
    return cohort.folder / "partition.html"


def cohort_view(cohort: Cohort) -> CohortView:
    """Collect what pages show of a cohort beside its counts, as plain values for JSON.

    The matrix shows the test site and so many training sites, at equal steps of their numbers, that SITES_SHOWN are shown.
    """
    here = tuple(site for site in cohort.sites if cohort.site_folder(site).is_dir())  # none, between machines
    room = min(SITES_SHOWN - 1, len(here))
    shown = {TEST_SITE} | {here[round(n * (len(here) - 1) / max(1, room - 1))] for n in range(room)}
    matrix: list[SiteRow] = []
    headers, by_site = [], []
    for site in (*here, TEST_SITE):
        folder = cohort.site_folder(site)
        index = _read_index(folder, cohort.labels)
        if site != TEST_SITE:
            by_site.append(index.reindex(columns=["patient_id", *cohort.labels]).assign(site=site))
        index = index.assign(**{label: 0 for label in cohort.labels if label not in index})
        headers.append({"site": [site], **site_facts(index)})
        if site in shown:
            scan = scan_of(noise_from(cohort.facts.get("noise", {}).get(site, {})), site)
            matrix.append(sheets.site_row(site, index, folder / "images", cohort.image, cohort.labels, scan))
    exclusive = not any(row["cells"][-1]["slices"] for row in matrix)  # no slice is without a label
    if exclusive:
        matrix = [{**row, "cells": row["cells"][:-1]} for row in matrix]
    return {
        "columns": [*cohort.labels, *([] if exclusive else [NO_LABEL])],
        "shown_as": SHOWN_AS[cohort.image],
        "matrix": matrix,
        "hidden": len(headers) - len(matrix),
        "census": headers,
        "label_shift": _label_shift(by_site, cohort.labels),
        "rejected": reject_reasons(cohort.facts["prepared"].get("rejected", {})),
    }


def _label_shift(by_site: Sequence[pd.DataFrame], labels: Sequence[str]) -> LabelShift | None:
    """Measure how unlike the labels of training sites are over patients; None for fewer than two sites."""
    if len(by_site) < 2:
        return None
    rows = pd.concat(by_site, ignore_index=True)
    ids = pd.DataFrame({Kind.patient: rows["patient_id"]})
    found = heterogeneity_of(Slices(places=rows[["site"]], ids=ids, labels=rows[list(labels)], site="site", part=None))
    distances = found.distances.get(PATIENTS)
    if distances is None:
        return None
    farthest = list(distances.farthest or ())
    return LabelShift(
        mean=distances.mean, largest=distances.largest, farthest=farthest, by_chance=distances.by_chance, to_pool=distances.to_pool
    )  # fmt: skip


def write_page(path: Path, page: bytes) -> None:
    """Write a page, also over an earlier one; raises ValueError where a file of that name is no page of fl_rsna's."""
    refuse_stranger(path, lambda earlier: MARK in earlier)
    write_whole(path, page)


def render_page(template: str, **what: Any) -> bytes:
    """Render a page from one of our templates; every value is escaped."""
    page = _templates().get_template(template).render(**what)
    return page.encode(errors="backslashreplace")  # a path need not be UTF-8


@functools.cache
def _templates() -> Environment:
    """Return the environment of our templates, which compiles each of them once."""
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"interval": interval, "megabytes": megabytes, "counted": format_count}
    environment.filters |= {"noise": noise_said, "said": format_cell}
    return environment


def _settings_that_count(settings: Mapping[str, Any]) -> dict[str, Setting]:
    """Select the settings that decided who is where, as they are typed; the hash of each file is a line of its own."""
    kind, folds = settings["kind"], settings["folds"]
    idle = {name for name, of in ONLY_OF.items() if of != kind} | {"test" if folds else "fold"}
    idle |= {"num_sites"} if kind == PartitionKind.explicit else set()
    shown: dict[str, Setting] = {}
    for name, value in settings.items():
        if name == "noise":
            continue  # it has a table of its own
        if isinstance(value, dict):
            shown |= {f"{file} {name.removeprefix('files_')}": digest for file, digest in value.items()}
        elif value is not None and name not in idle:
            shown[name] = str(value).lower() if isinstance(value, bool) else value
    return shown


def _read_index(folder: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Read what the pages need of a site's index, without labels that the site does not annotate.

    Names stay text, and an empty one is not missing.
    """
    wanted = {*SITE_COLUMNS, *PIXEL_SIZE, *labels}
    texts = {name: str for name in wanted if name in COLUMNS and COLUMNS[name].dtype == "str"}
    _, raw = read_site_files(folder)
    table = parse_csv(folder / "index.csv", raw, usecols=lambda name: name in wanted, dtype=texts)
    return table.fillna({name: "" for name in texts if name in table})
