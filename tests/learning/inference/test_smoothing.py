"""Smoothing is a mean over neighbours of the same series, in anatomical order; its width is chosen from sums that add."""

import numpy as np
import pytest

from fl_rsna.learning.inference.blending import SIGMAS, choose_sigmas, loss_sums, smooth_series, sum_by_sigma
from fl_rsna.learning.metrics.metrics import CLIP


def heads(series: int = 30, slices: int = 24, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Labels [N, 2] in runs along each series, noisy logits of them, series and rank, in no order."""
    rng = np.random.default_rng(seed)
    rank = np.tile(np.arange(slices), series)
    name = np.repeat([f"s{i}" for i in range(series)], slices)
    first = np.repeat(rng.integers(0, slices - 8, series), slices)
    truth = ((rank >= first) & (rank < first + 8)).astype(np.float32)
    logits = (4 * truth - 2)[:, None] + rng.normal(0, [3.0, 0.1], (len(truth), 2))
    order = rng.permutation(len(truth))
    return np.stack([truth, truth], 1)[order], logits[order], name[order], rank[order]


def test_width_zero_changes_nothing() -> None:
    _, logits, series, rank = heads()
    assert np.array_equal(smooth_series(logits, series, rank, np.zeros(2)), logits)
    assert smooth_series(logits[:0], series[:0], rank[:0], np.ones(2)).shape == (0, 2)


def test_the_kernel_is_that_of_a_gaussian_renormalised_at_the_ends() -> None:
    logits = np.array([[0.0], [8.0], [0.0], [0.0]])
    found = smooth_series(logits, np.array(["a"] * 4), np.arange(4), np.array([1.0]))[:, 0]
    k = np.exp(-0.5 * np.arange(4) ** 2)
    assert found == pytest.approx(
        [
            8 * k[1] / (k[0] + k[1] + k[2] + k[3]),
            8 * k[0] / (k[1] + k[0] + k[1] + k[2]),
            8 * k[1] / (k[2] + k[1] + k[0] + k[1]),
            8 * k[2] / (k[3] + k[2] + k[1] + k[0]),
        ]
    )


def test_a_constant_series_stays_and_no_series_reaches_into_another() -> None:
    _, logits, series, rank = heads()
    value = np.array([float(name[1:]) for name in series])[:, None] * np.ones((1, 2))
    assert smooth_series(value, series, rank, np.array([4.0, 1.0])) == pytest.approx(value)
    one = series == "s3"
    alone = smooth_series(logits[one], series[one], rank[one], np.array([2.0, 0.0]))
    assert smooth_series(logits, series, rank, np.array([2.0, 0.0]))[one] == pytest.approx(alone)


def test_neighbours_are_those_in_anatomical_order_and_each_label_has_its_own_width() -> None:
    _, logits, series, rank = heads()
    order = np.lexsort((rank, series))
    widths = np.array([1.5, 0.0])
    found = smooth_series(logits, series, rank, widths)
    assert found[order] == pytest.approx(smooth_series(logits[order], series[order], rank[order], widths))
    assert np.array_equal(found[:, 1], logits[:, 1])
    assert found[:, 0] == pytest.approx(smooth_series(logits[:, :1], series, rank, np.array([1.5]))[:, 0])


def test_sums_of_sites_add_and_choose_what_the_pool_would() -> None:
    labels, logits, series, rank = heads()
    whole = sum_by_sigma(labels, logits, series, rank)
    here = np.isin(series, ["s1", "s2", "s7"])
    parts = [sum_by_sigma(labels[at], logits[at], series[at], rank[at]) for at in (here, ~here)]
    assert whole.shape == (2, len(SIGMAS))
    assert sum(parts) == pytest.approx(whole)
    assert np.array_equal(choose_sigmas(sum(parts)), choose_sigmas(whole))  # type: ignore[arg-type]


def test_noise_asks_for_width_and_what_is_sure_for_none() -> None:
    labels, logits, series, rank = heads()
    noisy, sure = choose_sigmas(sum_by_sigma(labels, logits, series, rank))
    assert noisy >= 1
    assert sure == 0


def test_unknown_labels_count_nothing() -> None:
    labels, logits, series, rank = heads()
    some = labels.copy()
    some[::2, 0] = np.nan
    some[:, 1] = np.nan
    sums = sum_by_sigma(some, logits, series, rank)
    assert sums[0, 0] == pytest.approx(loss_sums(labels[1::2], logits[1::2])[0])
    assert (sums[1] == 0).all()
    assert choose_sigmas(sums)[1] == 0


def test_a_wrong_certainty_costs_as_much_as_in_the_log_loss() -> None:
    assert loss_sums(np.ones((1, 1)), np.array([[-60.0]])) == pytest.approx(-np.log(CLIP))
