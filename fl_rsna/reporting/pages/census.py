"""Tables of what a set of slices is: header census, positives, and what was rejected and why."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from fl_rsna.cohort.prepared.index import COLUMNS, series_by_order
from fl_rsna.cohort.prepared.patients import by_placeholder
from fl_rsna.cohort.prepared.series import Order
from fl_rsna.imaging.dicom.rejections import MEANING

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
