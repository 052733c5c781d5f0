"""The state of a stacker after so many rounds, and the file from which a killed run goes on."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fl_rsna.cohort.hashed import read_record, write_record
from fl_rsna.federation.compared import Answers, Choice, choose, of_round, read_answers, read_choice, with_answers
from fl_rsna.federation.progress import GONE
from fl_rsna.federation.replies import SiteReply
from fl_rsna.learning.trees import Forest, from_json, to_json
from fl_rsna.reading import reading

STACK_STATE = "stacker.json"  # in checkpoints/


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
        """Take in what the sites said of the round's trees: federation/compared.py."""
        self.round, self.answers = round_, with_answers(self.answers, replies, round_)
        found = of_round(self.answers, round_, {label: f"loss/{label}" for label in self.forests})
        self.losses.append({label: loss for label, loss in found.items() if loss is not None})
        for label in self.forests:
            before = self.choices.get(label, Choice())
            self.choices[label] = choose(before, self.answers, round_, f"loss/{label}")

    def best_rounds(self) -> dict[str, int]:
        """The round chosen for each label, the first of equals; the last where no site may tell."""
        return {label: self.choices[label].round or self.round for label in self.forests}

    def chosen(self) -> dict[str, Forest]:
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
    with reading(path, f"trees over {features} features", GONE):
        plain = dict(found["progress"])
        forests = {label: from_json(raw.encode(), features) for label, raw in found["trees"].items()}
        answers = read_answers(plain.pop("answers"))
        choices = {label: read_choice(choice) for label, choice in plain.pop("choices").items()}
        return StackProgress(**plain, answers=answers, choices=choices, forests=forests), found
