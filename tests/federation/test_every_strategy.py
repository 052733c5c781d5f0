"""Every strategy and way with BatchNorm runs whole, and gives one model whatever the order replies come in."""

import functools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from run_always import run_always
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import LocalGrid, identify
from fl_rsna.federation.engines.ray import run_ray
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import Norm
from fl_rsna.settings.strategy import Averaging
from fl_rsna.settings.training import Select
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.strategies.robust import KrumConfig


class Backwards(LocalGrid):
    """Replies come in the opposite order."""

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterator[Message]:
        yield from list(super().send_and_receive(messages, timeout=timeout))[::-1]


def sha256(cohort: Cohort, folder: Path, config: Config, grid: type[LocalGrid] = LocalGrid, workers: int = 0) -> str:
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    identify()
    if workers < 0:
        run_ray(server, client, num_sites=len(cohort.sites), workers=-workers, gpus_per_worker=0)
    else:
        server(grid(client, len(cohort.sites), workers), Context(1, 1, {}, RecordDict(), {}))
    return str(json.loads((folder / "summary.json").read_text())["model_sha256"])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three sites with hardly a batch each."""
    return tiny_cohort(tmp_path_factory.mktemp("small"), patients=9, slices=3)


def config_of(name: str) -> Config:
    config = tiny_config(rounds=2, strategy__name=name, strategy__server_learning_rate=0.5)
    if isinstance(config.strategy, KrumConfig):
        config.strategy.malicious = 0
    return config


ALIKE = {  # their sites train as FedAvg's, and their server's rule is called as FedAdam's or Krum's is: beyond what .ci/run has time for
    "fedadagrad", "fedyogi", "fedmedian", "fedtrimmedavg",
    "multikrum", "bulyan", "qfedavg",
}  # fmt: skip


IN_WORKERS = {"scaffold", "ditto"}  # a vector more each way; a model of the site's own


@pytest.mark.parametrize("name", run_always(set(STRATEGIES) - ALIKE, STRATEGIES))
def test_every_strategy_gives_one_model_whatever_the_order(small: Cohort, tmp_path: Path, name: str) -> None:
    ordered = sha256(small, tmp_path / "ordered", config_of(name))
    assert sha256(small, tmp_path / "backwards", config_of(name), Backwards) == ordered
    assert json.loads((tmp_path / "ordered" / "summary.json").read_text())["site_failures"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", run_always(IN_WORKERS, STRATEGIES))
def test_every_strategy_gives_one_model_in_worker_processes(small: Cohort, tmp_path: Path, name: str) -> None:
    here = sha256(small, tmp_path / "here", config_of(name))
    assert sha256(small, tmp_path / "workers", config_of(name), workers=2) == here


@pytest.mark.slow
@pytest.mark.extra
@pytest.mark.parametrize("name", ["bulyan"])  # every update; a second vector: test_resume
def test_on_ray_it_is_the_same_model(small: Cohort, tmp_path: Path, name: str) -> None:
    here = sha256(small, tmp_path / "here", config_of(name))
    assert sha256(small, tmp_path / "ray", config_of(name), workers=-2) == here


@pytest.mark.parametrize("norm", [norm for norm in Norm if norm is not Norm.average])
def test_every_norm_runs(small: Cohort, tmp_path: Path, norm: Norm) -> None:
    assert sha256(small, tmp_path / "run", tiny_config(rounds=1, model__norm=norm))


def test_scaffold_goes_with_a_first_round_that_only_adapts(small: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=2, strategy__name="scaffold", model__norm=Norm.adapted)
    assert sha256(small, tmp_path / "run", config)
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["site_failures"] == 0


def test_a_mean_over_rounds_is_what_is_tested_and_kept(small: Cohort, tmp_path: Path) -> None:
    found = {
        kind: sha256(
            small,
            tmp_path / kind,
            tiny_config(rounds=2, train__select=Select.last, strategy__averaging=kind, strategy__window=1),
        )
        for kind in Averaging
    }
    assert found["none"] == found["window"]  # of one round
    assert found["ema"] != found["none"]
