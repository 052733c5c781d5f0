"""Everything that passes between the server and the sites of a run, as the bytes Flower ships, and what is in them."""

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Message, RecordDict
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.supercore.inflatable.inflatable_object import InflatableObject

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import RUN_ID, LocalGrid, identify
from fl_rsna.federation.server_app import make_server_app, select_entry
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config

TO, FROM = "to", "from"  # a site
ESTIMATE = {"value", "low", "high", "positives", "negatives", "positive_patients"}
SETTINGS = (
    "model",
    "train",
    "strategy",
    "faults",
    "sequence",
    "stacking",
    "stack",
)  # groups of the configuration in the instructions

Tapped = tuple[str, Message]  # which way, what


class Tap(LocalGrid):
    """A grid that keeps every message."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.heard: list[Tapped] = []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        messages = list(messages)
        self.heard += [(TO, message) for message in messages]
        for reply in super().send_and_receive(messages, timeout=timeout):
            self.heard.append((FROM, reply))
            yield reply


def tapped_run(cohort: Cohort, folder: Path, config: Config, on_event: Callable[..., None]) -> list[Tapped]:
    """All messages of one run in this process."""
    identify()
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    server = make_server_app(
        lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (on_event,))), select_entry(config)
    )
    tap = Tap(client, len(cohort.sites), 0)
    server(tap, Context(RUN_ID, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
    return tap.heard


def shipped(messages: Iterable[Message]) -> dict[str, bytes]:
    """Every object of the messages as Flower writes it, by its id: what several share is shipped and kept once."""
    found: dict[str, bytes] = {}

    def walk(name: str, item: InflatableObject) -> None:
        if name not in found:
            found[name] = bytes(item.deflate())
            for child_name, child in (item.children or {}).items():
                walk(child_name, child)

    for message in messages:
        walk(message.object_id, message)
    return found


@dataclass(frozen=True)
class Secrets:
    """Byte strings of at least 8 bytes that must not be found, and what each is."""

    known: dict[bytes, str] = field(default_factory=dict)

    def add(self, what: str, *values: bytes) -> None:
        for value in values:
            assert len(value) >= 8
            self.known[value] = what

    def found_in(self, blob: bytes) -> set[str]:
        """What of them is anywhere in `blob`. Every place is looked at: bytes 2 and 3 first, then the first 8, then all."""
        by_start: dict[int, list[bytes]] = {}
        for value in self.known:
            by_start.setdefault(int.from_bytes(value[:8], "little"), []).append(value)
        keys = np.zeros(65536, bool)
        keys[[int.from_bytes(value[2:4], "little") for value in self.known]] = True
        starts, data = np.array(sorted(by_start), np.uint64), np.frombuffer(blob, np.uint8)
        found: set[str] = set()
        for offset in (2, 3):
            pairs = data[offset : len(data) - (len(data) - offset) % 2].view("<u2")
            places = 2 * np.flatnonzero(keys[pairs]) + offset - 2
            places = places[places + 8 <= len(data)]
            windows = data[places[:, None] + np.arange(8)].reshape(-1, 8).view("<u8")[:, 0]
            hits = np.flatnonzero(np.isin(windows, starts))
            for place, start in zip(places[hits].tolist(), windows[hits].tolist(), strict=True):
                found |= {self.known[value] for value in by_start[start] if blob.startswith(value, place)}
        return found


def keys_of(tapped: Iterable[Tapped], labels: Iterable[str], sites: Iterable[str]) -> set[tuple[str, str, str, str]]:
    """(way, message, record, key) of all there is; JSON inside a record down to its last keys, in a document's words."""
    return {
        (way, "any" if record == "failure" else message.metadata.message_type, record, _general(key, set(labels), set(sites)))
        for way, message in tapped
        if message.has_content()
        for record, content in message.content.items()
        for name, value in content.items()
        for key in _paths(name, value)
    }  # fmt: skip


def _paths(name: str, value: object) -> Iterator[str]:
    if isinstance(value, str) and value.startswith("{"):
        value = json.loads(value)
    if isinstance(value, dict) and value.keys() != ESTIMATE:
        for key, inner in value.items():
            yield from _paths(f"{name}.{key}", inner)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for inner in value:
            yield from _paths(f"{name}[]", inner)
    else:
        yield name


def _general(path: str, labels: set[str], sites: set[str]) -> str:
    """A key without what differs from run to run: `counts.train.positives.any` is `counts.<part>.positives.<label>`."""
    if found := re.fullmatch(rf"instructions\.({'|'.join(SETTINGS)})\..+", path):
        return f"instructions.{found[1]}.*"
    words = re.split(r"([./])", path)
    words = ["<label>" if word in labels else "<site>" if word in sites else word for word in words]
    path = re.sub(r"^counts\.(train|validation|test)\.", "counts.<part>.", "".join(words))
    path = re.sub(r"\.(sensitivity_95|specificity_90|youden)(?=\.|$)", ".<point>", path)
    path = re.sub(r"^(scorecard|operating_points)\.(slice|exam\.(max|noisy_or|mean))\.", r"\1.<level>.", path)
    path = re.sub(r"^scorecard\.classes\.(slice|exam)\.", "scorecard.classes.<level>.", path)
    return re.sub(r"\.calibration\.(before|after)(?=\.|$)", ".calibration.<when>", path)


def documented(page: Path) -> set[tuple[str, str, str, str]]:
    """(way, message, record, key) of the tables whose heads are message, record, key, ...; one row may name several."""
    found: set[tuple[str, str, str, str]] = set()
    way = ""
    for line in page.read_text().splitlines():
        if line.startswith("#"):
            way = {"What leaves a site": FROM, "What a site is sent": TO}.get(line.lstrip("# "), "")
        elif way and line.startswith("|"):
            kinds, records, keys = (re.findall(r"`([^`]+)`", cell) for cell in line.strip("|").split("|")[:3])
            found |= {(way, kind, record, key) for kind in kinds for record in records for key in keys}
    return found
