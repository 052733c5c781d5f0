"""Rounds are compared on the same sites, and what the choice rests on is said."""

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tiny import LITE0, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.protocol.simulated import drops_out
from fl_rsna.federation.server.ask import SiteReply
from fl_rsna.federation.server.same_sites import (
    Answers,
    Choice,
    choose,
    count_answers,
    of_round,
    rests_on,
    with_answers,
)
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.reporting.record.events import sentence
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.reporting.sections.curves import loss_by_round
from fl_rsna.reporting.sections.headline import headlines
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.federation import FaultsConfig

SITES = ("a", "b", "c")


def reply(site: str, loss: float, examples: float = 10, error: str = "") -> SiteReply:
    return SiteReply(site=site, metrics={"loss": loss, "num-examples": examples}, bytes_down=0, bytes_up=0, error=error)


def choices(*rounds: Mapping[str, float], examples: Mapping[str, float] | None = None) -> list[Choice]:
    """The best round after each of `rounds`, the losses of the sites that answered."""
    known: Answers = {}
    found = [Choice()]
    for round_, losses in enumerate(rounds, 1):
        held = examples or {}
        known = with_answers(known, [reply(site, loss, held.get(site, 10)) for site, loss in losses.items()], round_)
        found.append(choose(found[-1], known, round_))
    return found[1:]


def best(*rounds: Mapping[str, float], **arguments: Any) -> list[int]:
    return [choice.round for choice in choices(*rounds, **arguments)]


def test_with_all_sites_answering_it_is_the_least_mean_loss_the_first_of_equals() -> None:
    draw = np.random.default_rng(0)
    rounds = [dict(zip(SITES, draw.random(3), strict=True)) for _ in range(30)]
    held = {"a": 3.0, "b": 20.0, "c": 11.0}
    means = [np.average([*losses.values()], weights=[*held.values()]) for losses in rounds]
    assert best(*rounds, examples=held)[-1] == 1 + int(np.argmin(means))
    assert best(*[{"a": 0.5, "b": 0.5}] * 3) == [1, 1, 1]


def test_a_round_does_not_win_because_the_sites_with_high_losses_were_away() -> None:
    everyone = {"a": 0.2, "b": 0.9, "c": 0.9}
    assert best(everyone, {"a": 0.3}, {"a": 0.25, "c": 0.9}) == [1, 1, 1]  # 0.3 < (0.2 + 0.9 + 0.9) / 3
    assert best(everyone, {"b": 0.8}, {"a": 0.3}) == [1, 2, 2]  # b got better, and a worse


def test_a_round_is_not_lost_because_sites_with_high_losses_came_back() -> None:
    assert best({"a": 0.5, "b": 0.9, "c": 0.9}, {"a": 0.4}, {"a": 0.39, "b": 0.89, "c": 0.89}) == [1, 2, 3]


def test_what_the_first_sites_said_alone_does_not_stand_against_what_most_say_later() -> None:
    assert best({"a": 0.1}, {"a": 0.5, "b": 0.9, "c": 0.9}) == [1, 2]  # a holds a third of what is known then
    assert best({"a": 0.1}, {"a": 0.5, "b": 0.9}) == [1, 2]  # and here a half
    kept = choices({"a": 0.1, "b": 0.1}, {"a": 0.5, "b": 0.9, "c": 0.1})[-1]  # but two thirds: a and b are compared
    assert rests_on(kept, SITES) == {"sites": 2, "of": 3, "carried": {}, "unknown": ["c"]}
    assert best({"a": 0.1, "b": 0.1}, {"a": 0.5, "b": 0.9, "c": 0.1}, examples={"c": 100}) == [1, 2]


def test_a_late_site_does_not_undo_what_the_others_know() -> None:
    rounds = [{"a": 0.1 * n, "b": 0.1 * n} for n in range(1, 6)]
    assert best(*rounds, {**rounds[-1], "c": 0.3}) == [1] * 6


def test_a_round_that_nobody_answered_wins_nothing() -> None:
    assert best({}, {"a": 0.5}, {}, {}) == [0, 2, 2, 2]
    known = with_answers({}, [reply("a", 0.5)], 1)
    assert of_round(known, 2, {"validation_loss": "loss"}) == {"validation_loss": None}
    assert count_answers(known, SITES, 2) == {"validation_sites": 0, "validation_carried": 0, "validation_unknown": 2}


def test_failures_and_empty_parts_say_nothing() -> None:
    known = with_answers({}, [reply("a", 0.5), reply("b", 0.1, examples=0), reply("c", 0.1, error="gone")], 1)
    assert set(known) == {"a"}


def test_figures_carry_a_site_s_last_answer() -> None:
    known = with_answers({}, [reply("a", 0.2, 10), reply("b", 0.8, 30)], 1)
    known = with_answers(known, [reply("a", 0.4, 10)], 2)
    assert of_round(known, 2, {"loss": "loss"})["loss"] == pytest.approx((10 * 0.4 + 30 * 0.8) / 40)
    assert count_answers(known, SITES, 2) == {"validation_sites": 2, "validation_carried": 1, "validation_unknown": 1}
    chosen = choose(Choice(), known, 2)
    assert rests_on(chosen, SITES) == {"sites": 2, "of": 3, "carried": {"b": 1}, "unknown": ["c"]}


class Killed(KeyboardInterrupt):
    """Instead of a signal."""


SEED = 17  # of four rounds: all sites, two, all, two


def run(cohort: Cohort, folder: Path, *, die_at: int = 0, **changes: object) -> dict[str, Any]:
    """A run in which sites drop out; it ends at the start of round `die_at`."""

    def listen(kind: str, fields: Mapping[str, Any]) -> None:
        if kind == "round_start" and fields["round"] == die_at:
            raise Killed

    config: Config = tiny_config(rounds=4, seed=SEED, faults=FaultsConfig(dropout=0.4), strategy__quorum=0.0, **changes)
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", (listen,))))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)
    return dict(json.loads((folder / "summary.json").read_text()))


@pytest.fixture(scope="module")
def dropping(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("dropping") / "run"
    return folder, run(cohort, folder)


def test_a_run_chooses_and_draws_by_each_site_s_last_answer(
    cohort: Cohort, dropping: tuple[Path, dict[str, Any]]
) -> None:
    """Worked out again from sites.csv. All sites answer in round 1, so all rounds are compared on all of them."""
    folder, summary = dropping
    sites, rounds = pd.read_csv(folder / "sites.csv"), pd.read_csv(folder / "rounds.csv").set_index("round")
    told = sites[(sites["phase"] == "validation") & (sites["round"] <= 4)]
    losses = told.pivot(index="round", columns="site", values="loss")
    weights = told.groupby("site")["num-examples"].first()
    absent = {
        (n, site) for n in range(1, 5) for site in cohort.sites if drops_out(FaultsConfig(dropout=0.4), SEED, site, n)
    }
    assert {(n, site) for n, site in absent} == {(n, s) for n, row in losses.iterrows() for s in row.index[row.isna()]}
    carried = losses.ffill()
    means = (carried * weights).sum(axis=1) / weights.sum()
    np.testing.assert_allclose(rounds["validation_loss"][1:], means, rtol=1e-9)
    assert rounds["validation_sites"][1:].tolist() == [3] * 4
    assert rounds["validation_carried"][1:].tolist() == losses.isna().sum(axis=1).tolist()
    chosen = int(means.idxmin())
    assert (summary["selected_round"], summary["selected_by"]) == (chosen, "validation loss")
    assert summary["selected_on"]["sites"] == summary["selected_on"]["of"] == 3
    assert set(summary["selected_on"]["carried"]) == {site for n, site in absent if n == chosen}


def test_report_and_console_say_what_a_choice_rests_on(dropping: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = dropping
    record = read_run(folder)
    plot = loss_by_round(record)
    assert "A site that did not answer counts with its last answer, in 2 rounds." in plot.note
    assert "lowest validation loss on 3 of 3 sites" in str(headlines(record))
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    lines = [sentence(event) for event in events if event["event"] == "round_end"]
    assert "on 3 of 3 sites (1 by an earlier answer)" in lines[2]
    assert "by an earlier answer" not in lines[1]
    ended = {**events[-1], "selected_on": {"sites": 2, "of": 3, "carried": {"site-2": 1}, "unknown": ["site-3"]}}
    said = (
        f"round {summary['selected_round']} was chosen on 2 of 3 sites; site-2 by its answer of round 1; site-3 never"
    )
    assert said in sentence(ended)


def test_a_killed_run_chooses_the_same(cohort: Cohort, tmp_path: Path, dropping: tuple[Path, dict[str, Any]]) -> None:
    with pytest.raises(Killed):
        run(cohort, tmp_path / "run", die_at=3)
    again = run(cohort, tmp_path / "run", resume=True)
    kept = ("model_sha256", "selected_round", "selected_on")
    assert {name: again[name] for name in kept} == {name: dropping[1][name] for name in kept}


def test_early_stopping_counts_rounds_that_could_be_compared(cohort: Cohort, tmp_path: Path) -> None:
    """At a rate of nothing no round is better than the first; the run ends after `train.patience` more."""
    found = run(
        cohort,
        tmp_path / "run",
        train__learning_rate=1e-30,
        train__patience=2,
        model__norm="frozen",
        **LITE0,
    )
    assert found["rounds"] == 3
