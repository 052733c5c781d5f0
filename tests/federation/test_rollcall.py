"""The roll call refuses what must not train together, naming the site."""

import dataclasses

import pytest

from fl_rsna.federation.rollcall import Site, check_roll
from fl_rsna.version import code_version

PARTS = {"train": {"slices": 3}, "validation": {"slices": 1}}


def site(number: int, **changes: object) -> Site:
    same = {
        "version": code_version(),
        "cohort_sha256": "abc",
        "task": "ich",
        "counts": PARTS,
        "controls": {},
        "patients": frozenset({f"p{number}"}),
    }
    return Site(name=f"site-{number}", node_id=number, **{**same, **changes})  # type: ignore[arg-type]


def check(*sites: Site, test: frozenset[str] = frozenset({"t"})) -> None:
    check_roll(list(sites), cohort_sha256="abc", task="ich", test_patients=test)


def test_a_sound_roll_passes() -> None:
    check(site(1), site(2))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (site(2, cohort_sha256="other"), "expected cohort abc, got other at site-2"),
        (site(2, version="0.0.1"), "as here, got 0.0.1 at site-2; install the same version"),
        (site(2, task="chest"), "expected task ich, got chest at site-2"),
        (site(2, counts={"train": {"slices": 0}, "validation": {"slices": 1}}), "expected train slices at site-2"),
        (site(2, counts={"train": {"slices": 4}}), "expected validation slices at site-2"),
        (site(2, patients=frozenset({"p1", "x"})), "site-1 and site-2 share 1 patients"),
        (site(2, patients=frozenset({"t"})), "site-2 and the test site share 1 patients"),
        (dataclasses.replace(site(2), name="site-1"), "site-1 2 times"),
    ],
)
def test_refusals_name_the_site(wrong: Site, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check(site(1), wrong)
