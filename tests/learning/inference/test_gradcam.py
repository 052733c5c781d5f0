"""Heat lies where a network looks, and nowhere when it looks nowhere."""

import pytest
import torch
from torch import nn

from fl_rsna.learning.inference.gradcam import heat, last_maps
from fl_rsna.learning.models.classifier import build_model, set_training
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm, Trainable
from fl_rsna.task import ICH

SIZE = 16


class Looker(nn.Module):
    """Label 0: how bright the image is; label 1: how dark; label 2: a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AvgPool2d(2))
        self.head = nn.Linear(2, 3)
        with torch.no_grad():
            self.layers[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))  # brightness, darkness
            self.head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.layers(images).mean(dim=(2, 3)))  # type: ignore[no-any-return]


@pytest.fixture
def corner() -> torch.Tensor:
    """One image, bright in its upper left corner only and dark in its lower right one."""
    images = torch.zeros(1, 1, SIZE, SIZE)
    images[..., :4, :6], images[..., -4:, -4:] = 2.0, -3.0
    return images


def test_heat_lies_where_the_answer_comes_from(corner: torch.Tensor) -> None:
    bright, dark = (heat(Looker(), corner, label)[0] for label in (0, 1))
    assert bright.min() == 0
    assert bright.max() == 1
    assert bright[:4, :6].sum() > 0.75 * bright.sum()  # the rest is the edge of upsampled cells
    assert bright[8:, 8:].sum() == 0
    assert dark[-4:, -4:].sum() > 0.7 * dark.sum()


@pytest.mark.parametrize("move", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)])
def test_heat_moves_with_the_image(corner: torch.Tensor, move) -> None:  # type: ignore[no-untyped-def]
    still, moved = heat(Looker(), corner, 0), heat(Looker(), move(corner), 0)
    torch.testing.assert_close(moved, move(still))
    assert not torch.allclose(moved, still)


def test_no_heat_without_evidence(corner: torch.Tensor) -> None:
    assert not heat(Looker(), corner, 2).any()  # a label the image has no part in
    assert not heat(Looker(), -corner.abs(), 0).any()  # and one that nothing in the image speaks for

    class Deaf(Looker):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.layers(images)
            return self.head(torch.ones(len(images), 2))  # type: ignore[no-any-return]

    assert not heat(Deaf(), corner, 0).any()


def test_a_slice_is_its_own_whatever_is_beside_it(corner: torch.Tensor) -> None:
    both = heat(Looker(), torch.cat([corner, 5 * corner.flip(-1)]), 0)
    torch.testing.assert_close(both[0], heat(Looker(), corner, 0)[0])
    assert both.amax(dim=(1, 2)).tolist() == [1, 1]


def test_size_is_the_images_or_what_is_asked_for(corner: torch.Tensor) -> None:
    assert heat(Looker(), corner, 0).shape == (1, SIZE, SIZE)
    assert heat(Looker(), corner, 0, size=40).shape == (1, 40, 40)


@pytest.mark.parametrize(("cells", "side"), [(2, 2), (3, 4), (4, 4), (5, 8), (6, 8), (9, 16), (1, 1)])
def test_the_map_is_the_last_that_is_fine_enough(cells: int, side: int) -> None:
    halves = [nn.Sequential(nn.ZeroPad2d(9), nn.ZeroPad2d(-9), nn.MaxPool2d(2)) for _ in range(4)]
    network = nn.Sequential(nn.Conv2d(1, 3, 1), *halves, nn.Flatten(), nn.Linear(3, 1))
    assert last_maps(network, torch.zeros(1, 1, SIZE, SIZE), cells)[1].shape == (1, 3, side, side)


def test_a_network_too_coarse_gives_its_finest_map() -> None:
    network = nn.Sequential(nn.Conv2d(1, 3, 4, stride=4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 1))
    assert last_maps(network, torch.zeros(1, 1, SIZE, SIZE), 6)[1].shape == (1, 3, 4, 4)


def test_our_network_is_left_as_it_was_and_answers_the_same_twice() -> None:
    model = build_model(ModelConfig(image_size=64), ICH, ImageKind.hu, seed=0)
    set_training(model, Norm.frozen, Trainable.all)
    images = 1024 + 80 * torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [layer.training for layer in model.modules()]
    one, other = heat(model, images, 0), heat(model, images, 0)
    assert torch.equal(one, other)
    assert one.any()
    assert bool((one >= 0).all())
    assert bool((one <= 1).all())
    assert [layer.training for layer in model.modules()] == modes
    assert True in modes
    assert False in modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(layer._forward_hooks for layer in model.modules())
    assert images.grad is None
    assert not images.requires_grad
