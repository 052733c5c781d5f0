"""Local training learns, follows its seed bit by bit, and leaves every global generator alone."""

import numpy as np
import pytest
import torch
from tiny import SIZE

from fl_rsna.cohort.sites import Cohort
from fl_rsna.config import Device, ModelConfig, Norm, TrainConfig
from fl_rsna.federation.messages import flatten
from fl_rsna.learning.dataset import SiteData, open_site
from fl_rsna.learning.metrics import auroc
from fl_rsna.learning.model import Classifier, build_model
from fl_rsna.learning.train import choose_device, predict, train_locally
from fl_rsna.task import ICH

CPU = torch.device("cpu")


def fresh(data: SiteData) -> Classifier:
    return build_model(ModelConfig(image_size=SIZE), ICH, data.image, seed=0)


def train(model: Classifier, data: SiteData, *, seed: int = 0, epochs: int = 1, rate: float = 1e-3):  # type: ignore[no-untyped-def]
    config = TrainConfig(batch_size=4, local_epochs=epochs)
    return train_locally(
        model, data, task=ICH, norm=Norm.frozen, config=config, learning_rate=rate, seed=seed, device=CPU
    )


def test_training_learns_the_bright_square(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    model, rows = fresh(data), data.rows("train")
    first = train(model, data, epochs=1)
    last = train(model, data, epochs=8, seed=1)
    assert last.loss < first.loss
    assert (first.examples, last.steps) == (len(rows), 8 * first.steps)
    found = predict(model, data, rows, task=ICH, batch_size=5, device=CPU)
    assert found.shape == (len(rows), 6)
    area = auroc(data.labels[rows, 0], found[:, 0])
    assert area is not None
    assert area > 0.9


def test_same_seed_same_bits_and_no_global_state_is_touched(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    models = [fresh(data) for _ in range(3)]
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    for model, seed in zip(models, (1, 1, 2), strict=True):
        train(model, data, seed=seed)
    one, two, other = (flatten(model).floats for model in models)
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, other)
    assert torch.equal(torch_state, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])  # noqa: NPY002


def test_prediction_does_not_depend_on_the_batch(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("test-site"), image_size=SIZE)
    model, rows = fresh(data), data.rows("test")
    one, all_ = (predict(model, data, rows, task=ICH, batch_size=size, device=CPU) for size in (1, 64))
    np.testing.assert_allclose(one, all_, atol=1e-5)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_asking_for_absent_cuda_is_one_sentence() -> None:
    assert choose_device(Device.auto) == CPU
    with pytest.raises(ValueError, match=r"^train\.device: expected a CUDA device"):
        choose_device(Device.cuda)
