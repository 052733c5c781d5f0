"""Check whether a site can take part in runs: all checks for --check, and the few that every start makes. Nothing is written."""

import importlib.metadata
import platform
from collections.abc import Iterator

import torch

from fl_rsna.checks.check import Check, State, check_packages, check_python, read_requirements
from fl_rsna.checks.data import each
from fl_rsna.checks.doctor import say_checks
from fl_rsna.common.command_end import RunFailed
from fl_rsna.deployment.site_checks.folders import (
    Held,
    check_alike,
    check_identifiers,
    check_images,
    check_site,
    check_state,
    read_held,
)
from fl_rsna.deployment.site_checks.keys import check_keys
from fl_rsna.deployment.site_checks.link import check_link
from fl_rsna.deployment.site_node import Node
from fl_rsna.learning.training.train import choose_device
from fl_rsna.reporting.record.console import console
from fl_rsna.settings.training import Device
from fl_rsna.version import code_version

VERSIONS = ("flwr", "torch")  # packages whose versions should agree at all sites and the coordinator

ok, warning, problem = State.ok, State.warning, State.problem


def examine_site(node: Node) -> None:
    """Print all checks of this site, a line each; raises RunFailed when there is a problem."""
    checks = [*check_here(node), *each("salt", lambda: _check_salt(node)), *check_link(node), check_versions()]
    checks += check_packages(read_requirements(), extras=())
    checks += [check_python(), *each("device", lambda: [check_device(node.device)])]
    say_checks(checks)
    wrong = [check.what for check in checks if check.state is problem]
    if wrong:
        raise RunFailed(f"this site could not take part: {', '.join(dict.fromkeys(wrong))}")
    thoughts = sum(check.state is warning for check in checks)
    console.print(f"no problem, {thoughts} to think about", soft_wrap=True)


def refuse_unready(node: Node) -> Held:
    """Make the checks of every start; raises ValueError with the first problem."""
    for check in [*check_here(node), *each("device", lambda: [check_device(node.device)])]:
        if check.state is problem:
            raise ValueError(f"{check.what}: {check.found}" + (f"; {check.change}" if check.change else ""))
    return read_held(node.folder)


def check_here(node: Node) -> Iterator[Check]:
    """Yield the checks that need no network: data, state and keys."""
    held = None
    try:
        held = read_held(node.folder)
    except (ValueError, OSError):
        yield from each("site", lambda: _again(node))
    if held is not None:
        yield from _of(node, held)
    yield from each("state", lambda: check_state(node, held))
    yield from check_keys(node.keys)


def _of(node: Node, held: Held) -> Iterator[Check]:
    yield from check_site(node, held)
    yield from each("images", lambda: check_images(held))
    yield from check_identifiers(held)


def _again(node: Node) -> list[Check]:
    """Read the site's folder once more, which raises what is wrong with it; return no check."""
    read_held(node.folder)
    return []


def _check_salt(node: Node) -> list[Check]:
    """Check the ids against those of other sites (check_alike); nothing where the folder cannot be read, which `check_here` says."""
    try:
        held = read_held(node.folder)
    except (ValueError, OSError):
        return []
    return check_alike(held)


def check_versions() -> Check:
    """State the versions, to be compared between sites: the roll call refuses a site that runs other code."""
    of_others = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in VERSIONS)
    found = f"fl-rsna {code_version()}, {of_others}"
    return Check(
        what="versions", state=ok, found=f"{found}, Python {platform.python_version()}: compare with the coordinator's"
    )


def check_device(device: Device) -> Check:
    """Check where this site will train when the run says train.device=auto."""
    chosen = choose_device(device)
    if chosen.type == "cpu":
        return Check(what="device", state=ok, found="CPU")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return Check(what="device", state=ok, found=", ".join(names))
