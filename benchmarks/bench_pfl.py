"""pfl (Apple's simulator, arXiv:2404.06430) doing the same steps and evaluations on the same cohort and model.

Federated averaging in one process: a user is a site, its batches are the ones our sites draw, gathered and augmented
while it trains; every site's validation part and the test site are scored after each round. In round 1 pfl scores the
training parts, too, unasked: leave that round out. It averages parameters alone and weights users alike; BatchNorm's
statistics stay those of the site that trained last. Prints one JSON object: seconds of each round, the steps of one as
counted in the loss, and when the first began (time of day).

    <python with pfl> benchmarks/bench_pfl.py --folder <of make_cohort> [--rounds 3]
"""

import argparse
import functools
import itertools
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from bench_cohort import COHORT, bench_config
from pfl.aggregate.simulate import SimulatedBackend
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.learning.data.augment import augment
from fl_rsna.learning.data.dataset import SiteData, gather, open_site, train_batches
from fl_rsna.learning.metrics.metrics import auroc, log_loss
from fl_rsna.learning.models.classifier import Classifier, build_model, probabilities, set_training
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.train import EVALUATION_BATCH, settle_process
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import ICH

CPU = torch.device("cpu")


class Site(Dataset):
    """A user: batches of one part of a site, training ones shuffled and augmented again in every round."""

    def __init__(self, data: SiteData, part: str, config: Config) -> None:
        super().__init__((), user_id=data.name)
        self._data, self._config, self._rows, self._training = data, config, data.rows(part), part == "train"
        self._order, self._draws = np.random.default_rng(0), torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self._rows)

    def iter(self, batch_size: int | None) -> Iterator[list[torch.Tensor]]:
        evenly = [self._rows[start : start + EVALUATION_BATCH] for start in range(0, len(self), EVALUATION_BATCH)]
        size = self._config.train.batch_size
        for rows in train_batches(self._rows, size, self._order) if self._training else evenly:
            images = gather(self._data.images, rows, CPU)
            if self._training:
                images = augment(images, self._config.train, image=self._data.image, generator=self._draws)
            yield [images, torch.from_numpy(self._data.labels[rows])]


class Network(torch.nn.Module):
    """The classifier with the two functions pfl asks for; it counts the steps it is asked for."""

    def __init__(self, classifier: Classifier, config: Config) -> None:
        super().__init__()
        self.classifier, self._config = classifier, config
        self.steps, self.began = 0, 0.0

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        self.steps, self.began = self.steps + 1, self.began or time.time()
        set_training(self.classifier, self._config.model.norm, self._config.train.trainable)
        return task_loss(self.classifier(images), labels, ICH)

    @torch.inference_mode()
    def metrics(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, Weighted]:
        self.classifier.eval()
        found, known = probabilities(self.classifier(images), ICH).numpy(), labels.numpy()
        areas = {label: auroc(known[:, i], found[:, i]) or 0.0 for i, label in enumerate(ICH.labels)}
        means = {"loss": log_loss(known, found, ICH), **areas}
        return {name: Weighted.from_unweighted(value) for name, value in means.items()}


class AfterRound(TrainingProcessCallback):
    """Scores every part after each round, and notes when the round ended."""

    def __init__(self, parts: list[Site], ends: list[float]) -> None:
        self._parts, self._ends = parts, ends

    def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
        for part in self._parts:
            model.evaluate(part, eval_params=NNEvalHyperParams(local_batch_size=EVALUATION_BATCH))
        self._ends.append(time.perf_counter())
        return False, Metrics()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    parser.add_argument("--size", type=int, default=64)
    arguments = parser.parse_args()
    print(json.dumps(simulate(bench_config(arguments.rounds, arguments.model, arguments.size), arguments.folder)))


def simulate(config: Config, folder: Path) -> dict[str, Any]:
    settle_process()
    cohort, open_here = read_cohort(folder / COHORT), functools.partial(open_site, image_size=config.model.image_size)
    sites = [open_here(cohort.site_folder(name)) for name in cohort.sites]
    test = Site(open_here(cohort.site_folder(TEST_SITE)), "test", config)
    network = Network(build_model(config.model, ICH, ImageKind.hu, seed=0), config)
    users, turns = [Site(data, "train", config) for data in sites], itertools.cycle(range(len(sites)))
    data, train = FederatedDataset(users.__getitem__, lambda: next(turns)), config.train
    ends = [time.perf_counter()]
    FederatedAveraging().run(
        NNAlgorithmParams(
            central_num_iterations=config.rounds, evaluation_frequency=10**9, train_cohort_size=len(sites), val_cohort_size=0
        ),
        SimulatedBackend(data, data),
        PyTorchModel(
            network,
            lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr, weight_decay=train.weight_decay),
            torch.optim.SGD(network.parameters(), lr=1.0),
        ),
        NNTrainHyperParams(
            local_num_epochs=train.local_epochs, local_learning_rate=train.learning_rate, local_batch_size=train.batch_size
        ),
        callbacks=[AfterRound([*(Site(data, "validation", config) for data in sites), test], ends)],
        send_metrics_to_platform=False,
    )  # fmt: skip
    seconds = [after - before for before, after in itertools.pairwise(ends)]
    return {"round_s": seconds, "steps": network.steps // config.rounds, "began": network.began}


if __name__ == "__main__":
    main()
