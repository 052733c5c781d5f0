"""python -m fl_rsna.keys: the keys and certificates of a federation between machines, each made where it stays.

    python -m fl_rsna.keys server --host superlink.example.org    the coordinator: an authority, and the SuperLink's certificate
    python -m fl_rsna.keys site --name hospital-a                 each hospital, for itself; only authorized/hospital-a.pub travels
    python -m fl_rsna.keys demo --sites site-1 site-2             all of it at once, to try a federation on one machine

All files lie below --folder, by default certificates/. The command prints a line per file, which says whether the file stays or travels.
A file that exists is never overwritten. Private keys are readable by their owner alone (mode 0600). A new server certificate, before
the old one ends: bring ca.key back, move superlink/server.key and server.crt away, type `server` again with the same hosts.
Exit codes: 0 done, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.common.command_end import begin_command

    begin_command()

import argparse
from pathlib import Path

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.common.command_end import end_command
from fl_rsna.deployment.keys.certificates import CA_DAYS, LEAF_DAYS
from fl_rsna.deployment.keys.key_folder import Files, demo_files, describe_files, server_files, site_files, write_new

MOST_DAYS = 36500


def keys(arguments: argparse.Namespace) -> None:
    """Make the files for which the arguments ask, write them, and say of each whether it stays or travels. Raises ValueError."""
    files: Files
    match arguments.what:
        case "server":
            files = server_files(arguments.folder, arguments.host, arguments.ca_days, arguments.days)
        case "site":
            files = site_files(arguments.name, arguments.days)
        case _:
            files = demo_files(arguments.folder, arguments.host, arguments.sites, arguments.ca_days, arguments.days)
    write_new(arguments.folder, files)
    print("\n".join(describe_files(arguments.folder, files)))


def parse_days(text: str) -> int:
    """Read an argument as a lifetime in days."""
    if not text.isdecimal() or not 1 <= int(text) <= MOST_DAYS:
        raise argparse.ArgumentTypeError(f"expected 1 to {MOST_DAYS} days, got {text}")
    return int(text)


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("keys", __doc__)
    modes = parser.add_subparsers(dest="what", required=True, metavar="server|site|demo")
    server = modes.add_parser("server", help="an authority and the SuperLink's certificate, made at the coordinator")
    site = modes.add_parser("site", help="a site's own keys, made at the site")
    demo = modes.add_parser("demo", help="all of it on one machine, to try")
    for mode in (server, site, demo):
        mode.add_argument("--folder", type=Path, default=Path("certificates"), help="default: certificates")
        mode.add_argument("--days", type=parse_days, default=LEAF_DAYS, help=f"lifetime of certificates; {LEAF_DAYS}")
    for mode in (server, demo):
        mode.add_argument("--ca-days", type=parse_days, default=CA_DAYS, help=f"lifetime of the authority; {CA_DAYS}")
        mode.add_argument(
            "--host", action="append", default=[], help="a name or address sites know the SuperLink by; repeat it"
        )
    site.add_argument("--name", required=True, help="of the site, as in the cohort: hospital-a")
    demo.add_argument("--sites", nargs="+", required=True, metavar="SITE")
    return parser


if __name__ == "__main__":
    end_command(lambda: keys(declare_arguments().parse_args()))
