"""Encode a vector in few bytes: as float32, as two-byte floats, or as one byte a value.

Below float32 a site sends its change of the model, which is small and centred on 0; the server adds it to the model that it sent.
float16 has 11 significant bits up to 65,504, bfloat16 8 bits over float32's range.

BatchNorm's running statistics, one value in a hundred, stay in float32 (`exact`): variances span five powers of ten, and a variance that
rounding makes negative makes the model useless.

Boosted trees are sent as XGBoost's JSON, which Flower's strategies merge, deflated, as one array for each label.
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
)  # the values that are not rounded, and their ranges: start, stop, start, stop, ...
CHUNK = 1024  # values that share a scale in int8
MOST_BYTES = 256 << 20  # of one label's JSON; more is refused


def pack(values: NDArray[Any]) -> Array:
    """Make Flower's array of a vector, byte for byte as `Array(values)` does, with one copy fewer."""
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(values))
    content = np.ascontiguousarray(values).data.cast("B") if values.size else b""
    return Array(str(values.dtype), tuple(values.shape), "numpy.ndarray", b"".join((header.getvalue(), content)))


def unpack(array: Array) -> NDArray[Any]:
    """Return the vector [N] inside Flower's array without a copy, so it must not be written to.

    Raises ValueError when the bytes are not a vector of numbers as numpy writes it.
    """
    header = io.BytesIO(array.data)
    if array.stype != "numpy.ndarray" or npy.read_magic(header) != (1, 0):
        raise ValueError(f"expected an array as numpy 1.0 writes it, got {array.stype}")
    shape, _, dtype = npy.read_array_header_1_0(header)
    if dtype.kind not in "fi" or len(shape) != 1:
        raise ValueError(f"expected a vector of numbers, got shape {shape} of {dtype}")
    return np.frombuffer(array.data, dtype, shape[0], header.tell())


def encode(values: Vector, precision: Precision, exact: NDArray[np.bool_] | None = None) -> dict[str, Array]:
    """Encode `values` [N] in `precision`, and those at `exact` [N] in float32; `decode` reads the arrays."""
    if exact is None or not exact.any() or precision is Precision.fp32:
        return _round_values(values, precision)
    rest = np.where(exact, np.float32(0), values)
    return {**_round_values(rest, precision), EXACT: pack(values[exact]), EXACT_AT: pack(stretches(exact))}


def stretches(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Find where runs of True begin and end in `mask` [N]: start, stop, start, stop, ..."""
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
    """Decode the arrays that `encode` made to float32 [N]. Raises ValueError when the exact values do not fit the others."""
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
    """Arrange values [N] in rows of CHUNK, the last one padded with zeros."""
    rows = -(-values.size // CHUNK)
    padded = np.zeros(rows * CHUNK, np.float32)
    padded[: values.size] = values
    return padded.reshape(rows, CHUNK)


def pack_trees(forests: Mapping[str, Forest], features: int, priors: Mapping[str, float]) -> ArrayRecord:
    """Encode trees over `features` features as one array for each label, `trees/<label>`."""
    return ArrayRecord(
        {
            key_of(label): pack(np.frombuffer(zlib.compress(to_json(forest, features, priors[label]), 6), np.int8))
            for label, forest in forests.items()
        }
    )


def unpack_trees(arrays: ArrayRecord, labels: Iterable[str], features: int) -> dict[str, Forest]:
    """Decode the trees of `labels`; raises KeyError for a label without trees, ValueError for bytes that are no trees."""
    return {label: from_json(_inflate_trees(unpack(arrays[key_of(label)]).tobytes()), features) for label in labels}


def key_of(label: str) -> str:
    """Return the name of a label's array of trees."""
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
