"""Serve the SuperLink of a federation: python -m fl_rsna.superlink --certificates certificates/superlink --state <folder>.

The SuperLink serves one port with TLS. Sites reach it from anywhere, each with the key that the coordinator registered; runs are
started from this machine only. It needs no data and runs until SIGTERM or Ctrl-C. Started again with the same --state, it knows the
same sites.
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("superlink", loads="Flower")

import argparse
from pathlib import Path

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.common.command_end import RunFailed, end_command

PORT = 9092
EXAMPLES = """examples:
  fl-rsna superlink --certificates certificates/superlink --state state
  fl-rsna superlink --certificates certificates/superlink --state state --port 9443
  fl-rsna superlink --certificates certificates/superlink --state state --host 192.168.1.5
more: docs/deploy.md"""


def superlink(arguments: argparse.Namespace) -> None:
    """Serve until SIGTERM or Ctrl-C; raises RunFailed when the SuperLink ends before it serves."""
    from fl_rsna.deployment.superlink import run_superlink

    if not run_superlink(arguments.certificates, arguments.state, arguments.host, arguments.port):
        raise RunFailed("Flower's SuperLink ended before it served; its own message is above")


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("superlink", "Serve the SuperLink of a federation, until stopped.", EXAMPLES)
    parser.add_argument("--certificates", type=Path, required=True, help="with ca.crt, server.crt and server.key")
    parser.add_argument("--state", type=Path, required=True, help="a folder of its own, made when missing")
    parser.add_argument("--host", default="0.0.0.0", help="the address to listen at; default: all of this machine's")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0: one that is free")
    return parser


if __name__ == "__main__":
    end_command(lambda: superlink(declare_arguments().parse_args()))
