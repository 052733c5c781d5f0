"""Estimate the memory of a training step and of a scoring pass by running them on tensors without data.

On torch's meta device every operation runs with shapes only. A dispatch mode sees every tensor that is created and freed, so the
peak is that of the network, optimizer and batch that a site would use. It does not see the scratch memory inside a convolution.
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
    """Memory in bytes, in full precision."""

    model: int  # parameters and buffers: what is sent, kept and aggregated
    training: int  # the peak of a training step: model, gradients, optimizer, activations
    scoring: int  # the peak of scoring a batch without gradients
    features: int = 0  # numbers that a head over series is given for each slice


class _Peak(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Count the bytes of live storages, and their peak."""

    def __init__(self, held: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive: int = held
        self.peak: int = held
        self._seen = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if not isinstance(tensor, torch.Tensor) or (storage := tensor.untyped_storage()) in self._seen:
                continue
            self._seen[storage] = True
            size = storage.nbytes()
            self.alive += size
            self.peak = max(self.peak, self.alive)
            weakref.finalize(storage, self._free, size)
        return made

    def _free(self, size: int) -> None:
        self.alive -= size


def footprint(model: ModelConfig, train: TrainConfig, task: Task, image: ImageKind) -> Footprint:
    """Estimate the memory that one process needs to train and to score with these settings, without taking it."""
    network = _shapes(model, task, image)
    found = estimate_storage(model, task, image, network)
    shape = (planes_of(image) * (1 + 2 * model.neighbours), model.image_size, model.image_size)
    start_training(network, model.norm, train, META)
    parameters = list_trainable_parameters(network)
    optimizer = make_optimizer(layer_rates(network, parameters, 1e-3, train.layer_decay), train, 1e-3)
    labels = torch.zeros(train.batch_size, len(task.labels), device=META)
    with _Peak(found.model) as counted, META:
        loss = task_loss(network(torch.zeros(train.batch_size, *shape, device=META)), labels, task)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    # From the second step on, the optimizer's state is in memory all the time.
    training: int = counted.peak + sum(value.nbytes for state in optimizer.state.values() for value in state.values())
    network.eval()
    with torch.no_grad(), _Peak(found.model) as counted:
        network(torch.zeros(EVALUATION_BATCH, *shape, device=META))
    return replace(found, training=training, scoring=counted.peak)


def estimate_storage(model: ModelConfig, task: Task, image: ImageKind, network: Classifier | None = None) -> Footprint:
    """Return the size of a model in bytes and the number of its features; training and scoring are 0, as they take seconds."""
    network = network or _shapes(model, task, image)
    held = sum(tensor.nbytes for tensor in network.state_dict().values())
    return Footprint(model=held, training=0, scoring=0, features=network.head.in_features)


def _shapes(model: ModelConfig, task: Task, image: ImageKind) -> Classifier:
    with META:
        return build_model(replace(model, pretrained=False), task, image, seed=0)


def head_bytes(shape: HeadShape) -> int:
    """Return the size of a head over series in bytes."""
    with META:
        head = SeriesHead(shape)
    return sum(tensor.nbytes for tensor in head.state_dict().values())
