"""Play the rounds of a stacker of boosted trees: all sites, or one in turn, grow a tree, and all validate the common trees.

Flower's strategies for XGBoost merge the replies of a round, one label at a time. Bagging (FedXgbBagging) appends one tree of every
site to the common ones; all start from the same trees, so each site grows its tree at its share of the learning rate. Cyclic
(FedXgbCyclic) takes the whole trees of one site; sites take turns.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedXgbBagging, FedXgbCyclic
from numpy.typing import NDArray

from fl_rsna.federation.protocol.codec import pack_trees, unpack_trees
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    CONFIG,
    GROW,
    GROWN,
    METRICS,
    Instructions,
    instruct,
    record_in,
)
from fl_rsna.federation.protocol.simulated import drops_out
from fl_rsna.federation.server.ask import SiteReply, ask, ask_for, count_traffic, recorder, require_quorum
from fl_rsna.federation.server.checkpoint import STACK_STATE, StackProgress, save_stack
from fl_rsna.federation.server.context import RunContext
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.run_log import write_round
from fl_rsna.federation.server.same_sites import count_answers
from fl_rsna.federation.server.sampling import sample_sites
from fl_rsna.federation.site.stacking import STACK
from fl_rsna.learning.inference.stacking import by_trees
from fl_rsna.learning.models.trees import Floats, Forest, from_json, to_json
from fl_rsna.settings.stages import Boosting

Forests = dict[str, Forest]


def turn(sites: list[Site], round_: int) -> list[Site]:
    """Return the one site of a cyclic round; sites take turns in their order."""
    return [sites[(round_ - 1) % len(sites)]]


def merge_trees(
    method: Boosting, round_: int, before: Forest, replies: Sequence[Forest], features: int, prior: float
) -> Forest:
    """Merge one label's trees by Flower's strategy."""
    sent = [_reply(to_json(forest, features, prior)) for forest in replies]
    match method:
        case Boosting.bagging:
            bagging = FedXgbBagging()
            bagging.current_bst = to_json(before, features, prior)
            arrays, _ = bagging.aggregate_train(round_, sent)
        case Boosting.cyclic:
            arrays, _ = FedXgbCyclic().aggregate_train(round_, sent)
    assert arrays is not None, "Flower's strategy made nothing of the replies"
    return from_json(arrays["0"].numpy().tobytes(), features)


def check_grown(method: Boosting, before: Forest, sent: Forest) -> None:
    """Check that a site sent one new tree and, under cyclic, the others unchanged; raises ValueError."""
    kept = before if method is Boosting.cyclic else []
    same = len(sent) == len(kept) + 1 and all(
        np.array_equal(getattr(old, name), getattr(new, name))
        for old, new in zip(kept, sent, strict=False)
        for name in ("left", "right", "feature", "value")
    )
    if not same:
        raise ValueError(f"expected {len(kept)} trees as they were sent and one more, got {len(sent)} or others")


def _reply(raw: bytes) -> Message:
    content = RecordDict({ARRAYS: ArrayRecord([np.frombuffer(raw, np.uint8)])})
    content[METRICS] = MetricRecord({"num-examples": 1})
    return Message(content, reply_to=Message(RecordDict(), 1, MessageType.TRAIN))


@dataclass(frozen=True, slots=True, kw_only=True)
class Stacking:
    """The state of a stacker of trees, and the test site's features [N, F], on which no choice depends."""

    context: RunContext
    progress: StackProgress
    test: Floats
    mean: NDArray[
        np.float32
    ]  # [N, L]: predictions of the mean of the folds' models, with which the stacker is compared

    @property
    def able(self) -> list[Site]:
        """Return the sites that have predictions of every fold."""
        return [site for site in self.context.sites if site.name in self.progress.able]

    @property
    def instructions(self) -> Instructions:
        """Return the instructions of the next round."""
        return replace(self.context.instructions, run_id=self.progress.run_id, round=self.progress.round + 1)

    def probabilities(self, forests: Forests) -> NDArray[np.float32]:
        """Predict the test slices by these trees: probabilities [N, L]."""
        return by_trees(forests, self.test, self.context.instructions.prior, self.context.test.task)

    def content(self, sites: list[Site], forests: Forests, instructions: Instructions) -> RecordDict:
        """Make the content of a message to each of `sites`: the trees, the instructions and the folds' runs."""
        config, labels = instruct(instructions), self.context.test.task.labels
        held = sum(site.counts["train"]["slices"] for site in sites)
        config[STACK] = json.dumps({"runs": self.progress.runs, "slices": held})
        priors = dict(zip(labels, self.context.instructions.prior, strict=True))
        return RecordDict({ARRAYS: pack_trees(forests, self.test.shape[1], priors), CONFIG: config})

    def save(self) -> None:
        """Write the checkpoint."""
        run, prior = self.context.run, self.context.instructions.prior
        path = run.checkpoints / STACK_STATE
        save_stack(path, self.progress, self.test.shape[1], prior, run.identity(), run.table_hashes())


def play_trees(stacking: Stacking) -> None:
    """Play the rounds that are left, with a checkpoint after each."""
    progress = stacking.progress
    start, before = time.perf_counter(), progress.seconds
    while progress.round < stacking.context.config.stacking.rounds:
        _play_round(stacking)
        progress.seconds = before + time.perf_counter() - start
        stacking.save()


def _play_round(stacking: Stacking) -> None:
    context, progress, start = stacking.context, stacking.progress, time.perf_counter()
    instructions, task = stacking.instructions, context.test.task
    round_ = instructions.round
    chosen = choose_sites(stacking, round_)
    context.run.event("round_start", round=round_, sites=[site.name for site in chosen])
    grown = _grow(stacking, instructions, chosen)
    trained_at = time.perf_counter()
    content = stacking.content(stacking.able, progress.forests, instructions)
    record = recorder(context.run, "validation", round_)
    evaluated = ask(context, stacking.able, GROWN, content, round_=round_, on_reply=record)
    progress.take(evaluated, round_)
    validated_at = time.perf_counter()
    losses, weights = progress.losses[-1], dict(zip(task.labels, task.label_weights, strict=True))
    mean = sum(weights[label] * loss for label, loss in losses.items()) / (sum(weights[label] for label in losses) or 1)
    traffic = count_traffic(progress, grown + evaluated)
    row: dict[str, float | None] = {
        "validation_loss": mean if losses else None,
        **count_answers(progress.answers, [site.name for site in context.sites], round_),
        **context.test.point(stacking.probabilities(progress.forests)),
        "sites": len(chosen),
        "failed": traffic["failures"],
        "bytes_down": traffic["bytes_down"],
        "bytes_up": traffic["bytes_up"],
        "train_s": trained_at - start,
        "validation_s": validated_at - trained_at,
        "test_s": time.perf_counter() - validated_at,
        "seconds": time.perf_counter() - start,
    }
    write_round(context.run, task, round_, row)


def choose_sites(stacking: Stacking, round_: int) -> list[Site]:
    """Choose the sites that grow a tree in a round: a sample of strategy.fraction, or the one whose turn it is."""
    config = stacking.context.config
    match config.stacking.method:
        case Boosting.bagging:
            return sample_sites(stacking.able, config.strategy, config.seed, round_)
        case Boosting.cyclic:
            return turn(stacking.able, round_)


def _grow(stacking: Stacking, instructions: Instructions, chosen: list[Site]) -> list[SiteReply]:
    """Ask the chosen sites for a tree of each label, and merge them by Flower's strategy."""
    context, progress = stacking.context, stacking.progress
    config, labels, width = context.config, context.test.task.labels, stacking.test.shape[1]
    out = {site.name for site in chosen if drops_out(config.faults, config.seed, site.name, instructions.round)}
    asked = [site for site in chosen if site.name not in out]
    content = stacking.content(asked, progress.forests, instructions)

    def read(reply: Message) -> Forests:
        sent = unpack_trees(record_in(reply.content, ARRAYS, ArrayRecord), labels, width)
        for label in labels:
            check_grown(config.stacking.method, progress.forests[label], sent[label])
        return sent

    record = recorder(context.run, "train", instructions.round)
    answers = ask_for(context, asked, GROW, content, round_=instructions.round, on_reply=record, read=read)
    replies, usable = [reply for reply, _ in answers], [sent for _, sent in answers if sent is not None]
    _check_quorum(stacking, instructions.round, len(chosen), len(usable), replies)
    if usable:
        for label, share in zip(labels, context.instructions.prior, strict=True):
            before, sent = progress.forests[label], [forests[label] for forests in usable]
            progress.forests[label] = merge_trees(
                config.stacking.method, instructions.round, before, sent, width, share
            )
    progress.sizes.append(len(progress.forests[labels[0]]))
    return replies


def _check_quorum(stacking: Stacking, round_: int, chosen: int, came: int, replies: list[SiteReply]) -> None:
    """Raise BelowQuorum when too few of the chosen sites replied; where sites take turns, the last cycle of them counts."""
    progress, config = stacking.progress, stacking.context.config
    if config.stacking.method is Boosting.cyclic:
        progress.lost.append(not came)
        cycle = progress.lost[-len(stacking.able) :]
        chosen, came = len(stacking.able), len(stacking.able) - sum(cycle)
    require_quorum(f"round {round_}", came, chosen, config.strategy, replies)
