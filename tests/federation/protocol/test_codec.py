"""What coding keeps of a vector, how few bytes it takes, and that error feedback loses nothing for good."""

import numpy as np
import pytest
from flwr.app import ArrayRecord

from fl_rsna.federation.protocol.codec import CHUNK, EXACT, EXACT_AT, decode, encode, pack, stretches
from fl_rsna.settings.federation import Precision

VALUES = np.random.default_rng(0).normal(0, 1e-3, 2 * CHUNK + 77).astype(np.float32)


def trip(values: np.ndarray, precision: Precision) -> np.ndarray:  # type: ignore[type-arg]
    return decode(ArrayRecord(encode(values, precision)))


def test_float32_keeps_every_bit() -> None:
    assert trip(VALUES, Precision.fp32).tobytes() == VALUES.tobytes()


@pytest.mark.parametrize(("precision", "relative"), [(Precision.fp16, 2.0**-11), (Precision.bf16, 2.0**-8)])
def test_two_byte_floats_round_within_half_a_unit(precision: Precision, relative: float) -> None:
    values = VALUES[np.abs(VALUES) > 1e-4]  # above float16's subnormal numbers
    assert np.abs(trip(values, precision) / values - 1).max() <= relative


def test_int8_rounds_within_half_a_step_of_its_chunk() -> None:
    found = trip(VALUES, Precision.int8)
    for start in range(0, VALUES.size, CHUNK):
        chunk = VALUES[start : start + CHUNK]
        assert np.abs(found[start : start + CHUNK] - chunk).max() <= np.abs(chunk).max() / 254 * 1.001


@pytest.mark.parametrize("precision", list(Precision))
def test_nothing_stays_nothing_and_bad_values_stay_bad(precision: Precision) -> None:
    assert not trip(np.zeros(5, np.float32), precision).any()
    assert not np.isfinite(trip(np.array([1, np.nan, 2], np.float32), precision)).all()
    assert trip(np.zeros(0, np.float32), precision).size == 0


def test_bytes_a_value() -> None:
    values = np.zeros(100 * CHUNK, np.float32)
    used = {
        name: sum(array.numpy().nbytes for array in encode(values, name).values()) / values.size for name in Precision
    }
    assert used == pytest.approx({"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}, abs=0.01)


def test_error_feedback_delivers_what_rounding_lost() -> None:
    """The sum of what arrives follows the sum of what was meant within one step, however many rounds."""
    lost, arrived = np.zeros_like(VALUES), np.zeros_like(VALUES, np.float64)
    for _ in range(50):
        coded = trip(VALUES + lost, Precision.int8)
        lost = VALUES + lost - coded
        arrived += coded
    step = np.abs(VALUES).max() * 1.2 / 127
    assert np.abs(arrived - 50 * VALUES.astype(np.float64)).max() <= step


@pytest.mark.parametrize("precision", list(Precision))
def test_exact_values_keep_every_bit_and_coarsen_no_other(precision: Precision) -> None:
    """A variance of 341 among small ones would else set the step of its chunk, and make small ones negative."""
    exact = np.zeros(VALUES.size, bool)
    exact[[0, 7, 8, 9, CHUNK - 1, CHUNK, VALUES.size - 1]] = True
    values = np.where(exact, np.float32(341.43854), VALUES)
    found = decode(ArrayRecord(encode(values, precision, exact)))
    assert found[exact].tobytes() == values[exact].tobytes()
    assert found[~exact].tobytes() == trip(np.where(exact, np.float32(0), values), precision)[~exact].tobytes()


def test_stretches_are_where_runs_begin_and_end() -> None:
    assert stretches(np.array([1, 1, 0, 0, 1, 0, 1], bool)).tolist() == [0, 2, 4, 5, 6, 7]
    assert stretches(np.zeros(3, bool)).size == 0


@pytest.mark.parametrize("edges", [[0, 2], [0, 4], [3, 6], [-1, 2], [2, 2, 0, 3], [0, 3, 5], [2, 0, 0, 5]])
def test_exact_values_that_do_not_fit_are_refused(edges: list[int]) -> None:
    arrays = encode(np.zeros(5, np.float32), Precision.fp16)
    arrays |= {EXACT: pack(np.ones(3, np.float32)), EXACT_AT: pack(np.array(edges, np.int64))}
    with pytest.raises(ValueError, match="exact values"):
        decode(arrays)
