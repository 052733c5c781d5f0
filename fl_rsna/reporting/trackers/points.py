"""Choose what trackers get of a run: its numbers by round, its final numbers with their intervals, and the settings that may leave.

Nothing else leaves the run's folder: no picture, no id of a patient, no path, no error's text, no salt, no word that a user chose
freely. Trackers see the names of the run and of its sites.
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
Setting = bool | int | float | str | None
Settings = dict[str, Setting | dict[str, Setting]]

CLOSED = ("prepare", "deploy", "tracking", "paths")  # groups of settings of a machine, which change no result
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
    """Collect the numbers of one event by name; they belong to its round."""
    match event["event"]:
        case "round_end":
            named = {OF_ROUND[key]: value for key, value in event.items() if key in OF_ROUND}
            for start, name in AREAS.items():
                named |= {
                    name + key.removeprefix(start): value for key, value in event.items() if key.startswith(start)
                }
            return _numbers(named)
        case "site_done":
            kept = {}  # metrics under known names: a site may call its metrics as it likes
            for key, value in event["metrics"].items():
                of, _, label = key.rpartition("/")
                if key in ("loss", "seconds") or (of in ("auroc", "personal/auroc") and label in _list_labels()):
                    kept[key] = value
            return _numbers(kept, f"site_{event['phase']}/{event['site']}/")
        case _:
            return {}


def final_points(summary: Mapping[str, Any]) -> Values:
    """Collect the numbers of a finished run's summary.json: those of the whole run, and the scores on the test site.

    The scores have their intervals; where every site trained alone, they are of each site's own model.
    """
    found = _numbers({key: summary.get(key) for key in OF_RUN}, "final/")
    if "test_site" in summary:
        return found | _numbers(summary["test_site"], "final/")
    for site, scored in summary["alone"].items():
        found |= _numbers(scored["test_site"], f"final/{site}/")
    return found


def settings(config: Config) -> Settings:
    """Collect the settings that decide a run's result, those of a group as a dictionary under its name.

    A path, a name or an id, which a user writes freely, is not among them (`_may_go`).
    """
    found: dict[str, dict[str, Setting]] = {}
    for key, value, _ in list_settings(config):
        group, _, name = key.rpartition(".")
        if group in CLOSED or not _may_go(value):
            continue
        found.setdefault(group, {})[name] = str(value) if isinstance(value, StrEnum) else value
    return {**{group: of for group, of in found.items() if group}, **found[""]}


def flat_settings(config: Config) -> dict[str, str]:
    """Collect the settings that decide a run's result as text, by their dotted names."""
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
    if not isinstance(value, str) or "timm" not in sys.modules:  # a run with a network of timm has imported timm
        return False
    return bool(sys.modules["timm"].is_model(value))


@functools.cache
def _list_labels() -> frozenset[str]:
    return frozenset((MACRO, *(label for name in list_tasks() for label in find_task(name).labels)))


def _numbers(tree: Mapping[str, Any], path: str = "") -> Values:
    """Collect the finite numbers of nested dictionaries by their paths; all else, such as the list of a curve, is left out."""
    found: Values = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            found[f"{path}{key}"] = float(value)
    return found
