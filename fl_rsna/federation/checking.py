"""Whether what a site sent may enter the mean."""

import hashlib
from dataclasses import dataclass

import numpy as np
from flwr.app import ArrayRecord, Message
from numpy.typing import NDArray

from fl_rsna.federation.folding import PART, Sent
from fl_rsna.federation.messages import ARRAYS, SECOND, from_arrays
from fl_rsna.federation.wire import FLOATS, unpack
from fl_rsna.learning.flat import FlatModel


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a reply is held against: the model that was sent and its norm."""

    model: FlatModel
    norm: float
    max_update: float
    second_size: int


def read_sent(arrays: ArrayRecord, model: FlatModel) -> Sent:
    """The site's model, as sent in float32 or the sent one plus its change in less, and the vector beside it.

    Raises KeyError, TypeError or ValueError when they cannot be read.
    """
    found = from_arrays(arrays)
    if arrays[FLOATS].dtype != "float32" and found.floats.shape == model.floats.shape:
        found = FlatModel(model.floats + found.floats, found.integers)
    return Sent(model=found, second=unpack(arrays[SECOND]) if SECOND in arrays else None)


def update_sha256(reply: Message | None) -> str:
    """Hash of all a site sent of what it trained, as it travelled; empty where it sent nothing."""
    digest = hashlib.sha256()
    arrays = reply.content.get(ARRAYS) if reply is not None and reply.has_content() else None
    if not isinstance(arrays, ArrayRecord):
        return ""
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(arrays[name].data)
    return digest.hexdigest()


def fault_of(sent: Sent, metrics: dict[str, float], expected: Expected) -> str:
    """Why an update must not enter the mean; empty when it may."""
    floats, model, second_size = sent.model.floats, expected.model, expected.second_size
    if floats.shape != model.floats.shape or sent.model.integers.shape != model.integers.shape:
        return f"expected an update of {model.floats.size} values, got {floats.size}"
    if (0 if sent.second is None else sent.second.size) != second_size:
        return f"expected {second_size} values beside the update, got {0 if sent.second is None else sent.second.size}"
    moved = distance(floats, model.floats)
    suspects = (None if np.isfinite(moved) else floats, sent.second, np.array(list(metrics.values())))
    if any(values is not None and not np.isfinite(values).all() for values in suspects):
        return "the update holds values that are not finite"
    if metrics.get("num-examples", 0) <= 0:
        return f"expected a number of training images above 0, got {metrics.get('num-examples', 'none')}"
    times = moved / max(expected.norm, 1.0)
    if times > expected.max_update:
        return f"the update exploded: it moves the model by {times:.3g} times its norm, strategy.max_update is {expected.max_update:g}"
    return ""


def distance(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> float:
    """Euclidean distance of two vectors; infinite or not a number when a value is, or when it is too large for a float32."""
    square, change = 0.0, np.empty(PART, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for start in range(0, ours.size, PART):
            part = np.subtract(
                ours[start : start + PART], theirs[start : start + PART], out=change[: ours.size - start]
            )
            square += float(np.dot(part, part))
    return float(np.sqrt(square))
