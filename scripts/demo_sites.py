"""make demo-sites: all that docker-compose.yml mounts, with a synthetic cohort and demo keys.

    python scripts/demo_sites.py --sites 3 [demo.patients=40 partition.alpha=0.3 ...]

Writes site_data/demo-<N>-sites/, certificates/, runs/ and, in .env, COHORT, FL_UID and FL_GID (other lines of it stay).
The containers run as the user who types this. Is that root, they run as 10001, who is given what they read and write.
"""

import argparse
import os
from pathlib import Path

from fl_rsna.cohort.sites.site_folders import Cohort
from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.common.command_end import end_command
from fl_rsna.deployment.keys.key_folder import demo_files, site_files, write_new
from fl_rsna.settings.compose import compose_config
from fl_rsna.strategies.find import STRATEGIES

HOST = "superlink"  # the service's name in docker-compose.yml; localhost is in every server certificate
FILES = {3: "docker-compose.yml", 5: "docker-compose.yml:docker-compose.more-sites.yml"}  # by number of sites
UNPRIVILEGED = 10001  # the image's own user


def main(folder: Path, sites: int, settings: list[str]) -> None:
    if sites not in FILES:
        raise ValueError(
            f"--sites: expected 3 or 5, got {sites}; for others, copy a block of docker-compose.more-sites.yml"
        )
    cohort = make_cohort(folder, sites, settings)
    keys = folder / "certificates"
    make_keys(keys, cohort.sites)
    (folder / "runs").mkdir(exist_ok=True)
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        uid = gid = UNPRIVILEGED
        give([cohort.folder, keys / "superlink", keys / "sites", keys / "authorized", folder / "runs"], uid, gid)
    say(folder / ".env", COHORT=cohort.name, FL_UID=str(uid), FL_GID=str(gid), COMPOSE_FILE=FILES[sites])
    print(
        f"{cohort.folder}: {', '.join(cohort.sites)} and the test site; keys in {keys}; containers run as {uid}:{gid}"
    )


def make_cohort(folder: Path, sites: int, settings: list[str]) -> Cohort:
    """The demo cohort, drawn and assigned to sites unless it is there already."""
    config = compose_config(
        [
            f"paths.prepared={folder / 'prepared'}",
            f"paths.sites={folder / 'site_data'}",
            f"partition.num_sites={sites}",
            f"partition.name=demo-{sites}-sites",
            *settings,
        ],
        STRATEGIES,
    )
    return cohort_for_run(config, lambda what, done, total: print(f"{what}: {total}") if done == total else None)


def make_keys(keys: Path, sites: tuple[str, ...]) -> None:
    """The superlink's and every site's; those that are there stay."""
    if not (keys / "superlink").exists():
        write_new(keys, demo_files(keys, [HOST], sites))
    for site in sites:
        if not (keys / "sites" / site).exists():
            write_new(keys, {**site_files(site), f"sites/{site}/ca.crt": (keys / "superlink" / "ca.crt").read_bytes()})


def give(folders: list[Path], uid: int, gid: int) -> None:
    for folder in folders:
        for path in (folder, *folder.rglob("*")):
            os.chown(path, uid, gid, follow_symlinks=False)


def say(env: Path, **variables: str) -> None:
    """Set these variables in .env and leave its other lines."""
    lines = env.read_text().splitlines() if env.exists() else []
    kept = [line for line in lines if line.partition("=")[0].strip() not in variables]
    env.write_text("\n".join([*kept, *(f"{name}={value}" for name, value in variables.items())]) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A demo cohort with its keys and .env, for docker compose.")
    parser.add_argument("--folder", type=Path, default=Path(), help="where docker-compose.yml lies")
    parser.add_argument("--sites", type=int, default=3)
    parser.add_argument("settings", nargs="*", help="of demo.* and partition.*, as for simulate")
    told = parser.parse_args()
    end_command(lambda: main(told.folder, told.sites, told.settings))
