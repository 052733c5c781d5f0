"""The pages of the steps before a run: one offline HTML file for prepared data, one for a cohort, with the tables of what a set of slices is."""

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
from fl_rsna.reporting.images.contact_sheets import NO_LABEL
from fl_rsna.reporting.record.cells import format_cell
from fl_rsna.reporting.record.matplotlib import as_svg, heterogeneity
from fl_rsna.reporting.record.run_record import interval, megabytes
from fl_rsna.reporting.record.wording import format_count, task_words
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE, PartitionKind
from fl_rsna.task import Rendering, Task

FINGERPRINTS_SHOWN = 15
REJECTS_SHOWN = 50
FINGERPRINT = ("scanner", "bit type", "padding", "header window")  # the words of the column fingerprint
STORED = (
    ("transfer syntax", ("transfer_syntax",)),
    ("rows × columns", ("rows", "columns")),
    ("origin", ("origin",)),
    ("view", ("view",)),
)
VALUES_SHOWN = 6  # of each of them
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

Table = list[dict[str, Any]]


def positives(index: pd.DataFrame, labels: Sequence[str]) -> Table:
    """Slices, series and patients with each label and with none, and the share of slices."""
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
    """Slices and patients by scanner, bit type, padding and header window, most slices first; none without the column."""
    if "fingerprint" not in index:
        return pd.DataFrame(columns=["slices", "patients", "share", *FINGERPRINT])
    found = index.groupby("fingerprint", sort=True)["patient_id"].agg(slices="size", patients="nunique")
    words = [[word or "not stated" for word in str(name).rsplit("|", 3)] for name in found.index]
    table = found.assign(share=found["slices"] / len(index)).reset_index(drop=True)
    named: pd.DataFrame = pd.concat([table, pd.DataFrame(words, columns=list(FINGERPRINT))], axis=1)
    return named.sort_values("slices", ascending=False, kind="stable")


def count_file_values(index: pd.DataFrame) -> Table:
    """Slices by what else the files say: transfer syntax, rows and columns, origin; the rarest as one."""
    rows: Table = []
    for what, columns in STORED:
        if set(columns) <= set(index.columns):
            counts = index.groupby(list(columns), sort=True).size().sort_values(ascending=False, kind="stable")
            named = [(_describe_group(key), int(slices)) for key, slices in counts.head(VALUES_SHOWN).items()]
            rarer = counts.iloc[VALUES_SHOWN:]
            named += [(f"{len(rarer)} more", int(rarer.sum()))] if len(rarer) else []
            rows += [{"what": what, "value": name, "slices": n, "share": n / len(index)} for name, n in named]
    return rows


def measures(index: pd.DataFrame) -> Table:
    """Least, median, greatest and missing values of the numbers a header states, as text."""
    rows = []
    for what, column, digits, by_series in MEASURES:
        if column in index:
            values = _of_each(index, column, by_series)
            low, middle, high = (_format_number(value, digits) for value in values.quantile([0, 0.5, 1]))
            ends = index["series_id"].nunique() if column == "step_above_mm" else 0  # nothing above the highest slice
            missing = int(values.isna().sum()) - ends
            rows.append({"what": what, "least": low, "median": middle, "most": high, "missing": missing})
    return rows


def flags(index: pd.DataFrame) -> Table:
    """How many slices or series are marked, and what the mark means."""
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
    """One site's headers: heading -> lines; headings depend only on the columns there are."""
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


def reject_reasons(rejected: Mapping[str, int]) -> Table:
    """Reasons with their meanings, most files first."""
    most_first = sorted(rejected.items(), key=lambda pair: (-pair[1], pair[0]))
    return [{"reason": reason, "files": count, "meaning": MEANINGS.get(reason, "")} for reason, count in most_first]


def reject_rows(table: pd.DataFrame) -> Table:
    """Up to REJECTS_SHOWN rejected files, the first of every reason before more of any."""
    each = max(1, REJECTS_SHOWN // max(1, table["reason"].nunique()))
    first = table.groupby("reason", sort=False).head(each).head(REJECTS_SHOWN)
    more = table.drop(first.index).head(REJECTS_SHOWN - len(first))
    return pd.concat([first, more]).sort_values(["reason", "path"]).to_dict("records")  # type: ignore[return-value]


def _commonest(kinds: pd.DataFrame, name: str) -> list[str]:
    """The two commonest with their shares, and how many kinds more: `12u-1024 60%`, `16s-1024 38%`, `2 more`."""
    shares = kinds.groupby(name)["share"].sum().sort_values(ascending=False, kind="stable")
    shown = [f"{value} {share:.0%}" for value, share in shares.head(2).items()]
    return shown + ([f"{len(shares) - 2} more"] if len(shares) > 2 else []) or ["–"]


def _span(values: pd.Series, digits: int) -> list[str]:
    """Median and range: `0.449`, `0.391–0.488`; the range is left out when all are equal."""
    low, middle, high = values.quantile([0, 0.5, 1])
    ends = [f"{_format_number(low, digits)}–{_format_number(high, digits)}"] if high > low else []
    return [_format_number(middle, digits), *ends]


def _of_each(index: pd.DataFrame, column: str, by_series: bool) -> pd.Series:
    return index.drop_duplicates("series_id")[column] if by_series else index[column]


def _format_number(value: float, digits: int) -> str:
    return f"{value + 0:.{digits}f}" if value == value else "–"  # + 0: no negative zero


def _describe_group(key: object) -> str:
    """The values of a group in words: `512 × 512`, `JPEG lossless`, `not stated`."""
    words = [str(part) for part in key] if isinstance(key, tuple) else [str(key)]
    return " × ".join(TRANSFER_SYNTAXES.get(word, word) or "not stated" for word in words)


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
        headers.append({"site": [site], **site_facts(index)})
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
        "rejected": reject_reasons(cohort.facts["prepared"].get("rejected", {})),
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
    wanted = {*SITE_COLUMNS, *PIXEL_SIZE, *labels}
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
