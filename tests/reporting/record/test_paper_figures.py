"""Figures for a paper: every plot of a page, as wide as a journal's column, the same bytes every time, and text as text."""

import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from made_runs import made_gap, made_run

from fl_rsna.reporting.pages.run_page import build_report
from fl_rsna.reporting.record.cells import Table, columns
from fl_rsna.reporting.record.paper_figures import draw_plot, encode_figure, list_plots, write_figures
from fl_rsna.reporting.record.plotly import Plot, axes, category_axis, line, points
from fl_rsna.reporting.record.run_record import read_run


def make_plot(**changes: object) -> Plot:
    given: dict[str, object] = {
        "name": "p", "title": "T", "data": [line([0, 1], [0.5, None], "one", 0), line([0, 1], [0.2, 0.4], "two", 1)],
        "layout": axes("round", "AUROC"), "table": Table(title="T", columns=columns(a="text"), rows=[]),
    }  # fmt: skip
    return Plot(**{**given, **changes})  # type: ignore[arg-type]


def width_mm(svg: bytes) -> float:
    found = re.search(rb'width="([\d.]+)pt"', svg)
    assert found is not None
    return float(found[1]) / 72 * 25.4


@pytest.mark.parametrize(("wide", "expected"), [(False, 85), (True, 175)])
def test_a_figure_has_a_journals_width_and_the_same_bytes_again(wide: bool, expected: float) -> None:
    one, other = (encode_figure(draw_plot(make_plot(wide=wide), "")) for _ in range(2))
    assert one == other
    assert width_mm(one[".svg"]) == pytest.approx(expected, abs=0.1)
    assert b">AUROC</text>" in one[".svg"]
    assert b"<dc:date>" not in one[".svg"]
    assert b"/FontFile2" in one[".pdf"]  # TrueType, embedded
    assert b"CreationDate" not in one[".pdf"]


def test_a_plot_with_a_list_has_a_figure_for_each_choice(tmp_path: Path) -> None:
    data = [line([0, 1], [0, 1], "always", 0), *(line([0, 1], [1, 0], c, 1, meta={"choice": c}) for c in ("a", "b c"))]
    listed = make_plot(data=data, choices=["a", "b c"], choice_name="Label", chosen="a")
    written = write_figures(tmp_path / "figures", [listed, make_plot(name="q", choices=["", "x"], chosen="")])
    assert {path.name for path in written} == {
        "p-a.svg", "p-a.pdf", "p-b_c.svg", "p-b_c.pdf", "q.svg", "q.pdf", "captions.md"
    }  # fmt: skip
    assert len(draw_plot(listed, "a").axes[0].lines) == 2
    assert "- `p-b_c`: T (label: b c)." in (tmp_path / "figures" / "captions.md").read_text()


def test_an_axis_that_shows_what_is_chosen_is_named_by_the_choice() -> None:
    plot = make_plot(layout=axes("round", ""), choices=["log loss", "AUROC"], choice_name="Score", chosen="AUROC")
    assert draw_plot(plot, "log loss").axes[0].get_ylabel() == "log loss"


def test_names_stand_in_the_order_of_the_page_with_their_intervals() -> None:
    found = [{"value": 0.5, "low": 0.25, "high": 0.75}, {"value": None, "low": None, "high": None}]
    plot = make_plot(data=[points(["z", "a"], found, "AUROC", 0)], layout=axes("", "", xaxis=category_axis(["z", "a"])))
    drawn = draw_plot(plot, "").axes[0]
    assert [label.get_text() for label in drawn.get_xticklabels()] == ["z", "a"]
    [bars] = drawn.collections
    assert bars.get_segments()[0].tolist() == [[0, 0.25], [0, 0.75]]  # type: ignore[attr-defined]


def test_a_file_that_is_not_ours_is_kept_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "p.svg").write_text("<svg>mine</svg>")
    with pytest.raises(ValueError, match=r"p\.svg: expected no such file"):
        write_figures(tmp_path, [make_plot()])
    assert [path.name for path in tmp_path.iterdir()] == ["p.svg"]


def test_every_plot_of_a_report_is_drawn(tmp_path: Path) -> None:
    """Those of a run with many sites beside its gap, too."""
    for run in (made_run(tmp_path / "run"), made_gap(tmp_path / "gap", sites=20)):
        plots = list(list_plots(build_report(read_run(run)).sections))
        assert len(plots) > 5
        for plot in plots:
            chosen = next((choice for choice in plot.choices if choice), "") if plot.chosen else ""
            figure = draw_plot(plot, chosen)
            assert all(axes.get_ylabel() for axes in figure.axes), plot.name  # a colour bar's, too
            assert any(axes.get_xlabel() for axes in figure.axes), plot.name
            figure.draw_without_rendering()
            plt.close(figure)
