"""Keep probabilities away from 0 and 1, to which float32 rounds extreme ones, so that their logits are finite.

All code that takes the logarithm of a probability, or divides by one, clips it here.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLIP = 1e-7  # distance that probabilities keep from 0 and 1, about the last step of a float32 below 1


def clip_probabilities(probabilities: NDArray[np.floating], by: float = CLIP) -> Floats:
    """Clip probabilities to `by` and 1 - `by`, in float64."""
    inside: Floats = np.clip(probabilities.astype(np.float64), by, 1 - by)
    return inside


def finite_logits(probabilities: NDArray[np.floating], temperature: float | Floats = 1.0) -> Floats:
    """Convert probabilities to logits divided by a temperature above 0, one or one for each column; the result is always finite."""
    inside = clip_probabilities(probabilities)
    odds: Floats = np.log(inside / (1 - inside)) / temperature
    return odds
