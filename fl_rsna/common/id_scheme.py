"""How a set's ids were made: as in the files, or hashed under a salt that a fingerprint tells apart and does not tell.

Two sets whose ids were made alike can be compared, patient by patient. Of any other two nobody knows what they share.
"""

import functools
import hashlib
import re
from collections.abc import Iterable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PLAIN = "plain"  # PatientID as in the files
HASHED = "sha256-16"  # as cohort.prepared.index.hash_id makes them
UNSALTED = f"{HASHED}/unsalted"  # hashed under the empty salt, which everybody knows
WEAK = f"{HASHED}/weak/"  # hashed under a salt that its fingerprint, which follows, gives away
SALT_BYTES = 16  # of a salt that cannot be guessed
DIGITS = re.compile(rf"[0-9a-fA-F]{{{2 * SALT_BYTES},}}")  # as python -m fl_rsna.salt and openssl rand -hex print it
DIFFERENT = 8  # characters of random ones, at least: of 32 random digits fewer than one in a million has so few
PUBLIC = b"fl_rsna: fingerprint of data.salt, 1"  # what is hashed under the salt
COST = {"n": 2**14, "r": 8, "p": 1}  # of scrypt: 16 MB and some 50 ms a guess


@functools.lru_cache(maxsize=8)
def id_scheme(hash_ids: bool, salt: str) -> str:
    """The name of how ids are made: equal for sets that can be compared.

    Of a salt it has sixteen hexadecimal digits of scrypt over a public text. Each guess of a salt costs 16 MB and 50 ms;
    a short word is guessed all the same, so the name says where a salt is not random.
    """
    if not hash_ids:
        return PLAIN
    if not salt:
        return UNSALTED
    fingerprint = hashlib.scrypt(PUBLIC, salt=salt.encode(), dklen=8, **COST).hex()
    return f"{WEAK}{fingerprint}" if can_be_guessed(salt) else f"{HASHED}/{fingerprint}"


def can_be_guessed(salt: str) -> bool:
    """Whether a salt is not 128 random bits in hexadecimal digits, by its looks: words of any length are guessed in the end."""
    return not DIGITS.fullmatch(salt) or salt in (salt + salt)[1:-1] or len(set(salt.lower())) < DIFFERENT


def is_weak(scheme: str | None) -> bool:
    """Whether ids were hashed under a salt that can be guessed from its fingerprint."""
    return scheme is not None and scheme.startswith(WEAK)


def is_secret(scheme: str | None) -> bool:
    """Whether ids were hashed under a random salt, so that whoever lacks it cannot guess an id from its hash."""
    return scheme is not None and scheme.startswith(f"{HASHED}/") and scheme != UNSALTED and not is_weak(scheme)


def why_unlike(one: str | None, other: str | None) -> str | None:
    """Why ids of two schemes cannot be compared, as part of a sentence; None where they can."""
    if one is None or other is None:
        return "it is not written down how ids were made"
    if one == other:
        return None
    if PLAIN in (one, other):
        return "ids are hashed in one and as in the files in the other"
    return "ids were hashed under another data.salt"


def describe_scheme(scheme: str | None) -> str:
    """A scheme in words."""
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
    """Of places and how ids were made there: whose cannot be compared, as part of a sentence; None where all can."""
    by_scheme: dict[str | None, list[str]] = {}
    for name, ids in places:
        by_scheme.setdefault(ids, []).append(name)
    if len(by_scheme) == 1 and None not in by_scheme:
        return None
    said = "; ".join(f"{describe_scheme(ids)} at {', '.join(names)}" for ids, names in by_scheme.items())
    return f"unknown whether a patient is at two of these places, whose ids were made in different ways: {said}"


def as_texts(ids: pd.Series) -> pd.Series:
    """Ids as texts, whatever read them: of a whole number that became a float the .0 goes."""
    texts = ids.astype(str)
    return texts.str.removesuffix(".0") if ids.dtype.kind == "f" else texts


def alike(ids: pd.Series, others: pd.Series) -> NDArray[np.bool_]:
    """Which `ids` are one of `others` but for case, blanks and leading zeros: perhaps the same patient, perhaps not."""
    known = set(_plainest(others))
    return np.array(_plainest(ids).isin(known) & ~ids.isin(set(others)))


def _plainest(ids: pd.Series) -> pd.Series:
    return ids.str.replace(r"\s+", "", regex=True).str.casefold().str.lstrip("0")
