"""Operating points rest on sums over the sites' validation parts alone; scorecards are made where the data is."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from flwr.app import ArrayRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from tiny import CHEST, tiny_config, tiny_index

from fl_rsna.cohort.sites.site_folders import Cohort, read_cohort
from fl_rsna.common.seeds import derive_seed
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.protocol.codec import pack
from fl_rsna.federation.protocol.failures import Failure
from fl_rsna.federation.protocol.messages import COUNTS, METRICS, SCORE, reply_failure
from fl_rsna.federation.server.ask import SiteReply, read_replies
from fl_rsna.federation.server.roll_call import Site
from fl_rsna.federation.server.scoring.site_scores import add_sums, read_sums, shapes_of
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.federation.site.scoring import sums_of
from fl_rsna.learning.inference.predict import labels_in, probabilities_in
from fl_rsna.learning.metrics.operating_points import OperatingPoints, choose
from fl_rsna.learning.metrics.scorecard import scorecard
from fl_rsna.run_folder.run_folder import start_run
from fl_rsna.settings.config import Config
from fl_rsna.task import ICH

TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = 1, 1, 1


def run(cohort: Cohort, folder: Path, **changes: object) -> dict:  # type: ignore[type-arg]
    config: Config = tiny_config(rounds=1, **changes)
    server = make_server_app(lambda context: (config, cohort, start_run(folder, config, cohort, "cpu", ())))
    client = functools.partial(app_for_cohort, cohort.folder, folder / "site_memory")
    run_local(server, client, num_sites=len(cohort.sites), workers=0)
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(cohort, folder)
    return folder


def remembered(folder: Path, sites: tuple[str, ...]) -> list[pd.DataFrame]:
    return [pd.read_parquet(next((folder / "site_memory" / site).glob("*/final.parquet"))) for site in sites]


def summary_of(folder: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / "summary.json").read_text())  # type: ignore[no-any-return]


def cards_of(folder: Path) -> dict:  # type: ignore[type-arg]
    return json.loads((folder / "scorecards.json").read_text())  # type: ignore[no-any-return]


def test_the_choice_is_that_of_all_validation_slices_together(cohort: Cohort, whole: Path) -> None:
    tables = remembered(whole, cohort.sites)
    pooled = choose(sums_of(pd.concat(tables), ICH), ICH)
    found = summary_of(whole)["operating_points"]
    assert found["chosen_on"] == "validation parts of 3 of 3 sites"
    chosen = OperatingPoints.from_json(found)
    assert (chosen.slice, chosen.exam) == (pooled.slice, pooled.exam)
    assert chosen.temperatures == pytest.approx(pooled.temperatures)
    assert pooled.slice["any"]["sensitivity_95"] is not None


def test_each_site_is_scored_on_its_own_validation_slices(cohort: Cohort, whole: Path) -> None:
    summary = summary_of(whole)
    points = OperatingPoints.from_json(summary["operating_points"])
    assert list(summary["sites"]) == list(cohort.sites)
    for site, table in zip(cohort.sites, remembered(whole, cohort.sites), strict=True):
        index = pd.read_csv(cohort.site_folder(site) / "index.csv", dtype={"image_id": str})
        assert table["image_id"].tolist() == index.loc[index["split"] == "validation", "image_id"].tolist()
        card = scorecard(
            labels_in(table, ICH.labels), probabilities_in(table, ICH.labels), table["patient_id"].to_numpy(),
            table["series_id"].to_numpy(), task=ICH, settings=points, seed=derive_seed(0, "bootstrap", site),
        )  # fmt: skip
        assert json.loads(json.dumps(card)) == cards_of(whole)["sites"][site]
        assert summary["sites"][site]["slice"]["any"]["auroc"] == card["slice"]["any"]["auroc"]


def test_no_choice_sees_the_test_sites_labels(cohort: Cohort, whole: Path, tmp_path: Path) -> None:
    """Every label of the test site turned round changes its scores, and neither the model nor a threshold."""
    shutil.copytree(cohort.folder, tmp_path / "cohort")
    path = tmp_path / "cohort" / "test-site" / "index.csv"
    index = pd.read_csv(path, dtype=str, keep_default_na=False)
    index[list(ICH.labels)] = 1 - index[list(ICH.labels)].astype(int)
    index.to_csv(path, index=False)
    before, after = summary_of(whole), run(read_cohort(tmp_path / "cohort"), tmp_path / "run")
    for kept in ("model_sha256", "selected_round", "operating_points", "sites"):
        assert after[kept] == before[kept]
    areas = [summary["test_site"]["slice"]["any"]["auroc"] for summary in (before, after)]
    assert areas[0]["positives"] == areas[1]["negatives"]
    assert areas[0]["value"] == pytest.approx(1 - areas[1]["value"])


def test_what_leaves_a_site_names_no_patient_and_no_slice(cohort: Cohort, whole: Path) -> None:
    """The sums have the same shape whatever a site holds, and its scorecard has none of its ids."""
    for site, table in zip(cohort.sites, remembered(whole, cohort.sites), strict=True):
        assert {name: array.shape for name, array in sums_of(table, ICH).items()} == shapes_of(ICH)
        said = json.dumps(cards_of(whole)["sites"][site])
        ids = {str(value) for name in ("image_id", "patient_id", "study_id", "series_id") for value in table[name]}
        assert not [name for name in ids if name in said]


def test_the_test_site_has_counts_at_every_chosen_threshold(whole: Path) -> None:
    summary = summary_of(whole)
    test, points = cards_of(whole)["test_site"], summary["operating_points"]
    table = pd.read_parquet(whole / "predictions.parquet")
    for label, chosen in points["slice"].items():
        truth, found = labels_in(table, [label])[:, 0] > 0, probabilities_in(table, [label])[:, 0].astype(np.float64)
        for name, threshold in chosen.items():
            point = test["slice"][label]["points"][name]
            if threshold is None:
                assert point is None
            else:
                counted = [point[kind] for kind in ("tp", "fp", "tn", "fn")]
                said = found >= threshold
                assert counted == [
                    (said & truth).sum(),
                    (said & ~truth).sum(),
                    (~said & ~truth).sum(),
                    (~said & truth).sum(),
                ]


def test_classes_that_exclude_each_other_have_points_and_one_temperature() -> None:
    table, random = tiny_index(CHEST, patients=24), np.random.default_rng(0)
    found = random.dirichlet(np.ones(4), len(table)) + 2 * table[list(CHEST.labels)].to_numpy()
    columns = {f"probability_{name}": found[:, i] / found.sum(1) for i, name in enumerate(CHEST.labels)}
    table = table.rename(columns={name: f"label_{name}" for name in CHEST.labels}).assign(**columns)
    table = table.assign(series_id=table["image_id"])  # a radiograph is a series of its own
    sums = sums_of(table, CHEST)
    assert sums["mean"].sum(axis=(1, 2)).tolist() == [24] * 4  # studies
    assert {name: array.shape for name, array in sums.items()} == shapes_of(CHEST)
    assert set(sums) == {"slice", "mean", "loss_by_temperature"}
    points = choose(add_sums([sums]), CHEST)
    assert set(points.slice) == set(CHEST.labels)
    assert len(set(points.temperatures.values())) == 1


def site(number: int) -> Site:
    return Site(
        name=f"site-{number}", node_id=number, version="", cohort_sha256="", task="ich", counts={}, controls={}, patients=frozenset()
    )  # fmt: skip


def counted(of: Site, change: Callable[[dict], None] = lambda sums: None) -> Message:  # type: ignore[type-arg]
    sums = {name: pack(np.ones(int(np.prod(shape)), np.int64)) for name, shape in shapes_of(ICH).items()}
    change(sums)
    content = RecordDict({SCORE: ArrayRecord(sums), METRICS: MetricRecord({"num-examples": 3})})
    return Message(content, reply_to=Message(RecordDict(), of.node_id, COUNTS))


@pytest.mark.parametrize(
    "change",
    [
        lambda sums: sums.pop("slice"),
        lambda sums: sums.update(slice=pack(np.ones(3, np.int64))),
        lambda sums: sums.update(
            loss_by_temperature=pack(np.full(np.prod(shapes_of(ICH)["loss_by_temperature"]), np.nan))
        ),
        lambda sums: sums.update(max=pack(np.full(np.prod(shapes_of(ICH)["max"]), -1))),
    ],
    ids=["missing", "short", "not a number", "negative"],
)
def test_sums_that_are_none_are_named_and_left_out(change: Callable[[dict], None]) -> None:  # type: ignore[type-arg]
    asked = [site(number) for number in (1, 2, 3, 4)]
    told = Message(RecordDict(), 3, MessageType.EVALUATE)
    replies = [
        counted(asked[0]),
        counted(asked[1], change),
        reply_failure(told, Failure(error="no disk", traceback="")),
    ]
    records: list[SiteReply] = []
    heard = read_replies(asked, replies, lambda reply: read_sums(reply, ICH), bytes_down=5, on_reply=records.append)
    assert [found is not None for _, found in heard] == [True, False, False, False]
    errors = [record.error for record in records]
    assert errors[0] == ""
    assert "expected the reply of this phase" in errors[1]
    assert errors[2:] == ["no disk", "no reply in time"]
