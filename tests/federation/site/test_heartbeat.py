"""Heartbeats tell how far sites are, hold nothing else, and never get in the way."""

import json
import os
from pathlib import Path

import pytest
import torch
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.site import heartbeat
from fl_rsna.federation.site.heartbeat import FOLDER, Beat, keep_heartbeat, no_old_beats, read_beats
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.models.flat import flatten
from fl_rsna.learning.training.client_update import Round, train_site
from fl_rsna.learning.training.objectives import build_slice_objective
from fl_rsna.learning.training.train import OnBatch, ignore_progress
from fl_rsna.reporting.live.state import format_pack_progress
from fl_rsna.strategies.find import STRATEGIES
from fl_rsna.task import ICH


def test_a_beat_is_there_while_the_site_trains_and_gone_after(tmp_path: Path) -> None:
    with keep_heartbeat(tmp_path / FOLDER, "site-1", 4) as on_batch:
        assert read_beats(tmp_path) == {}
        on_batch(1, 20)
        assert read_beats(tmp_path) == {"site-1": Beat(round=4, batch=1, batches=20)}
        on_batch(2, 20)  # too soon to be written
        assert read_beats(tmp_path)["site-1"].batch == 1
        assert json.loads((tmp_path / FOLDER / "site-1").read_text()) == {"round": 4, "batch": 1, "batches": 20}
    assert read_beats(tmp_path) == {}


def test_a_site_that_fails_leaves_no_beat(tmp_path: Path) -> None:
    def fail() -> None:
        with keep_heartbeat(tmp_path / FOLDER, "site-1", 1) as on_batch:
            on_batch(1, 2)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        fail()
    assert read_beats(tmp_path) == {}


def test_a_disk_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / FOLDER).write_text("a file where the folder should be")
    with keep_heartbeat(tmp_path / FOLDER, "site-1", 1) as on_batch:
        on_batch(1, 2)
    with keep_heartbeat(tmp_path / "nowhere" / FOLDER, "site-1", 1) as on_batch:
        on_batch(1, 2)
    assert read_beats(tmp_path) == {}


def test_what_a_killed_run_left_is_cleared_away(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "site-1").write_text('{"round": 1, "batch": 1, "batches": 2}')
    (tmp_path / FOLDER / ".site-2.part").write_text('{"rou')
    assert list(read_beats(tmp_path)) == ["site-1"]
    with no_old_beats(tmp_path):
        assert os.listdir(tmp_path) == []
        (tmp_path / FOLDER).mkdir()
    assert os.listdir(tmp_path) == []


def trained(cohort: Cohort, strategy: str, on_batch: OnBatch) -> torch.Tensor:
    config = tiny_config(strategy__name=strategy, train__local_epochs=2)
    data = open_site(cohort.site_folder("site-1"), image_size=config.model.image_size)
    model = build_model(config.model, ICH, data.image, seed=0)
    round_ = Round(
        data=data,
        objective=build_slice_objective(data, ICH, config.train, torch.device("cpu")),
        task=ICH,
        norm=config.model.norm,
        train=config.train,
        strategy=config.strategy,
        learning_rate=1e-3,
        seed=0,
        device=torch.device("cpu"),
        on_batch=on_batch,
    )
    train_site(model, round_, {}, STRATEGIES[strategy].train)
    return torch.from_numpy(flatten(model).floats)


@pytest.mark.parametrize("strategy", ["fedavg", "ditto"])
def test_batches_are_counted_to_the_last_and_change_nothing(
    cohort: Cohort, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: str
) -> None:
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.0)
    heard: list[tuple[int, int]] = []
    with keep_heartbeat(tmp_path / FOLDER, "site-1", 1) as write:

        def on_batch(done: int, batches: int) -> None:
            heard.append((done, batches))
            write(done, batches)

        watched = trained(cohort, strategy, on_batch)
    count = heard[-1][0]
    assert heard == [(done, count) for done in range(1, count + 1)]
    assert torch.equal(watched, trained(cohort, strategy, ignore_progress))


def test_what_is_no_beat_stays(tmp_path: Path) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "site-1").write_text('{"round": 1, "batch": 1, "batches": 2}')
    (tmp_path / FOLDER / "notes.txt").write_text("mine")
    with no_old_beats(tmp_path):
        assert os.listdir(tmp_path / FOLDER) == ["notes.txt"]
    assert (tmp_path / FOLDER / "notes.txt").read_text() == "mine"


def test_packing_tells_how_far_it_is_and_only_the_first_time(own_cohort: Cohort, tmp_path: Path) -> None:
    folder, heard = own_cohort.site_folder("site-1"), list[tuple[int, int]]()
    for _ in range(2):
        data = open_site(folder, image_size=24, cache=tmp_path, on_packed=lambda done, of: heard.append((done, of)))
    assert heard == [(done, len(data.index)) for done in range(1, len(data.index) + 1)]


def test_a_beat_of_packing_is_told_from_one_of_training(tmp_path: Path) -> None:
    with keep_heartbeat(tmp_path / FOLDER, "site-1", 0, packing=True) as on_packed:
        on_packed(1200, 60000)
        beats = read_beats(tmp_path)
    assert beats == {"site-1": Beat(round=0, batch=1200, batches=60000, packing=True)}
    assert format_pack_progress(beats) == "packing images: site-1 1,200 of 60,000"
    assert format_pack_progress({"site-1": Beat(round=1, batch=1, batches=2)}) == ""
    many = {f"site-{number}": next(iter(beats.values())) for number in range(1, 101)}
    assert format_pack_progress(many).endswith("site-6 1,200 of 60,000 and 94 sites more")
