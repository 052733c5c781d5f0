"""What turns stored values into the channels a network sees: fixed windows, or windows it learns."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from fl_rsna.choices import ImageKind, Window
from fl_rsna.imaging.windows import HU_OFFSET, WINDOWS_HU
from fl_rsna.learning.backbone import IMAGENET_MEAN, IMAGENET_STD

CENTRE_HU, UNIT_HU = (
    40.0,
    40.0,
)  # in which a learned window's weights are small numbers, that a step of Adam moves little
EDGE = 1 / 255  # grey at a window's lower edge, and short of white at its upper one


class InputStage(nn.Module):
    """Stored values [B, n * C, S, S] of n slices -> three channels a slice, normalised, [B, 3 n, S, S].

    HU images pass through the windows of `imaging.windows`; windowed and grey images are only scaled, and grey is the
    same in all three channels. It has no parameters and nothing in the state dict, so nothing of it travels.
    """

    def __init__(
        self, image: ImageKind, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.planes = planes_of(image)
        match image:
            case ImageKind.hu:
                low = [centre - width / 2 + HU_OFFSET for centre, width in WINDOWS_HU]
                width = [width for _, width in WINDOWS_HU]
            case ImageKind.windows:
                low, width = [0.0] * 3, [255.0] * 3
            case ImageKind.grey:
                low, width = [0.0] * 3, [65535.0] * 3
        for name, values in (("low", low), ("width", width), ("mean", mean), ("std", std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    low: torch.Tensor
    width: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        slices = images.shape[1] // self.planes
        single = images if slices == 1 else images.reshape(-1, self.planes, *images.shape[2:])
        channels = (self.grey(single) - self.mean) / self.std
        return channels if slices == 1 else channels.reshape(-1, slices * channels.shape[1], *channels.shape[2:])

    def grey(self, images: torch.Tensor) -> torch.Tensor:
        """Slices [N, C, S, S] -> [N, 3, S, S] of 0 to 1."""
        return ((images - self.low) / self.width).clamp(0, 1)


class LearnedWindow(InputStage):
    """Windows as a 1x1 convolution of HU to three channels and a sigmoid, trained with the network.

    Lee et al. 2018 (arXiv:1812.00572), equations 3 and 4: it starts as the three windows of `imaging.windows`, each
    sigmoid 1/255 at its window's lower and 254/255 at its upper edge. Kept in float32 under autocast, too.
    """

    def __init__(
        self, image: ImageKind, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__(image, mean, std)
        if image is not ImageKind.hu:
            raise ValueError(
                f"model.window: expected fixed with images of kind {image}, which hold no Hounsfield units; "
                "prepare head CT with data.image=hu"
            )
        steep = 2 * math.log(1 / EDGE - 1)  # from edge to edge
        weight = [steep / width * UNIT_HU for _, width in WINDOWS_HU]
        bias = [steep / width * (CENTRE_HU - centre) for centre, width in WINDOWS_HU]
        self.weight = nn.Parameter(torch.tensor(weight).view(3, 1, 1, 1))
        self.bias = nn.Parameter(torch.tensor(bias))

    def grey(self, images: torch.Tensor) -> torch.Tensor:
        units = (images - (CENTRE_HU + HU_OFFSET)) / UNIT_HU
        return (units * self.weight.view(1, 3, 1, 1) + self.bias.view(1, 3, 1, 1)).sigmoid()

    def windows_hu(self) -> list[tuple[float, float]]:
        """(centre, width) of each channel as they are now."""
        slopes = (self.weight.detach().view(3) / UNIT_HU).tolist()
        shifts, steep = self.bias.detach().tolist(), 2 * math.log(1 / EDGE - 1)
        return [(CENTRE_HU - shift / slope, steep / slope) for slope, shift in zip(slopes, shifts, strict=True)]


def planes_of(image: ImageKind) -> int:
    """Channels of one stored slice."""
    match image:
        case ImageKind.hu | ImageKind.grey:
            return 1
        case ImageKind.windows:
            return 3


def make_input_stage(window: Window, image: ImageKind, mean: Sequence[float], std: Sequence[float]) -> InputStage:
    match window:
        case Window.fixed:
            return InputStage(image, mean, std)
        case Window.learned | Window.personal:
            return LearnedWindow(image, mean, std)
