"""Score the final model at the sites: choose operating points from the sums of their counts, and collect a scorecard from each.

Every site is asked for both, whether or not it took part in the rounds. A site that fails is an event and has no scorecard; the
operating points then rest on the other sites. No choice depends on the test site.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.typing import NDArray

from fl_rsna.federation.protocol.codec import unpack
from fl_rsna.federation.protocol.messages import (
    CONFIG,
    COUNTS,
    SCORE,
    SCORECARD,
    Instructions,
    instruct,
    record_in,
)
from fl_rsna.federation.server.ask import SiteReply, ask_for, count_traffic, model_content, recorder
from fl_rsna.federation.server.checkpoint import Progress
from fl_rsna.federation.server.context import RunContext
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.site.scoring import POINTS
from fl_rsna.learning.metrics.exams import aggregates
from fl_rsna.learning.metrics.operating_points import (
    BINS,
    LOSS,
    SLICE,
    TEMPERATURES,
    OperatingPoints,
    Platt,
    choose,
    choose_platt,
)
from fl_rsna.learning.metrics.scorecard import ScorecardFigures
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.learning.training.targets import compute_prevalence_odds
from fl_rsna.run_folder.summary import ChosenPoints
from fl_rsna.task import LabelKind, Task

Sums = dict[str, NDArray[np.generic]]
Recorder = Callable[[str], Callable[[SiteReply], None]]  # phase -> the function that records a site's reply


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSites:
    """Operating points and scorecards of a model on the sites' validation parts; there are no points when no site answered."""

    points: OperatingPoints | None
    asked: int
    counted: int  # sites whose counts the points rest on
    cards: dict[str, ScorecardFigures]  # by site
    replies: list[SiteReply]
    platt: dict[str, Platt | None]  # by label; None for a label of too few exams

    def describe_points(self) -> ChosenPoints | None:
        """Describe the operating points for summary.json, with the sites they rest on; None where there are none."""
        rests_on = f"validation parts of {self.counted} of {self.asked} sites"
        return None if self.points is None else {"chosen_on": rests_on, **self.points.to_json(), "platt": self.lines()}

    def lines(self) -> dict[str, dict[str, float] | None]:
        """Return each label's Platt scaling as plain values."""
        return {label: None if fitted is None else fitted.to_json() for label, fitted in self.platt.items()}


def score_at_sites(context: RunContext, progress: Progress, model: FlatModel) -> AtSites:
    """Ask every site to score the run's final model; record the replies, and count bytes and failures.

    The replies are recorded as those of the round after the last, which a run that was killed then repeats.
    """
    found = ask_sites(context, progress, model, lambda phase: recorder(context.run, phase, progress.round + 1))
    count_traffic(progress, found.replies)
    return found


def ask_sites(context: RunContext, progress: Progress, model: FlatModel, record: Recorder) -> AtSites:
    """Ask every site for its counts under `model`, choose operating points, and ask the sites that counted for their scorecards.

    `record` gives for each phase the function that records a site's reply.
    """
    round_ = progress.round + 1
    instructions = replace(context.instructions, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted))
    return collect_scores(
        context, instructions, context.sites, COUNTS, model_content(model, instruct(instructions)), record
    )


def collect_scores(
    context: RunContext, instructions: Instructions, sites: list[Site], kind: str, content: RecordDict, record: Recorder
) -> AtSites:
    """Ask `sites` for their counts by messages of this kind and content, choose operating points, and ask for scorecards."""
    task, round_ = context.test.task, instructions.round
    on_reply = record("operating points")
    answers = ask_for(
        context, sites, kind, content, round_=round_, on_reply=on_reply, read=lambda reply: read_sums(reply, task)
    )
    replies, sums = [reply for reply, _ in answers], [found for _, found in answers if found is not None]
    if not sums:
        return AtSites(points=None, asked=len(answers), counted=0, cards={}, replies=replies, platt={})
    total, target = add_sums(sums), instructions.target
    odds = compute_prevalence_odds(instructions.prior, target) if target else None
    points = choose(total, task)
    counted = [site for site, (_, found) in zip(sites, answers, strict=True) if found is not None]
    config = instruct(instructions)
    config[POINTS] = json.dumps(points.to_json())
    asked = RecordDict({CONFIG: config})  # without the model: a site keeps its predictions
    scored = ask_for(context, counted, SCORECARD, asked, round_=round_, on_reply=record("scorecard"), read=_read_card)
    cards = {reply.site: card for reply, card in scored if card is not None}
    return AtSites(
        points=points, asked=len(answers), counted=len(counted), cards=cards, replies=replies + [reply for reply, _ in scored],
        platt=choose_platt(total, task, odds),
    )  # fmt: skip


def add_sums(sums: list[Sums]) -> Sums:
    """Add up the sums of sites, key by key."""
    return {name: np.sum([of_site[name] for of_site in sums], axis=0) for name in sums[0]}


def shapes_of(task: Task) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a site's sums by their names."""
    counts, losses = (len(task.labels), 2, BINS), 1 if task.kind is LabelKind.multi_class else len(task.labels)
    return {SLICE: counts, **{how.value: counts for how in aggregates(task.kind)}, LOSS: (losses, len(TEMPERATURES))}


def read_sums(reply: Message, task: Task) -> Sums:
    """Read a site's sums. Raises KeyError or ValueError when one is missing, of another shape, negative or not finite."""
    arrays, sums = record_in(reply.content, SCORE, ArrayRecord), Sums()
    for name, shape in shapes_of(task).items():
        values = unpack(arrays[name])
        if values.size != np.prod(shape) or not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(f"{name}: expected {shape} numbers of at least 0, got {values.size} others")
        sums[name] = values.reshape(shape)
    return sums


def _read_card(reply: Message) -> ScorecardFigures:
    card: ScorecardFigures = json.loads(str(record_in(reply.content, SCORE, ConfigRecord)["scorecard"]))
    return card
