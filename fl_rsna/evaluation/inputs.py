"""Read the slices that evaluate scores (DICOM prepared now, a prepared folder, or a part of a site) and compute their probabilities."""

import functools
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from fl_rsna.cohort.prepared.index import Prepared, read_prepared
from fl_rsna.cohort.prepared.inputs import find_inputs
from fl_rsna.cohort.prepared.label_ids import check_labels_fit, describe_fits, label_ids, of_images
from fl_rsna.cohort.prepared.label_rules import check_exams
from fl_rsna.cohort.prepared.labels import read_labels
from fl_rsna.cohort.prepared.outcome import REJECTED
from fl_rsna.cohort.prepared.prepare import Request, prepare_folder, read_rejected
from fl_rsna.cohort.sites.provenance import Patients
from fl_rsna.evaluation.load_model import Trained
from fl_rsna.evaluation.settings import EvaluateConfig, Part
from fl_rsna.imaging.png_store import Image, read_png
from fl_rsna.imaging.workers import convert_local
from fl_rsna.learning.data.dataset import open_for, read_site
from fl_rsna.learning.data.site_noise import scan_of
from fl_rsna.learning.inference.predict import score_images, score_rows
from fl_rsna.settings.data import ImageKind
from fl_rsna.task import Task

Progress = Callable[[str, int, int], None]
Known = tuple[NDArray[np.float32] | None, tuple[str, ...]]  # labels [N, L] or None, and sentences about them


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Slices with their probabilities `found` [N, L]; `labels` [N, L] is NaN where a label is unknown, None where all are.

    `read` returns the stored image of a row of the index, as the model was shown it: with the effects of a site's scanner. The
    images of data.dicom without data.name are there only until the evaluation is written.
    """

    source: dict[str, Any]  # the description of the slices in evaluation.json
    index: pd.DataFrame
    found: NDArray[np.floating]
    labels: NDArray[np.float32] | None
    rejected: pd.DataFrame
    read: Callable[[int], Image]
    label_notes: tuple[str, ...] = ()  # sentences on how labels were matched to images
    ids: str | None = None  # how patients' ids were made, by common/id_scheme.py

    @property
    def whose(self) -> Patients:
        """Return the patients of the slices, for comparison with those of a model."""
        return Patients(index=self.index, ids=self.ids, cohort_sha256=self.source.get("cohort_sha256"))


def score(asked: EvaluateConfig, trained: Trained, device: torch.device, work: Path, progress: Progress) -> Scored:
    """Score the slices that `asked` names; `work` is a folder for temporary files."""
    if asked.site:
        return _score_site(Path(asked.site), asked.part, trained, device, work, progress)
    prepared, (labels, notes) = _prepare(asked, trained, work, progress) if asked.data.dicom else _take(asked, trained)
    check_image("data.name", str(prepared.folder), prepared.image, trained)
    images, index = prepared.folder / "images", prepared.index
    found = score_images(trained.saved, images, index, device, functools.partial(progress, "scoring images"))
    kept = asked.data.name is not None
    source = {
        "data": asked.data.dicom or str(prepared.folder),
        "prepared": str(prepared.folder) if kept else None,
        "image": prepared.image.value,
        "size": prepared.size,
    }
    rejects = prepared.folder / "rejected.csv"
    return Scored(
        source=source,
        index=prepared.index,
        found=found,
        labels=labels,
        label_notes=notes,
        rejected=read_rejected(prepared.folder) if rejects.exists() else none_rejected(),
        read=lambda row: read_png(images / f"{index['image_id'].iloc[row]}.png"),
        ids=prepared.ids,
    )


def _prepare(asked: EvaluateConfig, trained: Trained, work: Path, progress: Progress) -> tuple[Prepared, Known]:
    """Prepare every slice of data.dicom, labelled or not, as the model's own were; return them with the labels there are."""
    data, task = asked.data, trained.saved.task
    image = data.image or trained.saved.image
    check_image("data.image", "data.image", image, trained)
    inputs = find_inputs(
        Path(str(data.dicom)), Path(data.labels) if data.labels else None, task, unlabelled=data.test_set, test_set=data.test_set, if_any=True
    )  # fmt: skip
    files = inputs.test_files if data.test_set else inputs.files
    if not files:
        raise ValueError(f"data.test_set: expected stage_2_test in {data.dicom}, found no file there; leave it out")
    if data.labels and inputs.labels is not None:
        check_labels_fit(label_ids(inputs.labels), files)
    request = Request(
        task=task, image=image, size=data.size or trained.png_size, hash_ids=data.hash_ids, salt=data.salt
    )
    prepared = prepare_folder(
        Path(asked.paths.prepared) / data.name if data.name else work / "prepared",
        request,
        files,
        None,  # no labels here: slices without one are scored as well
        max_rejected=data.max_rejected,
        convert=functools.partial(convert_local, workers=asked.prepare.workers),
        on_progress=functools.partial(progress, "preparing images"),
    )
    return prepared, _labels_of(prepared, inputs.labels, task, asked=data.labels is not None)


def _take(asked: EvaluateConfig, trained: Trained) -> tuple[Prepared, Known]:
    """Read a prepared folder with its own labels or those of data.labels."""
    data, task = asked.data, trained.saved.task
    prepared = read_prepared(Path(asked.paths.prepared) / str(data.name), task)
    if data.image is not None:
        check_image("data.image", "data.image", data.image, trained)
    if data.labels:
        return prepared, _labels_of(prepared, read_labels(Path(data.labels), task), task, asked=True)
    own = prepared.index.set_index("image_id")[list(task.labels)] if prepared.labels else None
    return prepared, _labels_of(prepared, own, task, asked=False)


def _labels_of(prepared: Prepared, labels: pd.DataFrame | None, task: Task, *, asked: bool) -> Known:
    """Put labels in the order of the index, NaN where the table has no row.

    Raises ValueError for an exam of two classes, and where labels were `asked` for by name and none of them fits.
    """
    if labels is None:
        return None, ()
    images = prepared.index["image_id"]
    found, fits = of_images(label_ids(labels), images)
    if not fits and asked:
        raise ValueError(
            f"data.labels: expected labels of these images, got none for any of {len(images)}: the images are called {images.iloc[0]} "
            f"and so on, the labels are of {min(labels.index)} and so on; give the label table of these files, or leave it out"
        )
    if not fits:
        return None, (f"the table of labels beside them has no row of any of these {len(images)} images",)
    of_rows = found.reindex(images)[list(task.labels)]
    check_exams(prepared.index, of_rows.set_axis(prepared.index.index, axis=0), task)
    return of_rows.to_numpy(np.float32), tuple(describe_fits(fits))


def _score_site(
    folder: Path, part: Part | None, trained: Trained, device: torch.device, work: Path, progress: Progress
) -> Scored:
    """Score one part of a site, with the effects of its scanner; nothing is written to the site's folder."""
    saved = trained.saved
    progress("reading the site", 0, 1)
    with tempfile.TemporaryDirectory(dir=work) as cache:
        data = open_for(saved.config, folder, cache=Path(cache))
        progress("reading the site", 1, 1)
        if data.task != saved.task.name:
            raise ValueError(f"site: expected a site of task {saved.task.name}, got {data.task} in {folder}")
        check_image("site", str(folder), data.image, trained)
        chosen = part or (Part.test if len(data.rows("test")) else Part.validation)
        rows = np.arange(len(data.index)) if chosen is Part.all else data.rows(chosen.value)
        if not len(rows):
            raise ValueError(f"part: expected {chosen.value} images in {folder}, got none; choose another part")
        found = score_rows(saved, data, rows, device)
        labels = data.labels[rows].copy()
    facts, _, _, noise = read_site(folder)
    scan, index = scan_of(noise, facts["site"]), data.index.iloc[rows].reset_index(drop=True)
    source = {"site": str(folder), "name": data.name, "part": chosen.value, "cohort_sha256": data.cohort_sha256}
    return Scored(
        source={**source, "image": data.image.value},
        index=index,
        found=found,
        labels=labels,
        rejected=none_rejected(),
        read=lambda row: scan(
            read_png(folder / "images" / f"{index['image_id'].iloc[row]}.png"), dict(index.iloc[row])
        ),
        ids=data.ids,
    )


def check_image(key: str, where: str, image: ImageKind, trained: Trained) -> None:
    """Raise ValueError for images of another kind than the model was trained on: its input stage would misread them."""
    expected = trained.saved.image
    if image is not expected:
        raise ValueError(
            f"{key}: expected images of kind {expected.value}, which the model was trained on, got {image.value} in "
            f"{where}; prepare them with data.image={expected.value}"
        )


def none_rejected() -> pd.DataFrame:
    """Make a table of rejected files without a row."""
    return pd.DataFrame(columns=REJECTED, dtype=str)
