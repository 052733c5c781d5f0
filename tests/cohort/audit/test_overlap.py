"""What places share is counted as one would count by hand, whatever the order of rows."""

from typing import Any

import pandas as pd
import pytest

from fl_rsna.cohort.audit.overlap import NOBODY, Sharing, find_shared, judge
from fl_rsna.cohort.audit.slices import Kind, Slices, apart_from_blank, as_ids, places_of


def slices(places: dict[str, list[str]], **ids: list[str]) -> Slices:
    """A table by its columns; an empty string is a missing value."""
    columns = {name: as_ids(pd.Series(values)) for name, values in places.items()}
    kinds = pd.DataFrame({Kind(kind): as_ids(pd.Series(values)) for kind, values in ids.items()})
    roles: dict[str, Any] = {"site": "site" if "site" in places else None, "part": "part" if "part" in places else None}
    return Slices(places=pd.DataFrame(columns), ids=kinds, labels=pd.DataFrame(index=kinds.index), **roles)


def shared(table: Slices) -> dict[str, int]:
    """Ids in two places of the finest view, by kind, without the zeros."""
    return {str(kind): count for kind, count in find_shared(table).views[0].shared.items() if count}


def test_disjoint_places_share_nothing() -> None:
    sharing = find_shared(slices({"site": ["a", "a", "b"]}, patient=["p", "p", "q"], image=["1", "2", "3"]))
    assert sharing.patients == {}
    assert sharing.views[0].pairs == ()
    assert judge(sharing).code == 0
    assert judge(sharing).sentence == "CLEAN: none of 2 patients in more than one of 2 places"


def test_where_nobody_can_tell_is_neither_clean_nor_a_leak() -> None:
    apart = find_shared(slices({"site": ["a", "b"]}, patient=["p", "q"]))
    same = find_shared(slices({"site": ["a", "b"]}, patient=["p", "p"]))
    assert judge(apart, unknown="salts differ").code == 1
    assert judge(apart, unknown="salts differ").sentence.startswith(
        "UNKNOWN: salts differ; allow_unknown_patients=true"
    )
    assert judge(apart, unknown="salts differ", allow_unknown=True).code == 0
    assert judge(apart, unknown="salts differ", allow_unknown=True).sentence.endswith("but salts differ")
    assert judge(apart, unknown="salts differ", allow_unknown=True, strict=True).code == 1
    assert judge(same, unknown="salts differ", allow_unknown=True).sentence.startswith("LEAK: 1 of 1 patients")


def test_a_patient_at_two_sites_is_named_with_both() -> None:
    table = slices({"site": ["a", "b", "b", "c"]}, patient=["p", "p", "q", "r"], series=["s", "t", "u", "v"])
    sharing = find_shared(table)
    assert sharing.patients == {"p": ("a", "b")}
    assert [(pair.places, pair.shared) for pair in sharing.views[0].pairs] == [
        (("a", "b"), {"patient": 1, "series": 0})
    ]
    assert judge(sharing).code == 1
    assert judge(sharing).sentence == "LEAK: 1 of 3 patients in more than one of 3 places"


def test_sites_and_parts_are_audited_together_and_each() -> None:
    """p is in two parts of one site, q at two sites in one part, r stays."""
    table = slices(
        {"site": ["a", "a", "a", "b", "b"], "part": ["train", "test", "train", "train", "test"]},
        patient=["p", "p", "q", "q", "r"],
    )
    sharing = find_shared(table)
    assert {view.by: view.shared[Kind.patient] for view in sharing.views} == {"site/part": 2, "site": 1, "part": 1}
    assert sharing.patients == {"p": ("a/test", "a/train"), "q": ("a/train", "b/train")}
    assert sharing.views[0].places == ("a/test", "a/train", "b/test", "b/train")


def test_many_slices_of_a_patient_count_as_one_patient_and_every_pair_is_listed() -> None:
    sharing = find_shared(slices({"site": ["a", "a", "b", "b", "c"]}, patient=["p"] * 5))
    assert sharing.views[0].shared == {Kind.patient: 1}
    assert [pair.places for pair in sharing.views[0].pairs] == [("a", "b"), ("a", "c"), ("b", "c")]


@pytest.mark.parametrize("kind", ["study", "series", "image", "pixels"])
def test_a_thing_at_two_sites_under_two_patients_is_a_doubt_and_strictly_a_leak(kind: str) -> None:
    table = slices({"site": ["a", "b", "b"]}, patient=["p", "q", "q"], **{kind: ["x", "x", "y"]})
    sharing = find_shared(table)
    [alias] = sharing.aliases[Kind(kind)].of
    assert (alias.patients, alias.places, alias.shared) == (("p", "q"), ("a", "b"), 1)
    assert (judge(sharing).code, judge(sharing, strict=True).code) == (0, 1)
    assert judge(sharing).sentence.startswith("WARNING: none of 2 patients")


def test_a_thing_at_two_sites_is_explained_by_its_one_patient() -> None:
    sharing = find_shared(slices({"site": ["a", "b"]}, patient=["p", "p"], pixels=["x", "x"]))
    assert sharing.views[0].shared == {Kind.patient: 1, Kind.pixels: 1}
    assert sharing.aliases == {}


def test_equal_pixels_of_one_place_are_no_sharing() -> None:
    assert shared(slices({"site": ["a", "a", "b"]}, patient=["p", "q", "r"], pixels=["x", "x", "y"])) == {}


def test_constant_images_are_counted_apart_and_prove_nothing() -> None:
    ids = pd.DataFrame({"patient": ["p", "q", "p", "q"], "pixels": ["air", "air", "x", "x"]}, dtype="str")
    table = slices({"site": ["a", "b", "a", "b"]}, patient=["p", "q", "p", "q"])
    apart = Slices(
        places=table.places, labels=table.labels, site="site", part=None,
        ids=apart_from_blank(ids, pd.Series([True, False, False, False])),
    )  # fmt: skip
    assert shared(apart) == {"pixels": 1, "blank": 1}
    assert list(find_shared(apart).aliases) == [Kind.pixels]


def test_missing_ids_are_counted_and_shared_by_nobody() -> None:
    sharing = find_shared(slices({"site": ["a", "b", "b"]}, patient=["", "nan", "q"], series=["s", "t", "u"]))
    assert sharing.patients == {}
    assert (sharing.missing[Kind.patient], sharing.totals[Kind.patient]) == (2, 1)
    assert "2 images have no patient id" in judge(sharing).sentence


def test_a_series_at_two_sites_without_a_patient_is_a_doubt() -> None:
    sharing = find_shared(slices({"site": ["a", "b"]}, patient=["", ""], series=["s", "s"]))
    assert sharing.aliases[Kind.series].of[0].patients == (NOBODY,)


def test_rows_without_a_place_are_in_none() -> None:
    sharing = find_shared(slices({"site": ["a", "", "b"]}, patient=["p", "p", "q"]))
    assert sharing.patients == {}
    assert sharing.views[0].unplaced == 1


def test_leading_zeros_tell_patients_apart() -> None:
    assert shared(slices({"site": ["a", "b"]}, patient=["007", "7"])) == {}
    assert shared(slices({"site": ["a", "b"]}, patient=["007", " 007 "])) == {"patient": 1}


def test_a_doubtful_spelling_is_never_clean_and_strictly_a_leak() -> None:
    sharing = find_shared(slices({"site": ["a", "b"]}, patient=["1.0", "1"]))
    assert (judge(sharing).code, judge(sharing, strict=True).code) == (0, 1)
    assert judge(sharing).sentence == (
        "WARNING: none of 2 patients in more than one of 2 places, but 1 of 2 patient ids is written with a decimal point (first: 1.0); "
        "2 of 2 patient ids are apart from another only in case, blanks, leading zeros or .0 (first: 1 and 1.0)"
    )
    assert judge(find_shared(slices({"site": ["a", "b"]}, patient=["p", "p"]))).sentence.startswith("LEAK: 1 of 1")
    both = find_shared(slices({"split": ["Train", "train", "test"]}, patient=["p", "p", "q"]))
    assert judge(both).sentence == (
        "LEAK: 1 of 2 patients in more than one of 3 places; 2 of 3 places of split are apart from another only in case, blanks, "
        "leading zeros or .0 (first: Train and train)"
    )


def test_numbers_inside_a_patient_are_not_shared_between_patients() -> None:
    """Every patient has a study "1": eight holders of one id."""
    table = slices({"site": list("aaaabbbb")}, patient=list("pqrstuvw"), study=["1"] * 8)
    sharing = find_shared(table)
    assert (sharing.numbered, sharing.totals[Kind.study]) == ((Kind.study,), 8)
    assert (sharing.views[0].shared[Kind.study], sharing.aliases) == (0, {})


def test_the_order_of_rows_does_not_matter() -> None:
    columns = {"site": list("aabbccab"), "part": list("xyxyxyxx")}
    ids = {"patient": list("pqrpstqu"), "series": list("12345671"), "pixels": list("ABCDEFAA")}
    order = [5, 2, 7, 0, 3, 6, 1, 4]

    def audit(rows: list[int]) -> Sharing:
        return find_shared(
            slices(
                {name: [values[row] for row in rows] for name, values in columns.items()},
                **{name: [values[row] for row in rows] for name, values in ids.items()},
            )
        )

    assert audit(order) == audit(list(range(8)))
    assert list(audit(order).patients) == sorted(audit(order).patients) == ["p", "q"]
    assert list(audit(order).aliases) == [Kind.series, Kind.pixels]


def test_places_stand_in_the_order_of_their_numbers_and_are_not_confused() -> None:
    code, names = places_of(pd.DataFrame({"site": ["site-10", "site-2", "site-2"], "part": ["x", "y", "x"]}))
    assert names == ("site-2/x", "site-2/y", "site-10/x")
    assert code.tolist() == [2, 1, 0]
    _, names = places_of(pd.DataFrame({"site": ["a/b", "a"], "part": ["c", "b/c"]}))
    assert len(names) == 2


def test_a_leak_on_purpose_is_a_leak_that_says_so() -> None:
    sharing = find_shared(slices({"site": ["a", "b"]}, patient=["p", "p"]))
    verdict = judge(sharing, leaky="partition.group=series", differences=2)
    assert verdict.code == 1
    assert verdict.sentence.startswith("LEAK, as partition.group=series asks for: 1 of 1 patients")
    assert verdict.sentence.endswith("; 2 differences from cohort.json")
