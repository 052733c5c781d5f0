"""What changes from round to round, and the checkpoint from which a killed run goes on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from fl_rsna.choices import Averaging
from fl_rsna.cohort.hashed import read_vectors, write_vectors
from fl_rsna.config import StrategyConfig
from fl_rsna.federation.compared import Answers, Choice, read_answers, read_choice
from fl_rsna.federation.folded import Memory, Vector
from fl_rsna.learning.flat import FlatModel

MODELS = ("model", "shown")
MEMORY, WINDOW = "memory.", "window."  # how the names of vectors in the checkpoint begin
GONE = "a run cannot go on from it: bring it back from a copy, or begin anew under another run.name"


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
