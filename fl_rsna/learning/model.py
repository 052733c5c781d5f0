"""The network: an input stage that turns stored values into three channels a slice, then a backbone."""

import math
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.choices import ImageKind, Norm, Trainable, Window
from fl_rsna.config import ModelConfig
from fl_rsna.learning.backbone import build_backbone, dropout_of, head_of, normalisation, widen
from fl_rsna.learning.flat import parameter_positions, positions
from fl_rsna.learning.input_stage import make_input_stage
from fl_rsna.learning.prior_correction import ClassCorrection, PriorCorrection
from fl_rsna.learning.weights import load_weights
from fl_rsna.task import LabelKind, Task

GROUPS = 32  # of GroupNorm
PRIOR = 0.05  # of each label before anything is learned


class Classifier(nn.Module):
    """Stored values [B, C, S, S], of C / 1 or C / 3 slices, -> logits [B, labels].

    `views` is how many views of a slice its probabilities are the mean of (learning/views.py); logits are of one.
    """

    def __init__(self, image: ImageKind, backbone: nn.Module, *, window: Window = Window.fixed, views: int = 1) -> None:
        super().__init__()
        self.input_stage = make_input_stage(window, image, *normalisation(backbone))
        self.backbone: Any = backbone  # of any package that learning/backbone.py knows
        self.views = views

        self.correction: nn.Module = nn.Identity()

    @property
    def head(self) -> nn.Linear:
        """The last layer."""
        return head_of(self.backbone)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that predict: whatever was drawn in training, they are meant for all slices."""
        return cast(torch.Tensor, self.correction(self.drawn_logits(images)))

    def drawn_logits(self, images: torch.Tensor) -> torch.Tensor:
        """The logits that learn: of the slices as training draws them."""
        channels = self.input_stage(images).contiguous(memory_format=torch.channels_last)
        return cast(torch.Tensor, self.backbone(channels))

    def with_features(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits that learn [B, labels] and the features [B, F] before dropout and the last layer."""
        seen: list[torch.Tensor] = []
        hook = dropout_of(self.backbone).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        try:
            return self.drawn_logits(images), seen[0]
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
    if config.kept_negatives < 1:
        assert task.union is not None
        model.correction = PriorCorrection(task.labels.index(task.union), config.kept_negatives)
    if config.class_weights:
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


def shared_positions(model: nn.Module, config: ModelConfig) -> NDArray[np.bool_]:
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
