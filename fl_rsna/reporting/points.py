"""What trackers are given of a run: numbers by round, final numbers with their intervals, and its settings.

Nothing else leaves the run's folder: no picture, no id of a patient, no path, no error's text, no salt. Sites go by the names they
have in the run.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from fl_rsna.config import Config
from fl_rsna.reporting.event_log import Event

Values = dict[str, float]

PRIVATE = ("engine.address", "data.dicom", "data.labels", "data.salt", "partition.assignment", "tracking.mlflow_uri")
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
            kept = {
                key: value for key, value in event["metrics"].items() if key in ("loss", "seconds") or "auroc/" in key
            }
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
    """The configuration without what is of this machine or could name a person: paths, lists of patients, the salt."""
    plain = json.loads(json.dumps(asdict(config)))
    del plain["paths"], plain["run"]["name"]
    for group, key in (name.split(".") for name in PRIVATE):
        del plain[group][key]
    if not isinstance(plain["partition"]["test"], int | float):
        plain["partition"]["test"] = "by name"
    return dict(plain)


def flat_settings(config: Config) -> dict[str, str]:
    """The same as dotted names and words."""
    groups = settings(config).items()
    named = {
        f"{group}.{key}": item for group, value in groups if isinstance(value, dict) for key, item in value.items()
    }
    return {key: str(value) for key, value in {**{k: v for k, v in groups if not isinstance(v, dict)}, **named}.items()}


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
