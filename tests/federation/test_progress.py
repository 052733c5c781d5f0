"""A checkpoint gives back all of a run's state; a mean over rounds is what its formula says."""

from pathlib import Path

import numpy as np

from fl_rsna.choices import Averaging
from fl_rsna.config import StrategyConfig
from fl_rsna.federation.progress import Progress, load_progress, save_progress
from fl_rsna.learning.flat import FlatModel


def flat(*values: float) -> FlatModel:
    return FlatModel(np.array(values, np.float32), np.array([7], np.int64))


def test_a_checkpoint_gives_back_everything(tmp_path: Path) -> None:
    model, shown = flat(1, 2), flat(3, 4)
    progress = Progress(
        model=model, shown=shown, best=flat(5),  memory={"control": np.array([5], np.float32)}, run_id="r", round=3,
        best_round=2, best_loss=0.25, accepted={"site-1": 3}, bytes_down=10, bytes_up=20, failures=1, virtual_s=1.5, seconds=2.5,
    )  # fmt: skip
    save_progress(tmp_path / "state.safetensors", progress)
    back = load_progress(tmp_path / "state.safetensors")
    assert (back.model.floats.tolist(), back.shown.floats.tolist()) == ([1, 2], [3, 4])
    assert back.shown.integers.tolist() == [7]
    assert back.memory["control"].tolist() == [5]
    plain = (
        "run_id",
        "round",
        "best_round",
        "best_loss",
        "accepted",
        "bytes_down",
        "bytes_up",
        "failures",
        "virtual_s",
        "seconds",
    )
    assert [getattr(back, name) for name in plain] == [getattr(progress, name) for name in plain]


def test_a_run_without_a_validated_round_has_no_best_loss_yet(tmp_path: Path) -> None:
    start = flat(1)
    save_progress(tmp_path / "state.safetensors", Progress(model=start, shown=start, best=start, run_id="r"))
    back = load_progress(tmp_path / "state.safetensors")
    assert back.best_loss == float("inf")
    assert back.shown is back.model  # written once


def shown(config: StrategyConfig, *models: float) -> list[float]:
    progress, found = Progress(model=flat(0), shown=flat(0), best=flat(0), run_id="r"), []
    for round_, value in enumerate(models, 1):
        progress.round, progress.model = round_, flat(value)
        progress.average(config)
        found.append(float(progress.shown.floats[0]))
    return found


def test_means_over_rounds_by_hand() -> None:
    assert shown(StrategyConfig(), 1, 2, 6) == [1, 2, 6]
    assert shown(StrategyConfig(averaging=Averaging.window, window=2), 1, 2, 6) == [1, 1.5, 4]
    assert shown(StrategyConfig(averaging=Averaging.ema, ema_decay=0.5), 1, 2, 6) == [1, 1.5, 3.75]
