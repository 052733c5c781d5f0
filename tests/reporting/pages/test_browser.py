"""Pages in a real browser: quiet, offline, fitting phone, desktop and paper, readable by eye, keyboard and screen reader; and plots work."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from dicom_files import write_tiny
from logs import whole_run
from made_runs import card, made_gap, made_run, made_sweep
from page_laws import find_faults
from saved_runs import SETTINGS, labels_csv, write_tiny_run
from tiny import tiny_prepared, with_facts

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.evaluation.ensemble import ensemble
from fl_rsna.evaluation.evaluate import evaluate
from fl_rsna.evaluation.settings import EnsembleConfig, EvaluateConfig, PageConfig, ScansConfig
from fl_rsna.reporting.live.server import Seen
from fl_rsna.reporting.live.server import page as live_page
from fl_rsna.reporting.live.state import State, reduce_events
from fl_rsna.reporting.pages.comparison import write_comparison
from fl_rsna.reporting.pages.data_pages import cohort_view, write_partition_page, write_prepare_page
from fl_rsna.reporting.pages.find_runs import failures_in, find_runs
from fl_rsna.reporting.pages.run_page import write_report
from fl_rsna.run_folder.run_folder import COHORT_VIEW, RunFolder
from fl_rsna.settings.data import PrepareConfig
from fl_rsna.task import ICH

playwright = pytest.importorskip("playwright.sync_api")
BROWSER = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
pytestmark = [pytest.mark.slow, pytest.mark.skipif(BROWSER is None, reason="no Chromium to open pages with")]

Open = Callable[..., Any]
INK = "() => document.querySelector('[data-plot=loss]').layout.font.color"
LINES = "() => document.querySelectorAll('#plot-auroc .scatterlayer .trace path.js-line').length"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of a run, of one with many sites beside its gap, of an unfinished one, and a comparison of runs and one of a sweep."""
    folder = tmp_path_factory.mktemp("pages")
    unfinished = made_run(folder / "unfinished")
    (unfinished / "summary.json").unlink()
    runs = {"run": made_run(folder / "run"), "many": made_gap(folder / "many", sites=20), "unfinished": unfinished}
    found = {name: write_report(run) for name, run in runs.items()}
    jobs = [
        (f"strategy={name}", f"seed={seed}") for name in ("fedavg_logit_adjusted", "fedtrimmedavg") for seed in (0, 1)
    ]
    sweep = made_sweep(folder / "sweep", jobs, ("strategy=nosuch", "seed=0"))
    swept = write_comparison(find_runs(sweep), sweep / "compare.html", failures_in(sweep))
    return {
        **found,
        "sweep": swept,
        "comparison": write_comparison([runs["run"], runs["many"]], folder / "compare.html"),
    }


def evaluation_pages(folder: Path) -> dict[str, Path]:
    """Pages of scans with hashed ids: of a tiny model with thresholds on labelled scans, of another on unlabelled ones, of both models."""
    kinds = {
        "SE1": ("intraparenchymal", "intraventricular", "subarachnoid"),
        "SE2": ("subdural", None),
        "SE3": (None, None),
    }
    labels = {f"ID_{exam}{place}": kind for exam, found in kinds.items() for place, kind in enumerate(found)}
    for name in labels:
        exam, place = name[3:6], int(name[6:])
        write_tiny(folder / "scans" / f"{name}.dcm", name, f"P{exam}", exam, 5.0 * place)
    table, scans = labels_csv(folder / "labels.csv", labels), ScansConfig(dicom=str(folder / "scans"))
    labelled = replace(scans, labels=str(table))
    runs = [
        str(write_tiny_run(folder / name, settings=found, seed=n))
        for n, (name, found) in enumerate((("a", SETTINGS), ("b", None)))
    ]
    rest: dict[str, Any] = {"prepare": PrepareConfig(workers=1), "page": PageConfig(exams=2, slices=3, heats=1)}

    def nothing(what: str, done: int, total: int) -> None:
        pass

    with_labels = EvaluateConfig(model=runs[0], data=labelled, out=str(folder / "with"), **rest)
    without = EvaluateConfig(model=runs[1], data=scans, out=str(folder / "without"), **rest)
    both = EnsembleConfig(models=runs, weights="equal", data=scans, out=str(folder / "both"), **rest)
    scored = {"evaluation": evaluate(with_labels, nothing), "unlabelled": evaluate(without, nothing)}
    scored["ensemble"] = ensemble(both, nothing)
    return {name: out / "evaluation.html" for name, out in scored.items()}


def forget_positives(run: Path) -> Path:
    """Take the positives of one label from the test site of a made run: its scores are undefined, and say so in words."""
    for name in ("summary.json", "scorecards.json"):
        said = json.loads((run / name).read_text())
        test = said["test_site"]
        for cards in (test["slice"], *test["exam"].values()):
            cards["epidural"] = card(None, positives=0)
        (run / name).write_text(json.dumps(said))
    return run


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium: Any) -> Iterator[Open]:
    """Opens a page with every plot drawn; at the end nothing may have been complained of or asked for."""
    wrong: list[str] = []
    contexts = []

    def open_page(path: Path, width: int = 1440, scheme: str = "light") -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda asked: wrong.append(asked.url) if asked.url != path.as_uri() else None)
        page.goto(path.as_uri())
        for plot in page.locator("[data-plot]").all():
            plot.scroll_into_view_if_needed()
            plot.locator("svg.main-svg").first.wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


@pytest.mark.parametrize("name", ["run", "many", "unfinished", "comparison"])
def test_pages_are_quiet_and_fit(pages: dict[str, Path], opened: Open, name: str) -> None:
    """On a phone; the laws of `page_laws` hold the other widths."""
    page = opened(pages[name], 390, "dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    drawn = page.locator("figure.plot")
    assert drawn.count() > 0
    for details in drawn.locator("details").all():
        details.locator("summary").click()
        assert details.locator("tbody tr").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def until(page: Any, script: str, wanted: Callable[[Any], bool]) -> Any:
    """The value of a script once it is as wanted; the page's own policy forbids Playwright's wait_for_function."""
    for _ in range(200):
        if wanted(found := page.evaluate(script)):
            return found
        page.wait_for_timeout(20)
    raise AssertionError(f"{script} stayed {found}")


@pytest.fixture(scope="module")
def every_page(pages: dict[str, Path], cohort: Cohort, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Those pages; a run's with its cohort's pictures and a label without positives; those of scored scans, data, a cohort; a live one."""
    folder = tmp_path_factory.mktemp("others")
    run = forget_positives(made_run(folder / "run"))
    RunFolder(run).write_json(COHORT_VIEW, cohort_view(cohort))
    rejected = [{"path": "a.dcm", "reason": "not_dicom", "detail": "no DICM"}]
    prepared = with_facts(tiny_prepared(folder / "prepared"), rejected)
    copied = Path(shutil.copytree(cohort.folder, folder / "cohort"))
    live = folder / "live.html"
    state = reduce_events(State(), whole_run())
    text = live_page(Seen(name="a run", state=state, beats={}, silent_s=0.0, part="", parts=("",)))
    live.write_text(re.sub(r"<script>.*</script>", "", text, flags=re.DOTALL))  # nobody answers it here
    partition = write_partition_page(replace(cohort, folder=copied), ICH)
    others = {"prepare": write_prepare_page(prepared, ICH), "partition": partition, "live": live}
    return {**pages, "run": write_report(run), **others, **evaluation_pages(folder)}


EVERY = (
    "run",
    "many",
    "unfinished",
    "comparison",
    "sweep",
    "prepare",
    "partition",
    "evaluation",
    "unlabelled",
    "ensemble",
    "live",
)


@pytest.mark.parametrize("name", EVERY)
def test_pages_are_for_everybody_on_every_screen_and_on_paper(
    every_page: dict[str, Path], opened: Open, name: str
) -> None:
    assert find_faults(opened(every_page[name]), broad=name == "many") == []


def test_a_click_in_the_legend_hides_a_line(pages: dict[str, Path], opened: Open) -> None:
    page = opened(pages["run"])
    before, ink = page.evaluate(LINES), page.evaluate(INK)
    page.locator("#plot-auroc .legendtoggle").nth(1).click()
    until(page, LINES, lambda count: count == before - 1)
    page.emulate_media(color_scheme="dark")  # drawn again in other colours, and still hidden
    until(page, INK, lambda colour: colour != ink)
    assert page.evaluate(LINES) == before - 1


def test_a_choice_draws_another_label(pages: dict[str, Path], opened: Open) -> None:
    page = opened(pages["run"])
    names = (
        "() => document.querySelector('[data-plot=reliability]').data.map((trace) => trace.meta && trace.meta.choice)"
    )
    before = page.evaluate(names)
    assert set(before) == {None, "any"}  # the diagonal belongs to no label
    page.locator("select[data-of=reliability]").select_option("subdural")
    assert page.evaluate(names) == [choice and "subdural" for choice in before]


def test_plots_follow_the_scheme_and_print_is_light(pages: dict[str, Path], opened: Open) -> None:
    page = opened(pages["run"])
    light = page.evaluate(INK)
    page.emulate_media(color_scheme="dark")
    dark = until(page, INK, lambda colour: colour != light)
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate(INK) == "#000"
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate(INK) == dark


def test_many_sites_are_followed_by_name(pages: dict[str, Path], opened: Open) -> None:
    page = opened(pages["many"], 390)
    names = "() => document.querySelector('[data-plot=sites_by_round]').data.map((trace) => trace.name)"
    assert page.evaluate(names) == ["each site", "median of the sites"]
    page.locator("select[data-of=sites_by_round]").select_option("site-7")
    assert page.evaluate(names) == ["each site", "median of the sites", "site-7"]


def test_a_hundred_sites_and_fifty_rounds_fit_in_a_page(opened: Open, tmp_path: Path) -> None:
    path = write_report(made_run(tmp_path / "run", sites=100, rounds=50))
    assert path.stat().st_size < 10_000_000
    assert opened(path, 390).evaluate("document.documentElement.scrollWidth") <= 390
