"""A cohort may lack labels: the sentences name each once, with what cannot be known, and nothing is said of what a site withholds."""

import pytest
from tiny import CHEST

from fl_rsna.cohort.sites.absent_labels import describe_absent_labels
from fl_rsna.cohort.sites.site_folders import PartCounts
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import ICH

Counts = dict[str, int | None]
EVERY: Counts = dict.fromkeys(ICH.labels, 2)


def part(slices: int = 9, **positives: int | None) -> PartCounts:
    return {"patients": 3, "slices": slices, "positives": {**EVERY, **positives}}


def sites(train: PartCounts, validation: PartCounts, test: PartCounts) -> dict[str, dict[str, PartCounts]]:
    """Two sites, the second of which has everything."""
    return {
        "site-1": {"train": train, "validation": validation},
        "site-2": {"train": part(), "validation": part()},
        TEST_SITE: {"test": test},
    }


def test_nothing_is_said_of_a_cohort_that_lacks_nothing() -> None:
    assert describe_absent_labels(sites(part(), part(), part()), ICH) == []


def test_a_label_that_nobody_has_is_named_once() -> None:
    without = part(epidural=0)
    found = {name: dict.fromkeys(parts, without) for name, parts in sites(without, without, without).items()}
    assert describe_absent_labels(found, ICH) == [
        "no slice has epidural: nothing is learned of it, and no score of it can be known"
    ]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"train": {"subdural": 0}}, "no training slice has subdural: the model cannot learn it"),
        ({"validation": {"subdural": 0}}, "no validation slice has subdural: no threshold can be chosen for it"),
        (
            {"test": {"subdural": 0}},
            "the test site has no slice with subdural: how well the model finds it cannot be known",
        ),
        (
            {"test": {"any": 9}},
            "the test site has no slice without any: how many false alarms there are cannot be known",
        ),
    ],
)
def test_what_one_part_lacks(changed: dict[str, Counts], sentence: str) -> None:
    parts = {name: part(**changed.get(name, {})) for name in ("train", "validation", "test")}
    found = {"site-1": {"train": parts["train"], "validation": parts["validation"]}, TEST_SITE: {"test": parts["test"]}}
    assert describe_absent_labels(found, ICH) == [sentence]


def test_a_site_without_the_headline_label_and_one_without_validation_are_named() -> None:
    found = sites(part(any=0), part(any=0), part())
    del found["site-1"]["validation"]
    assert describe_absent_labels(found, ICH) == [
        "no validation part at site-1: too few patients to set one aside",
        "no training slice at site-1 has any",
    ]


def test_validation_without_the_headline_label_chooses_no_round_well() -> None:
    found = sites(part(), part(any=0), part())
    found["site-2"]["validation"] = part(any=0)
    assert "train.select=last" in describe_absent_labels(found, ICH)[-1]


def test_what_a_site_withholds_may_be_there() -> None:
    without = part(epidural=0)
    found = {name: dict.fromkeys(parts, without) for name, parts in sites(without, without, without).items()}
    found["site-1"]["train"] = part(epidural=None)
    assert describe_absent_labels(found, ICH) == [
        "the test site has no slice with epidural: how well the model finds it cannot be known",
        "no validation slice has epidural: no threshold can be chosen for it",
    ]


def test_of_classes_only_missing_ones_are_said() -> None:
    held: PartCounts = {"patients": 3, "slices": 9, "positives": {**dict.fromkeys(CHEST.labels, 3), CHEST.headline: 0}}
    found = {"site-1": {"train": held, "validation": held}, TEST_SITE: {"test": held}}
    assert describe_absent_labels(found, CHEST) == [
        f"no {CHEST.picture} has {CHEST.headline}: nothing is learned of it, and no score of it can be known"
    ]
