"""The training loss and the probabilities it implies, for multi-label and multi-class tasks."""

import torch
import torch.nn.functional as F

from fl_rsna.task import LabelKind, Task


def task_loss(
    logits: torch.Tensor, labels: torch.Tensor, task: Task, *, counts: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean loss of logits and labels [B, L]: weighted BCE, or cross-entropy with class weights.

    Multi-label: sum_l w_l * BCE_l / sum_l w_l, the RSNA 2019 metric's form (`any` counts twice). `counts` [B, L] is how much
    each label of each slice counts.
    """
    weights = torch.tensor(task.label_weights, device=logits.device)
    match task.kind:
        case LabelKind.multi_label:
            losses = F.binary_cross_entropy_with_logits(logits.float(), labels, reduction="none")
            by_label = (losses if counts is None else losses * counts).mean(0)
            return (by_label * weights).sum() / weights.sum()
        case LabelKind.multi_class:
            return F.cross_entropy(logits.float(), labels.argmax(1), weight=weights)


def probabilities(logits: torch.Tensor, task: Task) -> torch.Tensor:
    """Logits [B, L] -> probabilities [B, L]; rows sum to 1 in a multi-class task."""
    match task.kind:
        case LabelKind.multi_label:
            return logits.float().sigmoid()
        case LabelKind.multi_class:
            return logits.float().softmax(1)
