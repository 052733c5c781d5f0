"""What trackers are given of a run: numbers by round, final numbers with their intervals, and its settings without a word of the user's.

Nothing else leaves the run's folder: no picture, no id of a patient, no path, no error's text, no salt, no word that a user chose
freely. The run and its sites go by their names.
"""

import functools
import math
import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from fl_rsna.reporting.record.events import Event
from fl_rsna.settings.config import Config
from fl_rsna.settings.fields import list_settings
from fl_rsna.settings.model import list_models
from fl_rsna.settings.partition import list_partitions
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import MACRO, find_task, list_tasks

Values = dict[str, float]

CLOSED = ("prepare", "deploy", "tracking", "paths")  # groups of settings that are of a machine, not of a run's result
OF_ROUND = {
    "train_loss": "loss/train",
    "validation_loss": "loss/validation",
    "test_loss": "loss/test",
    "bytes_down": "bytes/down",
    "bytes_up": "bytes/up",
    "seconds": "seconds/round",
    "train_s": "seconds/train",
    "validation_s": "seconds/validation",
    "test_s": "seconds/test",
    "virtual_s": "seconds/virtual",
    "sites": "sites/asked",
    "failed": "sites/failed",
}
AREAS = {"test_auroc_": "auroc_test/", "validation_auroc_": "auroc_validation/"}
OF_RUN = ("rounds", "selected_round", "wall_s", "virtual_s", "usd", "bytes_down", "bytes_up", "site_failures")


def points(event: Event) -> Values:
    """The numbers of one event, by name; of its round."""
    match event["event"]:
        case "round_end":
            named = {OF_ROUND[key]: value for key, value in event.items() if key in OF_ROUND}
            for start, name in AREAS.items():
                named |= {
                    name + key.removeprefix(start): value for key, value in event.items() if key.startswith(start)
                }
            return _numbers(named)
        case "site_done":
            kept = {key: value for key, value in event["metrics"].items() if _is_score(key)}
            return _numbers({f"site_{event['phase']}/{event['site']}/{key}": value for key, value in kept.items()})
        case _:
            return {}


def final_points(summary: Mapping[str, Any]) -> Values:
    """The numbers of a finished run's summary.json: of the whole run, and scores on the test site with their intervals."""
    found = {f"final/{key}": summary.get(key) for key in OF_RUN}
    scores = {"": summary} if "test_site" in summary else summary.get("alone", {})
    for site, scored in scores.items():
        found |= _flat(scored["test_site"], f"final/{site}".rstrip("/"))
    return _numbers(found)


def settings(config: Config) -> dict[str, Any]:
    """The settings that decide a run's result, as nested dictionaries, those of a group under its name.

    What a user may have written freely, a path, a name or an id, is not among them: `_may_go`.
    """
    found: dict[str, Any] = {}
    for key, value, _ in list_settings(config):
        group, _, name = key.rpartition(".")
        if group in CLOSED or not _may_go(value):
            continue
        plain = str(value) if isinstance(value, StrEnum) else value
        found.setdefault(group, {})[name] = plain
    return {**{group: of for group, of in found.items() if group}, **found[""]}


def flat_settings(config: Config) -> dict[str, str]:
    """The same as dotted names and words."""
    groups = settings(config).items()
    named = {
        f"{group}.{key}": item for group, value in groups if isinstance(value, dict) for key, item in value.items()
    }
    return {key: str(value) for key, value in {**{k: v for k, v in groups if not isinstance(v, dict)}, **named}.items()}


def _may_go(value: object) -> bool:
    """Whether a value is a number, a choice of ours or the name of a network in timm: nothing that a user wrote freely."""
    if value is None or isinstance(value, bool | int | float | StrEnum):
        return True
    if isinstance(value, str) and value in {*STRATEGIES, *list_models(), *list_tasks(), *list_partitions()}:
        return True
    if not isinstance(value, str) or "timm" not in sys.modules:  # a network of timm was trained with it
        return False
    return bool(sys.modules["timm"].is_model(value))


@functools.cache
def _list_labels() -> frozenset[str]:
    return frozenset((MACRO, *(label for name in list_tasks() for label in find_task(name).labels)))


def _is_score(key: str) -> bool:
    """Whether a site's number is one of those that are followed: a site chooses what it calls its metrics."""
    of, _, label = key.rpartition("/")
    return key in ("loss", "seconds") or (of in ("auroc", "personal/auroc") and label in _list_labels())


def _flat(tree: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Leaves of nested dictionaries by their path; lists, such as curves, are left out."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{name}/{key}") if isinstance(value, dict) else {f"{name}/{key}": value}
    return found


def _numbers(named: Mapping[str, Any]) -> Values:
    """What is a finite number."""
    return {
        name: float(value)
        for name, value in named.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    }
