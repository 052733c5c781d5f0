"""Write explanations.json: the slices that a model is most confident and most wrong about, each with its Grad-CAM heat.

The pictures are of the test site, which the server holds. No data of another site are opened, so nothing leaves a site. Heat and
lesions are transparent pictures that lie over a slice. Each has one hue, which everyone can tell from grey, and a slice has a black
ground of its own, so that a page may be light or dark. Where the finding is known, on phantoms and in boxes that people drew, the
share of the heat of true positives that lies in it is measured.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypedDict

import cv2
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from rich.markup import escape

from fl_rsna.cohort.prepared.boxes import BOXES, rasterize_boxes, read_boxes
from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.hashes import read_table
from fl_rsna.common.reading import dump_hashed_json, read_json
from fl_rsna.common.seeds import derive_seed
from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET
from fl_rsna.imaging.png_store import Image, fit_square, read_png
from fl_rsna.imaging.statistics import HEAD_ABOVE_HU
from fl_rsna.learning.data.crop import Square, squares, uncut
from fl_rsna.learning.data.dataset import SiteData, gather, open_for, writable_cache
from fl_rsna.learning.inference.gradcam import CELLS, heat
from fl_rsna.learning.models.classifier import Classifier
from fl_rsna.learning.models.saved import read_saved
from fl_rsna.learning.training.train import choose_device, settle_process
from fl_rsna.phantom.head.cohort import Drawn, draw_again
from fl_rsna.reporting.images.contact_sheets import View, as_uri, render_view
from fl_rsna.reporting.images.exam_strips import SIDE as STRIP_SIDE
from fl_rsna.reporting.images.exam_strips import ExamStrip, build_strip, choose_slices
from fl_rsna.reporting.images.heat_shares import HeatSummary, Mask, shares, summarize_shares
from fl_rsna.reporting.record.console import console
from fl_rsna.reporting.record.quoted_point import choose_quoted
from fl_rsna.run_folder.run_folder import (
    COPY,
    EXPLANATIONS,
    MANIFEST,
    MODEL,
    PREDICTIONS,
    SCORECARDS,
    RunFolder,
    is_finished,
    read_config,
    read_summary,
)
from fl_rsna.run_folder.summary import ChosenPoints
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.settings.training import Device
from fl_rsna.task import Rendering, Task

EVEN = 0.5  # the threshold of a run that chose none
BATCH = 16


class Kind(StrEnum):
    """The outcome of a slice for one label at that label's threshold."""

    true_positive = "true positive"
    false_positive = "false positive"
    false_negative = "false negative"
    true_negative = "true negative"


OF_HEADLINE = dict.fromkeys(Kind, 4)  # slices of each kind, each of another patient
STRIPS = {Kind.true_positive: 2, Kind.false_positive: 1, Kind.false_negative: 1}  # whole exams of each kind
STRIP_SLICES, STRIP_HEATS = 24, 3  # of an exam, at most
OF_OTHERS = {Kind.true_positive: 2, Kind.false_positive: 1, Kind.false_negative: 1}


def pick(
    table: pd.DataFrame, task: Task, thresholds: Mapping[str, float], brain_share: NDArray[np.float64]
) -> list[tuple[str, Kind, int]]:
    """Pick the slices to explain, as (label, kind, row of the predictions), by label and kind.

    The headline label comes first, and of each kind the slices that the model is most confident or most wrong about. Labels without
    a positive slice are left out. True negatives are of the half of slices that show the most brain: the most confident
    of all show caps of bone, which explain nothing.
    """
    brainy = brain_share >= np.median(brain_share)
    picked = []
    for label in (task.headline, *(name for name in task.labels if name != task.headline)):
        if not table[f"label_{label}"].any():
            continue
        for kind, most in (OF_HEADLINE if label == task.headline else OF_OTHERS).items():
            rows = extreme(table, label, kind, thresholds[label])
            rows = rows[brainy[rows]] if kind is Kind.true_negative else rows
            fresh = ~pd.Series(table[task.group_key].array[rows]).duplicated().to_numpy()
            picked += [(label, kind, int(row)) for row in rows[fresh][:most]]
    return picked


def extreme(table: pd.DataFrame, label: str, kind: Kind, threshold: float) -> NDArray[np.intp]:
    """Find the rows of a kind: predicted positives from the highest probability down, negatives from the lowest up."""
    probability = table[f"probability_{label}"].to_numpy(np.float64)
    truth, called = table[f"label_{label}"].to_numpy() == 1, probability >= threshold
    match kind:
        case Kind.true_positive:
            where = truth & called
        case Kind.false_positive:
            where = ~truth & called
        case Kind.false_negative:
            where = truth & ~called
        case Kind.true_negative:
            where = ~truth & ~called
    falling = kind in (Kind.true_positive, Kind.false_positive)
    rows = np.flatnonzero(where)
    return rows[np.argsort(-probability[rows] if falling else probability[rows], kind="stable")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A finished run with its model, its test site and its predictions.

    `table` has a row for each test slice, as in predictions.parquet. `thresholds` holds each label's for a slice, `exam_threshold` the
    headline label's for an exam's highest slice. `demo` holds the settings of the phantom where it drew the data, else None.
    """

    task: Task
    network: Classifier
    data: SiteData
    shown: list[Square]  # what the model sees of each slice of `data`
    table: pd.DataFrame
    thresholds: dict[str, float]
    threshold_from: str
    exam_threshold: float
    images: Path
    side: int  # pixels of the stored images
    demo: dict[str, int] | None

    def heat(self, rows: list[int], label: str, size: int, cells: int = CELLS) -> NDArray[np.float32]:
        """Compute the heat of a label on these rows of `table`, float32 [len(rows), size, size] of whole slices: 0 outside a crop."""
        device, number = choose_device(Device.auto), self.task.labels.index(label)
        places = pd.Index(self.data.index["image_id"]).get_indexer(self.table["image_id"].iloc[rows])
        assert (places >= 0).all(), "the run was scored on this cohort, by its hash"
        batches = [places[start : start + BATCH] for start in range(0, len(places), BATCH)]
        network = self.network.to(device)
        parts = [
            heat(network, gather(self.data.images, batch, device), number, size=size, cells=cells) for batch in batches
        ]
        found = torch.cat(parts).cpu().numpy() if parts else np.zeros((0, size, size), np.float32)
        for seen, place in zip(found, places, strict=True):
            seen[:] = uncut(seen, self.shown[place])
        return found

    def brain_share(self) -> NDArray[np.float64]:
        """Return the share of each row's slice that is brain, 0 to 1 [N]; 1 for all where the index does not state it."""
        index = self.data.index.set_index("image_id").loc[self.table["image_id"]]
        return index["brain_share"].to_numpy(np.float64) if "brain_share" in index else np.ones(len(index))

    def image(self, image_id: str) -> Image:
        return read_png(self.images / f"{image_id}.png")


def read_finished(folder: Path) -> Finished:
    """Read a finished run; raises ValueError when it is not finished, or its cohort is no longer where it was."""
    needed = ["config.yaml", "manifest.json", "summary.json", MODEL, PREDICTIONS]
    missing = [name for name in needed if not (folder / name).exists()]
    if missing or not is_finished(folder):
        what = f"no {missing[0]}" if missing else "one that failed"
        raise ValueError(f"expected a finished run in {folder}, found {what}; let it finish with resume=true")
    manifest = read_json(folder / MANIFEST, COPY, keys={"cohort": str, "cohort_sha256": str})
    summary, config = read_summary(folder), read_config(folder)
    cohort = read_cohort(Path(manifest["cohort"]))
    if cohort.sha256 != manifest["cohort_sha256"]:
        raise ValueError(
            f"expected the cohort of {folder}, got another one in {cohort.folder}; partition the run's own data again"
        )
    saved, there = read_saved(folder / MODEL), cohort.site_folder(TEST_SITE)
    cache = writable_cache(there, RunFolder(folder).cache_folder(cohort.sha256))
    points, headline = summary["operating_points"], saved.task.headline
    thresholds, threshold_from = _thresholds(points, saved.task)
    of_exams = {} if points is None else points["exam"].get("max", {}).get(headline, {})
    cards = read_json(folder / SCORECARDS, COPY)["sites"].values()
    at_sites = [card["exam"]["max"][headline]["points"] for card in cards if "max" in card["exam"]]
    quoted = choose_quoted(of_exams, at_sites)
    data = open_for(saved.config, there, cache=cache)
    return Finished(
        task=saved.task,
        network=saved.network,
        data=data,
        shown=squares(data.index, saved.config.crop),
        table=read_table(folder / PREDICTIONS, COPY, hashed=False),
        thresholds=thresholds,
        threshold_from=threshold_from,
        exam_threshold=thresholds[headline] if quoted is None else float(of_exams[quoted.name]),
        images=there / "images",
        side=cohort.size,
        demo=config["demo"] if config["data"]["name"] == saved.task.demo else None,
    )


def _thresholds(points: ChosenPoints | None, task: Task) -> tuple[dict[str, float], str]:
    """Return each label's threshold at Youden's index, where the run chose one, and say in words where they are from."""
    at_slices = {} if points is None else points["slice"]
    chosen = {label: at_slices.get(label, {}).get("youden") for label in task.labels}
    thresholds = {label: EVEN if value is None else float(value) for label, value in chosen.items()}
    lacking = [label for label, value in chosen.items() if value is None]
    if points is None or len(lacking) == len(chosen):
        return thresholds, f"{EVEN}: the run chose no operating points"
    said = f"Youden's index, chosen on {points['chosen_on']}"
    return thresholds, said + (f"; {EVEN} for {', '.join(lacking)}" if lacking else "")


HEAT_RGB, LESION_RGB = (230, 159, 0), (86, 180, 233)  # orange and sky blue of Okabe and Ito
DENSEST, STEPS = 0.6, 12  # opacity of full heat, and steps up to it: enough to look smooth, few enough for a small PNG
LINE_AT = 0.5  # of the highest heat
SIDE = 256  # pixels of a picture
MEASURED = 20  # patients whose heat is measured at most: drawing one again takes a quarter of a second
EXTRA_AXIAL = ("epidural", "subdural")  # read in the subdural window, which tells blood from the skull
Lesions = dict[str, Drawn]  # by image


class LesionHeat(HeatSummary):
    """The mean shares of heat of one label's true positives, as explanations.json holds them."""

    label: str


class Entry(TypedDict):
    """An explained slice, as explanations.json holds it; `picture`, `heat` and `lesion` are data URIs of one size."""

    picture: str
    heat: str
    lesion: str | None
    window: str
    kind: str
    label: str
    image_id: str
    labels: dict[str, int]
    probabilities: dict[str, float]


def body_of(image: Image, kind: ImageKind) -> Mask:
    """Find where on a stored image a finding can be, bool [S, S]: in the head, or anywhere on a film."""
    match kind:
        case ImageKind.hu | ImageKind.windows:
            return head_of(image)
        case ImageKind.grey:
            return np.ones(image.shape[:2], bool)


def head_of(image: Image) -> Mask:
    """Find the head on a stored image, bool [S, S]: the largest piece denser than air, without thin parts, its holes filled."""
    dense = image > HEAD_ABOVE_HU + HU_OFFSET if image.ndim == 2 else image[..., 2] > 0  # the widest window
    opened = cv2.morphologyEx(dense.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    outlines, _ = cv2.findContours(opened, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not outlines:
        return np.ones(image.shape[:2], bool)
    largest = max(outlines, key=cv2.contourArea)
    return np.asarray(cv2.drawContours(np.zeros_like(opened), [largest], -1, 1, cv2.FILLED)) > 0


def lesion_of(lesions: Mapping[str, Mask], label: str) -> Mask:
    """Return where a label's finding is, bool [S, S]; all findings together for a label that has none of its own."""
    return lesions[label] if label in lesions else np.any(list(lesions.values()), axis=0)


def heat_uri(heat: NDArray[np.floating]) -> str:
    """Encode heat [S, S] in 0..1 as a PNG data URI: more opaque where it is hotter, with a line around half of the highest."""
    alpha = np.round(np.round(np.clip(heat, 0, 1) * STEPS) / STEPS * DENSEST * 255).astype(np.uint8)
    return _uri(_draw_outline(alpha, heat >= LINE_AT), HEAT_RGB)


def lesion_uri(lesion: NDArray[np.bool_]) -> str:
    """Encode the outline of a lesion [S, S] as a PNG data URI."""
    return _uri(_draw_outline(np.zeros(lesion.shape, np.uint8), lesion), LESION_RGB)


def _draw_outline(alpha: NDArray[np.uint8], inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    outlines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    return np.asarray(cv2.drawContours(alpha, outlines, -1, 255, 1), dtype=np.uint8)


def _uri(alpha: NDArray[np.uint8], colour: tuple[int, int, int]) -> str:
    """Encode one colour with an opacity [S, S] as a PNG data URI; transparent pixels hold no colour, which makes the file small."""
    pixels = np.zeros((*alpha.shape, 4), np.uint8)
    pixels[alpha > 0, :3] = colour[::-1]  # OpenCV writes blue first
    pixels[..., 3] = alpha
    done, encoded = cv2.imencode(".png", pixels, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    assert done, "OpenCV encodes every 8-bit array"
    return "data:image/png;base64," + base64.b64encode(encoded.tobytes()).decode()


def write_explanations(folder: Path) -> Path:
    """Write explanations.json of a finished run, and return its path; raises ValueError without model, predictions or cohort."""
    settle_process()
    run = read_finished(folder)
    picked = pick(run.table, run.task, run.thresholds, run.brain_share())
    measured = to_measure(run, run.task.headline, MEASURED)
    lesions = lesions_on(run, [*measured, *(row for label, _, row in picked if run.table[f"label_{label}"].iloc[row])])
    content = {
        "strips": [asdict(strip) for strip in draw_exams(run)],
        "finding": run.task.finding,
        "body": run.task.body,
        "threshold_from": run.threshold_from,
        "thresholds": run.thresholds,
        "method": f"Grad-CAM on the last feature map of at least {CELLS} cells a side, scaled to each slice's highest heat: "
        "it says where, and not how much",
        "entries": entries(run, picked, lesions or {}),
        "heat_in_lesion": None if lesions is None else heat_in_lesion(run, run.task.headline, measured, lesions),
    }
    path = folder / EXPLANATIONS
    write_whole(path, dump_hashed_json(content, indent=None))
    return path


def draw_exams(run: Finished) -> list[ExamStrip]:
    """Draw whole exams: those that the model is most confident and most wrong about, by their highest slice at the exams' threshold.

    A strip has the threshold of single slices. None for images without an order along the body.
    """
    task, label, table = run.task, run.task.headline, run.table.reset_index(drop=True)
    if task.rendering is not Rendering.hounsfield:
        return []
    groups, threshold = table.groupby([task.group_key, task.exam_key], sort=True), run.thresholds[label]
    truth = {f"label_{label}": groups[f"label_{label}"].max().to_numpy()}
    best = table.loc[groups[f"probability_{label}"].idxmax()].assign(**truth)
    members, found = list(groups.indices.values()), list[ExamStrip]()
    for kind, most in STRIPS.items():
        for number, exam in enumerate(extreme(best, label, kind, run.exam_threshold)[:most]):
            rows = [int(row) for row in members[exam][np.argsort(table["rank"].iloc[members[exam]], kind="stable")]]
            probabilities = table[f"probability_{label}"].iloc[rows].to_numpy(np.float64)
            shown, ids = (
                choose_slices(probabilities, STRIP_SLICES),
                [str(name) for name in table["image_id"].iloc[rows]],
            )
            hottest = sorted(sorted(shown, key=lambda place: -probabilities[place])[:STRIP_HEATS])
            heats, view = (
                run.heat([rows[place] for place in hottest], label, STRIP_SIDE),
                choose_view(run.data.image, label),
            )
            strip = build_strip(
                key=f"{kind.replace(' ', '-')}-{number}", title=f"{kind.capitalize()} {task.exam}", label=label, picture=task.picture,
                image_ids=ids, probabilities=probabilities, truth=[bool(one) for one in table[f"label_{label}"].iloc[rows]],
                threshold=threshold, pictures={place: render_view(run.image(ids[place]), view, STRIP_SIDE) for place in shown},
                heats={place: heat_uri(one) for place, one in zip(hottest, heats, strict=True)},
            )  # fmt: skip
            found.append(strip)
    return found


def explain(folder: Path) -> None:
    """Write explanations.json of a run, or print in a line why it cannot be written: a report is made without it, too."""
    try:
        write_explanations(folder)
    except ValueError as why:
        console.print(escape(f"no explanations: {why}"), soft_wrap=True)


def entries(run: Finished, picked: list[tuple[str, Kind, int]], lesions: Lesions) -> list[Entry]:
    """Build an entry for each picked slice, in their order; `lesion` is the outline of the label's finding where it is known."""
    heat: dict[tuple[str, int], NDArray[np.float32]] = {}
    for label in dict.fromkeys(label for label, _, _ in picked):
        rows = [row for of, _, row in picked if of == label]
        heat |= {(label, row): found for row, found in zip(rows, run.heat(rows, label, SIDE), strict=True)}
    return [_entry(run, label, kind, row, heat[label, row], lesions) for label, kind, row in picked]


def _entry(run: Finished, label: str, kind: Kind, row: int, heat: NDArray[np.float32], lesions: Lesions) -> Entry:
    facts, view = run.table.iloc[row], choose_view(run.data.image, label)
    image_id, outline = str(facts["image_id"]), None
    if image_id in lesions and (lesion := lesion_of(lesions[image_id].lesions, label)).any():
        outline = lesion_uri(fit_square(lesion.astype(np.uint8) * 255, SIDE) > 127)
    return {
        "picture": as_uri(render_view(run.image(image_id), view, SIDE)),
        "heat": heat_uri(heat),
        "lesion": outline,
        "window": view.value,
        "kind": kind.value,
        "label": label,
        "image_id": image_id,
        "labels": {name: int(facts[f"label_{name}"]) for name in run.task.labels},
        "probabilities": {name: round(float(facts[f"probability_{name}"]), 4) for name in run.task.labels},
    }


def choose_view(kind: ImageKind, label: str) -> View:
    """Choose the window in which a label is best seen."""
    if kind is ImageKind.grey:
        return View.grey
    return View.subdural if label in EXTRA_AXIAL else View.brain


def to_measure(run: Finished, label: str, at_most: int | None) -> list[int]:
    """Select the rows of the true positives of the first `at_most` patients by their hashed ids; None for all patients."""
    rows = extreme(run.table, label, Kind.true_positive, run.thresholds[label])
    patients = run.table[run.task.group_key].iloc[rows]
    return [int(row) for row in rows[patients.isin(sorted(patients.unique())[:at_most]).to_numpy()]]


def lesions_on(run: Finished, rows: Iterable[int]) -> Lesions | None:
    """Find the lesions on rows of the predictions: from boxes that people drew, or on slices that the phantom draws again.

    None where nobody knows them. A slice that is drawn again must equal the stored one in every pixel; it does not where
    the run states other settings than the phantom had.
    """
    ids = set(run.table["image_id"].iloc[list(rows)])
    if BOXES in run.data.index:
        found: Lesions = {}
        index = run.data.index[run.data.index["image_id"].isin(ids)]
        for id_, boxes, height, width in zip(
            *(index[of] for of in ("image_id", BOXES, "rows", "columns")), strict=True
        ):
            inside = rasterize_boxes(read_boxes(boxes), int(height), int(width)).astype(np.uint8) * 255
            lesion = fit_square(inside, run.side) > 127  # squared as prepare squares the image
            found[id_] = Drawn(image_id=id_, image=run.image(id_), lesions={run.task.finding: lesion})
        return found
    if run.demo is None:
        return None
    drawn = {slice_.image_id: slice_ for slice_ in draw_again(ids, **run.demo, kind=run.data.image, side=run.side)}
    same = drawn.keys() == ids and all(np.array_equal(slice_.image, run.image(id_)) for id_, slice_ in drawn.items())
    return drawn if same else None


def heat_in_lesion(
    run: Finished, label: str, rows: list[int], lesions: Lesions, cells: int = CELLS
) -> LesionHeat | None:
    """Measure how much heat of true positives lies in the label's lesions (`summarize_shares`); None where no row has one."""
    rows = [row for row in rows if lesion_of(lesions[run.table["image_id"].iloc[row]].lesions, label).any()]
    if not rows:
        return None
    facts = run.table.iloc[rows]
    ids, patients = list(facts["image_id"]), [str(name) for name in facts[run.task.group_key]]
    blood = np.stack([lesion_of(lesions[id_].lesions, label) for id_ in ids])
    heads = np.stack([body_of(lesions[id_].image, run.data.image) for id_ in ids])
    found = shares(run.heat(rows, label, run.side, cells), blood, heads, patients)
    return {"label": label, **summarize_shares(found, patients, seed=derive_seed(0, "heat in lesion", label))}
