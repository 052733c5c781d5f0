"""What the benchmarks of the federation share: a cohort of random pictures, its configuration, and networks of any size."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, by whichever benchmark
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import numpy as np
import pandas as pd
from efficientnet_pytorch import EfficientNet
from flwr.clientapp import ClientApp

from fl_rsna.cohort.partition.split import split_patients
from fl_rsna.cohort.prepared.index import Prepared
from fl_rsna.cohort.sites.site_folders import Cohort, write_cohort
from fl_rsna.cohort.steps import partition_settings
from fl_rsna.common.hashes import table_sha256
from fl_rsna.common.id_scheme import PLAIN
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.imaging.png_store import write_png
from fl_rsna.learning.models import classifier as model
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName
from fl_rsna.settings.partition import PartitionConfig
from fl_rsna.task import ICH

NAME, COHORT = "bench", "cohort"
SERIES = 4  # slices a patient


def make_cohort(folder: Path, sites: int, slices: int, size: int, test_patients: int | None = None) -> Cohort:
    """Sites of equal size with random pictures: what they show does not change what they cost.

    `slices` are a site's training slices, about; without `test_patients` a tenth of all are the test site's.
    """
    patients = int(sites * slices / SERIES / 0.8 / 0.9) + sites + (test_patients or 0)
    test = 0.1 if test_patients is None else [patient_id(number) for number in range(test_patients)]
    rows = [
        {
            "image_id": f"i{patient:05d}-{rank}", "patient_id": patient_id(patient), "study_id": f"t{patient:05d}", "series_id": f"s{patient:05d}",
            "rank": rank, "relative_position": rank / (SERIES - 1), "brain_hu_mean": 30.0, **dict.fromkeys(ICH.labels, int(patient % 2)),
        }
        for patient in range(patients)
        for rank in range(SERIES)
    ]  # fmt: skip
    index, images = pd.DataFrame(rows), folder / "prepared" / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id in index["image_id"]:
        write_png(images / f"{image_id}.png", rng.integers(900, 1200, (size, size)).astype(np.uint16))
    prepared = Prepared(
        folder=folder / "prepared",
        task=ICH.name,
        labels=ICH.labels,
        image=ImageKind.hu,
        size=size,
        index_sha256=table_sha256(index),
        index=index,
        ids=PLAIN,
    )
    patients = split_patients(index, ICH, PartitionConfig(num_sites=sites, alpha=1, test=test, validation=0.2, seed=0))
    config = Config()
    config.data.name, config.partition.num_sites = NAME, sites
    return write_cohort(folder / COHORT, prepared, patients, ICH, partition_settings(config))


def patient_id(number: int) -> str:
    return f"p{number:05d}"


def bench_config(rounds: int, name: ModelName, size: int) -> Config:
    config = Config(rounds=rounds)
    config.model.name, config.model.pretrained, config.model.image_size = name, False, size
    return config


def use_scaled(width: float, depth: float) -> None:
    """From now on every network this process builds is an EfficientNet-B0 of so many times the width and depth."""

    def scaled(config: ModelConfig, num_labels: int) -> Any:
        network = EfficientNet.from_name(
            "efficientnet-b0", num_classes=num_labels, image_size=config.image_size, dropout_rate=config.dropout,
            width_coefficient=width, depth_coefficient=depth,
        )  # fmt: skip
        network.set_swish(memory_efficient=False)
        return network

    model.build_backbone = scaled


def scaled_app(width: float, depth: float, cohort: Path, memory: Path) -> ClientApp:
    """The ClientApp of every simulation, over such networks; a worker calls this first."""
    use_scaled(width, depth)
    return app_for_cohort(cohort, memory)


def count_floats(config: Config) -> int:
    """How many floats of the model travel."""
    built = model.build_model(config.model, ICH, ImageKind.hu, seed=0)
    return sum(value.numel() for value in built.state_dict().values() if value.is_floating_point())


def figures_of(script: Path, *arguments: str, python: str = sys.executable) -> dict[str, Any]:
    """Run a script in a fresh process and return the JSON of its last line; raises ValueError with what it said."""
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [python, str(script), *arguments], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}
    )
    if done.returncode:
        raise ValueError(f"{script.name} {' '.join(arguments)}: exit {done.returncode}\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
