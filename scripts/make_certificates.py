"""The keys and certificates of a federation between real machines, see fl_rsna/deployment/keys/key_folder.py for the files.

    python scripts/make_certificates.py server --host superlink.example.org    the coordinator: an authority, the SuperLink's certificate
    python scripts/make_certificates.py site --name site-1                     each hospital, for itself; only authorized/site-1.pub travels
    python scripts/make_certificates.py demo --sites site-1 site-2             all of it at once, to try things on one machine

A new server certificate, before the old one ends: bring ca.key back, move superlink/server.{key,crt} away, run `server` again.
"""

import argparse
from pathlib import Path

from fl_rsna.common.command_end import end_command
from fl_rsna.deployment.keys.certificates import CA_DAYS, LEAF_DAYS
from fl_rsna.deployment.keys.key_folder import Files, demo_files, describe_files, server_files, site_files, write_new


def main(words: argparse.Namespace) -> None:
    files = made(words)
    write_new(words.folder, files)
    print("\n".join(describe_files(words.folder, files)))


def made(words: argparse.Namespace) -> Files:
    match words.what:
        case "server":
            return server_files(words.folder, words.host, words.ca_days, words.days)
        case "site":
            return site_files(words.name, words.days)
        case _:
            return demo_files(words.folder, words.host, words.sites, words.ca_days, words.days)


def days(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 36500:
        raise argparse.ArgumentTypeError(f"expected 1 to 36500 days, got {text}")
    return number


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make keys and certificates; existing ones are never overwritten.")
    modes = parser.add_subparsers(dest="what", required=True)
    server = modes.add_parser("server", help="an authority and the SuperLink's certificate")
    site = modes.add_parser("site", help="a site's own keys, made at the site")
    demo = modes.add_parser("demo", help="all of it on one machine, to try")
    for mode in (server, site, demo):
        mode.add_argument("--folder", type=Path, default=Path("certificates"))
        mode.add_argument("--days", type=days, default=LEAF_DAYS, help=f"lifetime of certificates; {LEAF_DAYS}")
    for mode in (server, demo):
        mode.add_argument("--ca-days", type=days, default=CA_DAYS, help=f"lifetime of the authority; {CA_DAYS}")
        mode.add_argument(
            "--host", action="append", default=[], help="a name or address sites know the SuperLink by; repeat it"
        )
    site.add_argument("--name", required=True, help="of the site, as in the cohort: site-1")
    demo.add_argument("--sites", nargs="+", required=True, metavar="SITE")
    return parser.parse_args()


if __name__ == "__main__":
    end_command(lambda: main(parsed()))
