"""Augmentation moves slices, keeps air at zero, and follows its generator alone."""

from dataclasses import replace

import pytest
import torch

from fl_rsna.learning.data.augment import augment, cut_out
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.training import TrainConfig

STILL = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=0)


def slices() -> torch.Tensor:
    images = torch.zeros(6, 1, 16, 16)
    images[:, :, 4:12, 3:9] = 1060.0
    return images


def test_nothing_to_do_is_identity() -> None:
    torch.testing.assert_close(
        augment(slices(), STILL, image=ImageKind.hu, generator=torch.Generator()), slices(), rtol=0, atol=1e-3
    )


def test_flip_mirrors_some_and_leaves_the_rest() -> None:
    config = TrainConfig(flip=True, rotate_deg=0, zoom=0, shift=0, hu_shift=0)
    moved = augment(slices(), config, image=ImageKind.hu, generator=torch.Generator().manual_seed(1))
    mirrored = [bool(torch.allclose(image, slices()[0].flip(-1), atol=1e-2)) for image in moved]
    kept = [bool(torch.allclose(image, slices()[0], atol=1e-2)) for image in moved]
    assert all(a != b for a, b in zip(mirrored, kept, strict=True))
    assert any(mirrored)
    assert any(kept)


def test_hu_shift_moves_tissue_and_leaves_air() -> None:
    config = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=10)
    moved = augment(slices(), config, image=ImageKind.hu, generator=torch.Generator().manual_seed(1))
    assert (moved[slices() == 0].abs() < 0.01).all()  # what interpolation rounds
    tissue = moved[:, 0, 8, 6] - 1060
    assert (tissue.abs() <= 10).all()
    assert tissue.std() > 1
    same = augment(slices(), config, image=ImageKind.windows, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(same, slices(), rtol=0, atol=1e-3)


def test_hu_noise_stretches_contrast_about_water_and_leaves_air() -> None:
    config = TrainConfig(flip=False, rotate_deg=0, zoom=0, shift=0, hu_shift=0, hu_noise=0.1)
    images = slices().expand(-1, 3, -1, -1).clone()
    images[:, :, 5, 5], images[:, :, 6, 5], images[:, :, 7, 5] = 1024.0, 24.0, 2024.0  # water, air, bone of 1000 HU
    moved = augment(images, config, image=ImageKind.hu, generator=torch.Generator().manual_seed(1))
    for row, column in ((0, 0), (5, 5), (6, 5)):
        assert torch.equal(moved[:, :, row, column], images[:, :, row, column])
    factor = (moved[:, :, 7, 5] - 1024) / 1000
    assert ((factor - 1).abs() <= 0.1).all()
    assert factor[:, 0].std() > 0.02
    torch.testing.assert_close(moved[:, :, 8, 6], 1024 + 36 * factor)
    assert torch.equal(factor[:, 0], factor[:, 2])
    assert torch.equal(augment(images, config, image=ImageKind.windows, generator=torch.Generator()), images)


@pytest.mark.parametrize(("kind", "white"), [(ImageKind.windows, 255.0), (ImageKind.grey, 65535.0)])
def test_grey_values_get_brightness_and_contrast_and_air_stays(kind: ImageKind, white: float) -> None:
    """Brightness adds to all values the same, contrast moves them from the middle; never beyond black and white."""
    images = torch.zeros(6, 3, 16, 16)
    images[:, :, 4:8], images[:, :, 8:12], images[:, :, 12:] = white / 4, white / 2, white * 0.9
    bright = augment(images, replace(STILL, brightness=0.1), image=kind, generator=torch.Generator().manual_seed(1))
    change = (bright - images)[:, 0, 4, 0]
    assert (bright[:, :, :4] == 0).all()
    assert change.abs().max() <= 0.1 * white
    assert change.std() > 0.01 * white
    torch.testing.assert_close(bright[:, 2, 9, 9], images[:, 2, 9, 9] + change)
    assert bright.max() <= white
    sharp = augment(images, replace(STILL, contrast=0.5), image=kind, generator=torch.Generator().manual_seed(1))
    factor = (sharp[:, 0, 4, 0] - white / 2) / (-white / 4)
    assert ((factor - 1).abs() <= 0.5).all()
    torch.testing.assert_close(sharp[:, :, 8:12], images[:, :, 8:12])  # the middle
    assert (sharp[:, :, :4] == 0).all()
    assert sharp.max() <= white


def test_each_kind_of_image_has_its_own_values_moved_and_what_is_off_draws_nothing() -> None:
    on = replace(STILL, hu_shift=10, hu_noise=0.1, brightness=0.1, contrast=0.1)
    for kind in ImageKind:
        own = {"hu_shift": 0, "hu_noise": 0} if kind is ImageKind.hu else {"brightness": 0, "contrast": 0}
        for config in (STILL, replace(on, **own)):
            generator = torch.Generator().manual_seed(1)
            torch.testing.assert_close(augment(slices() / 8, config, image=kind, generator=generator), slices() / 8)
            untouched = torch.Generator().manual_seed(1)
            augment(slices(), STILL, image=ImageKind.hu, generator=untouched)
            assert torch.equal(generator.get_state(), untouched.get_state())


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
    augment(slices(), TrainConfig(), image=ImageKind.hu, generator=generators[0])
    torch.rand(6 + 6 + 12, generator=generators[1])  # angles, zooms and shifts,
    torch.randint(0, 2, (6,), generator=generators[1])  # flips,
    torch.rand((6, 1, 1, 1), generator=generators[1])  # and the HU shift
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


@pytest.mark.parametrize("channels", [1, 3])
def test_same_generator_same_pictures_and_torch_is_left_alone(channels: int) -> None:
    before = torch.random.get_rng_state()
    images = slices().expand(-1, channels, -1, -1).contiguous()
    one = augment(images, TrainConfig(), image=ImageKind.hu, generator=torch.Generator().manual_seed(5))
    two = augment(images, TrainConfig(), image=ImageKind.hu, generator=torch.Generator().manual_seed(5))
    assert torch.equal(one, two)
    assert one.shape == images.shape
    assert not torch.equal(
        one, augment(images, TrainConfig(), image=ImageKind.hu, generator=torch.Generator().manual_seed(6))
    )
    assert torch.equal(before, torch.random.get_rng_state())
