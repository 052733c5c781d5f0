"""Mixed batches are what two batches would be, one on top of the other."""

import torch

from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.objectives import build_mixup, mix_batch
from fl_rsna.learning.training.targets import Targets
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import ICH

IMAGES = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 2, 3, 3)
LABELS = torch.eye(6)[:4]


def test_off_is_the_batch_itself_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before, targets = generator.get_state(), Targets(labels=LABELS)
    images, found = build_mixup(TrainConfig())(IMAGES, targets, generator)
    assert images is IMAGES
    assert found is targets
    assert torch.equal(generator.get_state(), before)


def test_images_and_labels_are_mixed_alike_in_about_the_asked_share_of_batches() -> None:
    mix, generator, changed = build_mixup(TrainConfig(mixup=0.3, mixup_share=0.4)), torch.Generator().manual_seed(0), 0
    for _ in range(200):
        images, targets = mix(IMAGES, Targets(labels=LABELS), generator)
        torch.testing.assert_close(images[:, 0, 0, 0], targets.labels @ torch.arange(6.0))  # image i holds i
        torch.testing.assert_close(targets.labels.sum(1), torch.ones(4))
        changed += not torch.equal(images, IMAGES)
    assert 50 < changed < 90


def test_the_loss_of_a_mixed_label_is_the_mixed_loss_where_both_know_it() -> None:
    logits, order = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)), torch.tensor([1, 0, 3, 2])
    counts = torch.tensor([[1.0], [0.5], [2.0], [4.0]]).expand(4, 6)
    _, soft = mix_batch(IMAGES, Targets(labels=LABELS, weights=counts), order, 0.3)
    own, other = (
        task_loss(logits, labels, ICH, counts=weights)
        for labels, weights in ((LABELS, counts), (LABELS[order], counts[order]))
    )
    found = task_loss(logits, soft.labels, ICH, counts=soft.weights)
    torch.testing.assert_close(found, 0.3 * own + 0.7 * other)


def test_what_only_one_of_two_knows_is_learned_from_that_one() -> None:
    counts = torch.ones(4, 6)
    counts[0, 2] = counts[2, 3] = counts[3, 3] = 0
    _, soft = mix_batch(IMAGES, Targets(labels=LABELS, weights=counts), torch.tensor([1, 0, 3, 2]), 0.3)
    assert soft.weights is not None
    assert (soft.labels[0, 2], soft.weights[0, 2]) == (LABELS[1, 2], 0.7)
    assert soft.weights[2, 3] == soft.labels[2, 3] == 0
    assert soft.labels.isfinite().all()
