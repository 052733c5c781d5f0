"""Keep probabilities away from exactly 0 and 1, to which float32 rounds extreme ones, so that their logits are finite.

All code that takes a logarithm of a probability, or divides by one, uses these functions.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

CLIP = 1e-7  # how far probabilities are kept from 0 and 1: about the last step of a float32 below 1


def clip_probabilities(probabilities: NDArray[np.floating], by: float = CLIP) -> Floats:
    """Return the probabilities in float64, at least `by` away from 0 and from 1."""
    inside: Floats = np.clip(probabilities.astype(np.float64), by, 1 - by)
    return inside


def finite_logits(probabilities: NDArray[np.floating], temperature: float | Floats = 1.0) -> Floats:
    """Compute logits divided by a temperature, or by one a column; they are finite for every probability and temperature above 0."""
    inside = clip_probabilities(probabilities)
    odds: Floats = np.log(inside / (1 - inside)) / temperature
    return odds
