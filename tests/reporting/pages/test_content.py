"""report.json holds what the page shows; every plot has its table; names cannot become markup; a run in any state is told truly."""

import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import LABELS, made_gap, made_run

from fl_rsna.reporting.pages.run_page import SECTIONS, write_report
from fl_rsna.reporting.record.run_record import read_run
from fl_rsna.run_folder.run_folder import RunFolder


@pytest.fixture
def full(tmp_path: Path) -> Path:
    return made_run(tmp_path / "run")


def written(folder: Path) -> tuple[str, dict[str, Any]]:
    """The page without what a browser does not show, and report.json."""
    page = write_report(folder).read_text()
    page = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return page, json.loads((folder / "report.json").read_text())


def numbers(found: Any) -> Iterator[float]:
    match found:
        case bool() | None:
            return
        case int() | float():
            yield float(found)
        case str():
            yield from (float(text) for text in re.findall(r"\d+(?:\.\d+)?", found))
        case dict():
            for value in found.values():
                yield from numbers(value)
        case list():
            for value in found:
                yield from numbers(value)


def test_every_number_of_the_tables_is_in_the_json(full: Path) -> None:
    page, found = written(full)
    held = (
        list(numbers(found)) + [value / 1e6 for value in numbers(found["cost"])] + [found["cost"]["virtual_s"] / 3600]
    )
    cells = html.unescape(" ".join(re.findall(r"<td[^>]*>.*?</td>", page, flags=re.DOTALL)))
    cells = re.sub(r"<[^>]+>", " ", cells)
    shown = {text.replace(",", "") for text in re.findall(r"(?<![\w.:+−-])\d[\d,]*(?:\.\d+)?(?![\w.:-])", cells)}
    assert len(shown) > 100
    for text in shown:
        digits = len(text.partition(".")[2])
        assert any(f"{value:.{digits}f}" == text or f"{value:.3g}" == text for value in held), text


def test_every_plot_has_a_table_and_finite_data(full: Path) -> None:
    page, found = written(full)
    plots = [plot for part in found.values() if isinstance(part, dict) for plot in part.get("plots", [])]
    expected = {
        "loss",
        "auroc",
        "sites_by_round",
        "roc",
        "pr",
        "scores",
        "benefit",
        "subgroups",
        "sites",
        "points",
        "reliability",
        "seconds",
        "traffic",
    }
    assert {plot["name"] for plot in plots} == expected
    for plot in plots:
        figure = re.search(rf'<figure class="plot[^"]*" id="plot-{plot["name"]}">.*?</figure>', page, flags=re.DOTALL)
        assert figure is not None
        assert figure[0].count("<table") == 1
        assert figure[0].count("<tr>") == 1 + len(plot["table"]["rows"])
        assert plot["data"]
        assert all(len(trace["x"]) == len(trace["y"]) for trace in plot["data"])
    assert "NaN" not in json.dumps(found)


def test_lines_differ_in_more_than_colour(full: Path) -> None:
    _, found = written(full)
    [plot] = [plot for plot in found["curves"]["plots"] if plot["name"] == "auroc"]
    assert len({(trace["line"]["dash"], trace["marker"]["symbol"]) for trace in plot["data"]}) == len(plot["data"])


def test_operating_points_are_told_with_every_count(full: Path) -> None:
    _, found = written(full)
    assert [level["title"] for level in found["points"]["levels"]] == [
        table["title"] for table in found["scorecard"]["tables"]
    ]
    any_row = found["points"]["levels"][0]["tables"][0]["rows"][0]
    names = [column["name"] for column in found["points"]["levels"][0]["tables"][0]["columns"]]
    told = dict(zip(names, any_row, strict=True))
    assert [told[name] for name in ("label", "threshold", "TP", "FP", "TN", "FN")] == ["any", 0.125, 36, 16, 144, 4]


def test_the_worst_site_is_the_worst(full: Path) -> None:
    _, found = written(full)
    sites = json.loads((full / "summary.json").read_text())["sites"]
    areas = {site: card["slice"]["any"]["auroc"]["value"] for site, card in sites.items()}
    assert found["sites"]["spread"]["worst"] == min(areas, key=lambda site: areas[site])
    [worst] = [line for line in found["headlines"] if line["name"].startswith("worst site")]
    assert worst["value"]["value"] == min(areas.values())


def test_scores_by_site_stand_below_their_names(full: Path) -> None:
    _, found = written(full)
    table, cards = found["sites"]["tables"][0], json.loads((full / "scorecards.json").read_text())["sites"]
    names = [column["name"] for column in table["columns"]]
    keys = {
        "AUROC": "auroc",
        "average precision": "average_precision",
        "log loss": "log_loss",
        "Brier": "brier",
        "ECE": "ece",
    }
    for row in table["rows"]:
        told, card = dict(zip(names, row, strict=True)), cards[row[0]]
        assert {name: told[name] for name in keys} == {name: card["slice"]["any"][key] for name, key in keys.items()}
        assert told["patients"] == card["patients"]


def test_a_gap_beside_the_run_is_told(tmp_path: Path) -> None:
    _, found = written(made_gap(tmp_path / "mine"))
    assert found["name"] == "mine/federated"
    names = [line["name"] for line in found["headlines"]]
    assert names[:3] == ["AUROC, any hemorrhage (test site, slices)", "gap to pooled data", "gain over the sites alone"]
    plots = {plot["name"]: plot for plot in found["sites"]["plots"]}
    own = 0.8  # of every site's model at its own site
    areas = {row[0]: row[2] for row in plots["joining"]["table"]["rows"]}
    for site, own_area, joined, gain in plots["joining"]["table"]["rows"]:
        assert own_area == pytest.approx(own)
        assert gain == pytest.approx(joined - own)
        assert areas[site] == joined
    assert [row[0] for row in plots["matrix"]["table"]["rows"]] == ["site-1", "site-2", "site-3", "this run"]


def test_a_run_of_sites_alone_has_a_page(tmp_path: Path) -> None:
    made_gap(tmp_path / "gap")
    page, found = written(tmp_path / "gap" / "local")
    assert found["kind"] == "Baseline: every site alone"
    assert [row[0] for row in found["scorecard"]["tables"][0]["rows"]] == ["site-1", "site-2", "site-3"]
    assert "best site&#39;s own model" in page


def test_a_run_whose_sites_did_not_score_it_says_so(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    for name in ("summary.json", "scorecards.json"):
        (folder / name).write_text(json.dumps({**json.loads((folder / name).read_text()), "sites": {}}))
    page, found = written(folder)
    assert "No site answered" in found["sites"]["missing"]
    assert found["sites"]["missing"] in page
    assert found["sites"]["spread"]["worst"] == "site-1"  # by the last round's validation
    assert not found["sites"]["of_final_model"]


def test_a_finished_run_without_its_scorecards_is_refused(full: Path) -> None:
    (full / "scorecards.json").unlink()
    with pytest.raises(ValueError, match=r"scorecards\.json.*copy"):
        write_report(full)
    assert not (full / "report.html").exists()


def test_sections_of_the_page_are_keys_of_the_json(full: Path) -> None:
    page, found = written(full)
    assert re.findall(r'<h2 id="(\w+)">', page) == [name for name in SECTIONS if found[name] is not None]
    assert re.findall(r'<a href="#(\w+)">', page) == re.findall(r'<h2 id="(\w+)">', page)


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    folder = made_run(tmp_path / "run")
    for name in ("events.jsonl", "sites.csv", "summary.json"):
        path = folder / name
        path.write_text(path.read_text().replace("site-1", "<img src=x></script>"))
    write_report(folder)
    page = (folder / "report.html").read_text()
    ours = re.sub(r'(<script type="text/plain" id="plotly">).*?</script>', r"\1</script>", page, flags=re.DOTALL)
    assert "<img src=x>" not in ours
    assert "&lt;img src=x&gt;" in ours
    assert ours.count("</script>") == 3


def test_a_run_killed_anywhere_has_a_true_page(full: Path) -> None:
    """Files vanish one after the other in the order opposite to their making; rows and lines are cut in the middle."""
    (full / "summary.json").unlink()
    (full / "predictions.parquet").unlink()
    rows = (full / "rounds.csv").read_text()
    (full / "rounds.csv").write_text(rows[:-7])
    (full / "sites.csv").write_text((full / "sites.csv").read_text()[:-9])
    page, found = written(full)
    assert found["state"]["status"] == "unfinished"
    assert found["state"]["last_round"] == 1  # the cut row is not believed
    assert "This run is not finished." in page
    (full / "sites.csv").unlink()
    (full / "rounds.csv").unlink()
    page, found = written(full)
    assert "no round is over yet" in page
    assert found["labels"] == list(LABELS)
    (full / "events.jsonl").unlink()
    (full / "manifest.json").unlink()
    page, _ = written(full)
    assert "No site had answered the roll call." in page


def test_events_after_a_cut_line_count(full: Path) -> None:
    whole = (full / "events.jsonl").read_text()
    resumed = '{"time": "2020-01-01T00:00:01+00:00", "event": "resumed", "round": 1}\n'
    (full / "events.jsonl").write_text(whole + '{"time": "2020-01-01T00:00:00+00:00", "event": "round_st' + resumed)
    assert read_run(full).resumed == [1]


def test_a_damaged_event_is_left_out_and_said(full: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with (full / "events.jsonl").open("ab") as file:
        file.write(b'{"time": "2020-01-01T00:00:00+00:00", "event": "resu\x00ed", "rou\n')
    page, found = written(full)
    assert len(found["state"]["beware"]) == 1
    assert "A file is damaged." in page
    assert "1 line is damaged in" in " ".join(capfd.readouterr().out.split())


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "summary.json", "predictions.parquet"])
def test_a_file_cut_in_the_middle_is_named(full: Path, name: str) -> None:
    raw = (full / name).read_bytes()
    (full / name).write_bytes(raw[: len(raw) // 2])
    with pytest.raises(ValueError, match=rf"{name}.*bring the file back"):
        write_report(full)


def test_tables_that_are_not_as_the_run_wrote_them_are_said(full: Path) -> None:
    summary = json.loads((full / "summary.json").read_text())
    tables = RunFolder(full).table_hashes()
    (full / "summary.json").write_text(json.dumps({**summary, "tables": tables}))
    assert read_run(full).beware == []
    text = (full / "sites.csv").read_text()
    (full / "sites.csv").write_text(text.replace("0.6", "0.7", 1))
    with (full / "events.jsonl").open("a") as file:
        file.write('{"time": "2021", "event": "later"}\n')  # what came after the run is no damage
    (said,) = read_run(full).beware
    assert "sites.csv is not as the run wrote it" in said


def test_a_failed_run_says_why(full: Path) -> None:
    (full / "summary.json").write_text('{"status": "failed", "reason": "round 2: nobody <b>came</b>", "rounds": 3}')
    page, found = written(full)
    assert "This run failed." in page
    assert "nobody &lt;b&gt;came" in page
    assert found["scorecard"] is None


def test_a_label_without_positives_says_so(full: Path) -> None:
    cards = json.loads((full / "scorecards.json").read_text())
    cards["test_site"]["slice"]["epidural"]["auroc"] |= {"value": None, "low": None, "high": None, "positives": 0}
    (full / "scorecards.json").write_text(json.dumps(cards))
    page, _ = written(full)
    assert '<td class="why">undefined: no positives</td>' in page


def test_explained_slices_are_shown_where_there_are_some(full: Path) -> None:
    page, _ = written(full)
    assert 'id="pictures"' not in page
    one = {
        "picture": "data:image/png;base64,AAAA",
        "heat": "data:image/png;base64,BBBB",
        "lesion": None,
        "kind": "false negative",
        "label": "any",
        "labels": {"any": 1, "subdural": 0},
        "probabilities": {"any": 0.04, "subdural": 0.01},
    }
    inside = {"label": "any", "slices": 9, "patients": 5, "share": {"value": 0.41, "low": 0.3, "high": 0.5}}
    words = {"finding": "blood", "body": "head", "threshold_from": "the sites", "thresholds": {"any": 0.1}}
    content = {"entries": [one], "method": "by hand", "heat_in_lesion": inside, **words}
    (full / "explanations.json").write_text(json.dumps(content))
    page, found = written(full)
    assert "False negatives, the least probable first" in page
    assert "any 0.04</p>" in page
    assert "labelled any<br>" in page
    assert "data:image/png;base64,BBBB" in page
    assert found["pictures"]["entries"][0]["probabilities"] == one["probabilities"]
    assert found["pictures"]["measured"]["rows"][0][1] == inside["share"]
    assert "base64" not in json.dumps(found)
