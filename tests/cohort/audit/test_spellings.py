"""What a spreadsheet did to ids is told, and ids that were never in one raise no doubt."""

import hashlib

import pytest

from fl_rsna.cohort.audit.overlap import Doubt, plain, spellings_of


def doubts(*values: str) -> dict[Doubt, tuple[tuple[str, ...], ...]]:
    return {found.doubt: found.groups for found in spellings_of({"patient ids": values})}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1.0", "1", "2"], {Doubt.decimal: (("1.0",),), Doubt.alike: (("1", "1.0"),)}),
        (["1.0", "2.00", "3"], {Doubt.decimal: (("1.0",), ("2.00",))}),
        (["1.23457E+11", "123456789012"], {Doubt.rounded: (("1.23457E+11",),)}),
        (["1.2e+17", "7E+10"], {Doubt.rounded: (("1.2e+17",), ("7E+10",))}),
        (["007", "7", "07"], {Doubt.alike: (("007", "07", "7"),)}),
        (["P007", "p7", "P 7", "P8"], {Doubt.alike: (("P 7", "P007", "p7"),)}),
        (["Train", "train", "test"], {Doubt.alike: (("Train", "train"),)}),
        (["\uff34rain", "train"], {Doubt.alike: (("train", "\uff34rain"),)}),  # a full-width letter
        (["a", "a"], {}),
        (["10", "1", "100", "1.5", "0"], {}),
        (["1.2.840.10", "1.2.840.1", "1.2.840.100"], {}),
        (["12e4", "3e10", "00ff", "0ff0"], {}),
    ],
)
def test_doubts_are_those_that_one_would_have(values: list[str], expected: dict[Doubt, object]) -> None:
    assert doubts(*values) == expected


def test_hashed_ids_raise_no_doubt() -> None:
    assert doubts(*(hashlib.sha256(str(n).encode()).hexdigest()[:16] for n in range(20_000))) == {}


def test_whole_numbers_stay_apart() -> None:
    assert len({plain(str(n)) for n in range(2000)}) == 2000
    assert plain("0") == plain("00") == plain("0.0")


def test_a_sentence_names_the_first() -> None:
    (found,) = spellings_of({"places of split": ["b", "a", "A", "B"]})
    assert found.sentence == (
        "4 of 4 places of split are apart from another only in case, blanks, leading zeros or .0 (first: A and a)"
    )
