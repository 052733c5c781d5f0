"""The ClientApp of every engine: finds its site and lets it act; what a site raises becomes a reply that names it."""

import os
import re
import sys
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from flwr.app import Context, Message, MessageType
from flwr.clientapp import ClientApp

from fl_rsna.cohort.sites import read_cohort
from fl_rsna.federation.disclosure import check_floor
from fl_rsna.federation.heartbeat import FOLDER
from fl_rsna.federation.messages import (
    BLEND,
    COUNTS,
    ENCODE,
    FEATURES,
    GROW,
    GROWN,
    OUT_OF_FOLD,
    SCORECARD,
    TREE_COUNTS,
    action_of,
    asked_of,
    read_instructions,
    reply_failure,
)
from fl_rsna.federation.scrubbing import log_failure, scrubbed, without_data
from fl_rsna.federation.site_encoding import encode, has_features, weigh
from fl_rsna.federation.site_log import line_of, site_name, stated_name
from fl_rsna.federation.site_part import Place, evaluate, roll_call, train
from fl_rsna.federation.site_scoring import count, score
from fl_rsna.federation.site_stacking import count_trees, grow_trees, keep_out_of_fold, validate_trees
from fl_rsna.learning.dataset import POOLED
from fl_rsna.learning.process import settle_process

FLOOR = "FL_RSNA_MIN_COUNT"
LOG = "failures.log"  # of a simulated site, beside what it remembers; a deployed one has its SuperNode's log


def make_client_app(locate: Callable[[Context], Place]) -> ClientApp:
    """The ClientApp of every engine; `locate` says where this node's site is."""
    app = ClientApp()

    def acting(act: Callable[[Message, Place], Message]) -> Callable[[Message, Context], Message]:
        return lambda message, context: _answer(message, lambda: locate(context), act)

    app.query()(acting(roll_call))
    app.train()(acting(train))
    app.evaluate()(acting(evaluate))
    app.evaluate(action_of(COUNTS))(acting(count))
    app.evaluate(action_of(SCORECARD))(acting(score))
    app.evaluate(action_of(FEATURES))(acting(has_features))
    app.evaluate(action_of(ENCODE))(acting(encode))
    app.evaluate(action_of(BLEND))(acting(weigh))
    app.evaluate(action_of(OUT_OF_FOLD))(acting(keep_out_of_fold))
    app.train(action_of(GROW))(acting(grow_trees))
    app.evaluate(action_of(GROWN))(acting(validate_trees))
    app.evaluate(action_of(TREE_COUNTS))(acting(count_trees))
    return app


def _answer(message: Message, locate: Callable[[], Place], act: Callable[[Message, Place], Message]) -> Message:
    """Whatever a site raises becomes a reply that names it, so no failure is dropped in silence.

    Nothing of what the site holds is in that reply; the site's own log has the whole.
    """
    place, name = None, ""
    try:
        settle_process()
        found = locate()
        name = stated_name(found.folders[0]) if len(found.folders) == 1 else POOLED
        check_floor(read_instructions(message).min_count, found.min_count)
        place = found
        reply = act(message, place)
    except Exception as error:
        log_failure(error, asked_of(message), place.log if place else None)
        said = scrubbed(error, place.folders, place.memory) if place else without_data(error)
        asked_who = message.metadata.message_type == MessageType.QUERY  # later the server knows who answers
        reply = reply_failure(message, said, name if asked_who else "")
    if place is not None and place.aloud:
        print(line_of(message, reply, site_name(place.folders[0])), file=sys.stderr, flush=True)
    return reply


def app_for_cohort(cohort: Path, memory: Path, *, pooled: bool = False) -> ClientApp:
    """The ClientApp of a simulation: the node with partition-id i is the i-th site of a cohort folder.

    What its sites remember goes to `memory`/<site>/, their failures to failures.log there, how far they are to heartbeat/
    beside `memory`. With `pooled` the one node holds all sites' data.
    """

    def locate(context: Context) -> Place:
        if not memory.parent.is_dir():
            raise ValueError(
                f"paths.runs: expected the run's folder {memory.parent} at every node, got none here; use one they all see"
            )
        heartbeat = memory.parent / FOLDER
        if pooled:
            folders = tuple(cohort / name for name in read_cohort(cohort).sites)
            return Place(folders=folders, memory=memory / POOLED, heartbeat=heartbeat, log=memory / POOLED / LOG)
        folder = _site_of(cohort, int(context.node_config["partition-id"]))
        own = memory / folder.name
        return Place(folders=(folder,), memory=own, heartbeat=heartbeat, log=own / LOG)

    return make_client_app(locate)


def _located_by_node(context: Context) -> Place:
    """Where a SuperNode was told to look: `site-folder` and `memory-folder`, or the partition-id-th site of the run's cohort.

    With a `memory-folder` everything is written there and the site's folder may be read-only; without one the site
    remembers and packs in its own folder. `min-count`, or FL_RSNA_MIN_COUNT, is its
    own floor.
    """
    node, run = context.node_config, context.run_config
    named = node.get("site-folder")
    folder = Path(str(named)) if named else _site_of(Path(str(run["cohort"])), int(node["partition-id"]))
    floor = _floor_of(node.get("min-count", 0))
    if "memory-folder" not in node:
        return Place(folders=(folder,), memory=folder / "memory", aloud=bool(named), min_count=floor)
    memory = Path(str(node["memory-folder"]))
    return Place(folders=(folder,), memory=memory, cache=memory / "packed", aloud=bool(named), min_count=floor)


def _floor_of(stated: object) -> int:
    """The greater of what the node's configuration and the environment state as this site's own privacy.min_count."""
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
    """Read once, not for every message: cohort.json grows with its sites, and a round would with their square."""
    return read_cohort(cohort).sites


app = make_client_app(_located_by_node)
