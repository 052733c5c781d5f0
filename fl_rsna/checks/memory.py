"""Compare what a configured run will need of memory and disk with what this machine has.

The constants of the need are measured; each names the script. The machine's resources are those that this process may use: cores,
memory, disk and ports.
"""

import contextlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import torch

from fl_rsna.cohort.steps import cohort_name
from fl_rsna.common.reading import read_json
from fl_rsna.federation.engines.workers import workers_for
from fl_rsna.federation.server.encoder import model_of, read_encoder
from fl_rsna.imaging.sources import find_files
from fl_rsna.learning.models.series_head import HeadShape
from fl_rsna.learning.training.memory_estimate import Footprint, estimate_storage, footprint, head_bytes
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind, is_demo
from fl_rsna.settings.runtime import Keep
from fl_rsna.settings.stages import Baseline, Stage
from fl_rsna.settings.strategy import Averaging
from fl_rsna.settings.training import Device
from fl_rsna.strategies.find import find_strategy
from fl_rsna.task import Rendering, find_task

MB, GB = 10**6, 10**9
SCRATCH = 1.2  # memory of a step over that of its tensors: benchmarks/bench_memory.py, 1.08 to 1.20 on a CPU
COMMAND, FORKSERVER, WORKER = 450 * MB, 300 * MB, 400 * MB  # private memory without the model, Linux, torch 2.13
CUDA_CONTEXT = 600 * MB  # the CUDA context of one process
PNG_SHARE = {
    ImageKind.hu: 0.5,
    ImageKind.windows: 0.3,
    ImageKind.grey: 1.0,
}  # of raw bytes; the first two 0.43 and 0.24 on real slices
RAW_BYTES = {ImageKind.hu: 2, ImageKind.windows: 3, ImageKind.grey: 2}  # a pixel
CGROUPS = (  # (limit, in use) of a container's memory, version 2 and 1
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"), Path("/sys/fs/cgroup/memory/memory.usage_in_bytes")),
)
CPU_MAX = Path("/sys/fs/cgroup/cpu.max")


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The memory of a run's processes in bytes. On CUDA `worker` is memory of the GPU and `worker_host` memory of the machine."""

    command: int  # the process a user starts, and the server its workers are forked from
    worker: int
    worker_host: int

    def total(self, workers: int) -> int:
        """Add up the machine's memory for the command and `workers` workers, in bytes."""
        return self.command + max(1, workers) * self.worker_host


def footprint_of(config: Config, *, of_disk: bool = False) -> Footprint:
    """Compute the footprint of the stage that needs most memory.

    With both stages this is the training of the slice model. With the second stage alone it is the encoder as it makes features;
    the head is what travels and is kept, and it trains in little memory. Where the encoder cannot be read, the configured model
    stands in for it.
    """
    task, own = find_task(config.data.task), config.sequence
    if config.stage is not Stage.sequence:
        return _of_slices(config, of_disk=of_disk)
    with contextlib.suppress(ValueError):
        config = replace(config, model=model_of(read_encoder(str(own.encoder))))
    encoder = _of_slices(config, of_disk=of_disk)
    shape = HeadShape(
        head=own.head, width=own.width, layers=own.layers, dropout=own.dropout, features=encoder.features, labels=len(task.labels)
    )  # fmt: skip
    return replace(encoder, model=head_bytes(shape), training=encoder.scoring)


def _of_slices(config: Config, *, of_disk: bool) -> Footprint:
    task, image = find_task(config.data.task), config.data.image
    return (
        estimate_storage(config.model, task, image) if of_disk else footprint(config.model, config.train, task, image)
    )


def uses_cuda(config: Config) -> bool:
    return config.train.device is not Device.cpu and torch.cuda.is_available()


def workers_of(config: Config) -> int:
    """Count the processes that train; 0 where the command's own process trains."""
    return workers_for(config.engine.workers, torch.cuda.device_count() if uses_cuda(config) else 0)


def memory_needed(config: Config, found: Footprint, *, cuda: bool) -> Memory:
    """Compute what the processes take at once: the command scores the test site while each worker trains or scores a batch."""
    # a local rule such as a proximal term keeps a copy of the model
    reference = 0 if find_strategy(config.strategy).train is None else 1
    work = int(SCRATCH * max(found.training + reference * found.model, found.scoring))
    command = COMMAND + FORKSERVER + 4 * found.model + (0 if cuda else int(SCRATCH * found.scoring))
    if cuda:
        return Memory(command=command, worker=CUDA_CONTEXT + work, worker_host=WORKER + 2 * found.model)
    return Memory(command=command, worker=WORKER + work, worker_host=WORKER + work)


def largest_batch(config: Config, room: int, *, cuda: bool) -> int | None:
    """Find the greatest power of two as batch size with which a worker fits into `room` bytes; None when not even the smallest fits.

    Memory grows linearly with the batch, so two batches give an estimate, which is then checked.
    """

    def estimate_worker(batch: int) -> int:
        smaller = replace(config, train=replace(config.train, batch_size=batch))
        return memory_needed(smaller, footprint_of(smaller), cuda=cuda).worker

    asked = config.train.batch_size
    whole, half = estimate_worker(asked), estimate_worker(asked // 2)
    by_slice = (whole - half) / (asked - asked // 2)
    fitting = asked - (whole - room) / by_slice if by_slice > 0 else 0
    batch = 1 << max(0, int(min(fitting, asked - 1)).bit_length() - 1) if fitting >= 2 else 0
    while batch >= 2 and estimate_worker(batch) > room:
        batch //= 2
    return batch if batch >= 2 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Bytes that a run will write into each folder under paths.*."""

    prepared: int
    sites: int
    runs: int


def disk_needed(config: Config, found: Footprint, slices: int, sites: int) -> Disk:
    """Estimate what a run of so many slices and sites writes; files that are there already cost nothing."""
    raw = RAW_BYTES[config.data.image] * slices
    prepared = Path(config.paths.prepared) / config.data.name
    png = int(PNG_SHARE[config.data.image] * raw * config.data.size**2)
    # the demo's DICOM files, deleted after they are prepared
    drawn = 2 * slices * config.demo.size**2 if is_demo(config.data) else 0
    strategy = find_strategy(config.strategy)
    kept = 1 + strategy.on_server
    kept += {Averaging.none: 0, Averaging.ema: 1, Averaging.window: config.strategy.window}[config.strategy.averaging]
    rounds = config.rounds + 1 if config.run.keep is Keep.all else 2
    remembered = sites * strategy.at_site
    folder = Path(config.paths.runs) / (config.run.name or "")
    models = {Baseline.local: sites, Baseline.gap: sites + 2}.get(config.baseline, 1)  # trained one after the other
    models *= {Stage.both: 2, Stage.stacking: config.stacking.folds + 1}.get(config.stage, 1)
    whole = models * (found.model * (3 + rounds * (kept + remembered)) + 5 * MB)
    begun = _bytes_in(folder.rglob("*")) if config.resume and config.run.name else 0
    packs = (Path(config.paths.sites) / cohort_name(config)).glob(f"*/packed/**/*{config.model.image_size}-*")
    # images are hard links; only the packed array is new
    packed = raw * config.model.image_size**2 + _features(config, found, slices)
    return Disk(
        prepared=0 if prepared.exists() else png + drawn,
        sites=max(0, packed - _bytes_in(packs)),
        runs=max(2 * found.model, whole - begun),  # while a checkpoint replaces another, both exist
    )


def _bytes_in(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())


def _features(config: Config, found: Footprint, slices: int) -> int:
    """Count the bytes that a second stage keeps beside the packed arrays: float16 features and float32 logits of every copy."""
    if config.stage is Stage.slice:
        return 0
    labels = len(find_task(config.data.task).labels)
    return slices * config.sequence.copies * (2 * found.features + 4 * labels)


def slices_there(config: Config) -> int | None:
    """Count the slices that a run will see at most; None where that is not known yet.

    A patient of the synthetic chests has one film; a few have some more, which are not counted.
    """
    facts = Path(config.paths.prepared) / config.data.name / "prepare.json"
    if facts.is_file():
        known = read_json(facts).get("slices")
        return known if isinstance(known, int) else None
    if is_demo(config.data):
        is_head = find_task(config.data.task).rendering is Rendering.hounsfield
        return config.demo.patients * (config.demo.slices_per_series if is_head else 1)
    return len(find_files(Path(config.data.dicom))) if config.data.dicom else None


def size(count: float) -> str:
    """Write a number of bytes in GB or MB."""
    return f"{count / GB:.1f} GB" if count >= GB / 10 else f"{count / 1e6:.0f} MB"


def usable_cores() -> float:
    """Count the cores that this process may use, by its affinity and its container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    try:
        quota, period = CPU_MAX.read_text().split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def free_memory(cgroups: tuple[tuple[Path, Path], ...] = CGROUPS) -> int:
    """Measure the bytes of memory that are free without swapping: the machine's, or what a container's limit leaves."""
    free = int(psutil.virtual_memory().available)
    for limit, used in cgroups:
        try:
            free = min(free, int(limit.read_text()) - int(used.read_text()))
        except (OSError, ValueError):  # the file is missing, or says `max`
            continue
    return max(0, free)


def find_existing_ancestor(folder: Path) -> Path:
    """Find the folder, or the nearest one above it that exists."""
    path = folder.absolute()
    while not path.exists():
        path = path.parent
    return path


def refuses_writing(folder: Path) -> str:
    """Say why a folder, or the one it would be made in, cannot be written to; empty where it can. Nothing is left in it."""
    there = find_existing_ancestor(folder)
    if not there.is_dir():
        return f"{there} is no folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            return ""
    except OSError as error:
        return f"{there}: {error.strerror or error}"


def free_disk(folder: Path) -> tuple[int, int]:
    """Return (device, free bytes) of the file system that a folder is or will be on."""
    there = find_existing_ancestor(folder)
    return there.stat().st_dev, shutil.disk_usage(there).free


def find_taken_ports(ports: tuple[int, ...]) -> list[int]:
    """List those of the ports on which a process of this machine listens."""
    return [port for port in ports if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
