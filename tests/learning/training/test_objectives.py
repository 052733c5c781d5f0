"""An objective does what is asked for and nothing else."""

import numpy as np
import pytest
import torch
from tiny import SIZE

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.train import train_locally
from fl_rsna.settings.model import ModelConfig, Norm
from fl_rsna.settings.training import Correction, Sampling, TrainConfig
from fl_rsna.task import ICH

CPU, PRIOR = torch.device("cpu"), (0.3, 0.05, 0.05, 0.05, 0.05, 0.05)


def learned(cohort: Cohort, **settings: object) -> np.ndarray:  # type: ignore[type-arg]
    """Two steps of head training at one site."""
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    config = TrainConfig(local_steps=2, batch_size=4, **settings)  # type: ignore[arg-type]
    model = build_model(ModelConfig(image_size=SIZE), ICH, data.image, seed=0)
    objective = build_slice_objective(data, ICH, config, CPU, kept=0.5, prior=PRIOR)
    train_locally(model, objective, norm=Norm.frozen, config=config, learning_rate=1e-3, seed=3, device=CPU)
    return flatten(model).floats


@pytest.fixture(scope="module")
def plain(cohort: Cohort) -> np.ndarray:  # type: ignore[type-arg]
    return learned(cohort)


def test_settings_of_what_is_off_change_no_bit(cohort: Cohort, plain: np.ndarray) -> None:  # type: ignore[type-arg]
    idle = {"mixup_share": 1.0, "focal_gamma": 5.0, "negatives": 7.0, "correction": Correction.none}
    np.testing.assert_array_equal(learned(cohort, **idle), plain)


@pytest.mark.parametrize(
    "settings",
    [
        {"mixup": 1.0, "mixup_share": 1.0},
        {"cutout": 0.3},
        {"hu_noise": 0.2},
        {"smooth_z": 3},
        {"sampling": Sampling.under},
        {"sampling": Sampling.weighted},
        {"sampling": Sampling.weighted, "correction": Correction.none},
    ],
)
def test_settings_that_are_on_change_what_is_learned(
    cohort: Cohort,
    plain: np.ndarray,  # type: ignore[type-arg]
    settings: dict[str, object],
) -> None:
    found = learned(cohort, **settings)
    assert np.isfinite(found).all()
    assert not np.array_equal(found, plain)


def test_training_labels_are_softened_and_validation_labels_are_not(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    before = data.labels.copy()
    build_slice_objective(data, ICH, TrainConfig(smooth_z=3, soft_between=0.3), CPU)
    np.testing.assert_array_equal(data.labels, before)
