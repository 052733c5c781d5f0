"""A site that does not annotate a label learns the others, says nothing of that one, and it is learned elsewhere."""

import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from edited import edit_json
from tiny import SIZE, tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_pooled, open_site
from fl_rsna.learning.metrics.operating_points import score_counts
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.events import read_events
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.settings.model import ModelConfig, Trainable
from fl_rsna.settings.stages import Baseline
from fl_rsna.settings.training import Sampling
from fl_rsna.simulation.simulation import run_federation
from fl_rsna.task import ICH

EPIDURAL = ICH.labels.index("epidural")


def lacking(cohort: Cohort, sites: tuple[str, ...], labels: list[str]) -> Cohort:
    """The cohort with sites recorded as not annotating `labels`."""
    noise = {site: {"unannotated": labels} for site in sites}
    for file, facts in [("cohort.json", {"noise": noise}), *((f"{site}/site.json", {"noise": noise[site]}) for site in sites)]:  # fmt: skip
        path = cohort.folder / file
        edit_json(path, facts)
    return read_cohort(cohort.folder)


def run(cohort: Cohort, folder: Path, config: Config) -> dict[str, Any]:
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_run_says_nothing_of_a_label_where_nobody_annotates_it(own_cohort: Cohort, tmp_path: Path) -> None:
    cohort = lacking(own_cohort, ("site-2",), ["epidural"])
    summary = run(cohort, tmp_path / "run", tiny_config(rounds=1, strategy__name="ditto"))
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    roll = events[0]
    assert roll["unannotated"] == {"site-2": ["epidural"]}
    assert roll["sites"]["site-2"]["train"]["positives"]["epidural"] is None
    assert (
        roll["sites"]["site-2"]["train"]["positives"]["any"]
        == cohort.facts["sites"]["site-2"]["train"]["positives"]["any"]
    )
    done = [event["metrics"] for event in events if event["event"] == "site_done" and event["site"] == "site-2"]
    assert all(np.isfinite(list(metrics.values())).all() for metrics in done)
    assert not any("epidural" in name for metrics in done for name in metrics)
    card = json.loads((tmp_path / "run" / "scorecards.json").read_text())["sites"]["site-2"]
    for cards in (card["slice"], *card["exam"].values()):
        assert set(cards["epidural"]["ece"].values()) == {None}
        assert cards["any"]["ece"]["value"] is not None
    assert summary["test_site"]["slice"]["epidural"]["auroc"]["positives"] is not None
    counts = read_run(tmp_path / "run").counts["site-2"]["train"]["positives"]
    assert counts["epidural"] == "?"
    assert "withheld" in write_report(tmp_path / "run").read_text()


def test_a_label_and_its_prior_come_from_those_who_annotate_it(own_cohort: Cohort) -> None:
    cohort = lacking(own_cohort, ("site-2",), ["epidural"])
    folders = [cohort.site_folder(site) for site in cohort.sites]
    lacks, pool = open_site(folders[1], image_size=SIZE), open_pooled(ModelConfig(image_size=SIZE), folders)
    assert (lacks.unknown_labels, pool.unknown_labels) == (("epidural",), ())
    assert np.isnan(lacks.labels[:, EPIDURAL]).all()
    assert not np.isnan(np.delete(lacks.labels, EPIDURAL, axis=1)).any()
    assert np.isnan(pool.labels).sum() == len(lacks.labels)
    counts = score_counts(lacks.labels, np.full(lacks.labels.shape, 0.5))
    assert counts[EPIDURAL].sum() == 0
    assert (np.delete(counts, EPIDURAL, axis=0).sum((1, 2)) == len(lacks.labels)).all()
    assert pd.read_csv(folders[1] / "index.csv")["epidural"].notna().all()  # files stay true


def test_the_pools_prior_is_of_the_slices_that_know_the_label(own_cohort: Cohort, tmp_path: Path) -> None:
    """As it is between sites: that of those who annotate it. What every slice knows is counted as ever."""
    cohort = lacking(own_cohort, ("site-2",), ["subdural"])
    config = tiny_config(rounds=1, baseline=Baseline.central, train__trainable=Trainable.head)
    run_federation(config, cohort, tmp_path / "central", ())
    found = json.loads((tmp_path / "central" / "summary.json").read_text())["prevalence"]["training"]
    held = {site: cohort.facts["sites"][site]["train"] for site in cohort.sites}
    for label, sites in (("subdural", ("site-1", "site-3")), ("any", cohort.sites)):
        positives = sum(held[site]["positives"][label] for site in sites)
        assert found[label] == pytest.approx((positives + 0.5) / (sum(held[site]["slices"] for site in sites) + 1))
    events = read_events(tmp_path / "central" / "events.jsonl")  # the first say which facts were changed by hand
    roll = next(event["sites"] for event in events if event["event"] == "roll_call")
    assert roll["pooled"]["train"]["known"] == {"subdural": held["site-1"]["slices"] + held["site-3"]["slices"]}
    assert "known" not in roll["test-site"]["test"]


def test_pooled_and_alone_learn_what_there_is(own_cohort: Cohort, tmp_path: Path) -> None:
    cohort = lacking(own_cohort, ("site-2",), ["epidural", "subdural"])
    for baseline in (Baseline.central, Baseline.local):
        run_federation(tiny_config(rounds=1, baseline=baseline), cohort, tmp_path / baseline, ())
    matrix = json.loads((tmp_path / "local" / "summary.json").read_text())["matrix"]
    assert all(np.isfinite(row["site-2"]["loss"]) for row in matrix.values())
    assert all(row["site-2"]["auroc"]["epidural"]["value"] is None for row in matrix.values())


def test_what_nobody_annotates_is_refused_before_round_1(own_cohort: Cohort, tmp_path: Path) -> None:
    cohort = lacking(own_cohort, own_cohort.sites, ["epidural"])
    with pytest.raises(ValueError, match=r"^roll call: expected a site that annotates epidural, got none of 3; [^.]*$"):
        run(cohort, tmp_path / "run", tiny_config())


def test_a_draw_by_a_label_needs_that_label(own_cohort: Cohort, tmp_path: Path) -> None:
    cohort = lacking(own_cohort, ("site-3",), ["any"])
    said = re.escape("train.sampling: under draws by any, which site-3 does not annotate")
    with pytest.raises(ValueError, match=f"^{said}"):
        run(cohort, tmp_path / "under", tiny_config(train__sampling=Sampling.under))
    with pytest.raises(
        ValueError, match=r"^train.sampling: under draws by any, which \d+ of \d+ training slices at pooled"
    ):
        run_federation(
            tiny_config(baseline=Baseline.central, train__sampling=Sampling.under), cohort, tmp_path / "pool", ()
        )
    assert not (tmp_path / "pool").exists()  # refused at the roll call
    run(cohort, tmp_path / "weighted", tiny_config(rounds=1, train__sampling=Sampling.weighted))


def test_small_counts_and_missing_labels_go_together(own_cohort: Cohort, tmp_path: Path) -> None:
    cohort = lacking(own_cohort, ("site-2",), ["epidural"])
    config = tiny_config(rounds=1)
    config.privacy.min_count = 3
    run(cohort, tmp_path / "run", config)
    card = json.loads((tmp_path / "run" / "scorecards.json").read_text())["sites"]["site-2"]
    assert set(card["slice"]["epidural"]["auroc"].values()) == {None}
    counts = read_run(tmp_path / "run").counts
    assert counts["site-2"]["train"]["positives"]["epidural"] == "?"
