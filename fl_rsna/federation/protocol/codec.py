"""Encode a vector in few bytes: float32 as it is, two-byte floats, or one byte a value with error feedback.

What a site sends in less than float32 is its change of the model, which is small and centred; the server adds it to the
model that was sent. float16 has 11 significant bits up to 65,504, bfloat16 8 bits over float32's range.

BatchNorm's running statistics stay in float32 (`exact`), one value in a hundred: variances span five powers of ten, and one that
rounding makes negative ends the model.

Boosted trees travel as XGBoost's JSON, which Flower's strategies merge, deflated; one array a label.
"""

import io
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from numpy.lib import format as npy
from numpy.typing import NDArray

from fl_rsna.learning.models.trees import Forest, from_json, to_json
from fl_rsna.settings.federation import Precision

Vector = NDArray[np.float32]

FLOATS, SCALES = "floats", "scales"
EXACT, EXACT_AT = (
    "exact",
    "exact_at",
)  # values that are not rounded, and the stretches they fill: start, stop, start, stop, ...
CHUNK = 1024  # values that share a scale in int8
MOST_BYTES = 256 << 20  # of one label's JSON: what inflates to more is none of ours


def pack(values: NDArray[Any]) -> Array:
    """Flower's array of a vector, byte for byte as `Array(values)`, with one copy fewer."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(values))
    content = np.ascontiguousarray(values).data.cast("B") if values.size else b""
    return Array(str(values.dtype), tuple(values.shape), "numpy.ndarray", b"".join((header.getvalue(), content)))


def unpack(array: Array) -> NDArray[Any]:
    """The vector inside Flower's array, not to be written to: it is the array's own memory.

    Raises ValueError when the bytes are none.
    """
    header = io.BytesIO(array.data)
    if array.stype != "numpy.ndarray" or npy.read_magic(header) != (1, 0):
        raise ValueError(f"expected an array as numpy 1.0 writes it, got {array.stype}")
    shape, _, dtype = npy.read_array_header_1_0(header)
    if dtype.kind not in "fi" or len(shape) != 1:
        raise ValueError(f"expected a vector of numbers, got shape {shape} of {dtype}")
    return np.frombuffer(array.data, dtype, shape[0], header.tell())


def encode(values: Vector, precision: Precision, exact: NDArray[np.bool_] | None = None) -> dict[str, Array]:
    """The arrays that stand for `values` [N]; `decode` gives back what they hold of them, and all of those at `exact` [N]."""
    if exact is None or not exact.any() or precision is Precision.fp32:
        return _round_values(values, precision)
    rest = np.where(exact, np.float32(0), values)
    return {**_round_values(rest, precision), EXACT: pack(values[exact]), EXACT_AT: pack(stretches(exact))}


def stretches(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where runs of True begin and end in `mask`: start, stop, start, stop, ..."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return np.flatnonzero(edges).astype(np.int64)


def _round_values(values: Vector, precision: Precision) -> dict[str, Array]:
    match precision:
        case Precision.fp32:
            return {FLOATS: pack(values)}
        case Precision.fp16:
            return {FLOATS: pack(values.astype(np.float16))}
        case Precision.bf16:
            rounded = torch.tensor(values).to(torch.bfloat16).view(torch.int16)
            return {FLOATS: pack(rounded.numpy())}
        case Precision.int8:
            chunks = _chunks(values)
            scales = np.abs(chunks).max(1).astype(np.float32) / np.float32(127)
            divisors = np.where(scales > 0, scales, np.float32(1))[:, None]
            codes = np.nan_to_num(np.rint(chunks / divisors)).astype(np.int8).reshape(-1)[: values.size]
            return {FLOATS: pack(codes), SCALES: pack(scales)}


def decode(arrays: ArrayRecord | dict[str, Array]) -> Vector:
    """float32 [N] of what `encode` made. Raises ValueError when the exact values do not fit the others."""
    values = _from_rounded(arrays)
    if EXACT not in arrays:
        return values
    exact, edges = unpack(arrays[EXACT]), unpack(arrays[EXACT_AT])
    starts, stops = edges[::2], edges[1::2]
    inside = edges.dtype == np.int64 and edges.size % 2 == 0 and (np.diff(edges, prepend=-1) > 0).all()
    if not inside or edges.max(initial=0) > values.size or (stops - starts).sum() != exact.size:
        raise ValueError(f"expected {exact.size} exact values at places among {values.size}, got others")
    whole, taken = values.copy(), 0
    for start, stop in zip(starts, stops, strict=True):
        whole[start:stop] = exact[taken : taken + stop - start]
        taken += stop - start
    return whole


def _from_rounded(arrays: ArrayRecord | dict[str, Array]) -> Vector:
    coded = unpack(arrays[FLOATS])
    match coded.dtype:
        case np.float32:
            return np.asarray(coded, np.float32)
        case np.int16:
            return torch.from_numpy(coded.copy()).view(torch.bfloat16).float().numpy()
        case np.int8:
            scaled: Vector = _chunks(coded.astype(np.float32)) * unpack(arrays[SCALES])[:, None]
            return scaled.reshape(-1)[: coded.size]
        case _:
            return coded.astype(np.float32)


def _chunks(values: NDArray[np.generic]) -> NDArray[np.float32]:
    """Rows of CHUNK values, the last filled up with zeros."""
    rows = -(-values.size // CHUNK)
    padded = np.zeros(rows * CHUNK, np.float32)
    padded[: values.size] = values
    return padded.reshape(rows, CHUNK)


def pack_trees(forests: Mapping[str, Forest], features: int, priors: Mapping[str, float]) -> ArrayRecord:
    """An array a label, `trees/<label>`."""
    return ArrayRecord(
        {
            key_of(label): pack(np.frombuffer(zlib.compress(to_json(forest, features, priors[label]), 6), np.int8))
            for label, forest in forests.items()
        }
    )


def unpack_trees(arrays: ArrayRecord, labels: Iterable[str], features: int) -> dict[str, Forest]:
    """Raises KeyError for a label without trees, ValueError for what are none."""
    return {label: from_json(_inflate_trees(unpack(arrays[key_of(label)]).tobytes()), features) for label in labels}


def key_of(label: str) -> str:
    return f"trees/{label}"


def _inflate_trees(packed: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(packed, MOST_BYTES)
    except zlib.error:
        raise ValueError("expected deflated trees, got other bytes") from None
    if not reader.eof:
        raise ValueError(f"expected trees of at most {MOST_BYTES} bytes, got more or only a part")
    return found
