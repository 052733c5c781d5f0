"""A model survives as two vectors, bit by bit, and its hash sees every bit."""

import numpy as np
import pytest
import torch
from torch import nn

from fl_rsna.learning.models.flat import (
    FlatModel,
    flatten,
    layout_sha256,
    model_sha256,
    parameter_positions,
    positions,
    unflatten,
)


def small() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))


def test_flatten_and_unflatten_are_inverse() -> None:
    one, two = small(), small()
    one[1].num_batches_tracked += 7
    flat = flatten(one)
    assert (flat.floats.dtype, flat.integers.tolist()) == (np.float32, [7])
    unflatten(flat, two)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name])
        assert value.dtype == two.state_dict()[name].dtype


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match="expected a model of 28 values, got 3"):
        unflatten(FlatModel(np.zeros(3, np.float32), np.zeros(1, np.int64)), small())


def test_hashes_see_every_bit_and_every_shape() -> None:
    model = small()
    flat, layout = flatten(model), layout_sha256(model)
    nudged = FlatModel(flat.floats.copy(), flat.integers)
    nudged.floats[-1] = np.nextafter(nudged.floats[-1], np.float32(9))
    assert model_sha256(flat, layout) != model_sha256(nudged, layout)
    assert model_sha256(flat, layout) != model_sha256(flat, layout_sha256(nn.Conv2d(1, 2, 3)))
    assert layout == layout_sha256(small())


def test_positions_say_where_values_lie() -> None:
    model = small()
    flat = flatten(model)
    assert flat.floats[positions(model, ["0.bias"])].tolist() == model[0].bias.tolist()
    statistics = ~parameter_positions(model)
    assert flat.floats[statistics].tolist() == [0, 0, 1, 1]  # running mean and variance of two channels
    assert statistics.sum() + sum(value.numel() for value in model.parameters()) == flat.floats.size
