"""Ask the sites for features before the rounds of the second stage, and for sums of losses after them.

Before the rounds, every site has features under the frozen encoder, or gets the encoder once and computes them. After the rounds, the
sites sum losses over their validation parts for every weight of the head and every width of smoothing, and the server chooses both. A
label without a positive in any validation part keeps the slice model.
"""

from dataclasses import replace

import numpy as np
from flwr.app import ArrayRecord, Message, RecordDict
from torch import nn

from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.codec import unpack
from fl_rsna.federation.protocol.messages import (
    BLEND,
    CONFIG,
    ENCODE,
    FEATURES,
    SCORE,
    Instructions,
    instruct,
    record_in,
    to_views,
)
from fl_rsna.federation.server.ask import (
    SiteReply,
    ask,
    ask_for,
    count_traffic,
    model_content,
    recorder,
    require_quorum,
)
from fl_rsna.federation.server.checkpoint import Progress
from fl_rsna.federation.server.context import RunContext, prepare_test_site
from fl_rsna.federation.server.encoder import Encoder
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.scoring.site_scores import Sums, add_sums
from fl_rsna.federation.site.encoding import THERE
from fl_rsna.federation.site.stage_data import new_network
from fl_rsna.learning.inference.blending import GRIDS, choose_stages, smooth_logits
from fl_rsna.learning.inference.features import open_encoded
from fl_rsna.learning.inference.series_objective import head_logits
from fl_rsna.learning.metrics.comparison import compare_stages
from fl_rsna.learning.models.flat import FlatModel, unflatten
from fl_rsna.learning.models.series_head import SeriesHead, TwoStage, as_probabilities, final_probabilities
from fl_rsna.learning.training.train import choose_device
from fl_rsna.run_folder.summary import SequenceSummary, StageChoice
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import Task


def with_features(context: RunContext, progress: Progress) -> RunContext:
    """See to it that the sites have features, and return the context with the sites that have them; the first stage needs none.

    A site that fails is an event. Bytes and failures are counted. Raises BelowQuorum when fewer than strategy.quorum of the sites
    have features.
    """
    encoder = context.encoder
    if encoder is None:
        return context
    instructions = replace(context.instructions, run_id=progress.run_id)
    content = RecordDict({CONFIG: instruct(instructions)})
    write = recorder(context.run, "features", 0)

    def record_failure(reply: SiteReply) -> None:
        if reply.error:
            write(reply)

    asked = ask(context, context.sites, FEATURES, content, round_=0, on_reply=record_failure)
    lacking = [site for site, reply in zip(context.sites, asked, strict=True) if reply.metrics.get(THERE) == 0.0]
    made = _encode(context, encoder, lacking, instructions) if lacking else []
    count_traffic(progress, [*asked, *made])
    failed = {reply.site for reply in [*asked, *made] if reply.error}
    here = [site for site in context.sites if site.name not in failed]
    require_quorum("encoding", len(here), len(context.sites), context.config.strategy, [*asked, *made])
    context.run.event("encoded", sites=len(here), computed=len(lacking), encoder=encoder.instructions.encoder_id)
    return replace(context, sites=here)


def _encode(context: RunContext, encoder: Encoder, sites: list[Site], instructions: Instructions) -> list[SiteReply]:
    """Send the encoder to these sites in full precision, because their features are named by its hash."""
    content, write = model_content(encoder.flat, instruct(instructions)), recorder(context.run, "encoding", 0)
    return ask(context, sites, ENCODE, content, round_=0, on_reply=write)


def reweight_stages(context: RunContext, progress: Progress, head: FlatModel) -> tuple[RunContext, StageChoice | None]:
    """Choose weight of the head and width of smoothing from the sites' sums; return the context with them, and the choice.

    The first stage has no choice. The replies are recorded as those of the round after the last, which a run that was killed then
    repeats. Bytes and failures are counted. Where no site answers, the slice model stays.
    """
    encoder, task = context.encoder, context.test.task
    if encoder is None:
        return context, None
    round_ = progress.round + 1
    instructions = replace(context.instructions, run_id=progress.run_id, round=round_, accepted=dict(progress.accepted))
    answers = ask_for(
        context,
        context.sites,
        BLEND,
        model_content(head, instruct(instructions)),
        round_=round_,
        on_reply=recorder(context.run, "blend", round_),
        read=lambda reply: read_stage_sums(reply, task),
    )
    count_traffic(progress, [reply for reply, _ in answers])
    sums = [found for _, found in answers if found is not None]
    nothing = np.zeros(len(task.labels))
    held = [site.counts["validation"]["positives"] for site in context.sites]
    known = np.array([any(positives[label] for positives in held) for label in task.labels])  # by some validation part
    sigmas, weights = choose_stages(add_sums(sums), known) if sums else (nothing, nothing)
    chosen = replace(context.instructions, sequence=replace(encoder.instructions, weights=tuple(weights.tolist())))
    test = prepare_test_site(context.test.data, task, chosen, encoder)
    choice: StageChoice = {
        "chosen_on": f"validation parts of {len(sums)} of {len(answers)} sites",
        "weights": dict(zip(task.labels, weights.tolist(), strict=True)),
        "sigmas": dict(zip(task.labels, sigmas.tolist(), strict=True)),
    }
    return replace(context, instructions=chosen, test=test, sigmas=sigmas), choice


def read_stage_sums(reply: Message, task: Task) -> Sums:
    """Read a site's sums of losses: [L, G] for each grid. Raises KeyError or ValueError when the reply holds other sums."""
    arrays, sums = record_in(reply.content, SCORE, ArrayRecord), Sums()
    for name, grid in GRIDS.items():
        values = unpack(arrays[name])
        if values.size != len(task.labels) * grid or not np.isfinite(values).all() or values.min() < 0:
            raise ValueError(f"{name}: expected {len(task.labels)} x {grid} numbers of at least 0, got others")
        sums[name] = values.reshape(len(task.labels), grid)
    return sums


def whole_network(context: RunContext, flat: FlatModel) -> nn.Module:
    """Make the network of a model file: the slice model, or in the second stage encoder, head and, once chosen, the weights of the blend."""
    task, encoder = context.test.task, context.encoder
    if encoder is None:
        unflatten(flat, context.network)
        return context.network
    assert context.instructions.sequence is not None
    head = new_network(context.instructions, task, context.cohort.image)
    assert isinstance(head, SeriesHead)
    unflatten(flat, head)
    whole = TwoStage(encoder.saved.network, head).cpu()
    if context.instructions.sequence.weights:
        assert context.sigmas is not None
        whole.choose(np.array(context.instructions.sequence.weights), context.sigmas)
    return whole


def stage_summary(context: RunContext, flat: FlatModel, chosen: StageChoice) -> SequenceSummary:
    """Describe the two stages for summary.json: the encoder, the head, the choice, and four predictions' scores on the test site."""
    encoder, test, task = context.encoder, context.test, context.test.task
    assert encoder is not None
    instructions = replace(encoder.instructions, copies=1)
    encoded = open_encoded(test.data, to_views(instructions, context.instructions.train))
    head = new_network(context.instructions, task, context.cohort.image)
    assert isinstance(head, SeriesHead)
    unflatten(flat, head)
    slices = encoded.take(0, test.rows)[1]
    of_head = head_logits(head, test.data.index, encoded, test.rows, choose_device(context.instructions.train.device))
    weights, table = np.array(list(chosen["weights"].values())), test.data.index.iloc[test.rows]
    sigmas = np.array(list(chosen["sigmas"].values()))
    found = {
        "slice": as_probabilities(slices, task),
        "smoothed": as_probabilities(smooth_logits(slices, table, sigmas), task),
        "head": as_probabilities(of_head, task),
        "blend": final_probabilities(slices, of_head, weights, task),
    }
    patients, seed = table[task.group_key].to_numpy(), derive_seed(context.config.seed, "bootstrap", TEST_SITE)
    return {
        "encoder": {"id": encoder.instructions.encoder_id, "model_sha256": encoder.saved.sha256, "file": context.config.sequence.encoder},
        "head": {"kind": encoder.instructions.head.value, "parameters": int(flat.floats.size), "bytes_a_round": bytes_a_round(context)},
        **chosen,
        "test_site": compare_stages(test.labels, found, patients, task, seed),
    }  # fmt: skip


def bytes_a_round(context: RunContext) -> float | None:
    """Compute the mean number of bytes between the server and a site in a round, up and down together; None without any."""
    rows = context.run.rows("sites")
    moved = [
        (row["round"], row["site"], int(row["bytes_down"]) + int(row["bytes_up"]))
        for row in rows
        if row["phase"] in ("train", "validation") and not row["error"]
    ]
    parts = {(round_, site) for round_, site, _ in moved}
    return sum(count for _, _, count in moved) / len(parts) if parts else None
