"""Export a saved model as model.onnx, compare it with torch, and write a card of what it is.

The card says what the model is, what it was made of, how good it is, and what it is not for, after Mitchell et al. 2019, Model
Cards for Model Reporting (arXiv:1810.03993). What a run did not write down is said to be unknown. That is everything when there
is only a model file.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from fl_rsna.cohort.sites.provenance import cohort_of
from fl_rsna.common.atomic import build_whole
from fl_rsna.common.command_end import RunFailed
from fl_rsna.evaluation.inputs import check_image
from fl_rsna.evaluation.load_model import Trained, read_named_model
from fl_rsna.evaluation.settings import ExportConfig
from fl_rsna.imaging.dicom.hounsfield import WINDOWS_HU
from fl_rsna.learning.data.crop import TRUTH_SHOWN
from fl_rsna.learning.data.dataset import Joined, open_for
from fl_rsna.learning.inference.onnx_export import (
    TOLERANCE,
    Images,
    as_input,
    greatest_difference,
    random_images,
    require_packages,
    slices_of,
    synthetic_images,
    windows_hu,
    write_onnx,
)
from fl_rsna.learning.inference.stacking import AnyModel, SavedStack
from fl_rsna.learning.models.saved import SavedModel
from fl_rsna.learning.training.train import settle_process
from fl_rsna.reporting.record.events import EVENTS, read_events
from fl_rsna.reporting.record.run_record import control_of, format_counts, interval, is_roll_call
from fl_rsna.reporting.record.wording import area_name, task_words
from fl_rsna.reporting.sections.classes import FIGURES, class_levels
from fl_rsna.run_folder.run_folder import ENCODER
from fl_rsna.settings.partition import TEST_SITE

ONNX, CARD = "model.onnx", "model_card.md"
REAL_SLICES = 256  # the most that are compared, spread over the site


def model_card(trained: Trained, check: dict[str, Any]) -> str:
    """Write the card of an exported model in Markdown; `check` is the comparison with torch (check_onnx)."""
    environment = Environment(
        loader=PackageLoader("fl_rsna.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": interval, "three": lambda value: f"{value:.3f}"}
    saved = trained.saved
    assert isinstance(saved, SavedModel), "only a model of single slices is exported"
    return environment.get_template("model_card.md.j2").render(
        saved=saved,
        model=saved.config,
        check=check,
        config=trained.config,
        manifest=trained.manifest,
        summary=trained.summary,
        test=trained.summary.get("test_site"),
        sites=format_counts(_sites(trained), (trained.config.get("privacy") or {}).get("min_count", 0)),
        words=task_words(saved.task),
        classes=class_levels(trained.summary.get("test_site"), saved.task),
        figures=FIGURES,
        quoted=area_name(saved.task.primary_label),
        controls=control_of((trained.summary.get("test_site") or {}).get("controls", {}), saved.task.primary_label),
        points=trained.run_points.get("slice", {}),
        temperatures=trained.run_points.get("temperatures", {}),
        fallback=trained.fallback,
        stored=trained.png_size,
        network=saved.config.backbone or saved.config.name,
        slices=slices_of(saved),
        windows=", ".join(f"{centre:.4g}/{width:.4g}" for centre, width in windows_hu(saved) or WINDOWS_HU),
        truth_shown=TRUTH_SHOWN if saved.config.crop.shows_truth else "",
        hu=saved.image.value == "hu",
        grey=saved.image.value == "grey",
    )


def _sites(trained: Trained) -> dict[str, Any]:
    """Read the counts of the run's roll call: site -> part -> patients, slices and positives of each label."""
    if trained.run is None:
        return {}
    roll = (event for event in read_events(trained.run / EVENTS) if is_roll_call(event))
    return next((dict(event["sites"]) for event in roll), {})


def export(asked: ExportConfig) -> tuple[Path, dict[str, Any]]:
    """Write model.onnx, model_card.md and check.json into a new folder, all or nothing; return the folder and the check.

    Raises ValueError for a request that cannot be met, RunFailed when ONNX and torch differ by more than TOLERANCE.
    """
    require_packages()
    settle_process()
    trained = read_named_model(asked.model)
    saved = of_single_slices(trained.saved)
    path = saved.path
    is_whole_run = trained.run is not None and path.parent == trained.run
    default = path.parent / "export" if is_whole_run else path.with_name(f"{path.stem}_export")
    out = Path(asked.out) if asked.out else default
    if os.path.lexists(out):
        raise ValueError(f"out: expected a new folder, got the existing {out}; choose another with out= or delete it")
    slices = check_slices(asked, trained, saved)
    with build_whole(out) as building:
        write_onnx(saved, building / ONNX)
        check = check_onnx(saved, building / ONNX, slices)
        content = (building / ONNX).read_bytes()
        check |= {"onnx_sha256": hashlib.sha256(content).hexdigest(), "onnx_bytes": len(content)}
        (building / "check.json").write_text(json.dumps(check, indent=2) + "\n")
        (building / CARD).write_text(model_card(trained, check))
    return out, check


def of_single_slices(model: AnyModel) -> SavedModel:
    """Return the model if an ONNX file can hold it; else raise ValueError that names a model of the same run that it can hold."""
    if isinstance(model, SavedStack):
        raise ValueError(
            f"model: expected a model of single slices, got the stacking at {model.path}, which no ONNX file holds; "
            f"export one of its slice models, as model={model.folds[0].path}"
        )
    if model.two_stage is not None:
        raise ValueError(
            f"model: expected a model of single slices, got {model.path}, whose head over series no ONNX file holds; "
            f"export its slice model with model={model.path.with_name(ENCODER)}"
        )
    return model


def check_onnx(saved: SavedModel, onnx: Path, slices: dict[str, Images]) -> dict[str, Any]:
    """Measure the greatest difference between ONNX and torch over each kind of slices, and over batches of one.

    Raises RunFailed where it is above TOLERANCE.
    """
    found = {what: greatest_difference(saved, onnx, images) for what, images in slices.items()}
    found["one at a time"] = max(
        greatest_difference(saved, onnx, images[:1]) for images in slices.values() if len(images)
    )
    worst = max(found, key=lambda what: found[what])
    if not found[worst] <= TOLERANCE:
        raise RunFailed(
            f"the exported model differs from torch by {found[worst]:.2g} on {worst} images, more than {TOLERANCE:g}; "
            "nothing is written: use the model with python -m fl_rsna.evaluate"
        )
    counts = {what: len(images) for what, images in slices.items()}
    return {
        "model_sha256": saved.sha256,
        "slices": counts,
        "greatest_difference": found,
        "tolerance": TOLERANCE,
    }


def check_slices(asked: ExportConfig, trained: Trained, saved: SavedModel) -> dict[str, Images]:
    """Collect the images to compare ONNX and torch on: random values, a synthetic head, and a site's slices where there are any."""
    slices = {"random": random_images(saved, 40, asked.seed), "synthetic": synthetic_images(saved, asked.seed)}
    if asked.site:
        folder = Path(asked.site)
    elif trained.run is not None and (cohort := cohort_of(trained.run)) is not None:
        folder = cohort / TEST_SITE
        if not (folder / "site.json").exists():
            return slices
    else:
        return slices
    with tempfile.TemporaryDirectory(prefix="fl_rsna-") as cache:
        data = open_for(saved.config, folder, cache=Path(cache))
        check_image("site", str(folder), data.image, trained)
        assert not isinstance(data.images, Joined)
        count = len(data.index)
        rows = np.unique(np.linspace(0, count - 1, min(count, REAL_SLICES)).astype(np.intp))  # at equal steps
        slices[f"of {data.name}"] = as_input(np.array(data.images.take(rows, axis=0)), data.image)
    return slices
