"""The state of a stacker after so many rounds, and the file from which a killed run goes on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fl_rsna.cohort.whole import write_whole
from fl_rsna.learning.trees import Forest, from_json, to_json

STACK_STATE = "stacker.json"  # in checkpoints/


@dataclass(slots=True, kw_only=True)
class StackProgress:
    """`losses` and `sizes` have an entry a round: by label, the sites' mean validation loss; and how many trees there were."""

    run_id: str
    runs: list[str]  # of the folds
    able: list[str]  # sites that were asked about every fold
    forests: dict[str, Forest]
    round: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)  # whether a round of one site's turn brought nothing
    bytes_down: int = 0
    bytes_up: int = 0
    failures: int = 0
    seconds: float = 0.0

    def best_rounds(self) -> dict[str, int]:
        """The round of least validation loss a label, the first of equals; the last where no site may tell."""
        return {
            label: min(
                (number for number, loss in enumerate(self.losses, 1) if label in loss),
                key=lambda number: self.losses[number - 1][label],
                default=self.round,
            )
            for label in self.forests
        }

    def chosen(self) -> dict[str, Forest]:
        """Every label's trees up to its best round."""
        best = self.best_rounds()
        return {label: trees[: self.sizes[best[label] - 1]] for label, trees in self.forests.items()}


def save_stack(path: Path, progress: StackProgress, features: int, prior: tuple[float, ...]) -> None:
    """Write the checkpoint; a reader finds the old one or the new one."""
    trees = {
        label: to_json(forest, features, share).decode()
        for (label, forest), share in zip(progress.forests.items(), prior, strict=True)
    }
    plain = {name: value for name, value in asdict(progress).items() if name != "forests"}
    write_whole(path, json.dumps({**plain, "trees": trees}).encode())


def load_stack(path: Path, features: int) -> StackProgress:
    plain = json.loads(path.read_text())
    forests = {label: from_json(raw.encode(), features) for label, raw in plain.pop("trees").items()}
    return StackProgress(**plain, forests=forests)
