"""Flower's own runtime, used as its examples use it: run_simulation on Ray, FedAvg, one array a tensor.

A ClientApp builds its model and opens its data for every message and sends back its state dict. Two Ray actors of one
CPU each, one compute thread. Prints one JSON object: seconds of each round, the steps
of one, and when the first began (time of day).

    python benchmarks/bench_flower.py --folder <of make_cohort> [--rounds 3] [--empty]
"""

import argparse
import itertools
import json
import logging
import os
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")

from bench_cohort import COHORT, bench_config, use_scaled
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import ICH


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument(
        "--empty", type=float, help="sites that send back an EfficientNet-B0 of so many times the width"
    )
    arguments = parser.parse_args()
    if arguments.empty:
        use_scaled(arguments.empty, 1.0)
    config, cohort = (
        bench_config(arguments.rounds, arguments.model, arguments.size),
        read_cohort(arguments.folder / COHORT),
    )
    client = empty_client() if arguments.empty else training_client(config, cohort)
    print(json.dumps(simulate(config, cohort, client, arguments.workers, scored=not arguments.empty)))


def simulate(config: Config, cohort: Cohort, client: ClientApp, workers: int, *, scored: bool) -> dict[str, Any]:
    """A whole simulation; without `scored` the server does not look at the model either."""
    from bench_loop import score
    from flwr.simulation import run_simulation

    ends, found, server = list[float](), dict[str, Any](), ServerApp()
    test = open_site(cohort.site_folder(TEST_SITE), image_size=config.model.image_size)

    def evaluate(round_: int, arrays: ArrayRecord) -> MetricRecord:
        network = build_model(config.model, ICH, ImageKind.hu, seed=0)
        network.load_state_dict(arrays.to_torch_state_dict())
        return MetricRecord(dict(score(network, test, "test")))

    def after(round_: int, arrays: ArrayRecord) -> MetricRecord:
        result = evaluate(round_, arrays) if scored else MetricRecord()
        ends.append(time.perf_counter())
        return result

    @server.main()
    def _main(grid: Grid, context: Context) -> None:
        network = build_model(config.model, ICH, ImageKind.hu, seed=0)
        start = ArrayRecord(network.state_dict())
        result = FedAvg(train_metrics_aggr_fn=added).start(
            grid=grid, initial_arrays=start, num_rounds=config.rounds, evaluate_fn=after
        )
        found["metrics"] = dict(result.train_metrics_clientapp[1])

    logging.getLogger("flwr").setLevel(logging.ERROR)
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_simulation(
            server, client, len(cohort.sites),
            backend_config={"init_args": {"num_cpus": workers, **quiet}, "client_resources": {"num_cpus": 1, "num_gpus": 0}},
        )  # fmt: skip
    return {
        "round_s": [after - before for before, after in itertools.pairwise(ends)],
        **found["metrics"],
    }


def added(contents: list[RecordDict], weighted_by: str) -> MetricRecord:
    """All sites' steps, and when the first of them began."""
    told = [content["metrics"] for content in contents]
    return MetricRecord({"steps": sum(site["steps"] for site in told), "began": min(site["began"] for site in told)})


def training_client(config: Config, cohort: Cohort) -> ClientApp:
    from bench_loop import score, train_site

    from fl_rsna.learning.training.train import settle_process

    app = ClientApp()

    def ready(message: Message, context: Context) -> tuple[Any, Any]:
        settle_process()
        network = build_model(config.model, ICH, ImageKind.hu, seed=0)
        network.load_state_dict(message.content["arrays"].to_torch_state_dict())
        name = cohort.sites[int(context.node_config["partition-id"])]
        return network, open_site(cohort.site_folder(name), image_size=config.model.image_size)

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        network, data = ready(message, context)
        began = time.time()
        result = train_site(network, data, config, int(message.content["config"]["server-round"]))
        metrics = MetricRecord({"num-examples": result.examples, "steps": result.steps, "began": began})
        return Message(RecordDict({"arrays": ArrayRecord(network.state_dict()), "metrics": metrics}), reply_to=message)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        network, data = ready(message, context)
        metrics = {**score(network, data, "validation"), "num-examples": len(data.rows("validation"))}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


def empty_client() -> ClientApp:
    """Sites that send back the model they got."""
    app, metrics = ClientApp(), {"num-examples": 1, "loss": 0.0, "steps": 0, "began": 0.0}

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord(metrics)})
        return Message(content, reply_to=message)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=message)

    return app


if __name__ == "__main__":
    import bench_flower  # what lives in __main__ would be pickled into every message

    bench_flower.main()
