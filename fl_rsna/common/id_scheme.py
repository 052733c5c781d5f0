"""Name how the ids of a set were made: as in the files, or hashed under a salt.

A salt is named by a fingerprint, which tells two salts apart and does not give them away. Two sets whose ids were made in the same way
can be compared patient by patient. For any other two nobody knows which patients they share.
"""

import functools
import hashlib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # loaded, pandas would keep the --help of salt and own_site waiting
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

PLAIN = "plain"  # ids as in the files
HASHED = "sha256-16"  # as cohort.prepared.index.hash_id makes them
UNSALTED = f"{HASHED}/unsalted"  # hashed under the empty salt, which everybody knows
WEAK = f"{HASHED}/weak/"  # hashed under a salt that can be guessed from its fingerprint, which follows
SALT_BYTES = 16  # of a salt that cannot be guessed
DIGITS = re.compile(rf"[0-9a-fA-F]{{{2 * SALT_BYTES},}}")  # as python -m fl_rsna.salt and openssl rand -hex print it
DIFFERENT = 8  # smallest number of different digits of a salt; fewer than one in a million of 32 random digits has less
PUBLIC = b"fl_rsna: fingerprint of data.salt, 1"  # the text that is hashed under the salt
COST = {"n": 2**14, "r": 8, "p": 1}  # parameters of scrypt: a guess costs 16 MB and about 50 ms


@functools.lru_cache(maxsize=8)
def id_scheme(hash_ids: bool, salt: str) -> str:
    """Name how ids are made. Sets with equal names can be compared.

    The fingerprint of a salt is sixteen hexadecimal digits of scrypt over a public text. Each guess of a salt costs 16 MB and about
    50 ms. A short word is guessed all the same, so the name says where a salt is not random.
    """
    if not hash_ids:
        return PLAIN
    if not salt:
        return UNSALTED
    fingerprint = hashlib.scrypt(PUBLIC, salt=salt.encode(), dklen=8, **COST).hex()
    return f"{WEAK}{fingerprint}" if can_be_guessed(salt) else f"{HASHED}/{fingerprint}"


def can_be_guessed(salt: str) -> bool:
    """Say whether a salt does not look like 128 random bits in hexadecimal digits. Words of any length can be guessed."""
    return not DIGITS.fullmatch(salt) or salt in (salt + salt)[1:-1] or len(set(salt.lower())) < DIFFERENT


def is_weak(scheme: str | None) -> bool:
    """Say whether ids were hashed under a salt that can be guessed from its fingerprint."""
    return scheme is not None and scheme.startswith(WEAK)


def is_secret(scheme: str | None) -> bool:
    """Say whether ids were hashed under a random salt. Nobody without that salt can guess an id from its hash."""
    return scheme is not None and scheme.startswith(f"{HASHED}/") and scheme != UNSALTED and not is_weak(scheme)


def why_unlike(one: str | None, other: str | None) -> str | None:
    """Say, as part of a sentence, why ids of two schemes cannot be compared; None where they can."""
    if one is None or other is None:
        return "it is not written down how ids were made"
    if one == other:
        return None
    if PLAIN in (one, other):
        return "ids are hashed in one and as in the files in the other"
    return "ids were hashed under another data.salt"


def describe_scheme(scheme: str | None) -> str:
    """Describe a scheme in words; a salt by the first eight digits of its fingerprint."""
    match scheme:
        case None:
            return "not written down"
        case "plain":
            return "as in the files"
        case "sha256-16/unsalted":
            return "hashed without a salt"
        case _:
            return f"hashed under salt {scheme.rpartition('/')[2][:8]}"


def unlike_places(places: Iterable[tuple[str, str | None]]) -> str | None:
    """Say, as part of a sentence, which of several places have ids that cannot be compared; None where all can.

    `places` has the name and the scheme of each place.
    """
    by_scheme: dict[str | None, list[str]] = {}
    for name, ids in places:
        by_scheme.setdefault(ids, []).append(name)
    if len(by_scheme) == 1 and None not in by_scheme:
        return None
    said = "; ".join(f"{describe_scheme(ids)} at {', '.join(names)}" for ids, names in by_scheme.items())
    return f"unknown whether a patient is at two of these places, whose ids were made in different ways: {said}"


def as_texts(ids: "pd.Series") -> "pd.Series":
    """Convert ids to texts. Where a reader made floats of whole numbers, the .0 is removed."""
    texts = ids.astype(str)
    return texts.str.removesuffix(".0") if ids.dtype.kind == "f" else texts


def alike(ids: "pd.Series", others: "pd.Series") -> "NDArray[np.bool_]":
    """Find the `ids` that differ from one of `others` only in case, blanks or leading zeros. They may be of the same patient.

    Returns [len(ids)] booleans; ids that are equal to one of `others` are False.
    """
    known = set(_plainest(others))
    found = _plainest(ids).isin(known) & ~ids.isin(set(others))
    return found.to_numpy()


def _plainest(ids: "pd.Series") -> "pd.Series":
    return ids.str.replace(r"\s+", "", regex=True).str.casefold().str.lstrip("0")
