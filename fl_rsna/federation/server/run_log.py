"""Write the record of a run: a row of rounds.csv for each round, and models with the facts that are needed to read them."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

from torch import nn

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.hashes import write_record
from fl_rsna.common.ownership import drop
from fl_rsna.common.reading import refuse, refuse_unreadable
from fl_rsna.federation.protocol.messages import Instructions
from fl_rsna.federation.server.checkpoint import GONE
from fl_rsna.learning.models.flat import FlatModel, flatten
from fl_rsna.learning.models.saved import read_tensors, write_saved
from fl_rsna.learning.models.series_head import SeriesHead
from fl_rsna.run_folder.run_folder import REST, RunFolder
from fl_rsna.run_folder.summary import ChosenPoints
from fl_rsna.settings.federation import Precision
from fl_rsna.task import Task

HEAD = "head."  # prefix of the head's weights in a file of two stages
STATE = "state.safetensors"  # the checkpoint, in checkpoints/


class ModelFacts(TypedDict, total=False):
    """The facts in a model's file: its round and hash, and what is needed to use its probabilities.

    `prevalence` is by part and label; `folds` are the hashes of a stacking's slice models; `ancestry` says whose images it has seen.
    """

    round: int
    run_id: str
    model_sha256: str
    prevalence: dict[str, dict[str, float]]
    platt: dict[str, dict[str, float] | None]
    operating_points: ChosenPoints | None
    folds: list[str]
    ancestry: list[dict[str, str | int | list[str] | None]]


def write_round(run: RunFolder, task: Task, round_: int, row: Mapping[str, float | None]) -> None:
    """Write one row of rounds.csv and its event; columns without a value stay empty."""
    columns = ["round", "train_loss", "validation_loss", f"validation_auroc_{task.primary_label}", *REST, "test_loss"]
    columns += [f"test_auroc_{label}" for label in dict.fromkeys([*task.labels, task.primary_label])]
    columns += [
        "sites",
        "failed",
        "bytes_down",
        "bytes_up",
        "virtual_s",
        "train_s",
        "validation_s",
        "test_s",
        "seconds",
    ]
    full = {name: row.get(name) for name in columns} | {"round": round_}
    run.append_row("rounds", full)
    run.event("round_end", headline=task.primary_label, **full)


def write_model(
    run: RunFolder,
    name: str,
    network: nn.Module,
    instructions: Instructions,
    cohort: Cohort,
    facts: ModelFacts,
) -> None:
    """Write a model as safetensors, with the facts that are needed to build, read and use it in its metadata."""
    write_saved(
        run.folder / name,
        network,
        task=instructions.task,
        image=cohort.image,
        png_size=cohort.size,
        config=instructions.model,
        facts={"strategy": instructions.strategy.name, **facts},
    )


def read_model(path: Path, network: nn.Module, of: Mapping[str, str | int] | None = None) -> FlatModel:
    """Read a model that `write_model` wrote with the facts `of` into `network`; of a model of two stages a SeriesHead reads the head.

    Raises ValueError when the file was changed, or has other facts.
    """
    metadata, tensors = read_tensors(path)
    with refuse_unreadable(path, "a model with its facts", GONE):
        facts = json.loads(metadata["facts"])
    for name, value in (of or {}).items():
        if facts.get(name) != value:
            raise refuse(path, f"{name} {value}", f"{facts.get(name)}: it is another one's", GONE)
    if isinstance(network, SeriesHead):
        tensors = {name.removeprefix(HEAD): value for name, value in tensors.items() if name.startswith(HEAD)}
    with refuse_unreadable(path, "weights of the run's network", GONE):
        try:
            network.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1].strip()) from None
    return flatten(network)


def keep_round(run: RunFolder, instructions: Instructions, precision: Precision, second_size: int) -> None:
    """Keep the checkpoint before a round under one more name, so that any site's part in the round can be repeated.

    Beside it are kept the instructions, the precision in which the model was sent, and the length of the vector sent with it, such
    as SCAFFOLD's.
    """
    state, sent = round_paths(run, instructions.round)
    said = {
        "run_id": instructions.run_id,
        "round": instructions.round,
        "instructions": asdict(instructions),
        "precision": precision.value,
        "second_size": second_size,
    }
    write_record(sent, said)
    drop(state)
    try:
        os.link(run.checkpoints / STATE, state)
    except OSError:  # a file system without hard links
        write_whole(state, (run.checkpoints / STATE).read_bytes())


def round_paths(run: RunFolder, round_: int) -> tuple[Path, Path]:
    """Return where the checkpoint before a round, and the instructions of the round, are kept."""
    name = run.checkpoints / f"round-{round_:05d}"
    return name.with_suffix(".safetensors"), name.with_suffix(".json")
