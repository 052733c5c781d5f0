"""Show where on a slice the evidence for a label lies, by Grad-CAM (Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

CELLS = 6  # least side of a feature map; a smaller one is too coarse to locate a bleed


def heat(
    model: nn.Module, images: torch.Tensor, label: int, *, size: int | None = None, cells: int = CELLS
) -> torch.Tensor:
    """Compute the heat [B, size, size] of one label on images [B, C, S, S], scaled to a maximum of 1 for each slice.

    The heat is 0 everywhere where no evidence supports the label. `size` None is S. The heat is computed on the last feature map
    of at least `cells` a side. Modes, gradients and hooks of the model do not change.
    """
    with _hold_eval_mode(model), torch.enable_grad():
        logits, maps = last_maps(model, images.detach().requires_grad_(), cells)
        (slopes,) = torch.autograd.grad(logits[:, label].sum(), [maps], materialize_grads=True)
    weights = slopes.mean(dim=(2, 3), keepdim=True)
    seen = functional.relu((weights * maps.detach()).sum(dim=1, keepdim=True))
    large = functional.interpolate(seen, size=size or images.shape[-1], mode="bilinear", align_corners=False)[:, 0]
    return large / large.amax(dim=(1, 2), keepdim=True).clamp(min=torch.finfo(large.dtype).tiny)


def last_maps(model: nn.Module, images: torch.Tensor, cells: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute logits [B, L] and the last feature map [B, F, h, w] of at least `cells` a side, or else the last of the largest.

    The maps are outputs of the layers, observed by hooks, so any network will do. The output of a padding layer is no feature map.
    """
    found: list[torch.Tensor] = []

    def watch(module: nn.Module, inputs: object, output: object) -> None:
        if not isinstance(output, torch.Tensor) or output.ndim != 4 or isinstance(module, nn.ZeroPad2d):
            return
        if not found or min(cells, *output.shape[2:]) >= min(cells, *found[0].shape[2:]):
            found[:] = [output]

    layers = [layer for layer in model.modules() if not any(layer.children())]
    hooks = [layer.register_forward_hook(watch) for layer in layers]
    try:
        return model(images), found[0]
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _hold_eval_mode(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode inside the context, and restore every layer's own mode afterwards."""
    modes = [(layer, layer.training) for layer in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
