"""Sets whose ids were made alike are told from others, and a salt is told by none of it."""

import hashlib

import numpy as np
import pandas as pd
import pytest

from fl_rsna.common.id_scheme import (
    PLAIN,
    UNSALTED,
    alike,
    as_texts,
    can_be_guessed,
    id_scheme,
    is_secret,
    is_weak,
    unlike_places,
    why_unlike,
)

ONE, TWO = "5637ebbab8769328365851fd92e225db", "0c1f62d8e94b7a35f1d20946be87c3a5"
ALL = [id_scheme(True, ONE), id_scheme(True, TWO), UNSALTED, PLAIN, id_scheme(True, "one")]


def test_every_way_of_making_ids_has_a_name_of_its_own() -> None:
    assert len(set(ALL)) == len(ALL)
    assert id_scheme(True, ONE) == ALL[0]
    assert (id_scheme(True, ""), id_scheme(False, "one"), id_scheme(False, "")) == (UNSALTED, PLAIN, PLAIN)
    assert [is_secret(ids) for ids in (*ALL, None)] == [True, True, False, False, False, False]
    assert [is_weak(ids) for ids in (*ALL, None)] == [False, False, False, False, True, False]


@pytest.mark.parametrize(
    ("salt", "guessed"),
    [
        (ONE, False), (ONE.upper(), False), (ONE + TWO, False), ("", True), ("a secret", True), (ONE[1:], True), ("0" * 32, True),
        ("0123" * 8, True), ("abcdefg" * 5, True), ("stroke consortium 2026, the salt of all", True), (f" {ONE}", True),
    ],
)  # fmt: skip
def test_a_salt_of_random_digits_is_told_from_words(salt: str, guessed: bool) -> None:
    assert can_be_guessed(salt) == guessed


def test_random_salts_are_never_taken_for_words() -> None:
    rng = np.random.default_rng(0)
    assert not any(can_be_guessed(rng.bytes(16).hex()) for _ in range(10_000))


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
