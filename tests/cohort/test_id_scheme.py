"""Sets whose ids were made alike are told from others, and a salt is told by none of it."""

import hashlib

import pandas as pd
import pytest

from fl_rsna.cohort.id_scheme import PLAIN, UNSALTED, alike, as_texts, id_scheme, is_secret, unlike_places, why_unlike

ALL = [id_scheme(True, "one"), id_scheme(True, "two"), UNSALTED, PLAIN]


def test_every_way_of_making_ids_has_a_name_of_its_own() -> None:
    assert len(set(ALL)) == 4
    assert id_scheme(True, "one") == ALL[0]
    assert (id_scheme(True, ""), id_scheme(False, "one"), id_scheme(False, "")) == (UNSALTED, PLAIN, PLAIN)
    assert [is_secret(ids) for ids in (*ALL, None)] == [True, True, False, False, False]


def test_no_fast_hash_of_the_salt_is_in_its_fingerprint() -> None:
    salt = "a secret"
    digits = id_scheme(True, salt).rpartition("/")[2]
    assert salt not in id_scheme(True, salt)
    assert digits not in {
        hashlib.new(name, salt.encode()).hexdigest()[:16] for name in ("md5", "sha1", "sha256", "sha512")
    }
    assert len(digits) == 16


@pytest.mark.parametrize("one", [*ALL, None])
@pytest.mark.parametrize("other", [*ALL, None])
def test_only_ids_that_were_made_alike_can_be_compared(one: str | None, other: str | None) -> None:
    assert (why_unlike(one, other) is None) == (one == other is not None)
    assert why_unlike(one, other) == why_unlike(other, one)
    assert (unlike_places([("a", one), ("b", other)]) is None) == (one == other is not None)


def test_ids_are_texts_whatever_read_them() -> None:
    assert list(as_texts(pd.Series(["007", "7.0", "NA"]))) == ["007", "7.0", "NA"]
    assert list(as_texts(pd.Series([7, 8]))) == ["7", "8"]
    assert list(as_texts(pd.Series([7.0, 8.5]))) == ["7", "8.5"]


def test_near_ids_are_told_from_equal_and_from_other_ones() -> None:
    known = pd.Series(["007", "Ab 1", "x"])
    assert list(alike(pd.Series(["007", "7", " 007", "ab1", "AB 1", "70", "y"]), known)) == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]
