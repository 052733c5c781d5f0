"""Make one site's folder from a hospital's own prepared data, where nobody partitions a cohort: python -m fl_rsna.own_site.

Each hospital:     python -m fl_rsna.own_site --cohort stroke-2026 --prepared prepared/ours --site hospital-a
A hospital that does not annotate a label says so twice, to prepare and here; its table of labels lacks that label:
                   ... fl_rsna.prepare ... data.unannotated=[epidural]   and   ... --unannotated epidural
The coordinator:   python -m fl_rsna.own_site --cohort stroke-2026 --prepared prepared/test --hospitals hospital-a hospital-b
The command prints twelve digits of the cohort's hash. They are the same everywhere, or the data were prepared differently.
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("own_site", loads="pandas")

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fl_rsna.cli.arguments import Parser, create_parser, parse_share
from fl_rsna.common.command_end import end_command
from fl_rsna.common.id_scheme import describe_scheme
from fl_rsna.settings.config import Config
from fl_rsna.settings.partition import TEST_SITE, PartitionKind, check_annotated_task, check_unannotated
from fl_rsna.task import Task, find_task, list_tasks, restrict_task

if TYPE_CHECKING:
    from fl_rsna.cohort.prepared.index import Prepared

EXAMPLES = """examples:
  fl-rsna own_site --cohort stroke-2026 --prepared prepared/ours --site hospital-a
  fl-rsna own_site --cohort stroke-2026 --prepared prepared/ours --site hospital-a --unannotated epidural
  fl-rsna own_site --cohort stroke-2026 --prepared prepared/test --hospitals hospital-a hospital-b
more: docs/deploy.md"""


def own_site(arguments: argparse.Namespace) -> None:
    """Write a hospital's site, or the coordinator's test site, and print what it holds. Raises ValueError."""
    from fl_rsna.cohort.sites.own_site import write_own_site, write_own_test_site
    from fl_rsna.reporting.record.wording import plural

    prepared, task = read_any(arguments.prepared, arguments.unannotated)
    folder: Path = arguments.sites / arguments.cohort
    if arguments.hospitals:
        if arguments.unannotated:
            raise ValueError(
                "--unannotated: expected every label where models are scored; leave it out with --hospitals"
            )
        cohort = write_own_test_site(
            folder,
            prepared,
            task,
            arguments.hospitals,
            _settings(arguments, prepared),
            allow_unknown=arguments.allow_unknown_patients,
        )
        name, sha256, held = TEST_SITE, cohort.sha256, cohort.facts["sites"][TEST_SITE]
    else:
        made = write_own_site(
            folder,
            prepared,
            task,
            arguments.site,
            validation=arguments.validation,
            seed=arguments.seed,
            unannotated=arguments.unannotated,
            allow_unknown=arguments.allow_unknown_patients,
        )
        name, sha256, held = arguments.site, made["cohort_sha256"], made["counts"]
    parts = ", ".join(
        f"{part['slices']} {plural(task.picture)} of {part['patients']} patients to {name}"
        for name, part in held.items()
    )
    print(f"{folder / name}: {parts}")
    print(f"cohort {arguments.cohort} ({sha256[:12]}): everybody who takes part must read these twelve digits")
    print(f"ids {describe_scheme(prepared.ids)}: everybody must read the same, or nobody can tell who is at two places")


def read_any(folder: Path, unannotated: Sequence[str] = ()) -> "tuple[Prepared, Task]":
    """Read prepared data and the task that they were prepared for, without the `unannotated` labels.

    Raises ValueError when there are none, when the task is unknown, and when the task has no such label.
    """
    from fl_rsna.cohort.prepared.index import read_facts, read_prepared

    missing = f"--prepared: no prepared data at {folder}; run python -m fl_rsna.prepare first"
    stated = read_facts(folder / "prepare.json", missing).get("task")
    if stated not in list_tasks():
        raise ValueError(
            f"--prepared: expected data for one of {', '.join(list_tasks())}, got {stated} in {folder}; prepare again"
        )
    task = find_task(stated)
    check_unannotated(unannotated, "--unannotated", task.labels)
    if unannotated:
        check_annotated_task(task, "--unannotated")
    return read_prepared(folder, restrict_task(task, unannotated)), task


def _settings(arguments: argparse.Namespace, prepared: "Prepared") -> dict[str, Any]:
    """Build the settings that partition would record, so that partition.name= takes this cohort like any other."""
    from fl_rsna.cohort.steps import partition_settings

    config = Config()
    config.data.name, config.partition.kind, config.partition.name = (
        prepared.folder.name,
        PartitionKind.explicit.value,
        arguments.cohort,
    )
    config.partition.num_sites = len(arguments.hospitals)
    return partition_settings(config)


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("own_site", "Make one site's folder from a hospital's own prepared data.", EXAMPLES)
    parser.add_argument("--cohort", required=True, help="the name that all hospitals agreed on")
    parser.add_argument(
        "--prepared", type=Path, required=True, metavar="prepared/<name>", help="what fl-rsna prepare made"
    )
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--site", help="a hospital's name")
    who.add_argument(
        "--hospitals", nargs="+", metavar="SITE", help="at the coordinator: all of them; its data are the test site"
    )
    parser.add_argument(
        "--validation", type=parse_share, default=0.2, help="share of a hospital's patients; default: 0.2"
    )
    parser.add_argument(
        "--unannotated",
        nargs="+",
        default=[],
        metavar="LABEL",
        help="labels that a hospital's data were prepared without",
    )
    parser.add_argument(
        "--allow-unknown-patients",
        action="store_true",
        help="go on although ids of a site in the same folder were made in another way, so that nobody sees who is at both",
    )
    parser.add_argument("--seed", type=int, default=0, help="of who validates; default: 0")
    parser.add_argument("--sites", type=Path, default=Path("site_data"), help="default: site_data")
    return parser


if __name__ == "__main__":
    end_command(lambda: own_site(declare_arguments().parse_args()))
