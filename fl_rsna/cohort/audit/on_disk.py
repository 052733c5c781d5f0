"""Read a cohort folder for an audit, and compare it with what cohort.json says.

Pixels are compared by `png_sha256` of index.csv. Where a site has no such column, the bytes of its files are hashed in the same way (the
first 16 hexadecimal digits of SHA-256); equal pixels give equal bytes as long as one version of prepare wrote them. With `pixels` every
file is decoded and its pixels are hashed. Then images that another program wrote again are recognised, constant images are known for
certain, and a file whose bytes differ from its `png_sha256` is reported.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.audit.slices import SPREAD, Kind, Slices, apart_by_site, apart_from_blank, as_ids, constant_images
from fl_rsna.cohort.prepared.index import PLACEHOLDER, read_facts
from fl_rsna.cohort.prepared.patients import are_placeholders
from fl_rsna.cohort.sites.site_folders import INDEX_SHA256, read_site_ids
from fl_rsna.common.id_scheme import unlike_places
from fl_rsna.common.reading import check_keys, file_sha256, read_json, refuse_unreadable
from fl_rsna.imaging.png_store import decode_png
from fl_rsna.task import list_tasks

NEEDED = ("image_id", "split", "patient_id")
SHA256 = "png_sha256"
IDS = {
    Kind.patient: "patient_id",
    Kind.study: "study_id",
    Kind.series: "series_id",
    Kind.image: "image_id",
    Kind.pixels: SHA256,
}

Progress = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A count at one site that differs from the recorded one."""

    site: str
    what: str
    expected: int
    found: int
    first: str | None = None  # the first image concerned


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A cohort folder as it is on disk, with the differences from its records."""

    slices: Slices
    task: str
    group: str  # the unit that was assigned: patient, series or slice
    leaky: bool  # one patient may be at several places
    pixels_by: str  # how pixels were compared
    differences: tuple[Difference, ...]
    unknown: str | None  # which sites' patients cannot be compared, and why


def read_on_disk(folder: Path, *, pixels: bool, on_progress: Progress) -> OnDisk:
    """Read every site that cohort.json names. Raises ValueError when the folder or one of its sites cannot be read."""
    facts = read_facts(
        folder / "cohort.json",
        f"cohort: expected a folder that partition made, with cohort.json, got {folder}; give site_data/<cohort>",
        by_hand=True,
    )
    if not isinstance(facts.get("sites"), dict) or not isinstance(facts.get("labels"), list):
        raise ValueError(f"cohort: expected sites and labels in {folder / 'cohort.json'}, got none; partition again")
    check_keys(facts, folder / "cohort.json", {"task": str, "group": str, "leaky": bool}, "partition again")
    for site, parts in facts["sites"].items():
        check_keys({site: parts}, folder / "cohort.json", {site: dict})
        check_keys(parts, folder / "cohort.json", dict.fromkeys(parts, dict))
    task = facts["task"]
    if task not in list_tasks():
        raise ValueError(f"cohort: expected task {' or '.join(list_tasks())} in {folder / 'cohort.json'}, got {task}")
    differences = [
        Difference(site=path.parent.name, what="site that cohort.json does not name", expected=0, found=1)
        for path in sorted(folder.glob("*/index.csv"))
        if path.parent.name not in facts["sites"]
    ]
    labels, hashed, tables = facts["labels"], [], []
    for done, (site, counted) in enumerate(facts["sites"].items(), 1):
        table = _site_table(folder / site, labels)
        differences += _compare(site, folder / site, counted, table, labels)
        if pixels or SHA256 not in table:
            table, found = _with_hashes(site, folder / site, table, pixels)
            differences += found
            hashed.append(site)
        tables.append(table.assign(site=site))
        on_progress("reading sites", done, len(facts["sites"]))
    rows = pd.concat(tables, ignore_index=True)
    nobody = are_placeholders(rows)
    rows[IDS[Kind.patient]] = apart_by_site(rows[IDS[Kind.patient]], nobody, rows["site"])
    ids = pd.DataFrame({kind: rows[name] for kind, name in IDS.items() if name in rows})
    return OnDisk(
        slices=Slices(
            places=rows[["site", "split"]],
            ids=apart_from_blank(ids, rows["constant"] if pixels else constant_images(rows)),
            labels=rows[labels],
            site="site",
            part="split",
            placeholders=int(nobody.sum()),
        ),
        task=task,
        group=facts["group"],
        leaky=facts["leaky"],
        pixels_by=_pixels_by(pixels, hashed, len(tables)),
        differences=tuple(differences),
        unknown=unlike_places((site, read_site_ids(folder / site / "site.json")) for site in facts["sites"]),
    )


def _site_table(folder: Path, labels: Sequence[str]) -> pd.DataFrame:
    """Read the columns of index.csv that an audit needs: ids as text, labels as numbers. Raises ValueError when one is missing."""
    path, wanted = folder / "index.csv", {"split", *IDS.values(), PLACEHOLDER, *SPREAD, *labels}
    with refuse_unreadable(
        path, "the table of a site that cohort.json names", "bring the site's folder back", key="cohort: "
    ):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=lambda name: name in wanted)
    if missing := [name for name in (*NEEDED, *labels) if name not in table]:
        raise ValueError(f"cohort: expected columns {', '.join(missing)} in {path}, got none; partition again")
    for name in map(str, table.columns.drop(PLACEHOLDER, errors="ignore")):
        table[name] = pd.to_numeric(table[name], errors="coerce") if name in labels else as_ids(table[name])
    return table


def _compare(
    site: str, folder: Path, counted: Mapping[str, Any], table: pd.DataFrame, labels: Sequence[str]
) -> list[Difference]:
    """Compare a site with its records: index.csv with its hash, the parts with cohort.json, and the images with index.csv."""
    path, differences = folder / "site.json", []
    stated = read_json(path, "bring the site's folder back", by_hand=True).get(INDEX_SHA256) if path.is_file() else None
    if stated is not None and stated != file_sha256(folder / "index.csv"):
        what = "index.csv that is not as it was written"
        differences.append(Difference(site=site, what=what, expected=0, found=1))
    parts = {str(part): rows for part, rows in table.groupby("split")}
    for part in sorted({*counted, *parts}):
        recorded, rows = counted.get(part, {}), parts.get(part, table[:0])
        positives = recorded.get("positives", {})
        pairs = {
            "patients": (recorded.get("patients", 0), rows[IDS[Kind.patient]].nunique()),
            "slices": (recorded.get("slices", 0), len(rows)),
            **{f"images with {label}": (positives.get(label, 0), int(rows[label].sum())) for label in labels},
        }
        differences += [
            Difference(site=site, what=f"{part} {what}", expected=expected, found=found)
            for what, (expected, found) in pairs.items()
            if expected != found
        ]
    names = table["image_id"].dropna() + ".png"
    here = set(os.listdir(folder / "images")) if (folder / "images").is_dir() else set()
    findings = {
        "image ids named twice": set(names[names.duplicated()]),
        "images missing": set(names) - here,
        "images that index.csv does not name": here - set(names),
    }
    return differences + [_images(site, what, found) for what, found in findings.items() if found]


def _images(site: str, what: str, names: Collection[str]) -> Difference:
    """Build the difference of images that should not be there; none is expected."""
    return Difference(site=site, what=what, expected=0, found=len(names), first=min(names))


def _with_hashes(site: str, folder: Path, table: pd.DataFrame, decode: bool) -> tuple[pd.DataFrame, list[Difference]]:
    """Return the table with `png_sha256` and `constant` of the files as they are now, and the files that are not as recorded.

    Without `decode` every image counts as not constant.
    """
    names = table["image_id"].fillna("") + ".png"
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        looks = list(threads.map(lambda name: _look(folder / "images" / name, decode), names))
    seen = pd.DataFrame(looks, columns=["bytes", "pixels", "constant"], index=table.index)
    changed = (
        seen["bytes"].ne(table[SHA256]) & seen["bytes"].notna() & table[SHA256].notna() if SHA256 in table else None
    )
    findings = {
        "images that are not those of png_sha256": names[changed] if changed is not None else names[:0],
        "unreadable images": names[seen["bytes"].notna() & seen["pixels"].isna()],
    }
    differences = [_images(site, what, list(found)) for what, found in findings.items() if len(found)]
    return table.assign(**{SHA256: seen["pixels"], "constant": seen["constant"].astype(bool)}), differences


def _look(path: Path, decode: bool) -> tuple[str | None, str | None, bool]:
    """Return the hash of a file's bytes, the hash of its pixels (of its bytes without `decode`), and whether it is constant.

    The hashes are None where the file is missing or cannot be decoded.
    """
    try:
        content = path.read_bytes()
    except OSError:  # counted among the missing
        return None, None, False
    digest = hashlib.sha256(content).hexdigest()[:16]
    if not decode:
        return digest, digest, False
    image = decode_png(content)
    if image is None:
        return digest, None, False
    pixels = hashlib.sha256(f"{image.dtype} {image.shape} ".encode() + image.tobytes()).hexdigest()[:16]
    return digest, pixels, bool((image == image[0, 0]).all())


def _pixels_by(decoded: bool, hashed: Sequence[str], num_sites: int) -> str:
    """Say in words how pixels were compared; `hashed` are the sites whose files were hashed."""
    if decoded:
        return "decoded images"
    if not hashed:
        return f"{SHA256} of index.csv"
    where = "" if len(hashed) == num_sites else f" of {', '.join(hashed)}, {SHA256} of the others"
    return f"the bytes of the images{where}"
