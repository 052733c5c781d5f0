"""Export a saved model as one ONNX file, from stored values to probabilities, and compare the file with torch."""

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.imaging.dicom.hounsfield import HU_MAX, HU_MIN, HU_OFFSET, WINDOWS_HU, window
from fl_rsna.imaging.png_store import Image, fit_square
from fl_rsna.learning.data.series import Stacked, neighbour_table
from fl_rsna.learning.models.classifier import LearnedWindow, probabilities
from fl_rsna.learning.models.saved import FORMAT, SavedModel
from fl_rsna.phantom.chest.render import render_film
from fl_rsna.phantom.head.cohort import render_patient
from fl_rsna.settings.data import ImageKind

PACKAGES = ("onnx", "onnxruntime", "onnxscript")
INPUT, OUTPUT = "images", "probabilities"
TOLERANCE = 1e-4  # greatest accepted difference of a probability
BATCH = 32

Images = NDArray[np.float32] | NDArray[np.uint8]


class Exported(nn.Module):
    """The exported computation, from stored values as in a PNG to probabilities [B, L] of one view.

    The input for HU images is float32 [B, n, S, S] of HU + 1024, for n slices; for grey images float32 [B, n, S, S] of 0 to 65535; for
    windowed images uint8 RGB [B, S, S, 3], or [B, n, S, S, 3].
    """

    def __init__(self, saved: SavedModel) -> None:
        super().__init__()
        self.network, self.task, self.image = saved.network, saved.task, saved.image

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        planes = images.movedim(-1, -3).flatten(1, -3).float() if self.image is ImageKind.windows else images
        return probabilities(self.network(planes), self.task)


def require_packages() -> None:
    """Raise ValueError when the extra `export` is not installed."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(f"export needs {', '.join(missing)}, not installed here; pip install 'fl-rsna[export]'")


def write_onnx(saved: SavedModel, path: Path) -> None:
    """Write the model to one file that takes any batch size; labels, task, hash and thresholds are in its metadata."""
    import onnx

    example = torch.from_numpy(random_images(saved, 2, seed=0))
    with _quiet():
        torch.onnx.export(
            Exported(saved).eval(),
            (example,),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
    model = onnx.load(path)
    points = saved.facts.get("operating_points") or {}
    facts = {
        "format": str(FORMAT),
        "task": saved.task.name,
        "labels": json.dumps(saved.task.labels),
        "image": saved.image.value,
        "image_size": str(saved.config.image_size),
        "slices": str(slices_of(saved)),  # lowest first; probabilities are of the middle one
        "stored_size": str(saved.png_size),  # side in pixels of the image that is cropped and resized
        "crop": saved.config.crop.value,
        "windows_hu": json.dumps(windows_hu(saved)),  # applied by the file, except to images of kind windows
        "temperatures": json.dumps(points.get("temperatures", {})),  # divisors of logits; null is 1
        "thresholds": json.dumps(points.get("slice", {})),
        "prevalence": json.dumps((saved.facts.get("prevalence") or {}).get("meant")),
        "views": "1",
        "model_sha256": saved.sha256,
        "use": "research, not diagnosis",
    }
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def greatest_difference(saved: SavedModel, path: Path, images: Images) -> float:
    """Return the greatest difference between the file's probabilities, by onnxruntime on the CPU, and torch's; infinity for NaN."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    network, worst = Exported(saved).cpu().eval(), 0.0
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        with torch.inference_mode():
            expected = network(torch.from_numpy(batch)).numpy()
        found = session.run([OUTPUT], {INPUT: batch})[0]
        differences = np.abs(found - expected)
        worst = max(worst, float("inf") if np.isnan(differences).any() else float(differences.max()))
    return worst


def random_images(saved: SavedModel, count: int, seed: int) -> Images:
    """Draw `count` images whose pixels are independent and uniform over all stored values, to test the whole range of values."""
    rng, size, slices = np.random.default_rng(seed), saved.config.image_size, slices_of(saved)
    match saved.image:
        case ImageKind.hu:
            return rng.integers(0, HU_MAX + HU_OFFSET + 1, (count, slices, size, size)).astype(np.float32)
        case ImageKind.grey:
            return rng.integers(0, 65536, (count, slices, size, size)).astype(np.float32)
        case ImageKind.windows:
            stack = (slices,) if slices > 1 else ()
            return rng.integers(0, 256, (count, *stack, size, size, 3), dtype=np.uint8)


def synthetic_images(saved: SavedModel, seed: int) -> Images:
    """Return the slices of one synthetic head, with neighbours where the model sees them, or four synthetic films."""
    stored = np.stack([fit_square(plane, saved.config.image_size) for plane in _synthetic(saved.image, seed)])
    if saved.config.neighbours:
        head = pd.DataFrame({"image_id": "", "patient_id": "", "series_id": "", "rank": range(len(stored))})
        stored = Stacked(stored, neighbour_table(head, saved.config.neighbours)).take(np.arange(len(stored)))
    return as_input(stored, saved.image)


def _synthetic(image: ImageKind, seed: int) -> list[Image]:
    """Render a phantom's images in the form in which prepare stores them."""
    if image is ImageKind.grey:
        return [np.rint(render_film(seed, number, size=128).picture * 65535).astype(np.uint16) for number in range(4)]
    volume = np.clip(render_patient(seed, 0, size=128).volume_hu, HU_MIN, HU_MAX)
    if image is ImageKind.hu:
        return [(np.rint(plane) + HU_OFFSET).astype(np.uint16) for plane in volume]
    return [np.stack([window(plane, *at) for at in WINDOWS_HU], axis=2) for plane in volume]


def windows_hu(saved: SavedModel) -> list[tuple[float, float]]:
    """Return (centre, width) in HU of the fixed or learned windows; none for grey images."""
    if saved.image is ImageKind.grey:
        return []
    stage = saved.network.input_stage
    return [(float(a), float(b)) for a, b in (stage.windows_hu() if isinstance(stage, LearnedWindow) else WINDOWS_HU)]


def slices_of(saved: SavedModel) -> int:
    """Return the number of slices that the model sees at once."""
    return 1 + 2 * saved.config.neighbours


def as_input(stored: NDArray[Any], image: ImageKind) -> Images:
    """Convert stored slices [N, S, S(, 3)] or stacks [N, n, S, S(, 3)] to the input of the file."""
    match image:
        case ImageKind.hu | ImageKind.grey:
            return (stored if stored.ndim == 4 else stored[:, None]).astype(np.float32)
        case ImageKind.windows:
            return np.ascontiguousarray(stored, np.uint8)


@contextlib.contextmanager
def _quiet() -> Any:
    """Silence the exporter, which prints its steps and warns of operators of packages that are not installed."""
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            log.setLevel(level)
