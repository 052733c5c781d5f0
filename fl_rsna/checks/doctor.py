"""Examine whether a configured run can work on this machine: make every check, print them all, and end with a verdict."""

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from fl_rsna.checks.batch_size import settle_batch
from fl_rsna.checks.check import Check, State
from fl_rsna.checks.data import as_problem, check_data, check_disk, check_run_folder, each
from fl_rsna.checks.memory import (
    find_taken_ports,
    footprint_of,
    free_memory,
    largest_batch,
    memory_needed,
    size,
    usable_cores,
    uses_cuda,
    workers_of,
)
from fl_rsna.checks.request import Request, refusals
from fl_rsna.cohort.steps import adopt_cohort
from fl_rsna.common.command_end import RunFailed
from fl_rsna.federation.engines.shared_memory import MEMORY, ROOM
from fl_rsna.federation.server.encoder import read_encoder
from fl_rsna.learning.training.memory_estimate import Footprint
from fl_rsna.learning.training.train import choose_device
from fl_rsna.reporting.record.console import console
from fl_rsna.settings.compose import list_arguments, partition_asked
from fl_rsna.settings.config import Config
from fl_rsna.settings.effects import list_optimizer_warnings, list_salt_warnings, parse_typed_keys
from fl_rsna.settings.runtime import EngineName
from fl_rsna.settings.stages import Stage
from fl_rsna.settings.training import Device

PORTS = (9091, 9092, 9093)  # the ports of Flower's SuperLink
TIGHT = 0.8  # share of the free memory beyond which a run is called tight

ok, warning, problem = State.ok, State.warning, State.problem


def check_run(config: Config) -> Iterator[Check]:
    """Yield every check of a run with these settings. A setting that cannot be met is a problem and does not end the checks."""
    yield from each("device", lambda: check_device(config))
    yield from each("cores", lambda: check_cores(config))
    try:
        found = footprint_of(config)
    except ValueError as error:  # the network cannot be built here
        yield as_problem("network", error)
        return
    yield from each("memory", lambda: check_memory(config, found))
    yield from each("shared memory", lambda: check_shared(config))
    yield from each("data", lambda: check_data(config))
    if config.stage is Stage.sequence:
        yield from each("sequence.encoder", lambda: check_encoder(config))
    yield from each("disk", lambda: check_disk(config, found))
    yield from each("run folder", lambda: check_run_folder(config))
    yield from each("ports", check_ports)


def check_device(config: Config) -> list[Check]:
    """Check where sites train, and warn of a GPU that torch cannot use."""
    device = choose_device(config.train.device)
    if device.type == "cuda":
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        return [Check(what="device", state=ok, found=", ".join(names))]
    if config.train.device is Device.auto and (shutil.which("nvidia-smi") or Path("/proc/driver/nvidia").exists()):
        built = torch.version.cuda or "no CUDA at all"
        change = "install a torch build that fits the driver, or say train.device=cpu"
        return [Check(what="device", state=warning, found=f"a GPU, but torch is built for {built}", change=change)]
    return [Check(what="device", state=ok, found="CPU; no GPU is needed for small networks")]


def check_cores(config: Config) -> list[Check]:
    """Check that there is a core for each worker, which uses one."""
    cores, workers = usable_cores(), workers_of(config)
    found = f"{cores:g} usable, {workers} workers"
    if config.engine.address is not None:
        return [Check(what="cores", state=ok, found="those of the cluster")]
    if workers > cores and not uses_cuda(config):
        return [Check(what="cores", state=warning, found=found, change=f"engine.workers={max(1, int(cores))}")]
    return [Check(what="cores", state=ok, found=found)]


def check_memory(config: Config, footprint: Footprint) -> list[Check]:
    """Compare the memory that the configured network and batch take with what is free; for a GPU its own memory as well."""
    cuda, workers = uses_cuda(config), workers_of(config)
    needed, free = memory_needed(config, footprint, cuda=cuda), free_memory()
    of_model = (
        f"{config.model.backbone or config.model.name} at {config.model.image_size} px, batch {config.train.batch_size}"
    )
    of_model = of_model if config.stage is not Stage.sequence else "the features of a slice model and a head on them"
    found = f"about {size(needed.total(workers))} for {max(1, workers)} workers with {of_model}; {size(free)} free"
    checks = [
        _check_free_memory(
            "memory", needed.total(workers), free, found, lambda: _less(config, footprint, free, cuda=False)
        )
    ]
    if cuda:
        room = min(torch.cuda.mem_get_info(number)[0] for number in range(torch.cuda.device_count()))
        shared = -(-max(1, workers) // torch.cuda.device_count())  # workers on one device
        found = f"about {size(shared * needed.worker)} with {of_model}; {size(room)} free"
        checks.append(
            _check_free_memory(
                "GPU memory",
                shared * needed.worker,
                room,
                found,
                lambda: _less(config, footprint, room // shared, cuda=True),
            )
        )
    return checks


def _check_free_memory(what: str, needed: int, free: int, found: str, mend: Callable[[], str]) -> Check:
    if needed > free:
        return Check(what=what, state=problem, found=found, change=mend())
    if needed > TIGHT * free:
        return Check(what=what, state=warning, found=f"{found}: tight", change=mend())
    return Check(what=what, state=ok, found=found)


def _less(config: Config, footprint: Footprint, room: int, *, cuda: bool) -> str:
    """Say what makes the run fit into `room` bytes: fewer workers, else a smaller batch, else a smaller model."""
    needed = memory_needed(config, footprint, cuda=cuda)
    workers = workers_of(config)
    if not cuda:
        fitting = int((TIGHT * room - needed.command) // needed.worker_host)
        if 1 <= fitting < workers:
            return f"engine.workers={fitting}"
        room = int(TIGHT * room) - needed.command
    batch = largest_batch(config, room, cuda=cuda)
    alone = " engine.workers=1" if workers > 1 and not cuda else ""
    if batch is not None:
        return f"train.batch_size={batch}{alone}"
    return "a smaller model, or model.image_size"


def check_encoder(config: Config) -> list[Check]:
    """Check the slice model under a second stage. Raises ValueError when it cannot be read."""
    saved = read_encoder(str(config.sequence.encoder))
    found = f"{saved.config.name} at {saved.config.image_size} px, {saved.sha256[:12]}"
    return [Check(what="sequence.encoder", state=ok, found=found)]


def check_shared(config: Config) -> list[Check]:
    """Check that shared memory has room for the messages between processes."""
    if config.engine.name is not EngineName.local or workers_of(config) == 0:
        return []
    free = shutil.disk_usage(MEMORY).free if MEMORY.is_dir() else 0
    if free >= ROOM:
        return [Check(what="shared memory", state=ok, found=f"{size(free)} free")]
    found = f"{size(free)} in {MEMORY}: models travel through the folder for temporary files, slower"
    return [
        Check(what="shared memory", state=warning, found=found, change="docker run --shm-size=2g, or engine.workers=0")
    ]


def check_ports() -> list[Check]:
    """Say which of the ports that a SuperLink uses are taken; a simulation needs none, so this is never a problem."""
    taken = find_taken_ports(PORTS)
    found = f"{', '.join(map(str, taken))} in use" if taken else "9091 to 9093 are free"
    return [Check(what="ports", state=ok, found=f"{found}; only a deployment with SuperLink needs them")]


COLOUR = {State.ok: "green", State.warning: "yellow", State.problem: "red"}


def examine(config: Config, first: Sequence[Check]) -> None:
    """Print all checks of a run with these settings; raises RunFailed when there is a problem."""
    adopted = _check_adoption(config)
    request = Request(config=config, typed=parse_typed_keys(list_arguments(), config))
    refused_ones = [as_problem(what, error) for what, error in refusals(request)]
    different = {(check.found, check.change): check for check in refused_ones}.values()  # each sentence once
    cautions = {"strategy": list_optimizer_warnings(config), "data.salt": list_salt_warnings(config)}
    cautious = [Check(what=what, state=warning, found=text) for what, texts in cautions.items() for text in texts]
    checks = [*first, *adopted, *different, *cautious, *_check_resources(config, refused_ones)]
    say_checks(checks)
    counts = {state: sum(check.state is state for check in checks) for state in State}
    if counts[State.problem]:
        wrong = ", ".join(check.what for check in checks if check.state is State.problem)
        raise RunFailed(f"a run with these settings would not work here: {wrong}")
    console.print(f"no problem, {counts[State.warning]} to think about", soft_wrap=True)


def _check_resources(config: Config, known: Sequence[Check]) -> list[Check]:
    """Check the machine, the disks and the data, without repeating a sentence of `known`."""
    try:
        settle_batch(config, None)
    except ValueError as error:
        return [as_problem("train.batch_size", error)]
    told = {(check.found, check.change) for check in known}
    return [check for check in check_run(config) if (check.found, check.change) not in told]


def _check_adoption(config: Config) -> list[Check]:
    """Take the cohort that simulate would take; a choice among several is a problem."""
    try:
        if not partition_asked(config):
            adopt_cohort(config)
    except ValueError as error:
        return [Check(what="cohort", state=State.problem, found=str(error))]
    return []


def say_checks(checks: Sequence[Check]) -> None:
    """Print checks as a table in a terminal, as plain lines elsewhere."""
    if not console.is_terminal:
        for check in checks:
            line = f"{check.state:<9}{check.what}: {check.found}" + (f"; {check.change}" if check.change else "")
            console.print(escape(line), soft_wrap=True)
        return
    table = Table(show_header=True)
    for name in ("", "check", "found", "change"):
        table.add_column(name)
    for check in checks:
        colour = COLOUR[check.state]
        table.add_row(f"[{colour}]{check.state}[/{colour}]", check.what, escape(check.found), escape(check.change))
    console.print(table)
