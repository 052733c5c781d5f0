"""A site: answers the roll call, trains the model it is sent on its own slices, evaluates it on its own validation part."""

import json
from collections.abc import Callable
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fl_rsna.cohort.index import hash_id
from fl_rsna.cohort.sites import counts, read_cohort
from fl_rsna.config import ModelConfig, Norm
from fl_rsna.federation.messages import (
    ARRAYS,
    SITE,
    flatten,
    from_arrays,
    layout_sha256,
    read_instructions,
    reply_failure,
    reply_with,
    typed,
    unflatten,
)
from fl_rsna.imaging.store import ImageKind
from fl_rsna.learning.controls import Control, count_table
from fl_rsna.learning.dataset import SiteData, open_site
from fl_rsna.learning.metrics import auroc, log_loss
from fl_rsna.learning.model import Classifier, build_model
from fl_rsna.learning.process import settle_process
from fl_rsna.learning.seeds import derive_seed
from fl_rsna.learning.train import EVALUATION_BATCH, adapt_norm, choose_device, predict, train_locally
from fl_rsna.task import Task, TaskName, named_task


def make_client_app(locate: Callable[[Context], Path]) -> ClientApp:
    """The ClientApp of every engine; `locate` says which folder is this node's site."""
    app = ClientApp()

    @app.query()
    def _query(message: Message, context: Context) -> Message:
        return _answer(message, lambda: roll_call(message, locate(context)))

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        return _answer(message, lambda: train(message, locate(context)))

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return _answer(message, lambda: evaluate(message, locate(context)))

    return app


def roll_call(message: Message, folder: Path) -> Message:
    """Who this site is, what it holds, and hashes of its patients under the run's salt. No identifier leaves it.

    A site knows only the labels it has: where partition.noise made some wrong, counts and controls are of those.
    """
    told = read_instructions(message)
    data = open_site(folder, image_size=told.model.image_size)
    task = named_task(TaskName(told.task))
    train = data.rows("train")
    tables = {
        control.value: count_table(data.index.iloc[train], data.labels[train], control).tolist() for control in Control
    }
    answer = ConfigRecord(
        {
            "name": data.name,
            "cohort_sha256": data.cohort_sha256,
            "task": data.task,
            "counts": json.dumps(counts(data.index, task)),
            "controls": json.dumps(tables),
            "patients": sorted({hash_id(str(patient), told.salt) for patient in data.index[told.group_key]}),
        }
    )
    return Message(RecordDict({SITE: answer}), reply_to=message)


def train(message: Message, folder: Path) -> Message:
    """One round from the model in the message: local training, or the re-estimation that opens a run with adapted norm."""
    told = read_instructions(message)
    data, task, model = _ready(message, folder)
    device = choose_device(told.train.device)
    if told.model.norm is Norm.adapted and told.round == 1:
        result = adapt_norm(model, data, batch_size=EVALUATION_BATCH, device=device)
    else:
        result = train_locally(
            model,
            data,
            task=task,
            norm=told.model.norm,
            config=told.train,
            learning_rate=told.learning_rate,
            seed=derive_seed(told.seed, "train", data.name, told.round),
            device=device,
        )
    counted = {"num-examples": result.examples, "steps": result.steps, "seconds": result.seconds}
    loss = {} if result.loss is None else {"loss": result.loss}
    return reply_with(message, metrics={**counted, **loss}, model=flatten(model))


def evaluate(message: Message, folder: Path) -> Message:
    """Log loss and AUROC a label of the model in the message on the site's own validation part."""
    told = read_instructions(message)
    data, task, model = _ready(message, folder)
    rows = data.rows("validation")
    found = predict(model, data, rows, task=task, batch_size=EVALUATION_BATCH, device=choose_device(told.train.device))
    areas = {label: auroc(data.labels[rows, i], found[:, i]) for i, label in enumerate(task.labels)}
    metrics = {f"auroc/{label}": area for label, area in areas.items() if area is not None}
    return reply_with(
        message, metrics={"num-examples": len(rows), "loss": log_loss(data.labels[rows], found, task), **metrics}
    )


def _answer(message: Message, act: Callable[[], Message]) -> Message:
    """Whatever a site raises becomes a reply that names it, so no failure is dropped in silence."""
    try:
        settle_process()
        return act()
    except Exception as error:
        return reply_failure(message, error)


def _ready(message: Message, folder: Path) -> tuple[SiteData, Task, Classifier]:
    told = read_instructions(message)
    data, task = _data(folder, told.model.image_size), named_task(TaskName(told.task))
    model = _model(json.dumps(asdict(told.model)), task, data.image)
    if layout_sha256(model) != told.layout_sha256:
        raise ValueError(
            f"expected the server's model layout, got another at site {data.name}; run the same version everywhere"
        )
    unflatten(from_arrays(message.content.array_records[ARRAYS]), model)
    return data, task, model


@lru_cache(maxsize=64)
def _data(folder: Path, image_size: int) -> SiteData:
    return open_site(folder, image_size=image_size)


@lru_cache(maxsize=1)
def _model(config: str, task: Task, image: ImageKind) -> Classifier:
    """Keyed by the configuration's JSON; seed 0, because its weights come with every message."""
    return build_model(typed(ModelConfig, json.loads(config)), task, image, seed=0)


def app_for_cohort(cohort: Path) -> ClientApp:
    """The ClientApp of a simulation: the node with partition-id i is the i-th site of a cohort folder."""
    return make_client_app(lambda context: _site_of(cohort, int(context.node_config["partition-id"])))


def _located_by_node(context: Context) -> Path:
    """The site folder a SuperNode was started with (`site-folder`), or the partition-id-th site of the run's cohort."""
    node, run = context.node_config, context.run_config
    if "site-folder" in node:
        return Path(str(node["site-folder"]))
    return _site_of(Path(str(run["cohort"])), int(node["partition-id"]))


def _site_of(cohort: Path, position: int) -> Path:
    names = read_cohort(cohort).sites
    if position >= len(names):
        raise ValueError(f"expected at most {len(names)} nodes, one a site of {cohort}, got node {position + 1}")
    return cohort / names[position]


app = make_client_app(_located_by_node)
