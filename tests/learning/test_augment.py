"""Augmentation moves slices, keeps air at zero, and follows its generator alone."""

import pytest
import torch

from fl_rsna.config import TrainConfig
from fl_rsna.learning.augment import augment, cut_out

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


def test_hu_noise_stretches_contrast_about_water_and_leaves_air() -> None:
    config = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=0, hu_noise=0.1)
    images = slices().expand(-1, 3, -1, -1).clone()
    images[:, :, 5, 5], images[:, :, 6, 5], images[:, :, 7, 5] = 1024.0, 24.0, 2024.0  # water, air, bone of 1000 HU
    moved = augment(images, config, hounsfield=True, generator=torch.Generator().manual_seed(1))
    for row, column in ((0, 0), (5, 5), (6, 5)):
        assert torch.equal(moved[:, :, row, column], images[:, :, row, column])
    factor = (moved[:, :, 7, 5] - 1024) / 1000
    assert ((factor - 1).abs() <= 0.1).all()
    assert factor[:, 0].std() > 0.02
    torch.testing.assert_close(moved[:, :, 8, 6], 1024 + 36 * factor)
    assert torch.equal(factor[:, 0], factor[:, 2])
    assert torch.equal(augment(images, config, hounsfield=False, generator=torch.Generator()), images)


def test_cutout_is_one_whole_square_of_air_in_all_channels_of_an_image() -> None:
    images = torch.ones(20, 5, 16, 16)
    cut = cut_out(images, 0.25, torch.Generator().manual_seed(3))
    corners = set()
    for image in cut:
        assert torch.equal(image[0], image[4])
        rows, columns = (image[0] == 0).any(1).nonzero(), (image[0] == 0).any(0).nonzero()
        assert (image[0] == 0).sum() == len(rows) * len(columns) == 16
        assert rows.max() - rows.min() == columns.max() - columns.min() == 3
        corners.add((int(rows[0]), int(columns[0])))
    assert len(corners) > 10


def test_what_is_off_draws_no_number() -> None:
    generators = [torch.Generator().manual_seed(2) for _ in range(2)]
    augment(slices(), TrainConfig(), hounsfield=True, generator=generators[0])
    torch.rand(6 + 6 + 12, generator=generators[1])  # angles, zooms and shifts,
    torch.randint(0, 2, (6,), generator=generators[1])  # flips,
    torch.rand((6, 1, 1, 1), generator=generators[1])  # and the HU shift
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


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
