"""Train and predict at one site, with every random number drawn from one given seed.

A process that trains uses one CPU thread and deterministic CUDA algorithms, and keeps memory between steps. Learning rates can differ
by layer: earlier layers have learned more general features, so they get lower rates (discriminative fine-tuning, Howard and Ruder 2018,
arXiv:1801.06146, section 3.2).
"""

import functools
import gc
import itertools
import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fl_rsna.common.process import keep_freed_memory
from fl_rsna.learning.data.dataset import SiteData, count_batches, gather, train_batches
from fl_rsna.learning.models.backbone import stages_below_head
from fl_rsna.learning.models.classifier import Classifier, norm_layers, set_training
from fl_rsna.learning.models.tta import mean_probabilities
from fl_rsna.learning.training.local_rule import PLAIN, LocalRule, list_trainable_parameters
from fl_rsna.learning.training.objectives import SliceObjective
from fl_rsna.settings.model import Norm
from fl_rsna.settings.training import Device, Optimizer, Schedule, TrainConfig
from fl_rsna.task import Task

Groups = list[nn.Parameter] | list[dict[str, Any]]
EVALUATION_BATCH = 64  # slices in a batch where no gradient is taken
OnBatch = Callable[[int, int], None]  # (batches done, batches in all)


@functools.cache
def settle_process() -> None:
    """Set this process, once, to one compute thread and cuDNN's deterministic algorithms, and let it keep freed memory.

    One thread adds numbers in the same order in every engine; sites run in parallel instead. The garbage collector passes over what is
    loaded by now.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    keep_freed_memory()
    gc.freeze()


def layer_rates(model: nn.Module, trained: list[nn.Parameter], rate: float, decay: float) -> Groups:
    """Return an optimizer's parameters: `trained` as they are, or groups by stage, each with `decay` times the rate above it.

    The last layer has `rate`. A learned window, below the first stage, has the lowest rate. Only the steps change: gradients, and
    what a strategy adds to them, keep their order and size.
    """
    if decay == 1:
        return trained
    assert isinstance(model, Classifier)
    below = {f"backbone.{name}": stage for name, stage in stages_below_head(model.backbone).items()}
    lowest = 1 + max(below.values())
    stage_of = {id(value): below.get(name, lowest) for name, value in model.named_parameters()}
    stages = sorted({stage_of[id(parameter)] for parameter in trained})
    return [
        {"params": [value for value in trained if stage_of[id(value)] == stage], "lr": rate * decay**stage}
        for stage in stages
    ]


def ignore_progress(done: int, batches: int) -> None:
    """Ignore the progress of training."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalResult:
    """The counts of one site's training in a round; `loss` is the mean over its steps, None without steps."""

    examples: int
    steps: int
    loss: float | None
    seconds: float


def choose_device(device: Device) -> torch.device:
    """Return the device of a setting; raises ValueError when CUDA is asked for and absent."""
    if device is Device.cuda and not torch.cuda.is_available():
        raise ValueError("train.device: expected a CUDA device, found none; set train.device=auto or cpu")
    use_cuda = device is Device.cuda or (device is Device.auto and torch.cuda.is_available())
    return torch.device("cuda" if use_cuda else "cpu")


def compute_learning_rate(config: TrainConfig, round_: int, rounds: int) -> float:
    """Return the sites' learning rate in round `round_`, 1 to `rounds`."""
    return config.learning_rate * schedule_factor(config.schedule, round_, rounds)


def schedule_factor(schedule: Schedule, round_: int, rounds: int) -> float:
    """Return the factor of the learning rate in round 1 to `rounds`: 1, or one cosine cycle from 1 to nearly 0.

    The cosine schedule is by Loshchilov and Hutter 2017 (arXiv:1608.03983), here over rounds.
    """
    match schedule:
        case Schedule.constant:
            return 1.0
        case Schedule.cosine:
            return (1 + math.cos(math.pi * (round_ - 1) / rounds)) / 2


def train_locally(
    model: nn.Module,
    objective: SliceObjective,
    *,
    norm: Norm,
    config: TrainConfig,
    learning_rate: float,
    seed: int,
    device: torch.device,
    rule: LocalRule = PLAIN,
    on_batch: OnBatch = ignore_progress,
) -> LocalResult:
    """Train `model` in place on a site's objective with a new optimizer, for epochs or an exact number of steps.

    Every random number follows from `seed`: order, augmentation and dropout. `rule` is what the strategy adds; `on_batch` is
    called after every batch. Raises ValueError when the site has no training slice.
    """
    if objective.slices == 0:
        raise ValueError(f"expected training slices at site {objective.site}, got none; partition again")
    order, draws = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    start_training(model, norm, config, device)
    trained = list_trainable_parameters(model)
    optimizer = make_optimizer(layer_rates(model, trained, learning_rate, config.layer_decay), config, learning_rate)
    losses: list[torch.Tensor] = []
    batches = config.local_steps or config.local_epochs * count_batches(objective.examples, config.batch_size)
    passes: Iterable[int] = range(config.local_epochs) if config.local_steps is None else itertools.count()
    epochs = (train_batches(objective.draw(order), config.batch_size, order) for _ in passes)
    start = time.perf_counter()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        for batch in itertools.islice(itertools.chain.from_iterable(epochs), config.local_steps):
            loss = objective.loss(model, batch, draws, rule)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if rule.correct is not None:
                rule.correct(trained)
            if config.clip_norm is not None:
                nn.utils.clip_grad_norm_(trained, config.clip_norm)
            optimizer.step()
            losses.append(loss.detach())
            on_batch(len(losses), batches)
    mean = float(torch.stack(losses).double().mean())
    return LocalResult(examples=objective.slices, steps=len(losses), loss=mean, seconds=time.perf_counter() - start)


def start_training(model: nn.Module, norm: Norm, config: TrainConfig, device: torch.device) -> None:
    """Move the model to the device and set its training mode and trainable parameters."""
    set_training(model.to(device), norm, config.trainable)


def make_optimizer(parameters: Groups, config: TrainConfig, rate: float) -> torch.optim.Optimizer:
    """Make a new optimizer of the settings' kind for `parameters`, with the learning rate `rate` where a group has none."""
    match config.optimizer:
        case Optimizer.adamw:
            return torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
        case Optimizer.sgd:
            return torch.optim.SGD(parameters, lr=rate, momentum=config.momentum, weight_decay=config.weight_decay)


@torch.no_grad()
def estimate_norm(
    model: Classifier,
    data: SiteData,
    *,
    batch_size: int,
    device: torch.device,
    rows: NDArray[np.intp] | None = None,
) -> LocalResult:
    """Replace BatchNorm's running statistics, in place, by their mean over `rows` (None: the training part).

    No weight changes and no label is used: adaptive batch normalisation (Li et al. 2016, arXiv:1603.04779). Slices are
    shuffled, as neighbours in a series are alike and a batch of them has too little variance.
    """
    start = time.perf_counter()
    rows = np.random.default_rng(0).permutation(data.rows("train") if rows is None else rows)
    model.to(device).eval()
    layers = norm_layers(model)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.train()
        layer.reset_running_stats()
        layer.momentum = None  # a plain mean over batches
    for batch in np.array_split(rows, count_batches(len(rows), batch_size)):
        model(gather(data.images, batch, device))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return LocalResult(examples=len(rows), steps=0, loss=None, seconds=time.perf_counter() - start)


@torch.inference_mode()
def predict(
    model: Classifier, data: SiteData, rows: NDArray[np.intp], *, task: Task, batch_size: int, device: torch.device
) -> NDArray[np.float32]:
    """Predict probabilities [len(rows), L] of the given slices, in evaluation mode and full precision.

    Raises FloatingPointError when they are not finite, as those of a model that diverged.
    """
    model.to(device).eval()
    parts = [
        mean_probabilities(model, gather(data.images, rows[start : start + batch_size], device), task).cpu().numpy()
        for start in range(0, len(rows), batch_size)
    ]
    found = np.concatenate(parts) if parts else np.zeros((0, len(task.labels)), np.float32)
    if not np.isfinite(found).all():
        raise FloatingPointError(
            f"the model's predictions at {data.name} are not finite: it diverged; lower train.learning_rate"
        )
    return found
