"""A checkpoint gives back all of a run's state; a mean over rounds is what its formula says."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from fl_rsna.federation.server.checkpoint import Progress, load_progress, save_progress
from fl_rsna.federation.server.same_sites import Answer, Choice
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.strategy import Averaging, StrategyConfig


def flat(*values: float) -> FlatModel:
    return FlatModel(np.array(values, np.float32), np.array([7], np.int64))


def test_a_checkpoint_gives_back_everything(tmp_path: Path) -> None:
    model, shown = flat(1, 2), flat(3, 4)
    told = Answer(round=2, metrics={"loss": 0.1 + 0.2, "num-examples": 7.0})
    later = Answer(round=3, metrics={"loss": 0.25, "num-examples": 2.0, "auroc/any": 0.75})
    progress = Progress(
        model=model, shown=shown, best=flat(5),  memory={"control": np.array([5], np.float32)}, run_id="r", round=3,
        window={9: np.array([8], np.float32), 10: np.array([9], np.float32)},
        choice=Choice(round=2, answers={"site-1": told}), no_better=1, answers={"site-1": told, "site-2": later},
        accepted={"site-1": 3}, bytes_down=10, bytes_up=20, failures=1, virtual_s=1.5, seconds=2.5,
    )  # fmt: skip
    save_progress(tmp_path / "state.safetensors", progress)
    back = load_progress(tmp_path / "state.safetensors")
    assert (back.model.floats.tolist(), back.shown.floats.tolist()) == ([1, 2], [3, 4])
    assert back.shown.integers.tolist() == [7]
    assert {name: value.tolist() for name, value in back.memory.items()} == {"control": [5]}
    assert {round_: value.tolist() for round_, value in back.window.items()} == {9: [8], 10: [9]}
    plain = (
        "run_id",
        "round",
        "choice",
        "no_better",
        "answers",
        "accepted",
        "bytes_down",
        "bytes_up",
        "failures",
        "virtual_s",
        "seconds",
    )
    assert [getattr(back, name) for name in plain] == [getattr(progress, name) for name in plain]


def test_a_run_without_a_validated_round_has_chosen_none_yet(tmp_path: Path) -> None:
    start = flat(1)
    save_progress(tmp_path / "state.safetensors", Progress(model=start, shown=start, best=start, run_id="r"))
    back = load_progress(tmp_path / "state.safetensors")
    assert (back.choice, back.best_round, back.answers) == (Choice(), 0, {})
    assert back.shown is back.model  # written once


def shown(
    config: StrategyConfig, *models: float, between: Callable[[Progress], Progress] = lambda progress: progress
) -> list[float]:
    """The first value of what is shown after each round; `between` is done between rounds."""
    progress, found = Progress(model=flat(100), shown=flat(100), best=flat(100), run_id="r"), []
    for round_, value in enumerate(models, 1):
        progress.round, progress.model = round_, flat(value)
        progress.average(config)
        found.append(float(progress.shown.floats[0]))
        progress = between(progress)
    return found


def test_means_over_rounds_by_hand() -> None:
    assert shown(StrategyConfig(), 1, 2, 6) == [1, 2, 6]
    assert shown(StrategyConfig(averaging=Averaging.window, window=2), 1, 2, 6) == [1, 1.5, 4]
    assert shown(StrategyConfig(averaging=Averaging.ema, ema_decay=0.5), 1, 2, 6) == [1, 1.5, 3.75]


def test_a_window_is_of_the_last_rounds_in_long_and_resumed_runs(tmp_path: Path) -> None:
    """Round 100 comes after round 99, whatever the order of their names; a checkpoint between any two changes nothing."""

    def saved(progress: Progress) -> Progress:
        save_progress(tmp_path / "state.safetensors", progress)
        return load_progress(tmp_path / "state.safetensors")

    models = [float(value) for value in np.random.default_rng(0).integers(0, 1000, 105)]
    config = StrategyConfig(averaging=Averaging.window, window=4)
    expected = [np.float32(np.mean(models[max(0, end - 4) : end])) for end in range(1, 106)]
    assert shown(config, *models) == expected
    assert shown(config, *models, between=saved) == expected
    ema = StrategyConfig(averaging=Averaging.ema)
    assert shown(ema, *models, between=saved) == shown(ema, *models)


def test_what_a_strategy_forgets_or_replaces_is_not_what_averaging_remembers() -> None:
    """Each has a slot of its own: a strategy's memory is whatever its rule gave back last."""

    def replaced(progress: Progress) -> Progress:
        progress.memory = {"momentum": np.array([7], np.float32)}
        return progress

    for kind in Averaging:
        config = StrategyConfig(averaging=kind, window=2)
        assert shown(config, 1, 2, 6, between=replaced) == shown(config, 1, 2, 6)
