"""Augment a batch on its device: shift values, flip and move images in one resampling, and set a square to air."""

import math

import torch
import torch.nn.functional as F

from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.training import TrainConfig

WHITE = {ImageKind.windows: 255.0, ImageKind.grey: 65535.0}  # the greatest stored value of images without HU
AIR = HU_OFFSET - 1000.0  # stored value of air; no tissue has a lower one


def augment(images: torch.Tensor, config: TrainConfig, *, image: ImageKind, generator: torch.Generator) -> torch.Tensor:
    """Augment stored values `images` [B, C, S, S] at random; 0 is air, which also fills the border of a moved image.

    `generator` lives on the CPU, so every device draws the same numbers. The HU shift imitates differences in scanner
    calibration. The HU noise, HU * (1 + e), scales contrast around water, as another tube voltage does: the values of brain
    change little, those of bone much. Both apply to HU images alone and leave air at 0. Images of grey values (windows and
    films) get random brightness and contrast instead. All channels of an image are treated alike. An augmentation that is off
    draws no number.
    """
    matrices = _matrices(len(images), config, generator).to(images.device)
    hounsfield = image is ImageKind.hu
    if hounsfield and config.hu_shift > 0:
        shift = _uniform((len(images), 1, 1, 1), config.hu_shift, generator).to(images.device)
        images = torch.where(images > 0, (images + shift).clamp(min=0), images)
    if hounsfield and config.hu_noise > 0:
        noise = _uniform((len(images), 1, 1, 1), config.hu_noise, generator).to(images.device)
        images = torch.where(images > AIR, (images + (images - HU_OFFSET) * noise).clamp(min=0), images)
    if not hounsfield and (config.brightness > 0 or config.contrast > 0):
        images = jitter_brightness(images, config, WHITE[image], generator)
    moves = config.flip or config.rotate_deg > 0 or config.zoom > 0 or config.shift > 0
    images = move(images, matrices) if moves else images
    return cut_out(images, config.cutout, generator) if config.cutout > 0 else images


def jitter_brightness(
    images: torch.Tensor, config: TrainConfig, white: float, generator: torch.Generator
) -> torch.Tensor:
    """Change grey values x [B, C, S, S] of 0 to `white` to x + (x - white / 2) c + white b, clipped to 0..`white`.

    For each image, b is uniform in +-train.brightness and c in +-train.contrast. 0, which is air or below a window, stays 0.
    """
    shape, device = (len(images), 1, 1, 1), images.device
    changed = images
    if config.brightness > 0:
        changed = changed + white * _uniform(shape, config.brightness, generator).to(device)
    if config.contrast > 0:
        changed = changed + (images - white / 2) * _uniform(shape, config.contrast, generator).to(device)
    return torch.where(images > 0, changed.clamp(0, white), images)


def cut_out(images: torch.Tensor, share: float, generator: torch.Generator) -> torch.Tensor:
    """Set one square of round(share * S) pixels a side to air in each of images [B, C, S, S], at a random place.

    Cutout of DeVries and Taylor 2017 (arXiv:1708.04552), except that here the whole square lies inside the image.
    """
    size = images.shape[-1]
    side = round(share * size)
    corner = torch.randint(0, size - side + 1, (len(images), 2, 1), generator=generator).to(images.device)
    place = torch.arange(size, device=images.device)
    inside = (place >= corner) & (place < corner + side)  # [B, 2, S]: rows and columns of the square
    square = inside[:, 0, :, None] & inside[:, 1, None, :]
    return images.masked_fill(square.unsqueeze(1), 0)


def _matrices(count: int, config: TrainConfig, generator: torch.Generator) -> torch.Tensor:
    """Draw affine matrices [count, 2, 3] of flip * rotation * zoom and a shift, in grid_sample's coordinates."""
    angle = _uniform((count,), math.radians(config.rotate_deg), generator)
    zoom = 1 + _uniform((count,), config.zoom, generator)
    shift = _uniform((count, 2), 2 * config.shift, generator)
    flip = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1 if config.flip else torch.ones(count)
    cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
    rows = [torch.stack([cos * flip, -sin, shift[:, 0]], 1), torch.stack([sin * flip, cos, shift[:, 1]], 1)]
    return torch.stack(rows, 1)


def move(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Resample images [B, C, S, S] by affine matrices [B, 2, 3], bilinear; pixels from outside an image are 0."""
    grid = F.affine_grid(matrices, list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _uniform(shape: tuple[int, ...], half_width: float, generator: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * half_width
