"""Networks: windows inside the model, seeded weights, packaged ImageNet weights, norms."""

import numpy as np
import pytest
import torch
from tiny import CHEST
from torch import nn

from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET, WINDOWS_HU, window
from fl_rsna.learning.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from fl_rsna.learning.models.classifier import InputStage, build_model, set_training
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName, Norm, Trainable
from fl_rsna.task import ICH

LITE0 = ModelConfig(image_size=32)


def test_input_stage_equals_the_window_formula() -> None:
    hu = np.arange(-200, 400, dtype=np.float64)
    stored = torch.from_numpy(hu + HU_OFFSET).float().view(1, 1, 1, -1)
    channels = InputStage(ImageKind.hu)(stored)
    for i, (centre, width) in enumerate(WINDOWS_HU):
        grey = channels[0, i, 0].numpy() * IMAGENET_STD[i] + IMAGENET_MEAN[i]
        np.testing.assert_allclose(grey, window(hu, centre, width) / 255, atol=1 / 255 + 1e-5)


def test_input_stage_is_not_part_of_the_model_that_travels() -> None:
    assert not [
        name for name in build_model(LITE0, ICH, ImageKind.hu, seed=0).state_dict() if name.startswith("input_stage")
    ]


@pytest.mark.parametrize("task", [ICH, CHEST])
@pytest.mark.parametrize(("image", "channels"), [(ImageKind.hu, 1), (ImageKind.windows, 3)])
def test_one_logit_a_label(task, image: ImageKind, channels: int) -> None:  # type: ignore[no-untyped-def]
    model = build_model(LITE0, task, image, seed=0).eval()
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, len(task.labels))


@pytest.mark.parametrize("name", [name for name in ModelName if name != ModelName.timm])  # test_timm_network has those
def test_every_network_builds_and_takes_a_step(name: ModelName) -> None:
    if name in (ModelName.efficientnet_b5, ModelName.efficientnet_b6, ModelName.efficientnet_b7):
        with torch.device("meta"):  # shapes only: these take gigabytes
            model = build_model(ModelConfig(name=name, pretrained=False, image_size=32), ICH, ImageKind.hu, seed=0)
        assert sum(parameter.numel() for parameter in model.parameters()) > 28e6
        return
    model = build_model(
        ModelConfig(name=name, pretrained=name is ModelName.efficientnet_lite0, image_size=32),
        ICH,
        ImageKind.hu,
        seed=0,
    )
    model(torch.full((2, 1, 32, 32), 1060.0)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_b0_has_the_published_size() -> None:
    model = build_model(
        ModelConfig(name=ModelName.efficientnet_b0, pretrained=False, image_size=32), ICH, ImageKind.hu, seed=0
    )
    assert sum(parameter.numel() for parameter in model.parameters()) == 4_015_234  # 4.02 M with six labels


def test_same_seed_same_weights_and_torch_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    one, two, other = (build_model(LITE0, ICH, ImageKind.hu, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    differing = [name for name in one if not torch.equal(one[name], other[name])]
    assert differing == ["backbone._fc.weight"]  # the bias starts at the prior, the rest are ImageNet's
    assert torch.equal(before, torch.random.get_rng_state())


def test_frozen_norm_keeps_statistics_and_trains_scale() -> None:
    model = build_model(LITE0, ICH, ImageKind.hu, seed=0)
    statistics = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    set_training(model, Norm.frozen, Trainable.all)
    model(torch.full((2, 1, 32, 32), 1060.0)).sum().backward()
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in statistics.items())
    norm = next(module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.weight.grad is not None
    set_training(model, Norm.average, Trainable.all)
    model(torch.full((2, 1, 32, 32), 1060.0))
    assert not all(torch.equal(value, model.state_dict()[name]) for name, value in statistics.items())
