"""Serve a live page of a run, for this machine only, from its events.jsonl: python -m fl_rsna.watch runs/<name>.

The run may be on another machine whose disk is mounted here, and it may be over or not begun. To see the page of a machine without a
screen, use ssh -L 8017:127.0.0.1:8017 <machine> and open the page on your own.
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("watch", loads="what draws the page")

from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.cli.guess import list_runs
from fl_rsna.common.command_end import end_command
from fl_rsna.settings.suggest import find_near

if TYPE_CHECKING:
    from fl_rsna.reporting.live.server import Watcher

PORT = 8017
EXAMPLES = """examples:
  fl-rsna watch runs/first
  fl-rsna watch runs/first --port 8020
  fl-rsna watch runs/second --wait
more: docs/watching.md"""
TRIES = 20  # ports from PORT on to try where --port is not given


def watch(run: Path, host: str, port: int | None, wait: bool = False) -> None:
    """Serve the page of a run until Ctrl-C; with `wait` also of one that is to come.

    Raises ValueError for a path that is no run's and for a host or port that is refused.
    """
    from fl_rsna.reporting.live.server import LOOPBACK, Watcher  # loads what draws the page

    if host not in LOOPBACK:
        raise ValueError(
            f"--host: expected 127.0.0.1 or localhost, got {host}; from elsewhere use ssh -L {PORT}:127.0.0.1:{PORT} <machine>"
        )
    refuse_no_run(run, wait=wait)
    server = _bind_server(Watcher(run), port)
    waits = "" if run.exists() else ", which has not begun"
    print(f"watching {run}{waits}: http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def refuse_no_run(run: Path, *, wait: bool) -> None:
    """Raise ValueError for a path that is no run's folder, with the runs of nearly that name; with `wait` the run may be one to come."""
    if run.is_file() or not run.resolve().parent.parent.is_dir():  # the first run may still have to make runs/
        raise ValueError(f"expected runs/<name>, the folder of a run or the name of one that is to come, got {run}")
    if wait or run.exists():
        return
    there = list_runs(run.parent)
    near = find_near(run.name, there, 0.6)
    said = f"did you mean {run.parent / near}?" if near else f"there are {', '.join(there[-5:])}" if there else ""
    said = said or f"there is no run in {run.parent}"
    raise ValueError(
        f"{run}: no such run; {said}{' With' if near else '; with'} --wait this command waits for one that is to come"
    )


def _bind_server(watcher: "Watcher", port: int | None) -> ThreadingHTTPServer:
    """Bind a server to `port`, or without one to the first free port from PORT on. Raises ValueError when `port` is taken."""
    from fl_rsna.reporting.live.server import make_server

    ports = [port] if port is not None else [*range(PORT, PORT + TRIES), 0]
    for candidate in ports:
        try:
            return make_server(watcher, candidate)
        except (OSError, OverflowError):
            continue
    raise ValueError(f"--port: expected a free port of this machine, got {port}; leave it out to have one chosen")


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("watch", "Serve the live page of a run, for this machine only.", EXAMPLES)
    parser.add_argument("run", type=Path, metavar="runs/<name>", help="the folder of a run")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1; nothing else is served")
    parser.add_argument("--port", type=int, default=None, help=f"default: {PORT}, or the next that is free")
    parser.add_argument("--wait", action="store_true", help="wait for a run that has not begun")
    return parser


if __name__ == "__main__":
    end_command(lambda: watch(**vars(declare_arguments().parse_args())))
