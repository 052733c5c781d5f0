"""A cohort folder as it lies on disk now, as Slices, and where it no longer is what cohort.json says.

Pixels are compared by `png_sha256` of index.csv. Where a site has no such column the files' bytes are hashed in the
same way (the first 16 hexadecimal digits of SHA-256): equal pixels give equal bytes as long as one version of prepare wrote
them. With `pixels` every file is decoded instead and its pixels hashed, so that images another program has written
again are recognised and constant images known for certain; a file whose bytes differ from its `png_sha256` is named.
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
from fl_rsna.cohort.sites.site_folders import INDEX_SHA256
from fl_rsna.common.id_scheme import unlike_places
from fl_rsna.common.reading import check_keys, file_sha256, read_json, refuse_unreadable
from fl_rsna.imaging.png_store import decode_png
from fl_rsna.task import ICH, list_tasks

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
    """One thing at one site that is not as recorded."""

    site: str
    what: str
    expected: int
    found: int
    first: str | None = None  # the first image concerned


@dataclass(frozen=True, slots=True, kw_only=True)
class OnDisk:
    """A cohort folder as found."""

    slices: Slices
    task: str
    group: str | None  # what was dealt, where cohort.json says
    leaky: bool
    pixels_by: str  # how pixels were compared
    differences: tuple[Difference, ...]
    unknown: str | None  # whose patients cannot be compared, and why


def read_on_disk(folder: Path, *, pixels: bool, on_progress: Progress) -> OnDisk:
    """Read every site that cohort.json names; raises ValueError when the folder or one of its sites cannot be read."""
    facts = read_facts(
        folder / "cohort.json",
        f"cohort: expected a folder that partition made, with cohort.json, got {folder}; give site_data/<cohort>",
        by_hand=True,
    )
    if not isinstance(facts.get("sites"), dict) or not isinstance(facts.get("labels"), list):
        raise ValueError(
            f"cohort: expected sites and labels in {folder / 'cohort.json'}, got none; deal the cohort again"
        )
    for site, parts in facts["sites"].items():
        check_keys({site: parts}, folder / "cohort.json", {site: dict})
        check_keys(parts, folder / "cohort.json", dict.fromkeys(parts, dict))
    task = facts.get("task", ICH.name)  # older cohorts were of one task
    if task not in list_tasks():
        raise ValueError(f"cohort: expected task {' or '.join(list_tasks())} in {folder / 'cohort.json'}, got {task}")
    labels, differences, hashed, tables = facts["labels"], _strangers(folder, facts["sites"]), [], []
    for done, (site, counted) in enumerate(facts["sites"].items(), 1):
        table = _site_table(folder / site, labels)
        differences += _own_hash(site, folder / site)
        differences += _counts(site, counted, table, labels) + _files(site, folder / site, table)
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
        group=facts.get("group"),
        leaky=bool(facts.get("leaky")),
        pixels_by=_pixels_by(pixels, hashed, len(tables)),
        differences=tuple(differences),
        unknown=_incomparable(folder, facts["sites"]),
    )


def _incomparable(folder: Path, sites: Mapping[str, Any]) -> str | None:
    """Where ids of sites were made in different ways; folders older than such records were dealt from one set."""
    said = [
        (site, read_facts(path, "", by_hand=True) if (path := folder / site / "site.json").is_file() else {})
        for site in sites
    ]
    if not any("ids" in facts for _, facts in said):
        return None
    return unlike_places((site, facts.get("ids")) for site, facts in said)


def _site_table(folder: Path, labels: Sequence[str]) -> pd.DataFrame:
    """index.csv, as far as an audit needs it: ids as text, labels as numbers."""
    path, wanted = folder / "index.csv", {"split", *IDS.values(), PLACEHOLDER, *SPREAD, *labels}
    with refuse_unreadable(
        path, "the table of a site that cohort.json names", "bring the site's folder back", key="cohort: "
    ):
        table = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=lambda name: name in wanted)
    if missing := [name for name in (*NEEDED, *labels) if name not in table]:
        raise ValueError(f"cohort: expected columns {', '.join(missing)} in {path}, got none; deal the cohort again")
    for name in map(str, table.columns.drop(PLACEHOLDER, errors="ignore")):
        table[name] = pd.to_numeric(table[name], errors="coerce") if name in labels else as_ids(table[name])
    return table


def _strangers(folder: Path, sites: Mapping[str, Any]) -> list[Difference]:
    found = sorted(path.parent.name for path in folder.glob("*/index.csv") if path.parent.name not in sites)
    return [Difference(site=site, what="site that cohort.json does not name", expected=0, found=1) for site in found]


def _own_hash(site: str, folder: Path) -> list[Difference]:
    """Where a site's index.csv is not the one whose hash its site.json states."""
    path = folder / "site.json"
    stated = read_json(path, "bring the site's folder back", by_hand=True).get(INDEX_SHA256) if path.is_file() else None
    same = stated is None or stated == file_sha256(folder / "index.csv")
    return [] if same else [Difference(site=site, what="index.csv that is not as it was written", expected=0, found=1)]


def _counts(site: str, counted: Mapping[str, Any], table: pd.DataFrame, labels: Sequence[str]) -> list[Difference]:
    """Where the sizes and positives of a site's parts are not those of cohort.json."""
    differences = []
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
    return differences


def _files(site: str, folder: Path, table: pd.DataFrame) -> list[Difference]:
    """Images that index.csv names twice, or that are not there, or that it does not name."""
    names = table["image_id"].dropna() + ".png"
    here = set(os.listdir(folder / "images")) if (folder / "images").is_dir() else set()
    findings = {
        "image ids named twice": set(names[names.duplicated()]),
        "images missing": set(names) - here,
        "images that index.csv does not name": here - set(names),
    }
    return [_images(site, what, found) for what, found in findings.items() if found]


def _images(site: str, what: str, names: Collection[str]) -> Difference:
    return Difference(site=site, what=what, expected=0, found=len(names), first=min(names))


def _with_hashes(site: str, folder: Path, table: pd.DataFrame, decode: bool) -> tuple[pd.DataFrame, list[Difference]]:
    """The table with `png_sha256` as the files have it now and, decoded, `constant`; and files that are not as recorded."""
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
    """Hash of a file's bytes, hash of its pixels (or again of its bytes), whether it is constant; None where it has none."""
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
    if decoded:
        return "decoded images"
    if not hashed:
        return f"{SHA256} of index.csv"
    where = "" if len(hashed) == num_sites else f" of {', '.join(hashed)}, {SHA256} of the others"
    return f"the bytes of the images{where}"
