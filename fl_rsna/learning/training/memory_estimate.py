"""How much memory a training step and a scoring pass take, found by playing them on tensors that have no memory.

On torch's meta device every operation runs with shapes only. A dispatch mode sees every tensor come and go, so the
peak is that of the very network, optimizer and batch a site would use; what it cannot see is the scratch memory
inside a convolution.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from fl_rsna.learning.models.classifier import Classifier, build_model, planes_of
from fl_rsna.learning.models.series_head import HeadShape, SeriesHead
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.train import EVALUATION_BATCH, layer_rates, make_optimizer, start_training
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import Task

META = torch.device("meta")


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Bytes, in full precision."""

    model: int  # parameters and buffers: what is sent, kept and folded
    training: int  # the peak of a training step: model, gradients, optimizer, activations
    scoring: int  # the peak of scoring a batch without gradients
    features: int = 0  # numbers a slice that a head over series is given


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of storages that are alive, and their peak."""

    def __init__(self, held: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: int = held
        self.peak: int = held
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        self._seen[storage] = True
        size = storage.nbytes()
        self.alive += size
        self.peak = max(self.peak, self.alive)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.alive -= size


def footprint(model: ModelConfig, train: TrainConfig, task: Task, image: ImageKind) -> Footprint:
    """What one process needs to train with these settings and to score with them; no memory is taken to find out."""
    network = _shapes(model, task, image)
    found = estimate_storage(model, task, image, network)
    training = _measure_train_step(network, model, train, task, image, found.model)
    return replace(found, training=training, scoring=_measure_forward(network, model, image, found.model))


def estimate_storage(model: ModelConfig, task: Task, image: ImageKind, network: Classifier | None = None) -> Footprint:
    """The same without the memory of a step, which takes seconds to find out: for what is written to a disk."""
    network = network or _shapes(model, task, image)
    held = sum(tensor.nbytes for tensor in network.state_dict().values())
    return Footprint(model=held, training=0, scoring=0, features=network.head.in_features)


def _shapes(model: ModelConfig, task: Task, image: ImageKind) -> Classifier:
    with META:
        return build_model(replace(model, pretrained=False), task, image, seed=0)


def head_bytes(shape: HeadShape) -> int:
    """Of a head over series."""
    with META:
        head = SeriesHead(shape)
    return sum(tensor.nbytes for tensor in head.state_dict().values())


def _measure_train_step(
    network: Classifier, model: ModelConfig, train: TrainConfig, task: Task, image: ImageKind, held: int
) -> int:
    start_training(network, model.norm, train, META)
    parameters = list_trainable_parameters(network)
    optimizer = make_optimizer(layer_rates(network, parameters, 1e-3, train.layer_decay), train, 1e-3)
    labels = torch.zeros(train.batch_size, len(task.labels), device=META)
    with _Peak(held) as counted, META:
        loss = task_loss(network(_images(train.batch_size, model, image)), labels, task)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    kept: int = sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    peak: int = counted.peak
    return peak + kept  # from the second step on, what the optimizer keeps is there all the time


def _measure_forward(network: Classifier, model: ModelConfig, image: ImageKind, held: int) -> int:
    network.eval()
    with torch.no_grad(), _Peak(held) as counted:
        network(_images(EVALUATION_BATCH, model, image))
    peak: int = counted.peak
    return peak


def _images(count: int, model: ModelConfig, image: ImageKind) -> torch.Tensor:
    channels = planes_of(image) * (1 + 2 * model.neighbours)
    return torch.zeros(count, channels, model.image_size, model.image_size, device=META)
