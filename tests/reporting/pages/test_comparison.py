"""Runs side by side: which runs a path means, paired differences, baselines, and what is swept."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from made_runs import made_gap, made_job, made_run, made_sweep

from fl_rsna.learning.metrics.metrics import auroc
from fl_rsna.report import report
from fl_rsna.reporting.pages.comparison import compare_runs, readable_runs, write_comparison
from fl_rsna.reporting.pages.find_runs import failures_in, find_runs
from fl_rsna.reporting.pages.sweep import curves_over, diff_configs, select_plot_settings
from fl_rsna.run_folder.sweep_folder import JobState, write_job
from fl_rsna.run_folder.sweep_settings import folder_name


def compared(*runs: Any, **failed: Any) -> dict[str, Any]:
    """The content of the JSON file that a comparison writes."""
    return dict(json.loads(json.dumps(asdict(compare_runs(*runs, **failed)), allow_nan=False)))


def cells(table: dict[str, Any]) -> list[dict[str, Any]]:
    names = [column["name"] for column in table["columns"]]
    return [dict(zip(names, row, strict=True)) for row in table["rows"]]


def test_a_path_stands_for_its_runs(tmp_path: Path) -> None:
    for name in ("sweep-2", "sweep-10", "sweep-1"):
        made_run(tmp_path / "runs" / name)
    made_gap(tmp_path / "runs" / "a-gap")
    gap = [tmp_path / "runs" / "a-gap" / part for part in ("central", "federated", "local")]
    ours = [tmp_path / "runs" / name for name in ("sweep-1", "sweep-2", "sweep-10")]
    assert find_runs(tmp_path / "runs" / "sweep-2") == [tmp_path / "runs" / "sweep-2"]
    assert find_runs(tmp_path / "runs" / "a-gap") == gap
    assert find_runs(tmp_path / "runs") == [*gap, *ours]


def test_a_sweep_is_told_in_the_words_that_it_varied(tmp_path: Path) -> None:
    """Also where the sweep chose settings under other names, and where a folder could not have the whole name."""
    jobs = [(f"strategy={name}", f"seed={seed}") for name in ("fedavg", "fedbn", "x" * 200) for seed in (0, 1)]
    sweep = made_sweep(tmp_path / "sweep", jobs, ("strategy=nosuch", "seed=0"))
    found = compared(readable_runs(find_runs(sweep))[0], failed={"strategy=nosuch seed=0": "it was refused"})
    assert found["runs"] == [" ".join(words) for words in jobs]  # in the order of the jobs
    assert [row["strategy"] for row in cells(found["table"])] == [words[0].partition("=")[2] for words in jobs]
    [plot] = [plot for plot in found["plots"] if plot["name"].startswith("over-")]
    assert plot["layout"]["xaxis"]["title"]["text"] == "strategy"
    dots, mean = plot["data"][:2]
    assert (len(dots["x"]), mean["x"]) == (6, ["fedavg", "fedbn", "x" * 200])  # a point a seed, their mean and reach
    assert len(mean["error_y"]["array"]) == 3
    page = write_comparison(find_runs(sweep), tmp_path / "page.html", failures_in(sweep)).read_text()
    assert "<b>strategy=nosuch seed=0</b>: it was refused" in page
    assert compared(readable_runs(find_runs(tmp_path))[0])["runs"] == found["runs"]  # however far above one stands


def test_a_plot_over_every_varied_word_and_numbers_on_a_scale(tmp_path: Path) -> None:
    words = [
        (f"strategy={name}", f"train.learning_rate={rate}") for name in ("fedavg", "fedbn") for rate in ("1e-4", "0.01")
    ]
    found = compared(readable_runs(find_runs(made_sweep(tmp_path, words)))[0])
    plots = {plot["name"]: plot for plot in found["plots"] if plot["name"].startswith("over-")}
    assert list(plots) == ["over-strategy", "over-train-learning_rate"]
    axis = plots["over-train-learning_rate"]["layout"]["xaxis"]
    assert (axis["type"], axis["tickvals"]) == ("log", [1e-4, 0.01])
    assert {trace["name"] for trace in plots["over-train-learning_rate"]["data"]} == {
        "strategy=fedavg",
        "strategy=fedbn",
    }
    assert [row["train.learning_rate"] for row in cells(found["table"])] == ["1e-4", "0.01"] * 2  # as typed


def test_runs_of_one_job_are_told_apart(tmp_path: Path) -> None:
    """They are no repeats of each other, as runs of several seeds are."""
    sweep = made_sweep(tmp_path, [("partition.num_sites=3", "seed=0"), ("partition.num_sites=4", "seed=0")])
    gap = ("partition.num_sites=5", "seed=0")
    made_gap(sweep / folder_name(gap))
    write_job(sweep, made_job(gap, 2, JobState.finished))
    found = compared(readable_runs(find_runs(sweep))[0])
    parts = ("central", "federated", "local")
    assert found["runs"][2:] == [f"partition.num_sites=5 seed=0/{part}" for part in parts]
    assert [row["part"] for row in cells(found["table"])] == ["", "", *parts]
    [plot] = [plot for plot in found["plots"] if plot["name"].startswith("over-")]
    assert {trace["name"] for trace in plot["data"]} == {"part=", *(f"part={part}" for part in parts)}


def test_a_run_that_came_to_nothing_stretches_no_axis() -> None:
    settings = {"train.learning_rate": ["0.001", "1e30", "0.002"]}
    [plot] = curves_over(settings, {"AUROC": [0.6, None, 0.7]}, ["a", "b", "c"], ["train.learning_rate"])
    assert plot.layout["xaxis"]["tickvals"] == [0.001, 0.002]


def test_a_job_that_was_finished_since_did_not_fail(tmp_path: Path) -> None:
    sweep = made_sweep(tmp_path, [("seed=0",)], ("seed=1",))
    assert [job.label for job in failures_in(sweep)] == ["seed=1"]
    made_run(sweep / "seed=1")
    assert failures_in(sweep) == []


@pytest.mark.parametrize("missing", ["nowhere", "."])
def test_no_run_is_one_sentence(tmp_path: Path, missing: str) -> None:
    with pytest.raises(ValueError, match=r"^expected a run folder.*$"):
        report([tmp_path / missing])


def test_differences_on_the_same_slices_are_paired(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / "a"), made_run(tmp_path / "b", auroc=0.7)]
    found = compared(readable_runs(folders)[0])
    areas = []
    for folder in folders:
        table = pd.read_parquet(folder / "predictions.parquet")
        areas.append(auroc(table["label_any"].to_numpy(np.float32), table["probability_any"].to_numpy(np.float32)))
    first, second = cells(found["differences"])
    assert first["minus a"] is None
    assert second["minus a"]["paired"]
    assert second["minus a"]["value"] == pytest.approx(areas[1] - areas[0])
    assert second["minus a"]["low"] < second["minus a"]["value"] < second["minus a"]["high"] < 0
    assert found["unpaired"] == []


def test_a_run_minus_its_equal_is_nothing(tmp_path: Path) -> None:
    found = compared(readable_runs([made_run(tmp_path / "a"), made_run(tmp_path / "b")])[0])
    same = cells(found["differences"])[1]["minus a"]
    assert (same["value"], same["low"], same["high"]) == (0, 0, 0)


def test_other_test_slices_cannot_be_paired(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / "a"), made_run(tmp_path / "b")]
    table = pd.read_parquet(folders[1] / "predictions.parquet")
    table.assign(image_id="x" + table["image_id"]).to_parquet(folders[1] / "predictions.parquet")
    found = compared(readable_runs(folders)[0])
    assert found["unpaired"] == ["b"]
    other = cells(found["differences"])[1]["minus a"]
    assert (other["value"], other["low"], other["high"]) == (0, None, None)
    page = write_comparison(folders, tmp_path / "compare.html").read_text()
    assert "<b>Not paired:</b> b" in page


def test_order_of_slices_does_not_matter(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / "a"), made_run(tmp_path / "b", auroc=0.7)]
    before = compared(readable_runs(folders)[0])["differences"]
    table = pd.read_parquet(folders[1] / "predictions.parquet")
    table.sample(frac=1, random_state=1).to_parquet(folders[1] / "predictions.parquet")
    assert compared(readable_runs(folders)[0])["differences"] == before


def test_gap_and_gain_are_found_among_the_runs(tmp_path: Path) -> None:
    made_gap(tmp_path / "gap")
    found = compared(readable_runs(find_runs(tmp_path / "gap"))[0])
    rows = {row["run"]: row for row in cells(found["differences"])}
    assert rows["federated"]["gap to pooled"]["paired"]
    assert rows["federated"]["gap to pooled"]["value"] < 0 < rows["federated"]["gain over alone"]["value"]
    assert rows["central"]["gap to pooled"] is rows["local"]["gain over alone"] is None


def test_an_unfinished_run_is_listed_and_left_out(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / name) for name in "abc"]
    (folders[1] / "summary.json").unlink()
    found = compared(readable_runs(folders)[0])
    assert found["unfinished"] == ["b"]
    assert [row["run"] for row in cells(found["table"])] == ["a", "b", "c"]
    assert [row["run"] for row in cells(found["differences"])] == ["a", "c"]


@pytest.mark.slow
def test_the_command_compares_and_says_where(tmp_path: Path) -> None:
    made_run(tmp_path / "a")
    made_run(tmp_path / "b", sites=4)
    done = subprocess.run(
        [sys.executable, "-m", "fl_rsna.report", "a", "b"], cwd=tmp_path, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert (done.returncode, lines[:2]) == (0, ["report: a/report.html", "report: b/report.html"])
    assert lines[2] == f"compare: {tmp_path / 'compare.html'}"
    found = json.loads((tmp_path / "compare.json").read_text())
    assert [plot["name"] for plot in found["plots"]] == ["scores", "rounds", "over-partition-num_sites"]
    one = [sys.executable, "-m", "fl_rsna.report", "a", "--out", "x.html"]
    done = subprocess.run(one, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_what_differs_and_what_is_swept() -> None:
    def config(sites: int, seed: int, strategy: str, mu: float) -> dict[str, Any]:
        return {
            "partition": {"num_sites": sites},
            "seed": seed,
            "strategy": {"name": strategy, "mu": mu},
            "run": {"name": f"{sites}{seed}"},
        }

    kinds = (("fedavg", 0.0), ("fedprox", 0.1))
    grid = [config(sites, seed, *kind) for sites in (2, 8) for kind in kinds for seed in (0, 1)]
    settings = diff_configs(grid)
    assert set(settings) == {"partition.num_sites", "seed", "strategy.name", "strategy.mu"}  # and no run.name
    assert list(select_plot_settings(settings)) == ["partition.num_sites", "strategy.name"]  # mu goes with the strategy


def test_seeds_are_points_and_their_mean_is_the_line() -> None:
    settings = {"partition.num_sites": [2, 2, 40, 40], "seed": [0, 1, 0, 1]}
    [plot] = curves_over(settings, {"AUROC": [0.6, 0.7, 0.8, 0.9]}, list("abcd"))
    dots, mean = plot.data
    assert (dots["x"], dots["y"]) == ([2, 2, 40, 40], [0.6, 0.7, 0.8, 0.9])
    assert mean["x"] == [2, 40]
    assert mean["y"] == pytest.approx([0.65, 0.85])
    assert plot.layout["xaxis"]["type"] == "log"
    assert len(plot.table.rows) == 4


def test_a_setting_of_words_has_no_line() -> None:
    settings = {"strategy.name": ["fedavg", "fedprox"]}
    [plot] = curves_over(settings, {"AUROC": [0.6, None]}, ["a", "b"])
    assert {trace["mode"] for trace in plot.data} == {"markers"}
    assert plot.layout["xaxis"]["type"] == "category"


def test_runs_that_were_shown_ground_truth_are_named(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / "a"), made_run(tmp_path / "b")]
    events = tmp_path / "b" / "events.jsonl"
    events.write_text(events.read_text().replace('"leaky": false', '"leaky": false, "crops_from_truth": true'))
    assert "<b>Not results:</b> b." in write_comparison(folders, tmp_path / "both.html").read_text()
    others = [folders[0], made_run(tmp_path / "c")]
    assert "Not results" not in write_comparison(others, tmp_path / "others.html").read_text()


FILES = (
    "config.yaml",
    "summary.json",
    "manifest.json",
    "predictions.parquet",
    "rounds.csv",
    "sites.csv",
    "events.jsonl",
)
NEEDED = FILES[:4]  # without the others, rows or counts are missing and what is there is shown


@pytest.mark.parametrize("share", [0.5, None, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.0, 0.95))])
def test_a_run_with_a_cut_file_is_named_and_the_others_are_compared(tmp_path: Path, share: float | None) -> None:
    """`share` of the file is left, None: it is missing."""
    cut = [f"cut-{name}" for name in FILES]
    for name in ("a", *cut, "z"):
        made_run(tmp_path / name)
    for name in FILES:
        path = tmp_path / f"cut-{name}" / name
        content = path.read_bytes()
        path.unlink() if share is None else path.write_bytes(content[: int(len(content) * share)])
    runs, broken = readable_runs(find_runs(tmp_path))
    found = compared(runs, broken)
    assert {"a", "z"} <= set(found["runs"])
    assert set(found["runs"]) | {one["run"] for one in found["left_out"]} == {"a", *cut, "z"}
    for one in found["left_out"]:
        assert f"/{one['run']}" in one["why"]
        assert one["run"].removeprefix("cut-") in one["why"].replace(one["run"], "")
    named = {one["run"].removeprefix("cut-") for one in found["left_out"]}
    if share is not None:
        assert named == set(NEEDED)
    else:
        assert named == {"config.yaml"}
        assert "cut-summary.json" in found["unfinished"]


def test_the_command_reports_what_it_can_and_names_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        made_run(tmp_path / name)
    (tmp_path / "b" / "summary.json").write_text('{"status": "fin')
    report([tmp_path])
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == ["report", "no report", "report", "not compared", "compare"]
    assert str(tmp_path / "b" / "summary.json") in said[1]
    page = (tmp_path / "compare.html").read_text()
    assert "<b>Not compared:</b><ul><li>b: " in page
    (tmp_path / "b" / "summary.json").write_text("{}")  # whole, and nothing in it
    report([tmp_path])
    assert "not compared: b: " in capsys.readouterr().out
    for name in "abc":
        (tmp_path / name / "config.yaml").unlink()
    with pytest.raises(ValueError, match=r"config\.yaml"):
        report([tmp_path])
    with pytest.raises(ValueError, match=r"config\.yaml"):
        report([tmp_path / "a"])


def test_runs_of_another_task_and_unfinished_ones_stand_beside_the_rest(tmp_path: Path) -> None:
    folders = [made_run(tmp_path / name) for name in "abcd"]
    config = yaml.safe_load((tmp_path / "b" / "config.yaml").read_text())
    config["data"]["task"], config["stage"] = "covid_cxr", "slice"
    (tmp_path / "b" / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("rounds.csv", "summary.json", "events.jsonl", "predictions.parquet"):
        (tmp_path / "b" / name).unlink()
    (tmp_path / "c" / "summary.json").write_text('{"status": "failed", "reason": "below quorum"}')
    found = compared(readable_runs(folders)[0])
    assert found["runs"] == ["a", "c", "d"]
    assert found["unfinished"] == ["c"]
    [one] = found["left_out"]
    assert one["run"] == "b"
    assert "task covid_cxr" in one["why"]


def test_a_path_that_is_not_utf8_stands_with_escapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """On the page, in the JSON and on the console, whose stream is as strict as any."""
    made_run(tmp_path / "a")
    strange = made_run(tmp_path / "b").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    report([strange])
    assert capsys.readouterr().out.startswith("report: ")
    assert "caf\\udce9" in (strange / "report.html").read_text(encoding="utf-8")
    report([tmp_path])
    assert "caf\\udce9" in capsys.readouterr().out
    assert "caf\\udce9" in (tmp_path / "compare.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "compare.json").read_text(encoding="utf-8"))["runs"][0] == "a"


def test_the_tables_of_a_comparison_are_beside_its_page(tmp_path: Path) -> None:
    runs = [made_run(tmp_path / name, auroc=area) for name, area in (("a", 0.9), ("b", 0.8))]
    page = write_comparison(runs, tmp_path / "compare.html")
    found = json.loads(page.with_suffix(".json").read_text())["table"]
    table = pd.read_csv(page.with_suffix(".csv"))
    assert list(table["run"]) == ["a", "b"]
    assert list(table["AUROC any"]) == [row["AUROC any"]["value"] for row in cells(found)]
    for suffix in (".md", ".tex"):
        text = page.with_suffix(suffix).read_text()
        assert all(title in text for title in ("Runs", "AUROC any", "AUROC of every label"))
        assert f'href="compare{suffix}"' in page.read_text()
    write_comparison(runs, page)  # it may write its own files again
    page.with_suffix(".csv").write_text("mine")
    with pytest.raises(ValueError, match=r"compare\.csv: expected no such file"):
        write_comparison(runs, page)
