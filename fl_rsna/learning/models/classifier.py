"""The classifier: an input stage that turns stored values into three channels a slice, then a backbone.

Channels are fixed HU windows, or windows that are learned. A model that was trained on another prior than the data's, by what was
drawn or by what counted, gets its probabilities corrected for it.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn

from fl_rsna.imaging.dicom.hounsfield import HU_OFFSET, WINDOWS_HU
from fl_rsna.learning.models.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    build_backbone,
    dropout_of,
    head_of,
    load_weights,
    normalisation,
    widen,
)
from fl_rsna.learning.models.flat import parameter_positions, positions
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm, RunModel, Trainable, Window
from fl_rsna.task import LabelKind, Task

CENTRE_HU, UNIT_HU = (
    40.0,
    40.0,
)  # in which a learned window's weights are small numbers, that a step of Adam moves little
EDGE = 1 / 255  # grey at a window's lower edge, and short of white at its upper one
GROUPS = 32  # of GroupNorm
PRIOR = 0.05  # of each label before anything is learned


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


class PriorCorrection(nn.Module):
    """Logits [B, L] among the drawn slices -> logits among all, where `kept` of those without the union label were drawn.

    A draw that keeps every slice with the union label u and a share k of the others has, by Bayes' rule and for every
    label l, which implies u,

        P(l | x) = P_drawn(l | x) / (P_drawn(u | x) + (1 - P_drawn(u | x)) / k)

    because the draw depends on u alone. For l = u that is p r / (p r + 1 - p) with r = k: the prior correction of King and
    Zeng 2001 (Logistic Regression in Rare Events Data, Political Analysis 9), and a constant in the logit. The other
    labels' odds fall by more where u is doubtful: with z the logits, c = 1/k - 1 and s(z) = log(1 + e^z), the new logit
    of l is z_l - s(log c + s(z_l) - s(z_u)). It has no parameters and nothing in the state dict.
    """

    def __init__(self, union: int, kept: float) -> None:
        super().__init__()
        assert 0 < kept < 1, kept
        self.union, self.log_c = union, math.log(1 / kept - 1)

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        z = logits.float()
        of_union = F.softplus(z[:, self.union : self.union + 1])
        return z - F.softplus(self.log_c + F.softplus(z) - of_union)


class ClassCorrection(nn.Module):
    """Logits [B, L] of classes that counted w_l each in the loss -> logits of the classes as they are.

    The weighted cross-entropy is least where softmax(z)_l is in proportion to w_l P(l | x), so log w_l is taken off: the prior
    shift of Saerens et al. 2002 (Neural Computation 14:21) at a known ratio of priors. Nothing in the state dict.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.tensor(weights).log(), persistent=False)

    log_weights: torch.Tensor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float() - self.log_weights


class Classifier(nn.Module):
    """Stored values [B, C, S, S], of C / 1 or C / 3 slices, -> logits [B, labels].

    `views` is how many views of a slice its probabilities are the mean of (learning/models/tta.py); logits are of one.
    """

    def __init__(self, image: ImageKind, backbone: nn.Module, *, window: Window = Window.fixed, views: int = 1) -> None:
        super().__init__()
        self.input_stage = make_input_stage(window, image, *normalisation(backbone))
        self.backbone: Any = backbone  # of any package that learning/models/backbone.py knows
        self.views = views

        self.correction: nn.Module = nn.Identity()

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return head_of(self.backbone)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that predict: whatever was drawn in training, they are meant for all slices."""
        return cast(torch.Tensor, self.correction(self.raw_logits(images)))

    def raw_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that learn: of the slices as training draws them."""
        channels = self.input_stage(images).contiguous(memory_format=torch.channels_last)
        return cast(torch.Tensor, self.backbone(channels))

    def with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits that learn [B, labels] and the features [B, F] before dropout and the last layer."""
        seen: list[torch.Tensor] = []
        hook = dropout_of(self.backbone).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            return self.raw_logits(images), seen[0]
        finally:
            hook.remove()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The features [B, F] before dropout and the last layer."""
        return self.with_features(images)[1]


def build_model(
    config: ModelConfig, task: Task, image: ImageKind, *, seed: int, weights: Path | None = None
) -> Classifier:
    """A network with one logit a label; the same seed gives the same weights and leaves torch's own state alone.

    `weights` is a file it starts from: whoever makes a run's first model gives it, everybody else gets the model.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(config, len(task.labels))
        if weights is not None:
            load_weights(backbone, weights)
        _start_head(head_of(backbone), task.kind)
    if config.neighbours:
        widen(backbone, 1 + 2 * config.neighbours)
    if config.norm is Norm.group:
        _group_norm(backbone)
    for layer in norm_layers(
        backbone
    ):  # EfficientNet's own 0.01 is for epochs of 10,000 steps, a site's round has tens
        layer.momentum = config.norm_momentum
    model = Classifier(image, backbone, window=config.window, views=config.tta)
    if isinstance(config, RunModel) and config.kept_negatives < 1:
        assert task.union is not None
        model.correction = PriorCorrection(task.labels.index(task.union), config.kept_negatives)
    if isinstance(config, RunModel) and config.class_weights:
        model.correction = ClassCorrection(config.class_weights)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def set_training(model: nn.Module, norm: Norm, trainable: Trainable) -> None:
    """Training mode for the trainable part; of a network other than a classifier that is all of it.

    Frozen or adapted, BatchNorm uses its stored statistics and learns scale and shift only. A head alone trains on the
    features of a network in evaluation mode.
    """
    model.requires_grad_(trainable is Trainable.all)
    match trainable:
        case Trainable.head:
            assert isinstance(model, Classifier)
            model.eval()
            model.head.requires_grad_(True)
            dropout_of(model.backbone).train()
        case Trainable.all:
            model.train()
            if norm in (Norm.frozen, Norm.adapted):
                for layer in norm_layers(model):
                    layer.eval()


def _start_head(head: nn.Linear, kind: LabelKind) -> None:
    """Start from the prior that a finding is rare (Lin et al. 2017, arXiv:1708.02002, section 4.1).

    Under Adam a bias moves by about the learning rate a step; from 0 it would take more rounds than a run has.
    """
    nn.init.normal_(head.weight, std=0.01)
    nn.init.constant_(head.bias, math.log(PRIOR / (1 - PRIOR)) if kind is LabelKind.multi_label else 0.0)


def norm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def personal_names(model: nn.Module, config: ModelConfig) -> list[str]:
    """State that stays at its site: all of BatchNorm (FedBN, Li et al. 2021, arXiv:2102.07623), its running statistics

    (SiloBN, Andreux et al. 2020, arXiv:2008.07424) or nothing of it; and the window, where it is personal.
    """
    match config.norm:
        case Norm.local:
            kept: tuple[str, ...] = ("weight", "bias", "running_mean", "running_var")
        case Norm.local_stats:
            kept = ("running_mean", "running_var")
        case _:
            kept = ()
    layers = [name for name, module in model.named_modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    window = ["input_stage.weight", "input_stage.bias"] if config.window is Window.personal else []
    return window + [f"{layer}.{part}" for layer in layers for part in kept]


def find_shared_positions(model: nn.Module, config: ModelConfig) -> NDArray[np.bool_]:
    """Where parameters lie that sites share: bool [P] over a flat model's `floats`. The rest are statistics, and what is personal."""
    return parameter_positions(model) & ~positions(model, personal_names(model, config))


class NormAndActivation(nn.GroupNorm):
    """GroupNorm in the place of a BatchNorm that has its activation inside, as timm's may."""

    act: nn.Module

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.act(super().forward(maps)))


def _group_norm(network: nn.Module) -> None:
    """Replace BatchNorm by GroupNorm (Wu and He 2018, arXiv:1803.08494) with the same scale and shift.

    32 groups, or the most of its divisors that divide the channels. It keeps no statistics, so nothing of a site's
    scanner is averaged; ImageNet's weights, made for BatchNorm, fit it less well.
    """
    for parent in list(network.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                act = getattr(layer, "act", None)
                kind = nn.GroupNorm if act is None else NormAndActivation
                group = kind(math.gcd(GROUPS, layer.num_features), layer.num_features, eps=layer.eps)
                group.load_state_dict({"weight": layer.weight, "bias": layer.bias})
                if act is not None:
                    group.act = act
                setattr(parent, name, group)


def probabilities(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Logits [B, L] -> probabilities [B, L]; rows sum to 1 in a multi-class task."""
    match task.kind:
        case LabelKind.multi_label:
            return logits.float().sigmoid()
        case LabelKind.multi_class:
            return logits.float().softmax(1)
