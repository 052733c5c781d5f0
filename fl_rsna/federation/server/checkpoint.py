"""The state of a run after each round, and the checkpoint from which a killed run goes on: of a model, and of a stacker of trees."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

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
from fl_rsna.settings.strategy import Averaging, StrategyConfig
from fl_rsna.strategies.strategy import Memory, Vector

MODELS = ("model", "shown")
MEMORY, WINDOW = "memory.", "window."  # how the names of vectors in the checkpoint begin
GONE = "a run cannot go on from it: bring it back from a copy, or begin anew under another run.name"
STACK_STATE = "stacker.json"  # in checkpoints/


@dataclass(slots=True, kw_only=True)
class Progress:
    """The state of a run after `round` rounds; all of it is in the checkpoint but a `best` of an earlier round."""

    model: FlatModel  # what sites train from
    shown: FlatModel  # what is validated, tested and kept: `model`, or its mean over rounds
    best: FlatModel  # the `shown` of the lowest validation loss; has a file of its own once a later round was no better
    memory: Memory = field(default_factory=dict)  # what the strategy remembers, and nothing else
    window: dict[int, Vector] = field(
        default_factory=dict
    )  # what averaging=window remembers: `model` after its last rounds
    run_id: str
    round: int = 0
    choice: Choice = field(default_factory=Choice)  # of the round whose model is `best`
    no_better: int = 0  # rounds since, of those that could be compared
    answers: Answers = field(default_factory=dict)  # what each site said last of its validation part
    accepted: dict[str, int] = field(default_factory=dict)  # a site's last round that entered a model
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0
    virtual_s: float = 0.0
    seconds: float = 0.0

    @property
    def best_round(self) -> int:
        return self.choice.round

    def average(self, config: StrategyConfig) -> None:
        """Take the new `model` into the mean over rounds that is shown; the model that rounds began with is not in it.

        Floats of every kind are averaged, BatchNorm's statistics too; integers are the last round's. The exponential mean
        needs no memory but itself: it is what was shown before.
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


def save_progress(path: Path, progress: Progress, facts: Mapping[str, Any] | None = None) -> None:
    """Write the checkpoint; a reader finds the old one or the new one. A model that is two of MODELS is written once.

    `facts` are kept beside it, such as whose checkpoint it is.
    """
    vectors: dict[str, np.ndarray[Any, Any]] = {f"{MEMORY}{name}": value for name, value in progress.memory.items()}
    vectors |= {f"{WINDOW}{round_}": value for round_, value in progress.window.items()}
    stored: dict[str, str] = {}
    for name in MODELS:
        flat: FlatModel = getattr(progress, name)
        stored[name] = next((other for other in stored if getattr(progress, other) is flat), name)
        if stored[name] == name:
            vectors |= {f"{name}.floats": flat.floats, f"{name}.integers": flat.integers}
    write_vectors(path, vectors, {**(facts or {}), "progress": _plain(progress), "stored": stored})


def load_progress(path: Path, of: Mapping[str, Any] | None = None) -> Progress:
    """The state of a checkpoint, which must have the facts `of`; `best` is right when it is the last round's, else for the
    caller to find. Raises ValueError when the file was changed or is another's.
    """
    return load_checkpoint(path, of)[0]


def load_checkpoint(path: Path, of: Mapping[str, Any] | None = None) -> tuple[Progress, dict[str, Any]]:
    """The same, with the facts that were kept beside it."""
    vectors, facts = read_vectors(path, GONE, of)
    plain, stored = facts["progress"], facts["stored"]
    once = {name: FlatModel(vectors[f"{name}.floats"], vectors[f"{name}.integers"]) for name in set(stored.values())}
    models: dict[str, Any] = {name: once[source] for name, source in stored.items()}
    memory, window = (
        {name.removeprefix(slot): value for name, value in vectors.items() if name.startswith(slot)}
        for slot in (MEMORY, WINDOW)
    )
    rounds = {int(round_): value for round_, value in window.items()}
    plain |= {"answers": read_answers(plain["answers"]), "choice": read_choice(plain["choice"])}
    return Progress(**models, best=models["shown"], memory=memory, window=rounds, **plain), facts


def _plain(progress: Progress) -> dict[str, Any]:
    apart = (*MODELS, "best", "memory", "window", "answers", "choice")
    kept = {item.name: getattr(progress, item.name) for item in fields(progress) if item.name not in apart}
    answers = {site: asdict(answer) for site, answer in progress.answers.items()}
    return {**kept, "answers": answers, "choice": asdict(progress.choice)}


@dataclass(slots=True, kw_only=True)
class StackProgress:
    """`losses` and `sizes` have an entry a round: by label, the mean of the sites' last validation losses; and how many trees there were."""

    run_id: str
    runs: list[str]  # of the folds
    able: list[str]  # sites that were asked about every fold
    forests: dict[str, Forest]
    round: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    answers: Answers = field(default_factory=dict)  # what each site said last of its validation part
    choices: dict[str, Choice] = field(default_factory=dict)  # by label
    sizes: list[int] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)  # whether a round of one site's turn brought nothing
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0
    seconds: float = 0.0

    def take(self, replies: list[SiteReply], round_: int) -> None:
        """Take in what the sites said of the round's trees: federation/server/same_sites.py."""
        self.round, self.answers = round_, with_answers(self.answers, replies, round_)
        found = of_round(self.answers, round_, {label: f"loss/{label}" for label in self.forests})
        self.losses.append({label: loss for label, loss in found.items() if loss is not None})
        for label in self.forests:
            before = self.choices.get(label, Choice())
            self.choices[label] = choose(before, self.answers, round_, f"loss/{label}")

    def best_rounds(self) -> dict[str, int]:
        """The round chosen for each label, the first of equals; the last where no site may tell."""
        return {label: self.choices[label].round or self.round for label in self.forests}

    def best_forests(self) -> dict[str, Forest]:
        """Every label's trees up to its best round."""
        best = self.best_rounds()
        return {label: trees[: self.sizes[best[label] - 1]] for label, trees in self.forests.items()}


def save_stack(
    path: Path, progress: StackProgress, features: int, prior: tuple[float, ...], facts: Mapping[str, Any]
) -> None:
    """Write the checkpoint, with the facts beside it; a reader finds the old one or the new one."""
    trees = {
        label: to_json(forest, features, share).decode()
        for (label, forest), share in zip(progress.forests.items(), prior, strict=True)
    }
    plain = {name: value for name, value in asdict(progress).items() if name != "forests"}
    write_record(path, {**facts, "progress": plain, "trees": trees})


def load_stack(path: Path, features: int, of: Mapping[str, Any]) -> tuple[StackProgress, dict[str, Any]]:
    """The state of a checkpoint, and the facts beside it; raises ValueError when the file was changed or is another's."""
    found = read_record(path, GONE, of)
    with refuse_unreadable(path, f"trees over {features} features", GONE):
        plain = dict(found["progress"])
        forests = {label: from_json(raw.encode(), features) for label, raw in found["trees"].items()}
        answers = read_answers(plain.pop("answers"))
        choices = {label: read_choice(choice) for label, choice in plain.pop("choices").items()}
        return StackProgress(**plain, answers=answers, choices=choices, forests=forests), found
