"""How trees travel: XGBoost's JSON, which Flower's strategies merge, deflated; one array a label."""

import zlib
from collections.abc import Iterable, Mapping

import numpy as np
from flwr.app import ArrayRecord

from fl_rsna.federation.wire import pack, unpack
from fl_rsna.learning.trees import Forest, from_json, to_json

MOST_BYTES = 256 << 20  # of one label's JSON: what inflates to more is none of ours


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
    return {label: from_json(_inflated(unpack(arrays[key_of(label)]).tobytes()), features) for label in labels}


def key_of(label: str) -> str:
    return f"trees/{label}"


def _inflated(packed: bytes) -> bytes:
    reader = zlib.decompressobj()
    try:
        found = reader.decompress(packed, MOST_BYTES)
    except zlib.error:
        raise ValueError("expected deflated trees, got other bytes") from None
    if not reader.eof:
        raise ValueError(f"expected trees of at most {MOST_BYTES} bytes, got more or only a part")
    return found
