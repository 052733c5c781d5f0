"""A run's state as it is drawn in a terminal: how far it is, and its sites; many sites are summed up."""

from collections import Counter
from collections.abc import Mapping

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from fl_rsna.federation.heartbeat import Beat
from fl_rsna.reporting.live import Doing, SiteState, State, by_number
from fl_rsna.reporting.outlook import clock, left_words, phase_of
from fl_rsna.reporting.task_words import area_name

FEW = 12  # sites, each with a line of its own
BAR = 20  # characters
STYLE = {Doing.failed: "red", Doing.trained: "green", Doing.validated: "green", Doing.recalibrated: "green"}


def rounds_view(state: State, beats: Mapping[str, Beat], silent_s: float) -> RenderableType:
    """What stands under the printed lines while a run runs."""
    if not state.sites:
        return Text("")
    beats = {
        site: beat
        for site, beat in beats.items()
        if beat.round >= state.round and site in state.sites and not beat.packing
    }
    shown = list(state.sites) if len(state.sites) <= FEW else sorted(beats, key=by_number)[:FEW]
    parts: list[RenderableType] = [_head(state, silent_s)]
    if len(state.sites) > FEW:
        parts.append(Text(_summary(state, beats), style="dim"))
    if shown:
        parts.append(_sites(state, shown, beats))
    return Group(*parts)


def _head(state: State, silent_s: float) -> RenderableType:
    done = state.round - 1 if state.open else state.round
    grid = Table.grid(padding=(0, 1))
    gone = "" if state.began is None or state.last is None else f"{clock(state.last - state.began + silent_s)} gone"
    bar = ProgressBar(total=max(1, state.rounds), completed=done, width=BAR, complete_style="cyan")
    grid.add_row(Text(f"round {state.round} of {state.rounds}", style="bold"), bar, Text(phase_of(state)))
    last = f"{gone}, {left_words(state, silent_s)}"
    return Group(grid, Text(f"{last}{_scores(state)}", style="dim"))


def _scores(state: State) -> str:
    if not state.curve:
        return ""
    row, headline = state.curve[-1], state.headline
    area, first = row.get(f"test_auroc_{headline}"), state.curve[0].get(f"test_auroc_{headline}")
    parts = [f"loss {row['train_loss']:.3f}"] if row.get("train_loss") is not None else []
    if area is not None and headline is not None:
        since = f" (round 0: {first:.3f})" if first is not None and row["round"] else ""
        parts.append(f"test {area_name(headline)} {area:.3f}{since}")
    return "".join(f" · {part}" for part in parts)


def _summary(state: State, beats: Mapping[str, Beat]) -> str:
    counts = Counter(site.doing for site in state.sites.values())
    waiting = max(0, counts[Doing.asked] - len(beats))
    parts = [(waiting, "waiting"), (len(beats), "training")]
    parts += [(counts[doing], doing.value) for doing in Doing if doing is not Doing.asked]
    return f"{len(state.sites)} sites: " + ", ".join(f"{count} {word}" for count, word in parts if count)


def _sites(state: State, names: list[str], beats: Mapping[str, Beat]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", show_edge=False)
    table.add_column("site")
    table.add_column("")
    table.add_column("batches", justify="right")
    for name in ("loss", "validation", _area(state), "failures" if state.failures else ""):
        table.add_column(name, justify="right")
    failures = Counter(failure.site for failure in state.failures)
    for name in names:
        site, beat = state.sites[name], beats.get(name)
        trained = site.train[-1] if site.train else None
        scored = site.validation[-1] if site.validation else None
        table.add_row(
            name,
            _what(site, beat),
            f"{beat.batch}/{beat.batches}" if beat else "",
            _number(trained.loss if trained else None),
            _number(scored.loss if scored else None),
            _number(scored.auroc if scored else None),
            Text(str(failures[name]), style="red") if failures[name] else "",
        )
    return table


def _area(state: State) -> str:
    return "AUROC" if state.headline is None else area_name(state.headline)


def _what(site: SiteState, beat: Beat | None) -> RenderableType:
    """A bar for a site that trains, else a word."""
    if beat is not None:
        return ProgressBar(total=max(1, beat.batches), completed=beat.batch, width=BAR, complete_style="cyan")
    seconds = site.train[-1].seconds if site.train else None
    took = f" in {seconds:.1f} s" if site.doing is Doing.trained and seconds is not None else ""
    word = "waiting" if site.doing is Doing.asked else site.doing.value
    return Text(f"{word}{took}".ljust(BAR), style=STYLE.get(site.doing, "dim"))


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
