"""Views of a slice whose probabilities are averaged."""

import numpy as np
import pytest
import torch
from tiny import CHEST

from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.models.classifier import build_model, probabilities
from fl_rsna.learning.models.tta import VIEWS, mean_probabilities, view
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import MOST_VIEWS, ModelConfig
from fl_rsna.task import ICH

IMAGES = 1000 + 100 * torch.rand(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def made(tta: int, task=ICH):  # type: ignore[no-untyped-def]
    network = build_model(ModelConfig(image_size=32, tta=tta), task, ImageKind.hu, seed=0).eval()
    torch.manual_seed(1)
    torch.nn.init.normal_(network.head.weight)
    return network


def test_views_differ_and_are_as_many_as_may_be_asked_for() -> None:
    assert len(set(VIEWS)) == len(VIEWS) == MOST_VIEWS
    assert torch.equal(view(IMAGES, 0), IMAGES)
    assert torch.equal(view(IMAGES, 1), IMAGES.flip(-1))
    seen = [view(IMAGES, number) for number in range(len(VIEWS))]
    assert all(torch.equal(one, other) == (a == b) for a, one in enumerate(seen) for b, other in enumerate(seen))


@pytest.mark.parametrize("number", [3, 5, 7])
def test_a_mirrored_view_is_the_mirror_image_of_a_view(number: int) -> None:
    mirrored, degrees, zoom = VIEWS[number]
    assert mirrored
    plain = VIEWS.index((False, degrees, zoom))
    torch.testing.assert_close(view(IMAGES, number), view(IMAGES, plain).flip(-1), atol=1e-2, rtol=0)


def test_a_stack_turns_as_one() -> None:
    for number in range(len(VIEWS)):
        turned = view(IMAGES.expand(6, 3, 32, 32), number)
        torch.testing.assert_close(turned, view(IMAGES, number).expand(6, 3, 32, 32))


@pytest.mark.parametrize("task", [ICH, CHEST])
@torch.inference_mode()
def test_the_mean_of_probabilities_of_the_first_views(task) -> None:  # type: ignore[no-untyped-def]
    parts = [probabilities(made(1, task)(view(IMAGES, number)), task) for number in range(4)]
    assert torch.equal(mean_probabilities(made(1, task), IMAGES, task), parts[0])
    for count in (2, 4):
        found = mean_probabilities(made(count, task), IMAGES, task)
        torch.testing.assert_close(found, torch.stack(parts[:count]).mean(0))
        truth = np.eye(len(task.labels), dtype=np.float32)[np.arange(6) % len(task.labels)]
        losses = [log_loss(truth, part.numpy(), task) for part in parts[:count]]
        assert log_loss(truth, found.numpy(), task) <= np.mean(losses) + 1e-6


@torch.inference_mode()
def test_with_its_mirror_a_slice_and_its_mirror_image_are_one() -> None:
    network = made(2)
    one, other = (mean_probabilities(network, images, ICH) for images in (IMAGES, IMAGES.flip(-1)))
    torch.testing.assert_close(one, other)
