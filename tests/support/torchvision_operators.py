"""What torchvision's compiled part would define, so that it can be imported where that part does not fit the torch at hand.

The networks need none of it.
"""

import contextlib
import sys

import torch

_DEFINED: list[torch.library.Library] = []  # an operator is there as long as its library is


def make_importable() -> None:
    """Let torchvision, and timm with it, be imported from now on, where they are installed."""
    with contextlib.suppress(ModuleNotFoundError):
        try:
            import torchvision
        except RuntimeError:  # operator torchvision::nms does not exist
            for name in [name for name in sys.modules if name.partition(".")[0] in ("torchvision", "timm")]:
                del sys.modules[name]
            _DEFINED.append(torch.library.Library("torchvision", "FRAGMENT"))
            for name in ("nms", "qnms"):
                _DEFINED[0].define(f"{name}(Tensor boxes, Tensor scores, float threshold) -> Tensor")
            import torchvision  # noqa: F401
