"""The page is true, offline, and made for unfinished runs too."""

import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_config

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.federation.engines.local import run_local
from fl_rsna.federation.server_app import make_server_app
from fl_rsna.federation.site.client_app import app_for_cohort
from fl_rsna.reporting.pages.data_pages import cohort_view
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.reporting.record.run_record import interval, read_run
from fl_rsna.run_folder.run_folder import COHORT_VIEW, RunFolder, start_run


@pytest.fixture(scope="module")
def trained(cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that no test may write into."""
    folder, config = tmp_path_factory.mktemp("trained"), tiny_config(rounds=1, model__recalibrate=True)
    server = make_server_app(lambda context: (config, cohort, start_run(folder / "run", config, cohort, "cpu", ())))
    run_local(server, functools.partial(app_for_cohort, cohort.folder, folder / "memory"), num_sites=3, workers=0)
    RunFolder(folder / "run").write_json(COHORT_VIEW, cohort_view(cohort))
    return folder / "run"


@pytest.fixture
def finished(trained: Path, tmp_path: Path) -> Path:
    """A copy of it, in which a test may write a report."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def in_a_cell(estimate: dict[str, Any]) -> str:
    """How a table writes an estimate: its interval, where it has one, below the value."""
    text, _, rest = interval(estimate).partition(" ")
    if estimate["value"] is None:
        return f'<td class="why">{text} {rest}</td>'
    return f"<td>{text}<small>{rest}</small></td>" if estimate["low"] is not None else f"<td>{text}<small title="


def without_plotly(page: str) -> str:
    return re.sub(r'(<script type="text/plain" id="plotly">).*?</script>', r"\1</script>", page, flags=re.DOTALL)


def test_page_states_the_runs_own_numbers(finished: Path) -> None:
    page = write_report(finished).read_text()
    summary = json.loads((finished / "summary.json").read_text())
    for label, score in summary["test_site"]["slice"].items():
        assert label in page
        assert in_a_cell(score["auroc"]) in page
    assert in_a_cell(summary["test_site"]["controls"]["position"]["any"]["auroc"]) in page
    assert summary["model_sha256"] in page
    for site in ("site-1", "site-2", "site-3"):
        assert page.count(f"<td><span>{site}</span></td>") == 2  # its train and validation counts
        cost = f'<td class="text"><span>{site}</span></td><td>1</td><td class="none">0</td>'  # a round, no failure
        assert page.count(cost) == 1
    assert page.count("<td><span>test-site</span></td>") == 1
    assert "not finished" not in page


def test_page_asks_for_nothing_from_outside(finished: Path) -> None:
    page = write_report(finished).read_text()
    ours = without_plotly(page)
    assert re.findall(r"""(?:src|href)=["']?(?!data:|#)[^"'> ]+""", ours) == []
    assert "@import" not in ours
    assert "default-src 'none'" in ours  # what the browser holds the page to
    assert len(ours) < 2_000_000
    assert len(page) < 10_000_000


def test_page_shows_what_the_sites_see(finished: Path) -> None:
    page = write_report(finished).read_text()
    view = json.loads((finished / COHORT_VIEW).read_text())
    uris = [cell["uri"] for row in view["matrix"] for cell in row["cells"] if cell["uri"]]
    assert len(uris) >= 4  # at least one of each site
    assert all(uri in page for uri in uris)
    (finished / COHORT_VIEW).unlink()  # the sites of a real federation show nothing
    page = write_report(finished).read_text()
    assert "data:image" not in without_plotly(page)
    assert "site-3" in page


def test_same_run_same_page(finished: Path) -> None:
    assert write_report(finished).read_bytes() == write_report(finished).read_bytes()


def test_unfinished_and_failed_runs_get_a_true_page(finished: Path) -> None:
    (finished / "summary.json").unlink()
    with (finished / "events.jsonl").open("a") as file:
        file.write('{"time": "2020-01-01T00:00:00", "event": "round_st')  # killed while writing
    page = write_report(finished).read_text()
    assert "This run is not finished." in page
    assert "Final model on" not in page
    (finished / "summary.json").write_text('{"status": "failed", "reason": "round 2: nobody <b>came</b>", "rounds": 3}')
    page = write_report(finished).read_text()
    assert "This run failed." in page
    assert "nobody &lt;b&gt;came" in page


def test_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a run folder with config\.yaml"):
        read_run(tmp_path)


def test_intervals_say_why_they_are_missing() -> None:
    found = {"value": 0.9, "low": 0.85, "high": 0.95, "positives": 9, "negatives": 9}
    assert interval(found) == "0.900 [0.850, 0.950]"
    assert interval({**found, "value": None, "positives": 0}) == "undefined: no positives"
    assert interval({**found, "value": None, "negatives": 0}) == "undefined: no negatives"
    assert interval({**found, "value": None}) == "undefined: nothing to divide by"
    assert (
        interval({"value": None, "low": None, "high": None}) == "undefined: nothing to divide by"
    )  # of heat: no counts
    assert interval({**found, "low": None, "positive_patients": 2}) == "0.900 [no interval: 2 positive patients]"
    assert interval({**found, "low": None, "positive_patients": 1}) == "0.900 [no interval: 1 positive patient]"
    assert interval({**found, "low": None, "positive_patients": 9}) == "0.900 [no interval: too few patients]"
    assert interval({**found, "low": None}) == "0.900 [no interval: too few patients]"
