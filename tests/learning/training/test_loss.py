import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import CHEST

from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.models.classifier import probabilities
from fl_rsna.learning.training.loss import objective, rare_label_weights, task_loss
from fl_rsna.learning.training.targets import build_targets
from fl_rsna.settings.training import LabelWeights, Loss, TrainConfig
from fl_rsna.task import ICH, LabelKind, Task


@pytest.mark.parametrize("task", [ICH, CHEST])
def test_loss_equals_the_metric_of_its_probabilities(task: Task) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(9, len(task.labels), generator=generator)
    labels = torch.eye(len(task.labels))[torch.arange(9) % len(task.labels)]
    found = probabilities(logits, task)
    assert task_loss(logits, labels, task).item() == pytest.approx(
        log_loss(labels.numpy(), found.numpy(), task), rel=1e-5
    )


def test_any_counts_twice() -> None:
    labels = torch.zeros(1, 6)
    wrong_any, wrong_subtype = torch.full((1, 6), -9.0), torch.full((1, 6), -9.0)
    wrong_any[0, 0], wrong_subtype[0, 3] = 9.0, 9.0
    assert task_loss(wrong_any, labels, ICH).item() == pytest.approx(
        2 * task_loss(wrong_subtype, labels, ICH).item(), rel=1e-3
    )


LOGITS = torch.randn(5, 6, generator=torch.Generator().manual_seed(1))
SOFT = torch.rand(5, 6, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("task", [ICH, CHEST])
def test_the_loss_of_a_soft_label_is_the_mean_over_hard_ones(task: Task, gamma: float) -> None:
    """Of a batch whose labels are drawn with the soft ones' probabilities; with gamma 0 it is torch's own."""
    logits, soft = LOGITS[:, : len(task.labels)], SOFT[:, : len(task.labels)]
    if task.kind is LabelKind.multi_class:
        soft = soft / soft.sum(1, keepdim=True)
        hard = [torch.eye(4)[torch.full((5,), label)] for label in range(4)]
        mean = sum(
            task_loss(logits[i : i + 1], hard[label][:1], task, gamma=gamma) * soft[i, label] / 5
            for i in range(5)
            for label in range(4)
        )
        torch.testing.assert_close(task_loss(logits, soft, task), F.cross_entropy(logits, soft))
    else:
        ones = torch.ones(5, 6)
        both = [
            task_loss(logits, hard, task, counts=counts, gamma=gamma)
            for hard, counts in ((ones, soft), (0 * ones, 1 - soft))
        ]
        mean = both[0] + both[1]
    torch.testing.assert_close(task_loss(logits, soft, task, gamma=gamma), mean)


def test_focal_loss_is_cross_entropy_that_forgets_what_is_nearly_right() -> None:
    labels = (SOFT > 0.5).float()
    right = torch.where(labels > 0, LOGITS, -LOGITS).sigmoid()  # the probability of what is true
    by_label = (-((1 - right) ** 1.5) * right.log()).mean(0)
    weights = torch.tensor(ICH.label_weights)
    torch.testing.assert_close(task_loss(LOGITS, labels, ICH, gamma=1.5), (by_label * weights).sum() / weights.sum())
    torch.testing.assert_close(task_loss(LOGITS, labels, ICH, gamma=1e-9), task_loss(LOGITS, labels, ICH))


def test_an_unknown_label_has_no_gradient_and_the_others_their_own() -> None:
    labels = (SOFT > 0.5).numpy().astype("f4")
    labels[:, 1], labels[:2, 3] = np.nan, np.nan
    targets = build_targets(labels).of(np.arange(5), torch.device("cpu"))
    logits = LOGITS.clone().requires_grad_()
    loss = task_loss(logits, targets.labels, ICH, counts=targets.weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert torch.equal(logits.grad == 0, torch.from_numpy(np.isnan(labels)))
    knowing = {0: slice(5), 2: slice(5), 3: slice(2, 5), 4: slice(5), 5: slice(5)}
    truth = torch.from_numpy(labels)
    means = [F.binary_cross_entropy_with_logits(LOGITS[rows, i], truth[rows, i]) for i, rows in knowing.items()]
    torch.testing.assert_close(loss, (2 * means[0] + sum(means[1:])) / 6)


def test_where_nothing_is_known_there_is_no_gradient_at_all() -> None:
    logits = LOGITS.clone().requires_grad_()
    loss = task_loss(logits, torch.zeros(5, 6), ICH, counts=torch.zeros(5, 6))
    loss.backward()  # type: ignore[no-untyped-call]
    assert (loss.item(), logits.grad.abs().sum().item()) == (0, 0)  # type: ignore[union-attr]


def test_all_known_is_what_says_nothing() -> None:
    labels = (SOFT > 0.5).float()
    assert build_targets(labels.numpy()).weights is None
    torch.testing.assert_close(task_loss(LOGITS, labels, ICH, counts=torch.ones(5, 6)), task_loss(LOGITS, labels, ICH))


def test_rare_labels_weigh_more_within_the_same_total() -> None:
    weights = rare_label_weights(ICH, (0.16, 0.01, 0.04, 0.04, 0.04, 0.04))
    assert sum(weights) == pytest.approx(sum(ICH.label_weights))
    assert weights[1] / weights[2] == pytest.approx(2)
    assert weights[0] / weights[2] == pytest.approx(2 * 0.5)  # any counts twice, and is four times as frequent
    config = TrainConfig(label_weights=LabelWeights.prevalence, loss=Loss.focal, focal_gamma=1.0)
    found = objective(ICH, config, (0.16, 0.01, 0.04, 0.04, 0.04, 0.04))(LOGITS, SOFT)
    torch.testing.assert_close(found, task_loss(LOGITS, SOFT, ICH, weights=weights, gamma=1.0))
    assert objective(ICH, TrainConfig())(LOGITS, SOFT) == task_loss(LOGITS, SOFT, ICH)


def test_class_probabilities_sum_to_one() -> None:
    torch.testing.assert_close(probabilities(torch.randn(5, 4), CHEST).sum(1), torch.ones(5))
