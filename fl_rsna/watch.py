"""Serve a live page of a run, for this machine only, from its events.jsonl: python -m fl_rsna.watch runs/<name>.

The run may be on another machine whose disk is mounted here, and it may be over or not begun. To see the page of a machine without a
screen, use ssh -L 8017:127.0.0.1:8017 <machine> and open the page on your own.
"""

if __name__ == "__main__":
    from fl_rsna.common.command_end import begin_command

    begin_command()

import argparse
from http.server import ThreadingHTTPServer
from pathlib import Path

from fl_rsna.cli.arguments import create_parser
from fl_rsna.common.command_end import end_command
from fl_rsna.reporting.live.server import LOOPBACK, Watcher, make_server

PORT = 8017
TRIES = 20  # ports from PORT on to try where --port is not given


def watch(run: Path, host: str, port: int | None) -> None:
    """Serve the page of a run until Ctrl-C. Raises ValueError for a path that is no run's and for a host or port that is refused."""
    if host not in LOOPBACK:
        raise ValueError(
            f"--host: expected 127.0.0.1 or localhost, got {host}; from elsewhere use ssh -L {PORT}:127.0.0.1:{PORT} <machine>"
        )
    if run.is_file() or not run.resolve().parent.parent.is_dir():  # the first run may still have to make runs/
        raise ValueError(f"expected runs/<name>, the folder of a run or the name of one that is to come, got {run}")
    server = _bind_server(Watcher(run), port)
    waits = "" if run.exists() else ", which has not begun"
    print(f"watching {run}{waits}: http://127.0.0.1:{server.server_address[1]}/   (Ctrl-C ends it)", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()


def _bind_server(watcher: Watcher, port: int | None) -> ThreadingHTTPServer:
    """Bind a server to `port`, or without one to the first free port from PORT on. Raises ValueError when `port` is taken."""
    ports = [port] if port is not None else [*range(PORT, PORT + TRIES), 0]
    for candidate in ports:
        try:
            return make_server(watcher, candidate)
        except (OSError, OverflowError):
            continue
    raise ValueError(f"--port: expected a free port of this machine, got {port}; leave it out to have one chosen")


def parse_arguments() -> argparse.Namespace:
    parser = create_parser("watch", "Serve the live page of a run.")
    parser.add_argument("run", type=Path, metavar="runs/<name>")
    parser.add_argument("--host", default="127.0.0.1", help="127.0.0.1; nothing else is served")
    parser.add_argument("--port", type=int, default=None, help=f"default: {PORT}, or the next that is free")
    return parser.parse_args()


if __name__ == "__main__":
    end_command(lambda: watch(**vars(parse_arguments())))
