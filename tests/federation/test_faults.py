"""Faults strike where and when they are told to, are named, and stay out of the model."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_runs import run
from tiny import tiny_cohort, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.common.command_end import RunFailed
from fl_rsna.federation.protocol.simulated import corrupt_model, drops_out, fault_of, site_seconds, slowdown
from fl_rsna.learning.models.flat import FlatModel
from fl_rsna.settings.federation import Fault, FaultKind, FaultsConfig, LinkConfig, parse_fault
from fl_rsna.settings.training import Select
from fl_rsna.simulation.simulation import run_federation


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


def test_words_for_faults() -> None:
    assert parse_fault("crash@3") == Fault(FaultKind.crash, 3, 3)
    assert parse_fault("nan@2-4") == Fault(FaultKind.nan, 2, 4)
    assert parse_fault("nan@2-") == Fault(FaultKind.nan, 2, float("inf"))
    assert parse_fault("flip") == Fault(FaultKind.flip, 1, float("inf"))
    for given in ("sleep", "crash@", "crash@x", "crash@3-2-1", ""):
        with pytest.raises(ValueError, match=r"faults\.sites: expected one of crash"):
            parse_fault(given)
    for given in ("crash@0", "nan@0-2", "nan@0-", "nan@4-2"):  # rounds count from 1
        with pytest.raises(ValueError, match=r"faults\.sites: expected rounds from 1 up"):
            parse_fault(given)
    faults = FaultsConfig(sites={"site-2": "nan@2-3"})
    assert [fault_of(faults, "site-2", round_) for round_ in (1, 2, 3, 4)] == [None, "nan", "nan", None]
    assert fault_of(faults, "site-1", 2) is None


def test_what_faulty_sites_send() -> None:
    received = FlatModel(np.array([1, 2, 3], np.float32), np.zeros(1, np.int64))
    trained = FlatModel(np.array([2, 2, 1], np.float32), np.zeros(1, np.int64))
    sent = functools.partial(corrupt_model, received=received, trained=trained)
    assert np.isnan(sent(FaultKind.nan).floats).any()
    assert sent(FaultKind.misshape).floats.size == 2
    assert sent(FaultKind.explode).floats.tolist() == [1e6 + 1, 2, 3 - 2e6]
    assert sent(FaultKind.flip).floats.tolist() == [0, 2, 5]
    assert sent(FaultKind.poison).floats.tolist() == [-9, 2, 23]
    with pytest.raises(RuntimeError, match="told to crash"):
        sent(FaultKind.crash)
    assert trained.floats.tolist() == [2, 2, 1]


def test_chances_are_seeded_and_about_right() -> None:
    faults = FaultsConfig(dropout=0.3, stragglers=0.3, slowdown=7)
    drawn = [[drops_out(faults, 1, f"site-{site}", round_) for site in range(50)] for round_ in range(40)]
    assert drawn == [[drops_out(faults, 1, f"site-{site}", round_) for site in range(50)] for round_ in range(40)]
    assert 0.25 < np.mean(drawn) < 0.35
    slow = [slowdown(faults, 1, f"site-{site}", 1) for site in range(1000)]
    assert set(slow) == {1, 7}
    assert 0.25 < np.mean(np.array(slow) == 7) < 0.35


def test_virtual_seconds_by_hand() -> None:
    network = LinkConfig(down_mbit=80, up_mbit=8, latency_s=0.5, step_s=0.1, speeds={"site-2": 2.0})
    seconds = functools.partial(site_seconds, network, bytes_down=20e6, bytes_up=1e6, steps=40)
    assert seconds("site-1") == pytest.approx(1 + 2 + 1 + 4)
    assert seconds("site-2") == pytest.approx(1 + 2 + 1 + 2)
    assert seconds("site-1", slowdown=3) == pytest.approx(1 + 2 + 1 + 12)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_fault_is_a_named_event_and_the_rest_go_on(cohort: Cohort, tmp_path: Path, workers: int) -> None:
    sites = {"site-1": "misshape@2", "site-2": "nan@1", "site-3": "crash@3"}
    config = tiny_config(rounds=3, faults__sites=sites)
    run(cohort, tmp_path / "run", config, workers=workers)
    failed = {(event["site"], event["round"]): event for event in events(tmp_path / "run", "site_failed")}
    assert set(failed) == {("site-2", 1), ("site-1", 2), ("site-3", 3)}
    assert "not finite" in failed["site-2", 1]["error"]
    assert "values, got" in failed["site-1", 2]["error"]
    assert "SiteCrashed" in failed["site-3", 3]["traceback"]
    assert pd.read_csv(tmp_path / "run" / "rounds.csv")["failed"].tolist()[1:] == [1, 1, 1]


def test_an_exploding_update_is_refused(cohort: Cohort, tmp_path: Path) -> None:
    run(cohort, tmp_path / "run", tiny_config(rounds=1, faults__sites={"site-2": "explode"}))
    (failed,) = events(tmp_path / "run", "site_failed")
    assert "exploded" in failed["error"]


@pytest.mark.slow
def test_dropouts_and_stragglers_leave_fewer_sites_and_the_same_model_in_every_engine(
    cohort: Cohort, tmp_path: Path
) -> None:
    arguments = {
        "faults__dropout": 0.3,
        "faults__stragglers": 0.3,
        "faults__deadline_s": 20.0,
        "network__step_s": 1.0,
        "strategy__quorum": 0.0,
    }
    one = run(cohort, tmp_path / "one", tiny_config(rounds=4, **arguments))
    two = run(cohort, tmp_path / "two", tiny_config(rounds=4, **arguments), workers=2)
    assert one["model_sha256"] == two["model_sha256"]
    said = {event["error"].split(":")[0] for event in events(tmp_path / "one", "site_failed")}
    assert said == {"dropped out (simulated)", "too late"}
    rounds = pd.read_csv(tmp_path / "one" / "rounds.csv")
    assert rounds["virtual_s"].max() <= 20


def test_below_quorum_stops_with_a_checkpoint_to_go_on_from(cohort: Cohort, tmp_path: Path) -> None:
    config = tiny_config(rounds=3, faults__sites={"site-1": "crash@2", "site-2": "crash@2"})
    with pytest.raises(RunFailed, match="round 2: 1 of 3 sites replied"):
        run_federation(config, cohort, tmp_path / "run", ())
    assert [event["kind"] for event in events(tmp_path / "run", "run_failed")] == ["failed"]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert not (tmp_path / "run" / "model.safetensors").exists()
    assert (tmp_path / "run" / "checkpoints" / "state.safetensors").exists()


def test_faults_of_unknown_sites_and_too_few_sites_for_a_strategy_are_refused(cohort: Cohort, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"faults\.sites: expected one of site-1, site-2, site-3, got site-7"):
        run(cohort, tmp_path / "a", tiny_config(faults__sites={"site-7": "nan"}))
    with pytest.raises(ValueError, match=r"krum with strategy\.malicious=1 needs 5 sites a round, got 3"):
        run(cohort, tmp_path / "b", tiny_config(strategy__name="krum"))


@pytest.mark.slow
def test_a_poisoned_site_ruins_the_mean_and_not_the_robust_strategies(tmp_path: Path) -> None:
    cohort = tiny_cohort(tmp_path / "five", num_sites=5, patients=30, slices=3)

    def loss(name: str, faults: dict[str, str]) -> float:
        arguments = {"strategy__name": name, "faults__sites": faults, "train__learning_rate": 0.05}  # at which it moves
        config = tiny_config(rounds=3, train__select=Select.last, **arguments)
        try:
            run(cohort, tmp_path / f"{name}-{len(faults)}", config)
        except FloatingPointError:
            return float("inf")  # diverged
        return float(pd.read_csv(tmp_path / f"{name}-{len(faults)}" / "rounds.csv")["test_loss"].iloc[-1])

    honest, poison = loss("fedavg", {}), {"site-2": "poison"}
    assert loss("fedavg", poison) > honest + 0.2
    for name in ("fedmedian", "krum", "multikrum"):
        assert loss(name, poison) < honest + 0.1
