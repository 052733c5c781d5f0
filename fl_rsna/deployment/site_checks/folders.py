"""Check that a hospital's folders are what a site needs: whole and readable data, and a state folder with room that can be written."""

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.checks.check import Check, State
from fl_rsna.checks.memory import MB, RAW_BYTES, free_disk, refuses_writing, size
from fl_rsna.cohort.prepared.boxes import BOXES
from fl_rsna.cohort.prepared.index import COLUMNS, IDS, LOCAL_ID, PLACEHOLDER, read_facts
from fl_rsna.cohort.sites.site_folders import read_site_files
from fl_rsna.common.id_scheme import describe_scheme, is_secret, is_weak, unlike_places
from fl_rsna.common.reading import UnreadableFile, parse_csv
from fl_rsna.deployment.site_node import Node
from fl_rsna.imaging.png_store import read_png
from fl_rsna.settings.data import ImageKind, kinds_of
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import find_task, list_tasks

TRIED = 5  # images that are decoded as a sample
REMEMBERED = 500 * MB  # bytes that a site keeps of a run: a few models
DIMENSIONS = {ImageKind.hu: 2, ImageKind.windows: 3, ImageKind.grey: 2}  # dimensions of an image's array
HASHED = re.compile("[0-9a-f]{16}")  # an id as cohort.prepared.index.hash_id writes it
NEEDED = ("site", "cohort", "cohort_sha256", "task", "labels", "image", "size")

ok, warning, problem = State.ok, State.warning, State.problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A site's folder: its index and the facts of its site.json."""

    folder: Path
    facts: dict[str, Any]
    index: pd.DataFrame

    @property
    def site(self) -> str:
        return str(self.facts["site"])

    def images(self, part: str) -> int:
        return int((self.index["split"] == part).sum())

    def says(self) -> str:
        """Say the site's name and size in one line."""
        held = f"{self.index['patient_id'].nunique()} patients, {self.images('train')} images to train on"
        of = f"cohort {self.facts['cohort']} ({str(self.facts['cohort_sha256'])[:12]})"
        return f"{self.site} of {of}: {held}, {self.images('validation')} to validate"


def read_held(folder: Path) -> Held:
    """Read a site's folder. Raises ValueError when it is not a site's."""
    facts = read_facts(
        folder / "site.json", f"--folder: no site.json in {folder}; give it one site's folder of a cohort", by_hand=True
    )
    lacking = [name for name in NEEDED if name not in facts]
    if lacking:
        raise ValueError(f"--folder: {folder / 'site.json'} does not say {', '.join(lacking)}; copy the folder again")
    _check_known(facts, folder)
    path, ids = folder / "index.csv", dict.fromkeys(("image_id", *IDS, LOCAL_ID, PLACEHOLDER), str)
    if not path.exists():
        raise ValueError(f"--folder: no index.csv in {folder}; copy the folder again")
    try:
        facts, raw = read_site_files(folder, "copy the folder again")
        index = parse_csv(path, raw, "copy the folder again", dtype=ids, keep_default_na=False, na_values=[""])
    except UnreadableFile as error:
        raise ValueError(f"--folder: {error}") from None
    missing = [name for name in ("image_id", *IDS, "split", *facts["labels"]) if name not in index]
    if missing:
        raise ValueError(f"--folder: {path} has no column {', '.join(missing)}; copy the folder again")
    return Held(folder=folder, facts=facts, index=index)


def _check_known(facts: dict[str, Any], folder: Path) -> None:
    """Raise ValueError for a task, labels or a kind of image that this version does not know."""
    if facts["task"] not in list_tasks():
        raise ValueError(
            f"--folder: {folder / 'site.json'} is of task {facts['task']}, expected {' or '.join(list_tasks())}; install the run's version"
        )
    task = find_task(facts["task"])
    if facts["labels"] != list(task.labels):
        raise ValueError(
            f"--folder: {folder / 'site.json'} has the labels {facts['labels']}, expected those of task {task.name}, "
            f"{', '.join(task.labels)}; prepare the data again"
        )
    if facts["image"] not in kinds_of(task.rendering):
        raise ValueError(
            f"--folder: {folder / 'site.json'} has images of kind {facts['image']}, expected {' or '.join(kinds_of(task.rendering))} "
            f"in task {task.name}; prepare the data again"
        )


def check_site(node: Node, held: Held) -> list[Check]:
    """Check that the folder is that of the site in --name and has images to train on and to validate."""
    if node.name is not None and held.site != node.name:
        found = f"{node.folder} is {held.site}, not {node.name}"
        return [Check(what="site", state=problem, found=found, change="give --folder this site's own, or mend --name")]
    if held.site == TEST_SITE:
        change = "it stays at the coordinator; give --folder a site's own"
        return [Check(what="site", state=problem, found=f"{node.folder} is the test site", change=change)]
    lacking = [part for part in ("train", "validation") if not held.images(part)]
    if lacking:
        change = "partition again, or copy the folder again"
        return [Check(what="site", state=problem, found=f"no images for {' and '.join(lacking)}", change=change)]
    return [Check(what="site", state=ok, found=held.says())]


def check_images(held: Held) -> list[Check]:
    """Check that every image of the index exists and that TRIED of them can be decoded."""
    folder, ids = held.folder / "images", held.index["image_id"]
    if not folder.is_dir():
        return [Check(what="images", state=problem, found=f"no folder {folder}", change="copy the folder again")]
    there = {entry.name for entry in os.scandir(folder)}
    missing = [f"{image_id}.png" for image_id in ids if f"{image_id}.png" not in there]
    if missing:
        found = f"{len(missing)} of {len(ids)} are missing, the first is {missing[0]}"
        return [Check(what="images", state=problem, found=found, change="copy the folder again")]
    spread = sorted({number * (len(ids) - 1) // max(1, TRIED - 1) for number in range(TRIED)}) if len(ids) else []
    for image_id in ids.iloc[spread]:
        wrong = _wrong_image(folder / f"{image_id}.png", held)
        if wrong:
            return [Check(what="images", state=problem, found=wrong, change="copy the folder again")]
    return [Check(what="images", state=ok, found=f"{len(ids)} there, {len(spread)} of them read")]


def _wrong_image(path: Path, held: Held) -> str:
    if not os.access(path, os.R_OK):
        return f"{path} may not be read by this user"
    try:
        image = read_png(path)
    except ValueError:
        return f"{path} is no readable PNG"
    side, channels = int(held.facts["size"]), DIMENSIONS[ImageKind(held.facts["image"])]
    if image.shape[:2] != (side, side) or image.ndim != channels:
        return f"{path} is {' x '.join(map(str, image.shape))}, site.json says {held.facts['image']} at {side} pixels"
    return ""


def check_identifiers(held: Held) -> list[Check]:
    """Check that ids are hashed and that the index has no column that prepare and partition do not write."""
    known = {*COLUMNS, BOXES, "split", "site", *held.facts["labels"]}
    strange = [str(name) for name in held.index if name not in known]
    ids_held = [name for name in (*IDS, LOCAL_ID) if name in held.index]
    plain = {name: int((~held.index[name].str.fullmatch(HASHED, na=True)).sum()) for name in ids_held}
    clear = [name for name, count in plain.items() if count]
    if any(0 < count < len(held.index) for count in plain.values()):
        found = f"{', '.join(clear)}: some values are hashed and some are not"
        change = "prepare again with data.hash_ids=true: these may be identifiers as in the DICOM files"
        return [Check(what="identifiers", state=problem, found=found, change=change)]
    if clear or strange:
        parts = [f"{', '.join(clear)} as in the files, not hashed"] if clear else []
        parts += [f"columns that are not ours: {', '.join(strange)}"] if strange else []
        change = "nothing of them leaves this site, but who reads the folder reads them; data.hash_ids=true at prepare"
        return [Check(what="identifiers", state=warning, found="; ".join(parts), change=change)]
    ids = held.facts.get("ids")
    if is_weak(ids):
        change = (
            "make a salt for all sites by python -m fl_rsna.salt and prepare again: ids can be guessed with this one"
        )
        found = f"{describe_scheme(ids)}, which can be guessed from its fingerprint"
        return [Check(what="identifiers", state=problem, found=found, change=change)]
    if not is_secret(ids):
        change = "prepare again with the data.salt that all sites share: an id can be guessed from its hash without one"
        return [
            Check(
                what="identifiers", state=warning, found=f"{describe_scheme(ids)}, as {held.folder} says", change=change
            )
        ]
    found = f"{describe_scheme(ids)}, and no column that is not ours: compare the salt with the other sites'"
    return [Check(what="identifiers", state=ok, found=found)]


def check_alike(held: Held) -> list[Check]:
    """Check that ids were made in the same way as those of the cohort's other sites that lie beside this one, if any."""
    beside = [path for path in sorted(held.folder.parent.glob("*/site.json")) if not path.parent.samefile(held.folder)]
    others = [
        facts for path in beside if (facts := read_facts(path, "", by_hand=True)).get("cohort") == held.facts["cohort"]
    ]
    places = [(str(facts.get("site")), facts.get("ids")) for facts in others]
    unknown = unlike_places([(held.site, held.facts.get("ids")), *places]) if places else None
    if unknown is None:
        return []
    change = "prepare all with the same data.salt, or the run must say allow_unknown_patients=true"
    return [Check(what="salt", state=problem, found=unknown, change=change)]


def check_state(node: Node, held: Held | None) -> list[Check]:
    """Check that the state folder lies outside the site's folder, has room, and cannot be read by others on this machine."""
    if node.state.resolve().is_relative_to(node.folder.resolve()):
        change = "give it a folder outside: the site's is only read"
        return [Check(what="state", state=problem, found=f"{node.state} is inside --folder", change=change)]
    refused = refuses_writing(node.state)
    if refused:
        change = "give --state a folder that can be written"
        return [Check(what="state", state=problem, found=f"cannot write: {refused}", change=change)]
    packed = 0
    if held is not None:
        packed = RAW_BYTES[ImageKind(held.facts["image"])] * len(held.index) * int(held.facts["size"]) ** 2
    free = free_disk(node.state)[1]
    found = f"{node.state} needs about {size(packed + REMEMBERED)}; {size(free)} free"
    if free < packed + REMEMBERED:
        return [Check(what="state", state=problem, found=found, change="give --state another disk")]
    if node.state.exists() and node.state.stat().st_mode & 0o077:
        change = f"chmod 700 {node.state}: packed images lie there"
        return [Check(what="state", state=warning, found=f"{node.state} is open to others", change=change)]
    return [Check(what="state", state=ok, found=found)]
