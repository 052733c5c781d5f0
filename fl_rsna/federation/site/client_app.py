"""Make the ClientApp of every engine: it finds its site and calls the handler of a message; an error becomes a reply that names the site.

A deployed site's log gets one line for each message, in words for the people who look after the site.
"""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message, MessageType, MetricRecord
from flwr.clientapp import ClientApp

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.federation.protocol.failures import log_failure, scrub_failure, without_data
from fl_rsna.federation.protocol.messages import (
    BLEND,
    COUNTS,
    ENCODE,
    FEATURES,
    GROW,
    GROWN,
    METRICS,
    OUT_OF_FOLD,
    SCORECARD,
    TREE_COUNTS,
    action_of,
    describe_phase,
    failure_of,
    phase_of,
    read_instructions,
    reply_failure,
)
from fl_rsna.federation.protocol.minimum_count import check_floor
from fl_rsna.federation.site.encoding import encode, has_features, weigh
from fl_rsna.federation.site.handlers import SitePaths, evaluate, roll_call, train
from fl_rsna.federation.site.heartbeat import FOLDER
from fl_rsna.federation.site.scoring import count, score
from fl_rsna.federation.site.stacking import count_trees, grow_trees, keep_out_of_fold, validate_trees
from fl_rsna.learning.data.dataset import POOLED
from fl_rsna.learning.training.train import settle_process

FLOOR = "FL_RSNA_MIN_COUNT"
LOG = "failures.log"  # of a simulated site, in its memory; a deployed site has its SuperNode's log


def line_of(message: Message, reply: Message, site: str) -> str:
    """Describe what `site` did for a message, e.g. `site-1  round 2  trained on 245 images in 7.5 s, loss 0.226`."""
    said = phase_of(message)
    round_, phase = said["round"], said["phase"]
    where = f"{site}  round {round_}  " if round_ else f"{site}  "
    failed = failure_of(reply)
    if failed is not None:
        return f"{where}{phase} failed: {failed[0]}"
    metrics = reply.content.get(METRICS)
    return where + _describe_work(phase, metrics if isinstance(metrics, MetricRecord) else {})


def _describe_work(phase: str, found: Mapping[str, int | float | list[int] | list[float]]) -> str:
    images, loss, seconds = found.get("num-examples"), found.get("loss"), found.get("seconds")
    of = f" {images} images" if images is not None else ""
    taken = f" in {seconds:.1f} s" if isinstance(seconds, float) else ""
    said = f", loss {loss:.3f}" if isinstance(loss, float) else ""
    match phase:
        case MessageType.TRAIN:
            return f"trained on{of}{taken}{said}"
        case "validation":
            return f"validated on{of}{said}"
        case "roll call":
            return "answered the roll call"
        case "operating points":
            return f"counted for the operating points on{of}"
    return f"{phase} of{of} made"


def site_name(folder: Path) -> str:
    """Return the name of a folder's site, by its site.json or, without one, by the folder."""
    return read_site_name(folder) or folder.name


def read_site_name(folder: Path) -> str:
    """Read the name of a folder's site from its site.json; empty where it cannot be read."""
    try:
        return str(json.loads((folder / "site.json").read_text())["site"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def make_client_app(locate: Callable[[Context], SitePaths]) -> ClientApp:
    """Make a ClientApp; `locate` returns where this node's site is."""
    app = ClientApp()

    def wrap_handler(act: Callable[[Message, SitePaths], Message]) -> Callable[[Message, Context], Message]:
        return lambda message, context: _answer(message, lambda: locate(context), act)

    app.query()(wrap_handler(roll_call))
    app.train()(wrap_handler(train))
    app.evaluate()(wrap_handler(evaluate))
    app.evaluate(action_of(COUNTS))(wrap_handler(count))
    app.evaluate(action_of(SCORECARD))(wrap_handler(score))
    app.evaluate(action_of(FEATURES))(wrap_handler(has_features))
    app.evaluate(action_of(ENCODE))(wrap_handler(encode))
    app.evaluate(action_of(BLEND))(wrap_handler(weigh))
    app.evaluate(action_of(OUT_OF_FOLD))(wrap_handler(keep_out_of_fold))
    app.train(action_of(GROW))(wrap_handler(grow_trees))
    app.evaluate(action_of(GROWN))(wrap_handler(validate_trees))
    app.evaluate(action_of(TREE_COUNTS))(wrap_handler(count_trees))
    return app


def _answer(message: Message, locate: Callable[[], SitePaths], act: Callable[[Message, SitePaths], Message]) -> Message:
    """Answer a message; an error of the site becomes a reply that names the site, so that no failure is lost.

    The reply holds no data of the site; the whole traceback is in the site's own log.
    """
    place, name = None, ""
    try:
        settle_process()
        found = locate()
        name = read_site_name(found.folders[0]) if len(found.folders) == 1 else POOLED
        check_floor(read_instructions(message).min_count, found.min_count)
        place = found
        reply = act(message, place)
    except Exception as error:
        log_failure(error, describe_phase(message), place.log if place else None)
        said = scrub_failure(error, place.folders, place.memory) if place else without_data(error)
        asked_who = message.metadata.message_type == MessageType.QUERY  # in later phases the server knows who answers
        reply = reply_failure(message, said, name if asked_who else "")
    if place is not None and place.aloud:
        print(line_of(message, reply, site_name(place.folders[0])), file=sys.stderr, flush=True)
    return reply


def app_for_cohort(cohort: Path, memory: Path, *, pooled: bool = False) -> ClientApp:
    """Make the ClientApp of a simulation: the node with partition-id i is the i-th site of a cohort folder.

    A site keeps its memory in `memory`/<site>/, its failures in failures.log there, and its heartbeat in heartbeat/ beside `memory`.
    With `pooled` one node holds all sites' data.
    """

    def locate(context: Context) -> SitePaths:
        if not memory.parent.is_dir():
            raise ValueError(
                f"paths.runs: expected the run's folder {memory.parent} at every node, got none here; use one they all see"
            )
        heartbeat = memory.parent / FOLDER
        if pooled:
            folders = tuple(cohort / name for name in read_cohort(cohort).sites)
            return SitePaths(folders=folders, memory=memory / POOLED, heartbeat=heartbeat, log=memory / POOLED / LOG)
        folder = _site_of(cohort, int(context.node_config["partition-id"]))
        own = memory / folder.name
        return SitePaths(folders=(folder,), memory=own, heartbeat=heartbeat, log=own / LOG)

    return make_client_app(locate)


def _locate_by_node(context: Context) -> SitePaths:
    """Locate a SuperNode's site by `site-folder` and `memory-folder` of its configuration, or as the partition-id-th site of the run's cohort.

    With a `memory-folder` the site writes only there, and its own folder may be read-only; without one its memory and its packed
    images are in its own folder. `min-count`, or FL_RSNA_MIN_COUNT, is the site's own least privacy.min_count.
    """
    node, run = context.node_config, context.run_config
    named = node.get("site-folder")
    folder = Path(str(named)) if named else _site_of(Path(str(run["cohort"])), int(node["partition-id"]))
    floor = _floor_of(node.get("min-count", 0))
    if "memory-folder" not in node:
        return SitePaths(folders=(folder,), memory=folder / "memory", aloud=bool(named), min_count=floor)
    memory = Path(str(node["memory-folder"]))
    return SitePaths(folders=(folder,), memory=memory, cache=memory / "packed", aloud=bool(named), min_count=floor)


def _floor_of(stated: object) -> int:
    """Return the larger of the least privacy.min_count in the node's configuration and in the environment; raises ValueError for others."""
    floors = [str(stated), os.environ.get(FLOOR) or "0"]
    for floor in floors:
        if not re.fullmatch(r"[0-9]+", floor):
            raise ValueError(
                f"min-count: expected a whole number of 0 or more at this site, got {floor!r}; mend it there"
            )
    return max(map(int, floors))


def _site_of(cohort: Path, position: int) -> Path:
    facts = cohort / "cohort.json"
    names = _sites_of(cohort, facts.stat().st_mtime_ns if facts.exists() else 0)
    if position >= len(names):
        raise ValueError(f"expected at most {len(names)} nodes, one a site of {cohort}, got node {position + 1}")
    return cohort / names[position]


@lru_cache(maxsize=4)
def _sites_of(cohort: Path, changed: int) -> tuple[str, ...]:
    """Read the sites of a cohort once, not for every message: the time of a round would grow with the square of their number."""
    return read_cohort(cohort).sites


app = make_client_app(_locate_by_node)
