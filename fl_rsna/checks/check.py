"""Define a line of the doctor, and check Python and the packages before any of those is imported."""

import importlib.metadata
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from fl_rsna.version import PACKAGE

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "fl-rsna"
PYTHON = (3, 11)


class State(StrEnum):
    """The outcome of a check."""

    ok = "ok"
    warning = "warning"  # the run works, but perhaps not as expected
    problem = "problem"  # the run does not work


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the doctor: what was checked, what was found, and what to change; `change` is empty where nothing need change."""

    what: str
    state: State
    found: str
    change: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A package that fl_rsna requires; `extra` is empty where every installation needs it."""

    name: str
    versions: str  # as in pyproject.toml: >=1.42,<1.43
    extra: str


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Check:
    found = ".".join(map(str, version))
    if version[:2] < PYTHON:
        return Check(what="python", state=State.problem, found=found, change="install Python 3.11 or newer")
    return Check(what="python", state=State.ok, found=found)


def check_packages(
    needed: list[Needed], extras: tuple[str, ...] = ("ray", "export", "stacking", "timm", "mlflow", "wandb")
) -> Iterator[Check]:
    """Yield one check of the packages that are always needed, and one for each of `extras`."""
    wrong = [sentence for one in needed if not one.extra and (sentence := _wrong(one))]
    count = sum(not one.extra for one in needed)
    yield Check(
        what="packages",
        state=State.problem if wrong else State.ok,
        found="; ".join(wrong) if wrong else f"{count} as pyproject.toml wants them",
        change="pip install --constraint constraints.txt --editable . in the project's folder" if wrong else "",
    )
    for extra in extras:
        of_extra = [one for one in needed if one.extra == extra]
        missing = [one.name for one in of_extra if _version(one.name) is None]
        wrong = [sentence for one in of_extra if one.name not in missing and (sentence := _wrong(one))]
        mended = f"pip install 'fl-rsna[{extra}]'"
        if wrong:
            yield Check(what=f"extra {extra}", state=State.warning, found="; ".join(wrong), change=mended)
        elif of_extra:
            found = f"not installed: {', '.join(missing)}; optional: {mended}" if missing else "installed"
            yield Check(what=f"extra {extra}", state=State.ok, found=found)


def read_requirements(project: Path = PACKAGE.parent / "pyproject.toml") -> list[Needed]:
    """Read the requirements from pyproject.toml in a checkout, else from the installed package's metadata."""
    from packaging.requirements import Requirement

    stated: list[tuple[Requirement, str]] = []  # each with its extra
    if project.is_file():
        facts = tomllib.loads(project.read_text())["project"]
        by_extra = {"": facts["dependencies"], **facts["optional-dependencies"]}
        stated = [(Requirement(line), extra) for extra, lines in by_extra.items() for line in lines]
    else:
        extras = importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or []
        for line in importlib.metadata.requires(DISTRIBUTION) or []:
            requirement = Requirement(line)  # the marker names the extra
            stated.append((requirement, next((name for name in ("", *extras) if _holds(requirement, name)), "")))
    return [
        Needed(name=requirement.name, versions=str(requirement.specifier), extra=extra)
        for requirement, extra in stated
        if requirement.name != DISTRIBUTION and _holds(requirement, extra)
    ]


def _holds(requirement: "Requirement", extra: str) -> bool:
    """Check whether the requirement applies to this machine and that extra."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _wrong(one: Needed) -> str:
    """Say what is wrong with a package; empty where nothing is."""
    from packaging.specifiers import SpecifierSet

    version = _version(one.name)
    if version is None:
        return f"{one.name} is missing"
    if not SpecifierSet(one.versions).contains(version, prereleases=True):
        return f"{one.name} {version} is not {one.versions}"
    return ""


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
