"""The training loss of multi-label and multi-class tasks."""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from fl_rsna.settings.training import LabelWeights, Loss, TrainConfig
from fl_rsna.task import LabelKind, Task

Objective = Callable[..., torch.Tensor]  # (logits [B, L], labels [B, L], counts=[B, L] or None) -> loss


def objective(task: Task, config: TrainConfig, prior: Sequence[float] = ()) -> Objective:
    """Return the loss function of the settings; `prior` is each label's share of positive slices over all sites."""
    weights = None if config.label_weights is LabelWeights.task else rare_label_weights(task, prior)
    gamma = config.focal_gamma if config.loss is Loss.focal else 0.0
    return functools.partial(task_loss, task=task, weights=weights, gamma=gamma)


def task_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    task: Task,
    *,
    counts: torch.Tensor | None = None,
    weights: Sequence[float] | None = None,
    gamma: float = 0.0,
) -> torch.Tensor:
    """Compute the mean loss of logits and labels [B, L]: weighted BCE, or cross-entropy with class weights. Labels may be soft.

    Multi-label: sum_l w_l * BCE_l / sum_l w_l, the form of the RSNA 2019 metric (`any` counts twice). Classes: each row of
    labels is a distribution, and a row's weight is the mean weight of its classes. `weights` [L] replace the task's.

    `counts` [B, L] is the weight of each label of each slice, 0 where it is unknown. Each label's mean is over the slices
    whose label is known, and the mean over labels is over labels that are known for some slice. Where nothing is known
    there is no gradient.

    With `gamma` > 0 it is the focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 4): cross-entropy times (1 - p)^gamma, where p
    is the probability of the true value. It is not a proper score: the probabilities that minimise it are nearer to 1/2 than
    the truth, so calibration suffers, and temperature scaling corrects only part of that.
    """
    weight = torch.tensor(task.label_weights if weights is None else weights, device=logits.device)
    match task.kind:
        case LabelKind.multi_label:
            z = logits.float()
            if gamma == 0:
                losses = F.binary_cross_entropy_with_logits(z, labels, reduction="none")
            else:
                positive = -F.logsigmoid(z) * torch.sigmoid(-z) ** gamma
                negative = -F.logsigmoid(-z) * torch.sigmoid(z) ** gamma
                losses = labels * positive + (1 - labels) * negative
            if counts is None:
                return (losses.mean(0) * weight).sum() / weight.sum()
            known = (counts > 0).sum(0)
            by_label, weight = (losses * counts).sum(0) / known.clamp(min=1), weight * (known > 0)
            return (by_label * weight).sum() / weight.sum().clamp(min=1e-12)
        case LabelKind.multi_class:
            logs = logits.float().log_softmax(1)
            losses = -labels * logs if gamma == 0 else -labels * logs * (1 - logs.exp()) ** gamma
            of_rows = losses if counts is None else losses * counts
            return (of_rows * weight).sum() / (labels * weight).sum()


def rare_label_weights(task: Task, prior: Sequence[float]) -> tuple[float, ...]:
    """Return the task's label weights times 1/sqrt(share of positive slices), scaled to the sum of the task's weights.

    The root limits the differences: of two labels with shares 1% and 10%, the rarer counts 3.2 times as much. All slices of a
    label count equally, positive or not, so each label's loss is still cross-entropy and its probabilities stay calibrated.
    Classes share one softmax, which is biased to classes of large weight; learning/models/classifier.py corrects that.
    """
    assert len(prior) == len(task.labels)
    rare = [weight / share**0.5 for weight, share in zip(task.label_weights, prior, strict=True)]
    return tuple(weight * sum(task.label_weights) / sum(rare) for weight in rare)
