"""ClientApps that act like the real one and, beside that, say where they ran or have themselves killed."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fl_rsna.federation.protocol.messages import (
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
)
from fl_rsna.federation.site.client_app import app_for_cohort


def leave_pid(marks: Path, name: str, context: Context) -> None:
    """Say in `marks` which process ran a site: pid-site."""
    (marks / f"{os.getpid()}-{context.node_config['partition-id']}").touch()


def leave_node(marks: Path, name: str, context: Context) -> None:
    """Say in `marks` which node of a Ray cluster ran a site, and in what environment."""
    import ray

    seen = f"threads={os.environ.get('OMP_NUM_THREADS')},telemetry={os.environ.get('FLWR_TELEMETRY_ENABLED')}"
    (marks / f"{ray.get_runtime_context().get_node_id()} {seen}").touch()


def die(site: int, times: int, marks: Path, name: str, context: Context) -> None:
    """Kill this process as the system does, the first `times` times that it has trained partition `site`."""
    if context.node_config["partition-id"] == site and name == "train" and len(list(marks.iterdir())) < times:
        (marks / str(os.getpid())).touch()
        os.kill(os.getpid(), signal.SIGKILL)


def app_that(tell: Callable[[str, Context], None], cohort: Path, memory: Path) -> ClientApp:
    """The ClientApp of a simulation; `tell` comes after the site's work, before its reply."""
    real, app = app_for_cohort(cohort, memory), ClientApp()

    def told(name: str, message: Message, context: Context) -> Message:
        reply = real(message, context)
        tell(name, context)
        return reply

    @app.query()
    def _query(message: Message, context: Context) -> Message:
        return told("query", message, context)

    @app.train()
    def _train(message: Message, context: Context) -> Message:
        return told("train", message, context)

    @app.evaluate()
    def _evaluate(message: Message, context: Context) -> Message:
        return told("evaluate", message, context)

    @app.evaluate(action_of(COUNTS))
    def _counts(message: Message, context: Context) -> Message:
        return told("counts", message, context)

    @app.evaluate(action_of(SCORECARD))
    def _scorecard(message: Message, context: Context) -> Message:
        return told("scorecard", message, context)

    @app.evaluate(action_of(FEATURES))
    def _features(message: Message, context: Context) -> Message:
        return told("features", message, context)

    @app.evaluate(action_of(ENCODE))
    def _encode(message: Message, context: Context) -> Message:
        return told("encode", message, context)

    @app.evaluate(action_of(OUT_OF_FOLD))
    def _out_of_fold(message: Message, context: Context) -> Message:
        return told("out of fold", message, context)

    @app.train(action_of(GROW))
    def _grow(message: Message, context: Context) -> Message:
        return told("trees", message, context)

    @app.evaluate(action_of(GROWN))
    def _grown(message: Message, context: Context) -> Message:
        return told("grown", message, context)

    @app.evaluate(action_of(TREE_COUNTS))
    def _tree_counts(message: Message, context: Context) -> Message:
        return told("tree counts", message, context)

    @app.evaluate(action_of(BLEND))
    def _blend(message: Message, context: Context) -> Message:
        return told("blend", message, context)

    return app


def app_that_hangs() -> ClientApp:
    """Sites that never answer."""
    app = ClientApp()

    @app.query()
    def hang(message: Message, context: Context) -> Message:
        signal.pause()
        return message

    return app
