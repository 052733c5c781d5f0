"""Answer the messages about the final model: counts for the operating points, then the site's own scorecard.

The probabilities of its validation slices stay at the site, in its memory of the run. It sends counts by probability, sums of losses,
and last the scorecard, whose intervals are from resampling its own patients.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray

from fl_rsna.common.hashes import read_table, write_table
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.protocol.codec import pack
from fl_rsna.federation.protocol.messages import CONFIG, METRICS, SCORE, Instructions, read_instructions, record_in
from fl_rsna.federation.protocol.minimum_count import suppress_card, suppress_sums, without_labels
from fl_rsna.federation.site.handlers import SitePaths, open_data, ready
from fl_rsna.federation.site.memory import GONE, recall
from fl_rsna.federation.site.stage_data import build_stage_data
from fl_rsna.learning.inference.predict import labels_in, prediction_table, probabilities_in
from fl_rsna.learning.metrics.operating_points import OperatingPoints, site_sums
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.learning.training.targets import compute_prevalence_odds, label_weights
from fl_rsna.task import LabelKind, Task, find_task

POINTS = "operating_points"


def count(message: Message, place: SitePaths) -> Message:
    """Predict the validation part with the final model and the site's personal layers; keep the predictions, and reply with counts."""
    instructions = read_instructions(message)
    data = open_data(place, instructions.model)
    task, model = ready(
        message,
        data,
        instructions,
        recall(place.memory / instructions.run_id, instructions.accepted.get(data.name, 0), data.name),
    )
    rows = data.rows("validation")
    found = build_stage_data(data, task, instructions, place.memory).predict(model, rows)
    return keep_and_count(message, place, instructions, prediction_table(data, rows, found, task))


def keep_and_count(message: Message, place: SitePaths, instructions: Instructions, table: pd.DataFrame) -> Message:
    """Keep a final model's predictions and reply with sums that add up over sites."""
    task, path = find_task(instructions.task), final_predictions(place.memory, instructions.run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(path, table, {"run_id": instructions.run_id, "site": open_data(place, instructions.model).name})
    exclusive = task.kind is LabelKind.multi_class
    told_sums = suppress_sums(sums_of(table, task, instructions), instructions.min_count, exclusive=exclusive)
    sums = {name: pack(array.reshape(-1)) for name, array in told_sums.items()}
    content = RecordDict({SCORE: ArrayRecord(sums), METRICS: MetricRecord({"num-examples": len(table)})})
    return Message(content, reply_to=message)


def score(message: Message, place: SitePaths) -> Message:
    """Reply with the scorecard of the predictions that `count` kept, at the operating points in the message."""
    instructions = read_instructions(message)
    points = json.loads(str(record_in(message.content, CONFIG, ConfigRecord)[POINTS]))
    name, task = open_data(place, instructions.model).name, find_task(instructions.task)
    table = read_final(final_predictions(place.memory, instructions.run_id), name)
    labels = labels_in(table, task.labels)
    whole = scorecard(
        labels,
        probabilities_in(table, task.labels),
        table[task.group_key].to_numpy(),
        table[task.exam_key].to_numpy(),
        task=task,
        settings=OperatingPoints.from_json(points),
        seed=derive_seed(instructions.seed, "bootstrap", name),
    )
    card = suppress_card(whole, instructions.min_count)
    unknown = np.isnan(labels).any(axis=0)
    if unknown.any():
        card = without_labels(card, np.array(task.labels)[unknown].tolist(), task.headline)
    content = RecordDict({SCORE: ConfigRecord({"scorecard": json.dumps(card)})})
    content[METRICS] = MetricRecord({"num-examples": len(table)})
    return Message(content, reply_to=message)


def final_predictions(memory: Path, run_id: str) -> Path:
    """Return where a site keeps the final model's predictions of its validation slices."""
    return memory / run_id / "final.parquet"


def read_final(path: Path, site: str) -> pd.DataFrame:
    """Read the predictions that `site` keeps there; raises ValueError when the file was changed, or is of another run or site."""
    return read_table(path, GONE, {"run_id": path.parent.name, "site": site})


def sums_of(
    table: pd.DataFrame, task: Task, instructions: Instructions | None = None
) -> dict[str, NDArray[np.generic]]:
    """Compute the sums that add up over sites: counts of slices and exams by probability, and losses by temperature.

    The losses of a model that was trained for a target prevalence are weighted as in its training, so that its temperatures hold at
    that prevalence.
    """
    labels, found = labels_in(table, task.labels), probabilities_in(table, task.labels)
    weights = (
        label_weights(labels, compute_prevalence_odds(instructions.prior, instructions.target))
        if instructions and instructions.target
        else None
    )
    return site_sums(labels, found, table[task.group_key].to_numpy(), table[task.exam_key].to_numpy(), task, weights)
