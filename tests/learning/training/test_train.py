"""Local training learns, follows its seed bit by bit, and leaves every global generator alone."""

import numpy as np
import pytest
import torch
from tiny import SIZE

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import SiteData, gather, open_site
from fl_rsna.learning.metrics.metrics import auroc
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.train import choose_device, compute_learning_rate, estimate_norm, predict, train_locally
from fl_rsna.settings.model import ModelConfig, Norm, Trainable
from fl_rsna.settings.training import Device, Optimizer, Schedule, TrainConfig
from fl_rsna.task import ICH

CPU = torch.device("cpu")


def fresh(data: SiteData) -> Classifier:
    return build_model(ModelConfig(image_size=SIZE), ICH, data.image, seed=0)


def train(model: Classifier, data: SiteData, *, seed: int = 0, epochs: int = 1, rate: float = 1e-3, **words):  # type: ignore[no-untyped-def]
    config = TrainConfig(batch_size=4, local_epochs=epochs, **words)
    return train_locally(
        model,
        build_slice_objective(data, ICH, config, CPU),
        norm=Norm.frozen,
        config=config,
        learning_rate=rate,
        seed=seed,
        device=CPU,
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


def test_a_gradient_is_shortened_to_the_norm_that_was_asked_for(cohort: Cohort) -> None:
    """One step of plain SGD is as long as its gradient times the rate."""
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    words = {"local_steps": 1, "optimizer": Optimizer.sgd, "weight_decay": 0.0, "rate": 0.5}
    moved = []
    for clip_norm in (None, 1e9, 1e-2):
        model = fresh(data)
        before = flatten(model).floats.astype(np.float64)
        train(model, data, clip_norm=clip_norm, **words)
        moved.append(float(np.linalg.norm(flatten(model).floats - before)))
    assert moved[0] == moved[1]
    assert moved[0] > 0.5 * 1e-2
    assert moved[2] == pytest.approx(0.5 * 1e-2, rel=1e-3)


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


def test_learning_rate_by_round() -> None:
    constant, cosine = (TrainConfig(learning_rate=0.8, schedule=kind) for kind in Schedule)
    assert [compute_learning_rate(constant, round_, 4) for round_ in (1, 4)] == [0.8, 0.8]
    assert [compute_learning_rate(cosine, round_, 2) for round_ in (1, 2)] == pytest.approx([0.8, 0.4])
    rates = [compute_learning_rate(cosine, round_, 10) for round_ in range(1, 11)]
    assert rates == sorted(rates, reverse=True)
    assert 0 < rates[-1] < 0.03


def test_a_head_trains_alone(cohort: Cohort) -> None:
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    model = fresh(data)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    config = TrainConfig(trainable=Trainable.head)
    train_locally(
        model,
        build_slice_objective(data, ICH, config, CPU),
        norm=Norm.frozen,
        config=config,
        learning_rate=1e-3,
        seed=0,
        device=CPU,
    )
    changed = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert changed == ["backbone._fc.weight", "backbone._fc.bias"]


def test_adapted_norm_holds_the_sites_own_statistics(cohort: Cohort) -> None:
    """The first layer's running mean becomes the mean of what the stem gives on the training slices; weights stay."""
    data = open_site(cohort.site_folder("site-1"), image_size=SIZE)
    model, rows = fresh(data), data.rows("train")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    result = estimate_norm(model, data, batch_size=len(rows), device=CPU)
    assert (result.examples, result.steps, result.loss) == (len(rows), 0, None)
    changed = {
        name.rpartition(".")[2] for name, value in model.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed <= {"running_mean", "running_var", "num_batches_tracked"}
    with torch.no_grad():
        stem = model.backbone._conv_stem(model.input_stage(gather(data.images, rows, CPU)))
    torch.testing.assert_close(model.backbone._bn0.running_mean, stem.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert model.backbone._bn0.momentum == ModelConfig().norm_momentum


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_asking_for_absent_cuda_is_one_sentence() -> None:
    assert choose_device(Device.auto) == CPU
    with pytest.raises(ValueError, match=r"^train\.device: expected a CUDA device"):
        choose_device(Device.cuda)
