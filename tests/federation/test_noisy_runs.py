"""A noisy site tells and trains on what it believes, in every engine alike, and the run's page says so."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.learning.data.dataset import open_site
from fl_rsna.learning.metrics.controls import Control, count_table
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.task import ICH

NOISE = {
    "site-2": {"labels": 0.5, "hu_shift": 20.0, "hu_noise": 5.0, "blur": 0.0, "seed": 0},
    "test-site": {"labels": 0.0, "hu_shift": 5.0, "hu_noise": 0.0, "blur": 0.0, "seed": 0},
}


@pytest.fixture
def noisy(own_cohort: Cohort) -> Cohort:
    """A cohort whose second site and test site are recorded as noisy."""
    for file, facts in [("cohort.json", {"noise": NOISE}), *((f"{site}/site.json", {"noise": NOISE[site]}) for site in NOISE)]:  # fmt: skip
        path = own_cohort.folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    return read_cohort(own_cohort.folder)


def run(cohort: Cohort, folder: Path, workers: int) -> dict[str, Any]:
    """One round over `cohort` from its PNGs; its summary."""
    for packed in cohort.folder.glob("*/packed"):
        shutil.rmtree(packed)
    config = tiny_config(rounds=1)
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    run_local(
        server,
        functools.partial(app_for_cohort, cohort.folder, folder / "site_memory"),
        num_sites=len(cohort.sites),
        workers=workers,
    )
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_a_noisy_run_is_the_same_in_every_process_and_says_what_sites_believe(noisy: Cohort, tmp_path: Path) -> None:
    here, elsewhere = (run(noisy, tmp_path / f"{workers}", workers) for workers in (0, 2))
    assert here["model_sha256"] == elsewhere["model_sha256"]
    events = [json.loads(line) for line in (tmp_path / "2" / "events.jsonl").read_text().splitlines()]
    roll = next(event for event in events if event["event"] == "roll_call")
    true, believed = noisy.facts["sites"], roll["sites"]
    assert roll["noise"] == NOISE
    assert believed["site-2"]["train"]["positives"] != true["site-2"]["train"]["positives"]
    assert believed["site-2"]["validation"] == true["site-2"]["validation"]
    assert all(believed[site] == true[site] for site in ("site-1", "site-3", "test-site"))
    page = write_report(tmp_path / "2").read_text()
    assert "<td>site-2</td><td>50% of training labels wrong, +20 HU, noise of 5 HU</td>" in page
    assert "<td>test-site</td><td>+5 HU</td>" in page


def test_the_test_sites_labels_and_files_are_true(noisy: Cohort) -> None:
    data = open_site(noisy.site_folder("test-site"), image_size=32)
    index = pd.read_csv(noisy.site_folder("test-site") / "index.csv")
    pd.testing.assert_frame_equal(data.index[list(ICH.labels)], index[list(ICH.labels)], check_dtype=False)


def test_controls_count_the_labels_the_counts_are_of(noisy: Cohort) -> None:
    data = open_site(noisy.site_folder("site-2"), image_size=32)
    train = data.index.iloc[data.rows("train")]
    counted = count_table(train, data.labels[data.rows("train")], Control.position)
    assert list(counted[:, 1:].sum(axis=0)) == list(train[list(ICH.labels)].sum())
