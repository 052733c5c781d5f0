"""Augmentation moves slices, keeps air at zero, and follows its generator alone."""

import pytest
import torch

from fl_rsna.config import TrainConfig
from fl_rsna.learning.augment import augment

STILL = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=0)


def slices() -> torch.Tensor:
    images = torch.zeros(6, 1, 16, 16)
    images[:, :, 4:12, 3:9] = 1060.0
    return images


def test_nothing_to_do_is_identity() -> None:
    torch.testing.assert_close(
        augment(slices(), STILL, hounsfield=True, generator=torch.Generator()), slices(), rtol=0, atol=1e-3
    )


def test_flip_mirrors_some_and_leaves_the_rest() -> None:
    config = TrainConfig(flip=True, rotate_deg=0, zoom=0, shift=0, hu_shift=0)
    moved = augment(slices(), config, hounsfield=True, generator=torch.Generator().manual_seed(1))
    mirrored = [bool(torch.allclose(image, slices()[0].flip(-1), atol=1e-2)) for image in moved]
    kept = [bool(torch.allclose(image, slices()[0], atol=1e-2)) for image in moved]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored)
    assert any(kept)


def test_hu_shift_moves_tissue_and_leaves_air() -> None:
    config = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=10)
    moved = augment(slices(), config, hounsfield=True, generator=torch.Generator().manual_seed(1))
    assert (moved[slices() == 0].abs() < 0.01).all()  # what interpolation rounds
    tissue = moved[:, 0, 8, 6] - 1060
    assert (tissue.abs() <= 10).all()
    assert tissue.std() > 1
    same = augment(slices(), config, hounsfield=False, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, slices(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_same_generator_same_pictures_and_torch_is_left_alone(channels: int) -> None:
    before = torch.random.get_rng_state()
    images = slices().expand(-1, channels, -1, -1).contiguous()
    one = augment(images, TrainConfig(), hounsfield=True, generator=torch.Generator().manual_seed(5))
    two = augment(images, TrainConfig(), hounsfield=True, generator=torch.Generator().manual_seed(5))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert not torch.equal(
        one, augment(images, TrainConfig(), hounsfield=True, generator=torch.Generator().manual_seed(6))
    )
    assert torch.equal(before, torch.random.get_rng_state())
