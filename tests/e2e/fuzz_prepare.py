"""Damaged files against the real `prepare`: each must end as one row, in time, and what is accepted must be right.

    python tests/e2e/fuzz_prepare.py [--chest] [--dicom <folder> ...] [--seed 0] [--seconds 60] [--only <batch>/<number>]

Without --dicom it draws synthetic slices, with --chest films, and writes them in six transfer syntaxes. Every batch is a folder of files with one to
three mutations each and the untouched originals, prepared by the command in a process of its own, with two workers. Checked:
it exits 0 and writes nothing on stderr; every file is exactly one row, of the index or of rejected.csv; a PNG lies there
for exactly the accepted ones; and each PNG, read by Pillow, equals pixel for pixel what pydicom itself decodes of the file, turned
into HU in float64 here. Films are what pydicom's modality and VOI stages make of them, to one step of 65,535, where pydicom does not
refuse and the header states a window that both read alike; other films are only decoded. A file that ended its worker is run again
alone: more than 10 s of processor time is a violation.
Each file depends on the seed, its batch and its number alone, so --only makes one again. It prints a table of outcomes and, as
the last line, one JSON object; exit code 1 on a violation, naming seed, file and recipe.
"""

import argparse
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pydicom
from damaged_dicom import Source, deflated, mutated, originals, renamed
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels import apply_modality_lut, apply_voi_lut

from fl_rsna.imaging.convert import Conversion
from fl_rsna.imaging.dicom.radiograph import WHITE
from fl_rsna.imaging.sources import File
from fl_rsna.imaging.workers import Chunk, convert_local
from fl_rsna.settings.data import kinds_of
from fl_rsna.task import COVID_CXR, ICH, Rendering, Task

SIZE = 256  # pixels a side of the PNGs
LONGEST_S = 10.0  # of processor time, a file


def number(ds: pydicom.Dataset, keyword: str) -> float:
    """The first value, whatever kind of element holds it."""
    value = ds[keyword].value
    return float(str(value if isinstance(value, str | float | int) else value[0]))


def readable(path: Path) -> pydicom.Dataset:
    """The file with the numbers of its pixels as pydicom wants them: as they are, and a text is none to it."""
    ds = pydicom.dcmread(path)
    if "SamplesPerPixel" not in ds:
        ds.SamplesPerPixel = 1
    for keyword in ("Rows", "Columns", "BitsAllocated", "BitsStored", "PixelRepresentation"):
        ds.add_new(keyword, "US", int(number(ds, keyword)))
    return ds


def truth(path: Path, restored: set[str]) -> tuple[str, NDArray[np.uint16] | None]:
    """The id and the expected PNG, from pydicom's pixels and float64; no PNG where the header names padding.

    `restored` are the ids of which the index says that negative values were stored modulo a power of two.
    """
    ds = readable(path)
    image_id = str(ds.SOPInstanceUID).strip(" \0")
    if "PixelPaddingValue" in ds:
        return image_id, None
    slope, intercept = number(ds, "RescaleSlope"), number(ds, "RescaleIntercept")
    values = ds.pixel_array.astype(np.float64)
    if image_id in restored:
        first = 3000 if ds.BitsStored == 12 else 2 ** (ds.BitsStored - 1)
        values = np.where(values >= first, values - 2**ds.BitsStored, values)
    hu = np.rint(np.clip(values * slope + intercept, -1024, 3071)) + 1024
    return image_id, squared(hu)


def truth_of_film(path: Path) -> tuple[str, NDArray[np.uint16] | None]:
    """The same of a film, by pydicom's own stages; no PNG where they and the standard leave room."""
    ds = readable(path)
    image_id, stored = str(ds.SOPInstanceUID).strip(" \0"), ds.pixel_array
    try:
        share = windowed(ds, stored)
        padding = int(ds.PixelPaddingValue) if "PixelPaddingValue" in ds else None
    except Exception:  # what pydicom refuses of a damaged table or window, or takes for another kind of value
        return image_id, None
    if share is None:
        return image_id, None
    grey = np.rint(np.clip(1 - share if ds.PhotometricInterpretation == "MONOCHROME1" else share, 0, 1) * WHITE)
    if np.ptp(grey) == 0:  # a window that shows nothing is none to us
        return image_id, None
    if padding is not None:
        grey = np.where(stored == padding, 0, grey)
    return image_id, squared(grey)


def windowed(ds: pydicom.Dataset, stored: NDArray[np.generic]) -> NDArray[np.float64] | None:
    """0 to 1 of the range that pydicom puts a window in; None without a plain one."""
    window = [ds.get(keyword) for keyword in ("WindowCenter", "WindowWidth")]
    if any(table in ds for table in ("VOILUTSequence", "ModalityLUTSequence", "PixelPaddingRangeLimit")):
        return None
    if any(
        isinstance(value, str | bytes) or value is None or not np.isfinite(np.atleast_1d(value).astype(float)).all()
        for value in window
    ):
        return None
    least = -(2 ** (ds.BitsStored - 1)) if ds.PixelRepresentation else 0
    slope, intercept = float(ds.get("RescaleSlope", 1)), float(ds.get("RescaleIntercept", 0))
    low, high = np.array([least, least + 2**ds.BitsStored - 1], float) * slope + intercept
    shown = apply_voi_lut(apply_modality_lut(stored, ds), ds).astype(np.float64)
    return np.asarray((shown - low) / (high - low))


def squared(image: NDArray[np.floating]) -> NDArray[np.uint16]:
    """Padded to a square and resized, as prepare stores it."""
    side = max(image.shape)
    square = np.zeros((side, side), np.uint16)
    top, left = (side - image.shape[0]) // 2, (side - image.shape[1]) // 2
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    if side == SIZE:
        return square
    how = cv2.INTER_AREA if side > SIZE else cv2.INTER_LINEAR
    return cv2.resize(square, (SIZE, SIZE), interpolation=how)  # type: ignore[return-value]


def prepared(dicom: Path, out: Path, task: Task) -> list[str]:
    """What is wrong with how the command ended."""
    arguments = [
        f"task={task.name}",
        "data.unlabelled=true",
        "data.hash_ids=false",
        f"data.size={SIZE}",
        "prepare.workers=2",
        f"data.dicom={dicom}",
    ]
    command = [
        sys.executable,
        "-m",
        "fl_rsna.prepare",
        *arguments,
        f"data.name={out.name}",
        f"paths.prepared={out.parent}",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    except subprocess.TimeoutExpired:
        return ["the command did not end in 20 minutes"]
    return [] if done.returncode == 0 and not done.stderr else [f"exit code {done.returncode}: {done.stderr[-500:]}"]


def checked(dicom: Path, out: Path, task: Task = ICH) -> Iterator[tuple[str, str, str]]:
    """For each file its name, its outcome and what is wrong with it, empty if nothing is."""
    table = pd.read_parquet(out / "index.parquet")
    index, flags = table["image_id"], [name for name in ("wrapped_12_bit", "sign_restored") if name in table]
    restored = set(index[table[flags].any(axis=1)])
    rejected = pd.read_csv(out / "rejected.csv", keep_default_na=False, dtype=str)
    rows = Counter(rejected["path"])
    pngs, ids = {path.stem for path in (out / "images").iterdir()}, set(index)
    if pngs != ids or len(ids) != len(index):
        yield "", "", f"PNGs are not those of the index: {sorted(pngs ^ ids)[:5]}"
    for row in rejected.itertuples():
        wrong = "" if rows[row.path] == 1 else f"{rows[row.path]} rows in rejected.csv"
        yield str(row.path), str(row.reason), wrong
    names = sorted({path.name for path in dicom.iterdir()} - set(rows))
    if len(names) != len(ids):
        yield "", "", f"{len(names)} files have no row in rejected.csv, but the index has {len(ids)}"
    for name in names:
        yield name, *of_accepted(dicom / name, out / "images", ids, restored, task)


def of_accepted(path: Path, images: Path, ids: set[str], restored: set[str], task: Task) -> tuple[str, str]:
    """Its outcome, and what is wrong with it."""
    films = task.rendering is Rendering.radiograph
    try:
        image_id, expected = truth_of_film(path) if films else truth(path, restored)
    except Exception as error:
        return task.picture, f"accepted, but pydicom raises {type(error).__name__}: {error}"
    if image_id not in ids:
        return task.picture, f"accepted, but {image_id!r} is not in the index"
    with Image.open(images / f"{image_id}.png") as png:
        found = np.array(png)
    if expected is None:
        return f"{task.picture}, only decoded", "" if found.shape == (SIZE, SIZE) else f"a PNG of {found.shape}"
    steps, differing = 1 if films else 0, -1  # of a film, where float64 was rounded half up or half even
    if found.shape == expected.shape:
        differing = np.count_nonzero(np.abs(found.astype(np.int64) - expected) > steps)
    return task.picture, f"{differing} pixels differ" if differing else ""


def batch_of(sources: Sequence[Source], seed: int, batch: int, numbers: Sequence[int], folder: Path) -> dict[str, str]:
    """Write the files of a batch; recipes by name."""
    recipes = {}
    folder.mkdir()
    for number in numbers:
        data, recipe = mutated(sources, seed, batch, number)
        recipes[f"{batch}-{number}.dcm"] = recipe
        (folder / f"{batch}-{number}.dcm").write_bytes(data)
    for place, own in enumerate(sources[batch % 7 :: 7]):
        recipes[f"{batch}-original-{place}.dcm"] = "untouched"
        (folder / f"{batch}-original-{place}.dcm").write_bytes(
            deflated(renamed(own, f"{batch:05d}{place:05d}".encode()).data)
        )
    return recipes


def too_slow(path: Path, folder: Path, task: Task) -> str:
    """Run what ended its worker again, alone."""
    incoming = folder / path.stem
    incoming.mkdir()
    work = Conversion(
        incoming=incoming,
        rendering=task.rendering,
        modalities=task.modalities,
        kind=kinds_of(task.rendering)[0],
        size=SIZE,
    )
    began = time.monotonic()
    files = [File(path.name, str(path), path.stat().st_size)]
    for _ in convert_local(work, [Chunk(first=0, files=files)], workers=1):
        pass
    taken_s = (time.monotonic() - began) / 2  # it is tried twice
    return f"ended its worker, after {taken_s:.0f} s" if taken_s > LONGEST_S else ""


def run_batch(
    sources: Sequence[Source], seed: int, batch: int, numbers: Sequence[int], task: Task
) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Outcomes by recipe, and violations."""
    with tempfile.TemporaryDirectory() as name:
        dicom, out = Path(name) / "dicom", Path(name) / "out"
        recipes = batch_of(sources, seed, batch, numbers, dicom)
        wrong = prepared(dicom, out, task)
        if wrong or not out.exists():
            return Counter(), [f"seed {seed}, batch {batch}: {text}" for text in wrong or ["nothing was prepared"]]
        found = [*checked(dicom, out, task)]
        found = [
            (file, what, why or (too_slow(dicom / file, Path(name), task) if what == "crashed" else ""))
            for file, what, why in found
        ]
    outcomes = Counter((what, recipe) for file, what, _ in found if file for recipe in recipes[file].split("+"))
    files = Counter((what, "files") for file, what, _ in found if file)
    missing = recipes.keys() - {file for file, _, _ in found}
    texts = [f"seed {seed}, file {file} ({recipes.get(file, '')}): {why}" for file, _, why in found if why]
    return outcomes + files, texts + [f"seed {seed}, file {file}: no row at all" for file in sorted(missing)]


def show(outcomes: Counter[tuple[str, str]], files: int, violations: Sequence[str], seed: int, seconds: float) -> None:
    """The table, and the JSON line."""
    recipes = ["files", *sorted({recipe for _, recipe in outcomes} - {"files"})]
    print(f"{'outcome':<20}" + "".join(f"{recipe.replace('_', ' ')[:13]:>14}" for recipe in recipes))
    totals = sorted({what for what, _ in outcomes}, key=lambda what: -outcomes[what, "files"])
    for what in totals:
        print(f"{what:<20}" + "".join(f"{outcomes[what, recipe]:>14}" for recipe in recipes))
    peak_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    counts = {what: outcomes[what, "files"] for what in totals}
    figures = {"seed": seed, "seconds": round(seconds), "files": files, "violations": len(violations)}
    print(json.dumps({**figures, "peak_mb": round(peak_mb), "outcomes": counts}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dicom", type=Path, nargs="+", default=[], help="folders with originals")
    parser.add_argument("--chest", action="store_true", help="chest films instead of head CT")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0, help="no batch begins after them")
    parser.add_argument("--files", type=int, default=400, help="damaged files a batch")
    parser.add_argument("--only", help="<batch>/<number> of one file to make again; it is kept in the current folder")
    arguments = parser.parse_args()
    pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
    warnings.simplefilter("ignore")
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)
    sources, began, batch = originals(arguments.dicom, chest=arguments.chest), time.monotonic(), 0
    task = COVID_CXR if arguments.chest else ICH
    numbers = range(arguments.files)
    if arguments.only:
        batch, number = map(int, arguments.only.split("/"))
        numbers = range(number, number + 1)
        Path(f"{batch}-{number}.dcm").write_bytes(mutated(sources, arguments.seed, batch, number)[0])
    outcomes, violations = Counter[tuple[str, str]](), list[str]()
    while not violations or not arguments.only:
        found, wrong = run_batch(sources, arguments.seed, batch, numbers, task)
        outcomes, violations, batch = outcomes + found, violations + wrong, batch + 1
        print("\n".join(wrong), file=sys.stderr, end="\n" if wrong else "")
        if arguments.only or time.monotonic() - began > arguments.seconds:
            break
    files = sum(count for (_, recipe), count in outcomes.items() if recipe == "files")
    show(outcomes, files, violations, arguments.seed, time.monotonic() - began)
    sys.exit(1 if violations else 0)


if __name__ == "__main__":
    main()
