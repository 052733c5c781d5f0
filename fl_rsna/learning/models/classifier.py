"""The classifier: an input stage that turns each slice's stored values into three channels, then a backbone.

Channels are fixed or learned HU windows. Sampling and class weights change the prior on which a model is trained; its probabilities are
corrected for that.
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

# HU are shifted and scaled by these for a learned window: its weights are small numbers, which a step of Adam changes little.
CENTRE_HU, UNIT_HU = 40.0, 40.0
EDGE = 1 / 255  # a learned window's value at its lower edge, and 1 minus its value at its upper edge
GROUPS = 32  # most groups of GroupNorm
PRIOR = 0.05  # probability of each label in a network's initial state


class InputStage(nn.Module):
    """Convert stored values [B, n * C, S, S] of n slices to three normalised channels for each slice, [B, 3 n, S, S].

    HU images get the three windows of imaging/dicom/hounsfield.py. Windowed and grey images are only scaled, and grey is the
    same in all three channels. The stage has no parameters and nothing in the state dict, so nothing of it is sent.
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
        """Convert slices [N, C, S, S] to three channels [N, 3, S, S] of 0 to 1, before normalisation."""
        return ((images - self.low) / self.width).clamp(0, 1)


class LearnedWindow(InputStage):
    """Learn windows as a 1x1 convolution of HU to three channels and a sigmoid, trained with the network.

    By Lee et al. 2018 (arXiv:1812.00572), equations 3 and 4. It starts as the three windows of imaging/dicom/hounsfield.py: each
    sigmoid is 1/255 at its window's lower edge and 254/255 at its upper edge. It stays in float32 also under autocast. Raises
    ValueError for images without Hounsfield units.
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
        steep = 2 * math.log(1 / EDGE - 1)  # rise of a logit from the lower to the upper edge
        weight = [steep / width * UNIT_HU for _, width in WINDOWS_HU]
        bias = [steep / width * (CENTRE_HU - centre) for centre, width in WINDOWS_HU]
        self.weight = nn.Parameter(torch.tensor(weight).view(3, 1, 1, 1))
        self.bias = nn.Parameter(torch.tensor(bias))

    def grey(self, images: torch.Tensor) -> torch.Tensor:
        units = (images - (CENTRE_HU + HU_OFFSET)) / UNIT_HU
        return (units * self.weight.view(1, 3, 1, 1) + self.bias.view(1, 3, 1, 1)).sigmoid()

    def windows_hu(self) -> list[tuple[float, float]]:
        """Return the current (centre, width) in HU of each channel's window."""
        slopes = (self.weight.detach().view(3) / UNIT_HU).tolist()
        shifts, steep = self.bias.detach().tolist(), 2 * math.log(1 / EDGE - 1)
        return [(CENTRE_HU - shift / slope, steep / slope) for slope, shift in zip(slopes, shifts, strict=True)]


def planes_of(image: ImageKind) -> int:
    """Return the number of channels of one stored slice."""
    match image:
        case ImageKind.hu | ImageKind.grey:
            return 1
        case ImageKind.windows:
            return 3


class PriorCorrection(nn.Module):
    """Convert logits [B, L] for the drawn slices to logits for all slices, where the share `kept` of negatives was drawn.

    Negatives are slices without the union label u. A draw that keeps every slice with u and a share k of the others depends on
    u alone. So, by Bayes' rule and for every label l, which implies u,

        P(l | x) = P_drawn(l | x) / (P_drawn(u | x) + (1 - P_drawn(u | x)) / k)

    For l = u that is p r / (p r + 1 - p) with r = k, a constant in the logit: the prior correction of King and Zeng 2001
    (Logistic Regression in Rare Events Data, Political Analysis 9). The other labels' odds fall by more where u is uncertain:
    with z the logits, c = 1/k - 1 and s(z) = log(1 + e^z), the new logit of l is z_l - s(log c + s(z_l) - s(z_u)). The module
    has no parameters and nothing in the state dict.
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
    """Convert logits [B, L] of classes that had weights w_l in the loss to logits of the classes without weights.

    The weighted cross-entropy is least where softmax(z)_l is in proportion to w_l P(l | x), so log w_l is subtracted: the prior
    shift of Saerens et al. 2002 (Neural Computation 14:21) at a known ratio of priors. Nothing is in the state dict.
    """

    def __init__(self, weights: Sequence[float]) -> None:
        super().__init__()
        self.register_buffer("log_weights", torch.tensor(weights).log(), persistent=False)

    log_weights: torch.Tensor

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.float() - self.log_weights


class Classifier(nn.Module):
    """Classify stored values [B, C, S, S], C / 1 or C / 3 slices each, by logits [B, labels].

    Probabilities are the mean over `views` views of a slice (learning/models/tta.py); logits are of one view.
    """

    def __init__(self, image: ImageKind, backbone: nn.Module, *, window: Window = Window.fixed, views: int = 1) -> None:
        super().__init__()
        stage = InputStage if window is Window.fixed else LearnedWindow
        self.input_stage = stage(image, *normalisation(backbone))
        self.backbone: Any = backbone  # of any package that learning/models/backbone.py knows
        self.views = views
        self.correction: nn.Module = nn.Identity()

    @property
    def head(self) -> nn.Linear:
        """The backbone's last layer."""
        return head_of(self.backbone)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits that predict; they are valid for all slices, whatever training drew or weighted."""
        return cast(torch.Tensor, self.correction(self.raw_logits(images)))

    def raw_logits(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the logits for the loss; they are valid for slices as training draws and weights them."""
        channels = self.input_stage(images).contiguous(memory_format=torch.channels_last)
        return cast(torch.Tensor, self.backbone(channels))

    def with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the logits for the loss [B, labels] and the features [B, F] before dropout and the last layer."""
        seen: list[torch.Tensor] = []
        hook = dropout_of(self.backbone).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            return self.raw_logits(images), seen[0]
        finally:
            hook.remove()

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Compute the features [B, F] before dropout and the last layer."""
        return self.with_features(images)[1]


def build_model(
    config: ModelConfig, task: Task, image: ImageKind, *, seed: int, weights: Path | None = None
) -> Classifier:
    """Build a classifier with one logit for each label; equal seeds give equal weights, and torch's random state is kept.

    `weights` is the file from which a run's first model starts; all others receive that model and need no file. Raises ValueError
    when the backbone cannot be built or the file does not fit it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_backbone(config, len(task.labels))
        if weights is not None:
            load_weights(backbone, weights)
        # The head starts from the prior that a finding is rare (Lin et al. 2017, arXiv:1708.02002, section 4.1). Under Adam a bias
        # moves by about the learning rate in a step, so from 0 it would take more rounds than a run has.
        head = head_of(backbone)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.constant_(head.bias, math.log(PRIOR / (1 - PRIOR)) if task.kind is LabelKind.multi_label else 0.0)
    if config.neighbours:
        widen(backbone, 1 + 2 * config.neighbours)
    if config.norm is Norm.group:
        _group_norm(backbone)
    for layer in norm_layers(backbone):
        # EfficientNet's own momentum of 0.01 is for epochs of 10,000 steps; a site's round has tens.
        layer.momentum = config.norm_momentum
    model = Classifier(image, backbone, window=config.window, views=config.tta)
    if isinstance(config, RunModel) and config.kept_negatives < 1:
        assert task.union is not None
        model.correction = PriorCorrection(task.labels.index(task.union), config.kept_negatives)
    if isinstance(config, RunModel) and config.class_weights:
        model.correction = ClassCorrection(config.class_weights)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def set_training(model: nn.Module, norm: Norm, trainable: Trainable) -> None:
    """Set training mode and gradients for the trainable part of a model; only a classifier can train its head alone.

    With `norm` frozen or adapted, BatchNorm uses its stored statistics and learns scale and shift only. A head alone trains on
    the features of a network in evaluation mode.
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


def norm_layers(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return all BatchNorm layers of a model."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def personal_names(model: nn.Module, config: ModelConfig) -> list[str]:
    """Return the state-dict names of what stays at its site.

    These are all of BatchNorm (FedBN, Li et al. 2021, arXiv:2102.07623), its running statistics (SiloBN, Andreux et al. 2020,
    arXiv:2008.07424) or nothing of it, and the window where it is personal.
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
    """Return bool [P] over a flat model's `floats`: true for parameters that sites share, false for statistics and personal state."""
    return parameter_positions(model) & ~positions(model, personal_names(model, config))


class NormAndActivation(nn.GroupNorm):
    """GroupNorm followed by an activation, to replace a BatchNorm of timm that contains its activation."""

    act: nn.Module

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return cast(torch.Tensor, self.act(super().forward(maps)))


def _group_norm(network: nn.Module) -> None:
    """Replace BatchNorm, in place, by GroupNorm (Wu and He 2018, arXiv:1803.08494) with the same scale and shift.

    The number of groups is the greatest common divisor of 32 and the channels. GroupNorm keeps no statistics, so nothing of a
    site's scanner is averaged; ImageNet's weights, made for BatchNorm, fit it less well.
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
    """Convert logits [B, L] to probabilities [B, L]; rows sum to 1 in a multi-class task."""
    match task.kind:
        case LabelKind.multi_label:
            return logits.float().sigmoid()
        case LabelKind.multi_class:
            return logits.float().softmax(1)
