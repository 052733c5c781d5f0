"""A head learns from series: every one in every pass, each slice of them counting the same."""

import numpy as np
import pytest
import torch
from composed import strategy_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.learning.data.dataset import SiteData, open_site
from fl_rsna.learning.inference.features import Encoded, encode_site, open_encoded, views_of
from fl_rsna.learning.inference.series_objective import build_series_objective, head_logits
from fl_rsna.learning.metrics.metrics import log_loss
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.models.series_head import HeadShape, SeriesHead, as_probabilities, build_head
from fl_rsna.learning.training.client_update import Round, train_site
from fl_rsna.learning.training.local_rule import PLAIN
from fl_rsna.learning.training.train import ignore_progress, train_locally
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, Norm
from fl_rsna.settings.stages import HeadName
from fl_rsna.settings.training import TrainConfig
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH

CPU, SIDE = torch.device("cpu"), 24
TRAIN = TrainConfig(batch_size=2, local_epochs=2, learning_rate=0.01)


@pytest.fixture(scope="module")
def site(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[SiteData, Encoded]:
    data = open_site(cohort.site_folder("site-1"), image_size=SIDE, cache=tmp_path_factory.mktemp("packed"))
    network = build_model(ModelConfig(image_size=SIDE), ICH, ImageKind.hu, seed=1)
    views = views_of("a" * 32, 2, TRAIN)
    encode_site(network, data, views, ICH, TRAIN, CPU, ignore_progress)
    return data, open_encoded(data, views)


def head(seed: int = 0) -> SeriesHead:
    shape = HeadShape(head=HeadName.gru, width=16, layers=1, dropout=0.1, features=1280, labels=6)
    return build_head(shape, seed=seed)


def test_a_pass_holds_every_series_once_as_a_copy_drawn_anew(site: tuple[SiteData, Encoded]) -> None:
    objective = build_series_objective(*site, ICH, TRAIN, CPU)
    count, draw = objective.examples, np.random.default_rng(0)
    passes = [objective.draw(draw) for _ in range(20)]
    for rows in passes:
        assert sorted(rows % count) == list(range(count))
    assert {int(row) // count for rows in passes for row in rows} == {0, 1}
    assert objective.slices == len(site[0].rows("train"))
    assert count == site[0].index.iloc[site[0].rows("train")]["series_id"].nunique()


def test_the_loss_of_a_batch_is_that_of_its_slices(site: tuple[SiteData, Encoded]) -> None:
    """Of an untrained head that is the slice model's loss, weighted over labels as the metric does."""
    data, encoded = site
    objective, rows = build_series_objective(data, encoded, ICH, TRAIN, CPU), data.rows("train")
    with torch.no_grad():
        found = objective.loss(head(), np.arange(objective.examples), torch.Generator(), PLAIN)
    expected = log_loss(data.labels[rows], as_probabilities(encoded.take(0, rows)[1], ICH), ICH)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_rows_may_be_asked_for_in_any_order(site: tuple[SiteData, Encoded]) -> None:
    data, encoded = site
    model, rows = head(), data.rows("validation")
    torch.nn.init.normal_(model.out.weight)
    found = head_logits(model, data.index, encoded, rows, CPU)
    turned = head_logits(model, data.index, encoded, rows[::-1].copy(), CPU)
    np.testing.assert_array_equal(found, turned[::-1])


def test_training_lowers_the_loss_and_follows_from_its_seed(site: tuple[SiteData, Encoded]) -> None:
    objective, trained = build_series_objective(*site, ICH, TRAIN, CPU), []
    for seed in (5, 5, 6):
        model = head()
        words = {"norm": Norm.average, "config": TRAIN, "learning_rate": 0.01, "device": CPU}
        first = train_locally(model, objective, seed=seed, **words)  # type: ignore[arg-type]
        last = [train_locally(model, objective, seed=seed + n, **words) for n in range(1, 6)][-1]  # type: ignore[arg-type]
        assert first.loss is not None
        assert last.loss is not None
        assert last.loss < first.loss
        trained.append(flatten(model).floats)
    np.testing.assert_array_equal(trained[0], trained[1])
    assert not np.array_equal(trained[0], trained[2])


LOCAL = ["fedprox", "scaffold", "feddyn", "moon", "ditto"]


@pytest.mark.parametrize("name", [*LOCAL, "fedavg_logit_adjusted"])
def test_every_local_rule_trains_a_head(site: tuple[SiteData, Encoded], name: str) -> None:
    """Twice, so that what the site remembers of the first round has a part in the second."""
    data, encoded = site
    round_ = Round(
        data=data, objective=build_series_objective(data, encoded, ICH, TRAIN, CPU), task=ICH, norm=Norm.average, train=TRAIN,
        strategy=strategy_config(name), learning_rate=0.01, seed=1, device=CPU, prior=(0.3,) * 6,
    )  # fmt: skip
    model = head()
    remembered = train_site(model, round_, {}, STRATEGIES[name].train).remembered
    before = flatten(model).floats
    assert train_site(model, round_, remembered, STRATEGIES[name].train).result.loss is not None
    assert np.isfinite(flatten(model).floats).all()
    assert not np.array_equal(flatten(model).floats, before)
