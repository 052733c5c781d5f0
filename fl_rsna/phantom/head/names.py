"""Names of synthetic things: hexadecimal digits that never collide, never sort, and are the same for the same seed."""

import numpy as np

from fl_rsna.phantom.head.render import Purpose


def scramble_number(seed: int, number: int, *, bits: int, kind: int) -> str:
    """`number` as bits / 4 hexadecimal digits: one-to-one over all numbers below 2^bits, another order for each `kind`."""
    keys = np.random.default_rng([seed, Purpose.names, bits, kind]).integers(0, 1 << bits, size=(3, 2))
    value = number
    for factor, offset in keys.tolist():
        value = (value * (factor | 1) + offset) % (1 << bits)
        value ^= value >> (bits // 2)
    return f"{value:0{bits // 4}x}"
