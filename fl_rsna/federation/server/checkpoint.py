"""Keep the state of a run after each round, and write and read the checkpoint from which a killed run goes on.

Runs of a model have one kind of state, stackers of trees another.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fl_rsna.common.hashes import read_record, read_vectors, write_record, write_vectors
from fl_rsna.common.reading import refuse_unreadable
from fl_rsna.federation.server.ask import SiteReply
from fl_rsna.federation.server.same_sites import (
    Answers,
    Choice,
    choose,
    of_round,
    read_answers,
    read_choice,
    with_answers,
)
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.learning.models.trees import Forest, from_json, to_json
from fl_rsna.run_folder.run_folder import TABLES
from fl_rsna.settings.strategy import Averaging, StrategyConfig
from fl_rsna.strategies.strategy import Memory, Vector

TableHashes = dict[str, dict[str, str | int]]  # by file: its length in bytes and its hash

MODELS = ("model", "shown")
MEMORY, WINDOW = "memory.", "window."  # prefixes of the names of vectors in the checkpoint
GONE = "a run cannot go on from it: bring it back from a copy, or start again under another run.name"
STACK_STATE = "stacker.json"  # in checkpoints/


@dataclass(slots=True, kw_only=True)
class Progress:
    """The state of a run after `round` rounds; the checkpoint holds all of it except a `best` of an earlier round."""

    model: FlatModel  # the model that sites train from
    shown: FlatModel  # the model that is validated, tested and kept: `model`, or its mean over rounds
    best: FlatModel  # the `shown` of the lowest validation loss; has its own file once a later round was no better
    memory: Memory = field(default_factory=dict)  # the strategy's own state
    window: dict[int, Vector] = field(default_factory=dict)  # under averaging=window: `model` after its last rounds
    run_id: str
    round: int = 0
    choice: Choice = field(default_factory=Choice)  # the round whose model is `best`
    no_better: int = 0  # comparable rounds since then
    answers: Answers = field(default_factory=dict)  # by site: its last validation scores
    accepted: dict[str, int] = field(default_factory=dict)  # by site: its last round that entered a model
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0
    virtual_s: float = 0.0
    seconds: float = 0.0

    @property
    def best_round(self) -> int:
        """Return the round whose model is `best`; 0 before there is one."""
        return self.choice.round

    def average(self, config: StrategyConfig) -> None:
        """Update `shown`, the mean of `model` over rounds; the initial model is not in the mean.

        All floats are averaged, BatchNorm's statistics too; integers are the last round's. The exponential mean is updated from
        the previous `shown`.
        """
        floats = self.model.floats
        match config.averaging:
            case Averaging.none:
                self.shown = self.model
            case Averaging.ema:
                before = self.shown.floats if self.round > 1 else floats
                mean: Vector = before + np.float32(1 - config.ema_decay) * (floats - before)
                self.shown = FlatModel(mean, self.model.integers)
            case Averaging.window:
                self.window[self.round] = floats
                self.window = {round_: self.window[round_] for round_ in sorted(self.window)[-config.window :]}
                stacked = np.stack([*self.window.values()])
                self.shown = FlatModel(stacked.mean(0, np.float64).astype(np.float32), self.model.integers)


def save_progress(
    path: Path, progress: Progress, of: Mapping[str, str | None] | None = None, tables: TableHashes | None = None
) -> None:
    """Write the checkpoint; a reader finds the old one or the new one. Where both MODELS are the same model it is written once.

    `of` identifies the run; `tables` are the hashes of its tables at this moment. Both are kept in the checkpoint.
    """
    vectors: dict[str, NDArray[np.floating] | NDArray[np.integer]] = {
        f"{MEMORY}{name}": value for name, value in progress.memory.items()
    }
    vectors |= {f"{WINDOW}{round_}": value for round_, value in progress.window.items()}
    stored: dict[str, str] = {}
    for name in MODELS:
        flat: FlatModel = getattr(progress, name)
        stored[name] = next((other for other in stored if getattr(progress, other) is flat), name)
        if stored[name] == name:
            vectors |= {f"{name}.floats": flat.floats, f"{name}.integers": flat.integers}
    apart = (*MODELS, "best", "memory", "window", "answers", "choice")
    plain = {
        **{item.name: getattr(progress, item.name) for item in fields(progress) if item.name not in apart},
        "answers": {site: asdict(answer) for site, answer in progress.answers.items()},
        "choice": asdict(progress.choice),
    }
    hashes = {} if tables is None else {TABLES: tables}
    write_vectors(path, vectors, {**(of or {}), **hashes, "progress": plain, "stored": stored})


def load_progress(path: Path, of: Mapping[str, str | None] | None = None) -> Progress:
    """Read the state from a checkpoint of the run `of`; `best` is the last round's model, which may not be the best.

    Raises ValueError when the file was changed or is of another run.
    """
    return load_checkpoint(path, of)[0]


def load_checkpoint(path: Path, of: Mapping[str, str | None] | None = None) -> tuple[Progress, TableHashes]:
    """Read the state from a checkpoint as `load_progress` does, and the hashes of the tables at that moment."""
    vectors, facts = read_vectors(path, GONE, of)
    plain, stored = facts["progress"], facts["stored"]
    once = {name: FlatModel(vectors[f"{name}.floats"], vectors[f"{name}.integers"]) for name in set(stored.values())}
    model, shown = (once[stored[name]] for name in MODELS)
    memory, window = (
        {name.removeprefix(slot): value for name, value in vectors.items() if name.startswith(slot)}
        for slot in (MEMORY, WINDOW)
    )
    rounds = {int(round_): value for round_, value in window.items()}
    plain |= {"answers": read_answers(plain["answers"]), "choice": read_choice(plain["choice"])}
    progress = Progress(model=model, shown=shown, best=shown, memory=memory, window=rounds, **plain)
    return progress, facts.get(TABLES, {})


@dataclass(slots=True, kw_only=True)
class StackProgress:
    """The state of a stacker of trees after `round` rounds.

    `losses`, the mean of the sites' last validation losses by label, and `sizes`, the number of trees of a label, have one entry for
    each round.
    """

    run_id: str
    runs: list[str]  # the ids of the folds' runs
    able: list[str]  # the sites that have predictions of every fold's model
    forests: dict[str, Forest]
    round: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    answers: Answers = field(default_factory=dict)  # by site: its last validation losses
    choices: dict[str, Choice] = field(default_factory=dict)  # by label
    sizes: list[int] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)  # by round, where sites take turns: whether it brought no tree
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0
    seconds: float = 0.0

    def take(self, replies: list[SiteReply], round_: int) -> None:
        """Take in the sites' validation losses of the round's trees, and choose the best round of each label."""
        self.round, self.answers = round_, with_answers(self.answers, replies, round_)
        found = of_round(self.answers, round_, {label: f"loss/{label}" for label in self.forests})
        self.losses.append({label: loss for label, loss in found.items() if loss is not None})
        for label in self.forests:
            before = self.choices.get(label, Choice())
            self.choices[label] = choose(before, self.answers, round_, f"loss/{label}")

    def best_rounds(self) -> dict[str, int]:
        """Return by label the chosen round, the first of equals; the last round where no site may report losses."""
        return {label: self.choices[label].round or self.round for label in self.forests}

    def best_forests(self) -> dict[str, Forest]:
        """Return by label the trees up to its best round."""
        best = self.best_rounds()
        return {label: trees[: self.sizes[best[label] - 1]] for label, trees in self.forests.items()}


def save_stack(
    path: Path,
    progress: StackProgress,
    features: int,
    prior: tuple[float, ...],
    of: Mapping[str, str | None],
    tables: TableHashes,
) -> None:
    """Write the checkpoint of a stacker of trees; a reader finds the old one or the new one.

    `of` identifies the run; `tables` are the hashes of its tables at this moment.
    """
    trees = {
        label: to_json(forest, features, share).decode()
        for (label, forest), share in zip(progress.forests.items(), prior, strict=True)
    }
    plain = {name: value for name, value in asdict(progress).items() if name != "forests"}
    write_record(path, {**of, TABLES: tables, "progress": plain, "trees": trees})


def load_stack(path: Path, features: int, of: Mapping[str, str | None]) -> tuple[StackProgress, TableHashes]:
    """Read the state from a stacker's checkpoint, and the hashes of the tables at that moment.

    Raises ValueError when the file was changed or is of another run.
    """
    found = read_record(path, GONE, of)
    with refuse_unreadable(path, f"trees over {features} features", GONE):
        plain = dict(found["progress"])
        forests = {label: from_json(raw.encode(), features) for label, raw in found["trees"].items()}
        answers = read_answers(plain.pop("answers"))
        choices = {label: read_choice(choice) for label, choice in plain.pop("choices").items()}
        progress = StackProgress(**plain, answers=answers, choices=choices, forests=forests)
    return progress, found.get(TABLES, {})
