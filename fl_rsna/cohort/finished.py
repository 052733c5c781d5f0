"""A prepared folder that is there already, as the next preparation of the same request finds it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from fl_rsna.cohort.index import Changes, Prepared, read_facts, read_prepared
from fl_rsna.cohort.known import KNOWN, known_of, read_inputs
from fl_rsna.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The folder, the facts of its prepare.json, and what it knows of its inputs."""

    prepared: Prepared
    facts: dict[str, Any]
    known: pd.DataFrame

    @property
    def images(self) -> Path:
        return self.prepared.folder / "images"

    @property
    def is_whole(self) -> bool:
        """Whether every image of the index lies there."""
        return bool((self.known["has_png"] | self.known["idle"] | (self.known["reason"] != "")).all())

    def as_it_is(self) -> Prepared:
        """The folder as it was found: of the files that are listed now, none had to be converted."""
        return replace(self.prepared, changes=Changes(kept=len(self.known), again=0, new=0, gone=0))


def read_finished(folder: Path, request: Mapping[str, Any], task: Task) -> Finished:
    """Raises ValueError when the folder holds no prepared data, or data of another request."""
    facts = read_facts(
        folder / "prepare.json", f"data.name: {folder} exists but holds no prepared data; choose another data.name"
    )
    earlier = facts.get("request", {})
    changed = sorted(key for key, value in request.items() if earlier.get(key) != value)
    if changed:
        raise ValueError(
            f"data.name: {folder} was prepared from another request ({', '.join(changed)} differ); "
            "choose another data.name or delete the folder"
        )
    prepared = read_prepared(folder, task)
    table = read_inputs(folder, facts, list(KNOWN))
    known = known_of(table, folder / "images", frozenset(prepared.index["image_id"]))
    return Finished(prepared=prepared, facts=facts, known=known)
