"""How large the page of a run is, how long it takes to write, and how long a browser takes to open it.

    python benchmarks/bench_page.py [--sites 100] [--rounds 50] [--repeats 5]

The run is made up, by the tests' own maker: sites and rounds as asked, with every section of the page filled. Opening is from
the request to the load event, and to the first plot drawn, in headless Chromium, a fresh one each time. Prints a table
and, as the last line, one JSON object.
"""

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fl_rsna.reporting.pages.run_page import write_report

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from made_runs import made_run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = made_run(Path(folder) / "run", sites=arguments.sites, rounds=arguments.rounds)
        began = time.perf_counter()
        path = write_report(run)
        written = time.perf_counter() - began
        times = [opening(path) for _ in range(arguments.repeats)]
        figures = {
            "sites": arguments.sites,
            "rounds": arguments.rounds,
            "megabytes": path.stat().st_size / 1e6,
            "write_s": written,
            **{name: statistics.median(found[name] for found in times) for name in times[0]},
            **{f"{name}_worst": max(found[name] for found in times) for name in times[0]},
        }
    report(figures)


def opening(path: Path) -> dict[str, float]:
    """Seconds until the page is loaded and until its first plot stands; raises ValueError without a browser."""
    from playwright.sync_api import sync_playwright

    browser = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        raise ValueError("PATH: expected chromium or google-chrome, got neither; install one")
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = opened.new_page(viewport={"width": 1440, "height": 900})
        began = time.perf_counter()
        page.goto(path.as_uri())
        loaded = time.perf_counter() - began
        page.locator("[data-plot]").first.scroll_into_view_if_needed()
        page.locator("[data-plot] svg.main-svg").first.wait_for()
        drawn = time.perf_counter() - began
        opened.close()
    return {"open_s": loaded, "first_plot_s": drawn}


def report(figures: dict[str, Any]) -> None:
    table = Table(title="page of a run")
    for name in figures:
        table.add_column(name, justify="right")
    table.add_row(*(f"{value:.2f}" if isinstance(value, float) else str(value) for value in figures.values()))
    Console(width=140).print(table)
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except ValueError as error:
        sys.exit(f"error: {error}")
