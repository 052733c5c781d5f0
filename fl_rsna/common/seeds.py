"""Derive independent seeds from one seed, so that nothing uses a global random state."""

import hashlib


def derive_seed(seed: int, purpose: str, *parts: str | int) -> int:
    """Derive a 63-bit seed for one use, e.g. ("train", site, round). It differs whenever any argument differs."""
    text = "\0".join(map(str, (seed, purpose, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
