"""What a site does for the second stage before and after its rounds: it makes features, and adds up what a blend is worth.

Features are kept at the site, beside its packed images, and never sent. What leaves it is whether they are there, and sums.
"""

import time

from flwr.app import ArrayRecord, Message, MetricRecord, RecordDict

from fl_rsna.federation.disclosure import Sums, shared_sums
from fl_rsna.federation.heartbeat import beating
from fl_rsna.federation.material import classifier
from fl_rsna.federation.messages import (
    ARRAYS,
    METRICS,
    SCORE,
    Instructions,
    from_arrays,
    read_instructions,
    record_in,
    reply_with,
)
from fl_rsna.federation.sequence_told import SequenceTold, views_told
from fl_rsna.federation.site_part import Place, open_data, ready
from fl_rsna.federation.wire import pack
from fl_rsna.learning.dataset import SiteData
from fl_rsna.learning.encoded import encode_site, encoder_id, is_encoded, open_encoded
from fl_rsna.learning.flat import layout_sha256, model_sha256, unflatten
from fl_rsna.learning.model import Classifier
from fl_rsna.learning.operating import score_counts
from fl_rsna.learning.sequence import SeriesHead
from fl_rsna.learning.series_lesson import head_logits
from fl_rsna.learning.stage_sums import stage_sums
from fl_rsna.learning.train import choose_device
from fl_rsna.learning.two_stage import as_probabilities
from fl_rsna.learning.validation import SLICE
from fl_rsna.task import TaskName, named_task

THERE = "features-there"


def has_features(message: Message, place: Place) -> Message:
    """Whether this site has the encoder's features."""
    told = read_instructions(message)
    data = open_data(place, told.model)
    there = is_encoded(data, views_told(_sequence(told), told.train))
    return reply_with(message, metrics={THERE: float(there)})


def encode(message: Message, place: Place) -> Message:
    """Compute the features under the encoder in the message; raises ValueError when it is not the one it is called."""
    told = read_instructions(message)
    data = open_data(place, told.model)
    network, device = _encoder(message, told, data), choose_device(told.train.device)
    task, views = named_task(TaskName(told.task)), views_told(_sequence(told), told.train)
    start = time.perf_counter()
    with beating(place.heartbeat, data.name, told.round) as on_batch:
        seen = encode_site(network, data, views, task, told.train, device, on_batch)
    return reply_with(message, metrics={"num-examples": seen, "seconds": time.perf_counter() - start})


def weigh(message: Message, place: Place) -> Message:
    """Sums of the validation part from which all sites together choose smoothing and blend of the head in the message."""
    told = read_instructions(message)
    data = open_data(place, told.model)
    task, head = ready(message, data, told, {})
    assert isinstance(head, SeriesHead)
    encoded = open_encoded(data, views_told(_sequence(told), told.train))
    rows = data.rows("validation")
    labels, slices = data.labels[rows], encoded.take(0, rows)[1]
    of_head = head_logits(head, data.index, encoded, rows, choose_device(told.train.device))
    counted = {SLICE: score_counts(labels, as_probabilities(slices, task))}
    sums: Sums = {**counted, **stage_sums(labels, slices, of_head, data.index.iloc[rows])}
    shared = shared_sums(sums, told.min_count)
    arrays = ArrayRecord({name: pack(shared[name].reshape(-1)) for name in sums if name != SLICE})
    return Message(RecordDict({SCORE: arrays, METRICS: MetricRecord({"num-examples": len(rows)})}), reply_to=message)


def _encoder(message: Message, told: Instructions, data: SiteData) -> Classifier:
    task, expected = named_task(TaskName(told.task)), _sequence(told)
    network = classifier(told.model, task, data.image)
    layout = layout_sha256(network)
    if layout != expected.encoder_layout:
        raise ValueError(
            f"expected the encoder's layout, got another at site {data.name}; run the same version everywhere"
        )
    flat = from_arrays(record_in(message.content, ARRAYS, ArrayRecord))
    found = encoder_id(model_sha256(flat, layout), told.model, task.name, data.image)
    if found != expected.encoder_id:
        raise ValueError(f"expected encoder {expected.encoder_id[:12]}, got {found[:12]} at site {data.name}")
    unflatten(flat, network)
    return network


def _sequence(told: Instructions) -> SequenceTold:
    if told.sequence is None:
        raise ValueError("expected instructions of the second stage, got those of the first")
    return told.sequence
