"""The training loss and the probabilities it implies, for multi-label and multi-class tasks."""

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from fl_rsna.settings.training import LabelWeights, Loss, TrainConfig
from fl_rsna.task import LabelKind, Task

Objective = Callable[..., torch.Tensor]  # logits and labels [B, L], and perhaps `counts` [B, L] -> a loss


def objective(task: Task, config: TrainConfig, prior: Sequence[float] = ()) -> Objective:
    """The loss that the settings ask for; `prior` is each label's share of positive slices over all sites."""
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
    """Mean loss of logits and labels [B, L]: weighted BCE, or cross-entropy with class weights. Labels may be soft.

    Multi-label: sum_l w_l * BCE_l / sum_l w_l, the RSNA 2019 metric's form (`any` counts twice). Classes: the rows are
    distributions, and a row counts as much as its classes do. `weights` [L] stand in for the task's.

    `counts` [B, L] is how much each label of each slice counts, 0 where it is unknown: each label's mean is over the
    slices that know it, the labels' over those that any slice knows, and where nothing is known there is no gradient.

    With `gamma` it is the focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 4): cross-entropy times (1 - p)^gamma, p the
    probability of what is true. It is no proper score: its best probabilities are nearer to 1/2 than the truth, so
    calibration suffers, and temperatures mend only part of that.
    """
    weight = torch.tensor(task.label_weights if weights is None else weights, device=logits.device)
    match task.kind:
        case LabelKind.multi_label:
            losses = _binary_losses(logits.float(), labels, gamma)
            if counts is None:
                return (losses.mean(0) * weight).sum() / weight.sum()
            known = (counts > 0).sum(0)
            by_label, weight = (losses * counts).sum(0) / known.clamp(min=1), weight * (known > 0)
            return (by_label * weight).sum() / weight.sum().clamp(min=1e-12)
        case LabelKind.multi_class:
            losses = _class_losses(logits.float(), labels, gamma)
            of_rows = losses if counts is None else losses * counts
            return (of_rows * weight).sum() / (labels * weight).sum()


def _binary_losses(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    if gamma == 0:
        return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    positive = -F.logsigmoid(logits) * torch.sigmoid(-logits) ** gamma
    negative = -F.logsigmoid(-logits) * torch.sigmoid(logits) ** gamma
    return labels * positive + (1 - labels) * negative


def _class_losses(logits: torch.Tensor, labels: torch.Tensor, gamma: float) -> torch.Tensor:
    logs = logits.log_softmax(1)
    return -labels * logs if gamma == 0 else -labels * logs * (1 - logs.exp()) ** gamma


def rare_label_weights(task: Task, prior: Sequence[float]) -> tuple[float, ...]:
    """The task's label weights times 1/sqrt(share of positive slices), with the sum of the task's.

    The root tempers it: of shares 1% and 10%, the rarer label counts 3.2 times as much. All slices of a label count alike,
    positive or not, so the loss of each label is still cross-entropy and its probabilities are as honest as before. Classes
    have one softmax, which leans to what counts more; learning/models/classifier.py leads it back.
    """
    assert len(prior) == len(task.labels)
    rare = [weight / share**0.5 for weight, share in zip(task.label_weights, prior, strict=True)]
    return tuple(weight * sum(task.label_weights) / sum(rare) for weight in rare)
