import pytest
import torch
from tiny import CHEST

from fl_rsna.learning.loss import probabilities, task_loss
from fl_rsna.learning.metrics import log_loss
from fl_rsna.task import ICH, Task


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


def test_class_probabilities_sum_to_one() -> None:
    torch.testing.assert_close(probabilities(torch.randn(5, 4), CHEST).sum(1), torch.ones(5))
