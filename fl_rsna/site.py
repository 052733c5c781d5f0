"""Take part in runs as one site, from its folder of slices, until stopped: python -m fl_rsna.site.

The command checks the folder, the state folder and the keys, prints in one line which site it is, and becomes Flower's SuperNode. With
--check it also checks the connection to the SuperLink, prints a line a check, starts nothing and writes nothing. Exit codes of --check:
0 no problem, 1 at least one, 2 the arguments cannot be read.
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("site", loads="Flower")

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path
from typing import TYPE_CHECKING

from fl_rsna.cli.arguments import Parser, create_parser, parse_count
from fl_rsna.common.command_end import end_command
from fl_rsna.settings.training import Device

if TYPE_CHECKING:
    from fl_rsna.deployment.site_node import Node

EXAMPLES = """examples:
  fl-rsna site --folder site_data/stroke/hospital-a --state state --keys keys --superlink head:9092 --check
  fl-rsna site --folder site_data/stroke/hospital-a --state state --keys keys --superlink head:9092
  fl-rsna site --folder site_data/stroke/hospital-a --state state --keys keys --superlink head:9092 --min-count 5
more: docs/deploy.md; exit codes of --check: 0 no problem, 1 at least one, 2 the arguments cannot be read"""


def start(node: "Node") -> None:
    """Print which site this is, wait until the SuperLink admits it, and become its SuperNode. Raises ValueError."""
    from fl_rsna.deployment.site_checks.link import wait_until_admitted
    from fl_rsna.deployment.site_checks.readiness import refuse_unready
    from fl_rsna.deployment.site_node import start_node

    held = refuse_unready(node)
    print(f"{held.says()}; SuperLink {node.superlink}", flush=True)
    wait_until_admitted(node)
    start_node(node)


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser(
        "site", "Take part in a federation as one site, from its folder of slices, until stopped.", EXAMPLES
    )
    parser.add_argument("--folder", type=Path, required=True, help="site_data/<cohort>/<site>; only read")
    parser.add_argument("--state", type=Path, required=True, help="where packed images and what runs leave are written")
    parser.add_argument("--keys", type=Path, required=True, help="node.key, ca.crt and runtime.* of this site")
    parser.add_argument("--superlink", required=True, metavar="HOST:PORT", help="the SuperLink to join")
    parser.add_argument("--name", help="the site that --folder must be, e.g. site-1")
    parser.add_argument(
        "--min-count", type=parse_count, help="refuse runs with a smaller privacy.min_count; default: 0"
    )
    parser.add_argument("--device", type=Device, choices=list(Device), default=Device.auto, help="default: auto")
    parser.add_argument("--port", type=int, help="of the SuperNode's own API on 127.0.0.1; default: a free one")
    parser.add_argument("--check", action="store_true", help="look at everything, say a line a check, start nothing")
    return parser


def parse_arguments() -> "tuple[Node, bool]":
    """Read the options of the site and whether --check is given; raises ValueError for an address or port that is none."""
    arguments = vars(declare_arguments().parse_args())
    from fl_rsna.deployment.site_node import Node, address_of  # loads Flower, which --help need not wait for

    only_check = bool(arguments.pop("check"))
    address_of(arguments["superlink"])
    if arguments["port"] is not None and not 0 < arguments["port"] < 65536:
        raise ValueError(f"--port: expected 1 to 65535, got {arguments['port']}")
    return Node(**arguments), only_check


def main() -> None:
    """Check the site with --check, else start it."""
    node, only_check = parse_arguments()
    if only_check:
        from fl_rsna.deployment.site_checks.readiness import examine_site

        examine_site(node)
    else:
        start(node)


if __name__ == "__main__":
    end_command(main)
