"""python -m fl_rsna.audit: who is in two places, and how unlike the sites are.

    fl-rsna audit cohort=site_data/<cohort>
    fl-rsna audit table=<csv, csv.gz or parquet, one row a slice>
    fl-rsna audit cohort=site_data/<cohort> pixels=true strict=true out=audit.json

cohort  a folder made by partition; pixels=true decodes every image and compares what it shows;
        allow_unknown_patients=true takes ids that sites made in different ways, of which nobody can tell, for a doubt
table   anybody's split; columns are found by their usual names or said:
        patient= site= split= study= series= image= pixels_column=<column> labels=[<column>,<column>]
both    out=<file>.json writes everything, with the ids of all shared patients
        strict=true counts every doubt (pixels under two patient ids, missing ids, ids or places that differ only in how they
        are written, changed files) as a leak

Exit codes: 0 no patient is in two places, 1 one is or nobody can tell, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("audit", loads="pandas")

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.cli.guess import read_arguments
from fl_rsna.common.atomic import write_whole
from fl_rsna.common.command_end import end_command
from fl_rsna.common.ownership import refuse_stranger
from fl_rsna.settings.suggest import suggest_key
from fl_rsna.task import ICH, find_task

if TYPE_CHECKING:
    from fl_rsna.cohort.audit.on_disk import Difference
    from fl_rsna.cohort.audit.slices import Slices
    from fl_rsna.reporting.pages.console_summary import Audit

COLUMNS = ("patient", "site", "split", "study", "series", "image", "pixels_column")
ONLY_FOR = {"pixels": "cohort", "allow_unknown_patients": "cohort", **dict.fromkeys([*COLUMNS, "labels"], "table")}
KEYS = ("cohort", "table", *ONLY_FOR, "strict", "out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The settings of the command line; exactly one of `cohort` and `table` is given."""

    cohort: Path | None
    table: Path | None
    columns: dict[str, str]  # role of a column -> its name in the table
    labels: list[str] | None
    pixels: bool
    allow_unknown_patients: bool
    strict: bool
    out: Path | None


def audit(settings: Sequence[str]) -> int:
    """Audit the cohort or table that the settings name, print the result and write it if out= says so; return the exit code."""
    request = request_of(settings)
    from fl_rsna.reporting.pages.console_summary import (
        say_audit,
    )  # loads pandas, which a refused setting need not wait for

    if request.out is not None:
        refuse_stranger(request.out, lambda earlier: b'"verdict"' in earlier)
    found = audit_table(request, request.table) if request.table else audit_cohort(request, request.cohort)
    if request.out is not None:
        write_whole(request.out, (json.dumps(asdict(found), indent=2, allow_nan=False) + "\n").encode())
    say_audit(found)
    return found.verdict.code


def audit_cohort(request: Request, folder: Path | None) -> "Audit":
    """Audit a folder made by partition. Raises ValueError for one that cannot be read."""
    from fl_rsna.cohort.audit.on_disk import read_on_disk
    from fl_rsna.cohort.audit.overlap import judge
    from fl_rsna.reporting.live.terminal import Display
    from fl_rsna.reporting.record.wording import plural

    assert folder is not None, "request_of sees to it"
    with Display() as display:
        cohort = read_on_disk(folder, pixels=request.pixels, on_progress=display.step)
    asked = f"partition.group={cohort.group}"
    read = {"pixels": f"compared by {cohort.pixels_by}"} | (
        {"leaky": f"on purpose, by {asked}"} if cohort.leaky else {}
    )
    pictures, leaky = plural(find_task(cohort.task).picture), asked if cohort.leaky else None
    found = examine(folder, cohort.slices, pictures, read, cohort.differences, leaky, request.strict)
    verdict = judge(
        found.sharing,
        differences=len(cohort.differences),
        leaky=leaky,
        strict=request.strict,
        unknown=cohort.unknown,
        allow_unknown=request.allow_unknown_patients,
    )
    return replace(found, verdict=verdict)


def audit_table(request: Request, path: Path) -> "Audit":
    """Audit a table with a row a slice. Raises ValueError for one that cannot be read."""
    from fl_rsna.cohort.audit.slices import read_published
    from fl_rsna.reporting.record.wording import plural

    table = read_published(path, request.columns, request.labels)
    read = {role: ", ".join(columns) for role, columns in table.columns.items() if columns}
    return examine(path, table.slices, plural(ICH.picture), read, (), None, request.strict)


def examine(
    path: Path,
    slices: "Slices",
    pictures: str,
    read: dict[str, str],
    differences: "tuple[Difference, ...]",
    leaky: str | None,
    strict: bool,
) -> "Audit":
    """Examine slices: shared patients and images, prevalence by site and by place, heterogeneity, and the verdict."""
    from fl_rsna.cohort.audit.heterogeneity import heterogeneity, prevalence
    from fl_rsna.cohort.audit.overlap import find_shared, judge
    from fl_rsna.reporting.pages.console_summary import Audit

    sharing, columns = find_shared(slices), [str(name) for name in slices.places]
    choices = {"/".join(by): by for by in ([slices.site or columns[0]], columns)}
    return Audit(
        of=str(path),
        pictures=pictures,
        read=read,
        sharing=sharing,
        prevalence={name: prevalence(slices, by) for name, by in choices.items()},
        heterogeneity=heterogeneity(slices),
        differences=differences,
        verdict=judge(sharing, differences=len(differences), leaky=leaky, strict=strict),
    )


def request_of(settings: Sequence[str]) -> Request:
    """Read the settings; raises ValueError that names one which is unknown, repeated, empty or out of place."""
    said: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in KEYS:
            takes = f"expected key=value with one of {', '.join(KEYS)}"
            raise ValueError(
                f"{key}: no such setting{suggest_key(key, KEYS, setting.partition('=')[2], otherwise=takes)}"
            )
        if not value or key in said:
            raise ValueError(f"{key}: expected {key}=<value>, once, got {setting!r}")
        said[key] = value
    if ("cohort" in said) == ("table" in said):
        raise ValueError("cohort: expected cohort=<folder> or table=<file>, one of them; see --help")
    for key in said:
        if ONLY_FOR.get(key, key) not in said:
            raise ValueError(f"{key}: expected only with {ONLY_FOR[key]}=, got it without; leave it out")
    return Request(
        cohort=Path(said["cohort"]) if "cohort" in said else None,
        table=Path(said["table"]) if "table" in said else None,
        columns={key.removesuffix("_column"): said[key] for key in COLUMNS if key in said},
        labels=[name.strip() for name in said["labels"].strip("[]").split(",")] if "labels" in said else None,
        pixels=_flag(said, "pixels"),
        allow_unknown_patients=_flag(said, "allow_unknown_patients"),
        strict=_flag(said, "strict"),
        out=_out(said.get("out")),
    )


def _flag(said: dict[str, str], key: str) -> bool:
    value = said.get(key, "false")
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{key}: expected true or false, got {value!r}")
    return value.lower() == "true"


def _out(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name)
    if path.suffix != ".json" or path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"out: expected <file>.json in a folder that exists, got {name}")
    return path


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    from fl_rsna.cohort.audit.usual_names import SPELLINGS

    usual = "\n".join(f"  {role}: {', '.join(names.split())}" for role, names in SPELLINGS.items())
    more = f"usual names of columns, in any case, with or without punctuation:\n{usual}"
    parser = create_parser("audit", __doc__, more)
    parser.add_argument("settings", nargs="*", metavar="key=value")
    return parser


def parse_arguments() -> list[str]:
    return list(declare_arguments().parse_args(read_arguments("audit", sys.argv[1:], KEYS)).settings)


if __name__ == "__main__":
    end_command(lambda: audit(parse_arguments()))
