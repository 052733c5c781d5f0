"""Say in sentences which labels a cohort has no positives of, where that is, and what can therefore not be known.

A cohort may lack labels: what needs their positives goes without them, and the user reads these sentences when the cohort is made,
when a run begins, and in its report.
"""

from collections.abc import Mapping, Sequence

from fl_rsna.cohort.sites.site_folders import PartCounts
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import LabelKind, Task

Parts = Mapping[str, Mapping[str, PartCounts]]  # by site and part: train, validation or test
FEW_SITES = 5  # sites that a sentence names


def describe_absent_labels(sites: Parts, task: Task) -> list[str]:
    """Describe what no part, no training part, no validation part or not the test site holds; counts that a site withholds are unknown.

    The sentences go from what is missing everywhere to what is missing at single sites.
    """
    picture, headline, one_of_two = task.picture, task.headline, task.kind is LabelKind.multi_label
    held = {
        part: {label: _count(sites, part, label) for label in task.labels} for part in ("train", "validation", "test")
    }
    absent = {part: [label for label, count in counted.items() if count == 0] for part, counted in held.items()}
    nowhere = [label for label in task.labels if all(label in labels for labels in absent.values())]
    only = {part: [label for label in labels if label not in nowhere] for part, labels in absent.items()}
    found = []
    if nowhere:
        found.append(
            f"no {picture} has {', '.join(nowhere)}: nothing is learned of {_them(nowhere)}, and no score of {_them(nowhere)} can be known"
        )
    if only["train"]:
        found.append(
            f"no training {picture} has {', '.join(only['train'])}: the model cannot learn {_them(only['train'])}"
        )
    if only["test"]:
        found.append(
            f"the test site has no {picture} with {', '.join(only['test'])}: how well the model finds {_them(only['test'])} cannot be known"
        )
    held_out = sites[TEST_SITE]["test"]["slices"] if "test" in sites.get(TEST_SITE, {}) else 0
    if one_of_two and held["test"][headline] == held_out > 0:
        found.append(
            f"the test site has no {picture} without {headline}: how many false alarms there are cannot be known"
        )
    if only["validation"]:
        found.append(
            f"no validation {picture} has {', '.join(only['validation'])}: no threshold can be chosen for {_them(only['validation'])}"
        )
    if one_of_two and headline in only["validation"]:
        found.append(
            f"without {headline} in validation the loss by which the round is chosen says little; train.select=last takes the last round"
        )
    empty = [
        site
        for site, parts in sites.items()
        if "train" in parts and not ("validation" in parts and parts["validation"]["slices"])
    ]
    if empty:
        found.append(f"no validation part at {_name(empty)}: too few patients to set one aside")
    bare = [
        site for site, parts in sites.items() if "train" in parts and parts["train"]["positives"].get(headline) == 0
    ]
    if one_of_two and bare and headline not in absent["train"]:
        found.append(f"no training {picture} at {_name(bare)} has {headline}")
    return found


def _count(sites: Parts, part: str, label: str) -> int | None:
    """Count the positive slices of a label in one part of all sites; None where they are unknown, and no known one is positive."""
    counts = [parts[part]["positives"].get(label) for parts in sites.values() if part in parts]
    known = sum(count for count in counts if count is not None)
    return known if known or None not in counts else None


def _them(labels: Sequence[str]) -> str:
    return "it" if len(labels) == 1 else "them"


def _name(sites: Sequence[str]) -> str:
    more = f" and {len(sites) - FEW_SITES} more sites" if len(sites) > FEW_SITES else ""
    return ", ".join(sites[:FEW_SITES]) + more
