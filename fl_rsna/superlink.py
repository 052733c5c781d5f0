"""python -m fl_rsna.superlink --certificates certificates/superlink --state <folder>: the meeting point of sites and coordinator.

One port with TLS. Sites reach it from anywhere, each with the key the coordinator registered; runs are started from this machine alone.
It needs no data and runs until SIGTERM or Ctrl-C; started again with the same --state it knows the same sites.
"""

if __name__ == "__main__":
    from fl_rsna.common.command_end import begin_command

    begin_command()

import argparse
from pathlib import Path

from fl_rsna.common.command_end import Parser, RunFailed, end_command

PORT = 9092


def superlink(words: argparse.Namespace) -> None:
    from fl_rsna.deployment.superlink import run_superlink

    if not run_superlink(words.certificates, words.state, words.host, words.port):
        raise RunFailed("Flower's SuperLink ended before it served; its own message is above")


if __name__ == "__main__":
    parser = Parser(prog="python -m fl_rsna.superlink", description="Serve a federation's SuperLink.")
    parser.add_argument("--certificates", type=Path, required=True, help="with ca.crt, server.crt and server.key")
    parser.add_argument("--state", type=Path, required=True, help="a folder of its own, made when missing")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen at; default: all of this machine's")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: one that is free")
    words = parser.parse_args()
    end_command(lambda: superlink(words))
