"""What a pass holds is what was asked for, and what it distorts is put right: exactly, on tables one can count."""

import itertools

import numpy as np
import pytest
import torch
from tiny import CHEST

from fl_rsna.learning.models.classifier import PriorCorrection, build_model, probabilities
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.sampling import compute_drawn_shares, compute_kept_share, plan_draws, rarity
from fl_rsna.learning.training.targets import build_targets
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import RunModel
from fl_rsna.settings.training import Correction, Sampling, TrainConfig
from fl_rsna.task import ICH

PRIOR = (0.2, 0.01, 0.05, 0.04, 0.06, 0.08)


def site(found: list[str | None]) -> np.ndarray:  # type: ignore[type-arg]
    """Labels [N, 6] of slices with one finding or none."""
    rows = [[label in (name, "any") and name is not None for label in ICH.labels] for name in found]
    return np.array(rows, np.float32)


def drawn(sampling: Sampling, labels: np.ndarray, kept: float = 1.0, correction: Correction = Correction.prior):  # type: ignore[no-untyped-def, type-arg]
    config = TrainConfig(sampling=sampling, correction=correction)
    return plan_draws(config, np.arange(len(labels)), labels, ICH, kept=kept, prior=PRIOR)


def test_all_is_every_row_and_draws_nothing() -> None:
    rng = np.random.default_rng(0)
    found = drawn(Sampling.all, site(["subdural", None, None]))
    np.testing.assert_array_equal(found.draw(rng), [0, 1, 2])
    assert rng.bit_generator.state == np.random.default_rng(0).bit_generator.state


def test_under_keeps_every_positive_and_draws_a_share_of_the_others_anew() -> None:
    labels, rng = site(["subdural", None, "epidural", *[None] * 20]), np.random.default_rng(0)
    found = drawn(Sampling.under, labels, kept=0.25)
    passes = [found.draw(rng).tolist() for _ in range(40)]
    assert found.examples == 2 + 5  # of 21 others
    assert all(len(set(rows)) == len(rows) == 7 and {0, 2} <= set(rows) for rows in passes)
    assert set(itertools.chain(*passes)) == set(range(23))
    assert found.odds is None


def test_a_site_that_does_not_tell_has_the_same_expected_loss_from_all_its_slices() -> None:
    """Two of four negatives are drawn: every pair is as likely, and the mean over pairs is what weights give at once."""
    labels, logits = (
        site(["subdural", None, None, None, None]),
        torch.randn(5, 6, generator=torch.Generator().manual_seed(0)),
    )
    hidden = plan_draws(
        TrainConfig(sampling=Sampling.under), np.arange(5), labels, ICH, kept=0.5, prior=PRIOR, tells=False
    )
    pairs = [[0, *pair] for pair in itertools.combinations(range(1, 5), 2)]
    expected = np.mean([float(task_loss(logits[pair], torch.from_numpy(labels[pair]), ICH)) for pair in pairs])
    targets = build_targets(labels, hidden.odds).of(np.arange(5), torch.device("cpu"))
    assert float(task_loss(logits, targets.labels, ICH, counts=targets.weights)) == pytest.approx(expected, rel=1e-5)
    assert hidden.examples == 5  # whatever their labels
    others = plan_draws(
        TrainConfig(sampling=Sampling.under), np.arange(5), site([None] * 5), ICH, kept=0.5, prior=PRIOR, tells=False
    )
    assert (others.examples, others.slices) == (hidden.examples, hidden.slices) == (5, 3)


def test_a_site_without_positives_still_has_something_to_learn_from() -> None:
    assert drawn(Sampling.under, site([None] * 3), kept=0.01).examples == 2
    assert drawn(Sampling.under, site([None]), kept=0.01).examples == 1
    assert drawn(Sampling.under, site(["subdural"]), kept=0.01).examples == 1


def test_how_many_negatives_are_kept() -> None:
    assert compute_kept_share(10, 110, 2.0) == 0.2
    assert compute_kept_share(10, 15, 2.0) == 1  # too few to choose from
    assert compute_kept_share(10, 10, 1.0) == 1


def test_prior_correction_is_bayes_rule_on_a_table() -> None:
    """Three kinds of images, whose slices have one of four label rows: every probability counted, before and after a draw."""
    rows = site([None, "epidural", "subdural"]).astype(np.float64)
    rows = np.vstack([rows, np.maximum(rows[1], rows[2])])
    counts = np.array([[900.0, 30, 50, 20], [100.0, 60, 20, 20], [500.0, 1, 1, 8]])  # images x label rows
    kept = 0.1
    left = counts * np.where(rows[:, 0] > 0, 1, kept)
    true, sampled = (table @ rows / table.sum(1, keepdims=True) for table in (counts, left))
    known = true[0] > 0  # labels that occur
    logits = torch.logit(torch.from_numpy(np.clip(sampled, 1e-9, None)))
    found = PriorCorrection(0, kept)(logits).double().sigmoid().numpy()
    np.testing.assert_allclose(found[:, known], true[:, known], rtol=1e-5)
    p, r = sampled[:, 0], kept
    np.testing.assert_allclose(found[:, 0], p * r / (p * r + 1 - p), rtol=1e-5)
    assert np.abs(sampled - true).max() > 0.3  # there was something to correct


def test_the_shares_among_what_is_drawn() -> None:
    counts, kept = np.array([800.0, 10, 50, 40, 40, 60]), 0.25
    shares = np.array([0.2, *counts[1:] / 1000])
    left = np.array([200, *counts[1:]]) / (200 + 800 * kept)
    np.testing.assert_allclose(compute_drawn_shares(shares, ICH, kept), left)
    assert compute_drawn_shares(shares, ICH, 1.0) is shares
    logits = [np.log(some / (1 - some))[0] for some in (compute_drawn_shares(shares, ICH, kept), shares)]
    assert logits[0] - logits[1] == pytest.approx(
        -np.log(kept)
    )  # the same at every site: their priors keep their relation


def test_a_model_predicts_corrected_and_learns_what_is_drawn() -> None:
    images = 1024 + 60 * torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    plain, corrected = (
        build_model(RunModel(image_size=32, kept_negatives=kept), ICH, ImageKind.hu, seed=0).eval()
        for kept in (1.0, 0.2)
    )
    assert list(plain.state_dict()) == list(corrected.state_dict())
    with torch.inference_mode():
        learned = plain(images)
        assert torch.equal(corrected.raw_logits(images), learned)
        assert torch.equal(corrected.with_features(images)[0], learned)
        torch.testing.assert_close(corrected(images)[:, 0], learned[:, 0] + np.log(0.2))
        assert (corrected(images) < learned).all()


def test_a_correction_is_finite_where_logits_are_extreme() -> None:
    for sign in (-200.0, 200.0):
        assert PriorCorrection(0, 1e-4)(torch.full((1, 6), sign)).isfinite().all()


def test_rarity_is_that_of_a_slices_rarest_label() -> None:
    labels = site(["subdural", "epidural", None])
    labels = np.vstack([labels, labels[:2].max(0), np.full(6, np.nan)]).astype(np.float32)
    found = rarity(labels, ICH, PRIOR)
    np.testing.assert_allclose(found, 1 / np.sqrt([0.08, 0.01, 0.8, 0.01, 0.8]))
    np.testing.assert_allclose(
        rarity(np.eye(4, dtype=np.float32), CHEST, (0.1, 0.2, 0.3, 0.4)), [0.1, 0.2, 0.3, 0.4] ** np.float64(-0.5)
    )


@pytest.mark.parametrize("task", [ICH, CHEST])
def test_the_expected_loss_of_a_weighted_draw_is_the_full_datas(task) -> None:  # type: ignore[no-untyped-def]
    """By every draw of 3 of 3 slices, each with its probability."""
    labels = site(["subdural", None, "epidural"]) if task is ICH else np.eye(4, dtype=np.float32)[:3]
    prior = PRIOR if task is ICH else (0.7, 0.1, 0.1, 0.1)
    config, rows = TrainConfig(sampling=Sampling.weighted), np.arange(3)
    found = plan_draws(config, rows, labels, task, kept=1.0, prior=prior)
    assert found.odds is not None
    chance = found.odds / 3
    np.testing.assert_allclose(chance.sum(), 1, rtol=1e-6)
    known = build_targets(labels, found.odds)
    logits = torch.randn(3, len(task.labels), generator=torch.Generator().manual_seed(0))
    expected = 0.0
    for draw in itertools.product(range(3), repeat=3):
        targets = known.of(np.array(draw), torch.device("cpu"))
        loss = task_loss(logits[list(draw)], targets.labels, task, counts=targets.weights)
        expected += float(loss) * float(np.prod(chance[list(draw)]))
    assert expected == pytest.approx(float(task_loss(logits, torch.from_numpy(labels), task)), rel=1e-5)
    plain = plan_draws(
        TrainConfig(sampling=Sampling.weighted, correction=Correction.none), rows, labels, task, kept=1.0, prior=prior
    )
    assert plain.odds is None


def test_a_weighted_draw_holds_rare_labels_as_often_as_it_says() -> None:
    labels, rng = site(["epidural", *[None] * 9]), np.random.default_rng(0)
    found = drawn(Sampling.weighted, labels)
    share = np.mean([np.mean(found.draw(rng) == 0) for _ in range(2000)])
    assert share == pytest.approx(float(found.odds[0]) / 10, abs=0.01)
    assert found.odds[0] > 3  # without weights it would be 1
    assert found.examples == 10


def test_probabilities_of_classes_are_left_alone() -> None:
    assert probabilities(torch.zeros(1, 4), CHEST).sum().item() == pytest.approx(1)
