"""How good the final model is at the sites: operating points chosen from sums of their counts, and a scorecard of each.

Both are asked of every site, whatever its part in the rounds. A site that fails here is a named event and has no scorecard;
the operating points then rest on the others. No choice sees the test site.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

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
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.learning.training.targets import compute_prevalence_odds
from fl_rsna.task import LabelKind, Task

Sums = dict[str, NDArray[np.generic]]
Recorder = Callable[[str], Callable[[SiteReply], None]]  # what is done with each site's reply, by the name of a phase


@dataclass(frozen=True, slots=True, kw_only=True)
class AtSites:
    """What the sites' validation parts say of a model; no points when no site answered."""

    points: OperatingPoints | None
    asked: int
    counted: int  # sites whose counts the points rest on
    cards: dict[str, dict[str, Any]]  # scorecard by site
    replies: list[SiteReply]
    platt: dict[str, Platt | None]  # by label; none of a label of too few exams

    def describe_points(self) -> dict[str, Any] | None:
        """The operating points and what they rest on, for summary.json."""
        rests_on = f"validation parts of {self.counted} of {self.asked} sites"
        return None if self.points is None else {"chosen_on": rests_on, **self.points.to_json(), "platt": self.lines()}

    def lines(self) -> dict[str, dict[str, float] | None]:
        """What makes each label's probabilities honest, as plain values."""
        return {label: None if fitted is None else fitted.to_json() for label, fitted in self.platt.items()}


def score_at_sites(context: RunContext, progress: Progress, model: FlatModel) -> AtSites:
    """Ask every site about the run's final model, write its part down, and count bytes and failures.

    Written down as the round after the last, which a run that was killed at it plays again.
    """
    found = ask_sites(context, progress, model, lambda phase: recorder(context.run, phase, progress.round + 1))
    count_traffic(progress, found.replies)
    return found


def ask_sites(context: RunContext, progress: Progress, model: FlatModel, record: Recorder) -> AtSites:
    """Ask every site for its counts under `model`, choose, and ask those that counted for their scorecards.

    `record` gives, for the name of a phase, what is done with each site's reply.
    """
    round_ = progress.round + 1
    instructions = replace(context.instructions, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted))
    return collect_scores(
        context, instructions, context.sites, COUNTS, model_content(model, instruct(instructions)), record
    )


def collect_scores(
    context: RunContext, instructions: Instructions, sites: list[Site], kind: str, content: RecordDict, record: Recorder
) -> AtSites:
    """Ask `sites` for their counts by messages of this kind and content, and go on from there as `ask_sites` says."""
    task, round_ = context.test.task, instructions.round
    on_reply = record("operating points")
    answers = ask_for(
        context, sites, kind, content, round_=round_, on_reply=on_reply, read=lambda reply: read_sums(reply, task)
    )
    replies, sums = [reply for reply, _ in answers], [found for _, found in answers if found is not None]
    if not sums:
        return AtSites(points=None, asked=len(answers), counted=0, cards={}, replies=replies, platt={})
    total, odds = (
        add_sums(sums),
        compute_prevalence_odds(instructions.prior, instructions.target) if instructions.target else None,
    )
    points, counted = (
        choose(total, task),
        [site for site, (_, found) in zip(sites, answers, strict=True) if found is not None],
    )
    asked = _points_content(instructions, points)
    scored = ask_for(context, counted, SCORECARD, asked, round_=round_, on_reply=record("scorecard"), read=_read_card)
    cards = {reply.site: card for reply, card in scored if card is not None}
    return AtSites(
        points=points, asked=len(answers), counted=len(counted), cards=cards, replies=replies + [reply for reply, _ in scored],
        platt=choose_platt(total, task, odds),
    )  # fmt: skip


def add_sums(sums: list[Sums]) -> Sums:
    """The sites' sums together."""
    return {name: np.sum([of_site[name] for of_site in sums], axis=0) for name in sums[0]}


def shapes_of(task: Task) -> dict[str, tuple[int, ...]]:
    """What a site's sums look like."""
    counts, losses = (len(task.labels), 2, BINS), 1 if task.kind is LabelKind.multi_class else len(task.labels)
    return {SLICE: counts, **{how.value: counts for how in aggregates(task.kind)}, LOSS: (losses, len(TEMPERATURES))}


def _points_content(instructions: Instructions, points: OperatingPoints) -> RecordDict:
    """What asks for a scorecard: no model, for a site remembers what the last message said."""
    config = instruct(instructions)
    config[POINTS] = json.dumps(points.to_json())
    return RecordDict({CONFIG: config})


def read_sums(reply: Message, task: Task) -> Sums:
    """Raises KeyError or ValueError when the reply holds none of the shapes of this task, or what cannot be counted."""
    arrays, sums = record_in(reply.content, SCORE, ArrayRecord), Sums()
    for name, shape in shapes_of(task).items():
        values = unpack(arrays[name])
        if values.size != np.prod(shape) or not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(f"{name}: expected {shape} numbers of at least 0, got {values.size} others")
        sums[name] = values.reshape(shape)
    return sums


def _read_card(reply: Message) -> dict[str, Any]:
    card: dict[str, Any] = json.loads(str(record_in(reply.content, SCORE, ConfigRecord)["scorecard"]))
    return card
