"""Answer the messages of the second stage before and after its rounds: compute features, and sum losses for the choice of a blend.

Features are kept at the site, beside its packed images, and never sent. The site only tells whether it has them, and sends sums.
"""

import time

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fl_rsna.federation.protocol.codec import pack
from fl_rsna.federation.protocol.messages import (
    ARRAYS,
    METRICS,
    SCORE,
    Instructions,
    SequenceInstructions,
    from_arrays,
    read_instructions,
    record_in,
    reply_with,
    to_views,
)
from fl_rsna.federation.protocol.minimum_count import Sums, suppress_sums
from fl_rsna.federation.site.handlers import SitePaths, open_data, ready
from fl_rsna.federation.site.heartbeat import keep_heartbeat
from fl_rsna.federation.site.stage_data import classifier
from fl_rsna.learning.data.dataset import SiteData
from fl_rsna.learning.inference.blending import stage_sums
from fl_rsna.learning.inference.features import encode_site, encoder_id, is_encoded, open_encoded
from fl_rsna.learning.inference.series_objective import head_logits
from fl_rsna.learning.metrics.operating_points import SLICE, score_counts
from fl_rsna.learning.models.classifier import Classifier
from fl_rsna.learning.models.flat import layout_sha256, model_sha256, unflatten
from fl_rsna.learning.models.series_head import SeriesHead, as_probabilities
from fl_rsna.learning.training.train import choose_device
from fl_rsna.task import find_task

THERE = "features-there"


def has_features(message: Message, place: SitePaths) -> Message:
    """Tell whether this site has the encoder's features."""
    instructions = read_instructions(message)
    data = open_data(place, instructions.model)
    there = is_encoded(data, to_views(_sequence(instructions), instructions.train))
    return reply_with(message, metrics={THERE: float(there)})


def encode(message: Message, place: SitePaths) -> Message:
    """Compute the features under the encoder in the message; raises ValueError when its hash is not that of the instructions."""
    instructions = read_instructions(message)
    data = open_data(place, instructions.model)
    network, device = _encoder(message, instructions, data), choose_device(instructions.train.device)
    task, views = find_task(instructions.task), to_views(_sequence(instructions), instructions.train)
    start = time.perf_counter()
    with keep_heartbeat(place.heartbeat, data.name, instructions.round) as on_batch:
        seen = encode_site(network, data, views, task, instructions.train, device, on_batch)
    return reply_with(message, metrics={"num-examples": seen, "seconds": time.perf_counter() - start})


def weigh(message: Message, place: SitePaths) -> Message:
    """Sum losses of the validation part, from which smoothing and blend of the head in the message are chosen over all sites."""
    instructions = read_instructions(message)
    data = open_data(place, instructions.model)
    task, head = ready(message, data, instructions, {})
    assert isinstance(head, SeriesHead)
    encoded = open_encoded(data, to_views(_sequence(instructions), instructions.train))
    rows = data.rows("validation")
    labels, slices = data.labels[rows], encoded.take(0, rows)[1]
    of_head = head_logits(head, data.index, encoded, rows, choose_device(instructions.train.device))
    counted = {SLICE: score_counts(labels, as_probabilities(slices, task))}
    sums: Sums = {**counted, **stage_sums(labels, slices, of_head, data.index.iloc[rows])}
    shared = suppress_sums(sums, instructions.min_count)
    arrays = ArrayRecord({name: pack(shared[name].reshape(-1)) for name in sums if name != SLICE})
    return Message(RecordDict({SCORE: arrays, METRICS: MetricRecord({"num-examples": len(rows)})}), reply_to=message)


def _encoder(message: Message, instructions: Instructions, data: SiteData) -> Classifier:
    task, expected = find_task(instructions.task), _sequence(instructions)
    network = classifier(instructions.model, task, data.image)
    layout = layout_sha256(network)
    if layout != expected.encoder_layout:
        raise ValueError(
            f"expected the encoder's layout, got another at site {data.name}; run the same version everywhere"
        )
    flat = from_arrays(record_in(message.content, ARRAYS, ArrayRecord))
    found = encoder_id(model_sha256(flat, layout), instructions.model, task.name, data.image)
    if found != expected.encoder_id:
        raise ValueError(f"expected encoder {expected.encoder_id[:12]}, got {found[:12]} at site {data.name}")
    unflatten(flat, network)
    return network


def _sequence(instructions: Instructions) -> SequenceInstructions:
    if instructions.sequence is None:
        raise ValueError("expected instructions of the second stage, got those of the first")
    return instructions.sequence
