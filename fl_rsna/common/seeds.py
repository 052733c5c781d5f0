"""One seed in, independent generators out: no room touches a global random state."""

import hashlib


def derive_seed(seed: int, purpose: str, *parts: str | int) -> int:
    """A 63-bit seed for one use, e.g. ("train", site, round); differs whenever any argument does."""
    text = "\0".join(map(str, (seed, purpose, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
