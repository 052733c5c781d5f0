"""The reference every engine is held against: the same local steps and evaluations in one plain PyTorch loop.

One process, one thread, numpy for the weighted mean, no Flower.
"""

import time
from collections.abc import Mapping

import numpy as np
import torch

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.seeds import derive_seed
from fl_rsna.learning.data.dataset import SiteData, open_site
from fl_rsna.learning.metrics.metrics import auroc, log_loss
from fl_rsna.learning.models.classifier import Classifier, build_model
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.train import EVALUATION_BATCH, LocalResult, predict, settle_process, train_locally
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.partition import TEST_SITE
from fl_rsna.task import ICH

CPU = torch.device("cpu")


def bare_rounds(config: Config, cohort: Cohort) -> tuple[list[float], int]:
    """Seconds of each round, and the training steps of one."""
    settle_process()
    sites = [open_site(cohort.site_folder(name), image_size=config.model.image_size) for name in cohort.sites]
    test = open_site(cohort.site_folder(TEST_SITE), image_size=config.model.image_size)
    model = build_model(config.model, ICH, ImageKind.hu, seed=0)
    state, seconds, steps = {name: value.clone() for name, value in model.state_dict().items()}, [], 0
    for round_ in range(1, config.rounds + 1):
        start = time.perf_counter()
        updates, results = [], []
        for data in sites:
            model.load_state_dict(state)
            results.append(train_site(model, data, config, round_))
            updates.append({name: value.numpy().copy() for name, value in model.state_dict().items()})
        weights, steps = [result.examples for result in results], sum(result.steps for result in results)
        state = {name: torch.from_numpy(average([update[name] for update in updates], weights)) for name in state}
        model.load_state_dict(state)
        for data, part in [*((data, "validation") for data in sites), (test, "test")]:
            score(model, data, part)
        seconds.append(time.perf_counter() - start)
    return seconds, steps


def train_site(model: Classifier, data: SiteData, config: Config, round_: int) -> LocalResult:
    """One site's steps of a round, in place: the same in the reference and in every other framework."""
    return train_locally(
        model, build_slice_objective(data, ICH, config.train, CPU), norm=config.model.norm, config=config.train,
        learning_rate=config.train.learning_rate, seed=derive_seed(0, "train", data.name, round_), device=CPU,
    )  # fmt: skip


def score(model: Classifier, data: SiteData, part: str) -> Mapping[str, float]:
    """Log loss and every label's AUROC on one part of a site."""
    rows = data.rows(part)
    found = predict(model, data, rows, task=ICH, batch_size=EVALUATION_BATCH, device=CPU)
    areas = {label: auroc(data.labels[rows, i], found[:, i]) for i, label in enumerate(ICH.labels)}
    return {"loss": log_loss(data.labels[rows], found, ICH), **{key: area for key, area in areas.items() if area}}


def average(arrays: list[np.ndarray], weights: list[int]) -> np.ndarray:
    if arrays[0].dtype.kind != "f":
        return arrays[0]
    return sum(array * np.float32(weight / sum(weights)) for array, weight in zip(arrays, weights, strict=True))
