"""Runs to use, without training any: a tiny network under a random head, in a folder like a finished run's."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import yaml

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.saved import read_saved, write_saved
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm
from fl_rsna.task import ICH, Task

POINTS = {"sensitivity_95": 0.2, "specificity_90": 0.8, "youden": None}
SETTINGS = {
    "chosen_on": "validation parts of the sites",
    "slice": dict.fromkeys(ICH.labels, POINTS),
    "exam": {aggregate: dict.fromkeys(ICH.labels, POINTS) for aggregate in ("max", "noisy_or")},
    "temperatures": {label: 2.0 if label == "any" else None for label in ICH.labels},
}


def write_tiny_model(
    path: Path,
    image: ImageKind = ImageKind.hu,
    norm: Norm = Norm.average,
    image_size: int = 32,
    seed: int = 0,
    facts: dict[str, Any] | None = None,
    png_size: int = 32,
    task: Task = ICH,
    **model: Any,
) -> Path:
    """`model` are further settings of it, such as another network than `tiny_network`."""
    config = ModelConfig(image_size=image_size, norm=norm, **{"name": "tiny", "pretrained": False, **model})
    network = build_model(config, task, image, seed=1)
    torch.manual_seed(seed)
    torch.nn.init.normal_(network.head.weight, std=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_saved(
        path,
        network,
        task=task.name,
        image=image,
        png_size=png_size,
        config=config,
        facts={"round": 2, **(facts or {})},
    )
    return path


def write_tiny_run(
    folder: Path, cohort: Cohort | None = None, settings: dict[str, Any] | None = None, size: int = 32, **model: Any
) -> Path:
    """A folder with model, config, manifest and summary; of `cohort`, and with operating points, when given."""
    saved = read_saved(write_tiny_model(folder / "model.safetensors", png_size=size, **model))
    config = Config(rounds=2)
    config.data.size, config.model = size, saved.config
    (folder / "config.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(asdict(config)))))
    of = {} if cohort is None else {"cohort": str(cohort.folder), "cohort_sha256": cohort.sha256}
    (folder / "manifest.json").write_text(json.dumps({"versions": {"torch": "2"}, "command": ["simulate.py"], **of}))
    summary = {"status": "finished", "model_sha256": saved.sha256, "rounds": 2, "task": "ich"}
    summary |= {"operating_points": settings} if settings else {}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def labels_csv(path: Path, labels: dict[str, str | None], task: Task = ICH) -> Path:
    """Kaggle's long table of images and the one label, or none, that each has beside the union."""
    rows = [
        f"{image}_{label},{int(found is not None and label in (task.union, found))}"
        for image, found in labels.items()
        for label in task.labels
    ]
    path.write_text("\n".join(["ID,Label", *rows]) + "\n")
    return path
