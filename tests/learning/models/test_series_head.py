"""A head over series: begins as the slice model, looks along whole series, and never into padding or another series."""

import numpy as np
import pytest
import torch
from torch import nn

from fl_rsna.learning.data.series import PLACES
from fl_rsna.learning.inference.series_objective import Seen, collate, score_series
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.models.series_head import HeadShape, SeriesBatch, SeriesHead, build_head
from fl_rsna.settings.stages import HeadName, SequenceConfig

CPU = torch.device("cpu")
FEATURES, LABELS = 12, 6
HEADS = pytest.mark.parametrize("head", list(HeadName))


def made(
    head: HeadName, *, trained: bool = True, width: int = 16, features: int = FEATURES, layers: int = 2
) -> SeriesHead:
    """A head whose last layer says something, as after training."""
    shape = HeadShape(head=head, width=width, layers=layers, dropout=0.1, features=features, labels=LABELS)
    found = build_head(shape, seed=3)
    if trained:
        nn.init.normal_(found.out.weight, generator=torch.Generator().manual_seed(1))
    return found.eval()


def series(length: int, seed: int = 0) -> Seen:
    draw = np.random.default_rng(seed)
    widths = FEATURES, LABELS, PLACES
    features, logits, places = (draw.normal(0, 1, (length, width)).astype(np.float32) for width in widths)
    return features.astype(np.float16), logits, places


def scored(head: SeriesHead, *given: Seen) -> list[np.ndarray]:
    return list(score_series(head, given, CPU))


@HEADS
def test_it_begins_as_the_slice_model(head: HeadName) -> None:
    given = series(5)
    np.testing.assert_array_equal(scored(made(head, trained=False), given)[0], given[1])


@HEADS
def test_what_else_is_in_the_batch_and_how_far_it_is_filled_up_changes_nothing(head: HeadName) -> None:
    model, given = made(head), [series(length, length) for length in (3, 1, 17, 8)]
    alone = [scored(model, one)[0] for one in given]
    together = scored(model, *given)
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    batch = collate(given[:1], CPU)
    rubbish = [
        torch.cat([part, torch.full((1, 4, part.shape[2]), 99.0)], dim=1)
        for part in (batch.features, batch.logits, batch.places)
    ]
    with torch.inference_mode():
        padded = model(SeriesBatch(*rubbish, batch.lengths))[0, :3].numpy()
    np.testing.assert_allclose(alone[0], padded, atol=1e-5)


@pytest.mark.parametrize("head", [HeadName.gru, HeadName.transformer])  # a convolution looks at neighbours alone
def test_the_whole_series_is_looked_at_both_ways(head: HeadName) -> None:
    model, given = made(head), series(9)
    before = scored(model, given)[0]
    for changed in (0, 8):
        features = given[0].copy()
        features[changed] += 1
        moved = np.abs(scored(model, (features, *given[1:]))[0] - before).max(1)
        assert (moved > 1e-6).all()


@HEADS
@pytest.mark.parametrize("length", [1, 700])
def test_series_of_any_length_are_read(head: HeadName, length: int) -> None:
    (found,) = scored(made(head), series(length))
    assert found.shape == (length, LABELS)
    assert np.isfinite(found).all()


@HEADS
def test_nothing_of_a_sites_data_is_kept_but_weights(head: HeadName) -> None:
    model = made(head)
    assert dict(model.named_buffers()) == {}
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


@HEADS
def test_features_and_logits_are_of_the_slices_that_are_there(head: HeadName) -> None:
    model, batch = made(head), collate([series(2), series(5)], CPU)
    logits, features = model.with_features(batch)
    assert (logits.shape, features.shape) == ((7, LABELS), (7, 16))
    torch.testing.assert_close(logits, model(batch)[batch.mask])
    torch.testing.assert_close(features, model.features(batch))


@HEADS
def test_the_default_moves_less_than_6_mb_a_round(head: HeadName) -> None:
    """On the default encoder's 1280 features: down twice and up once, in float32."""
    plain = SequenceConfig()
    model = made(head, width=plain.width, layers=plain.layers, features=1280)
    assert 3 * 4 * flatten(model).floats.size < 6e6


def test_the_same_seed_gives_the_same_head_and_leaves_torch_alone() -> None:
    before = torch.random.get_rng_state()
    one, other = (flatten(made(HeadName.gru, trained=False)).floats for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)
