"""How much of a GPU the federation uses: images a second of training against the same loop on data already on the card.

EfficientNet-B0 at 224 px in bf16 by default. The reference takes the same steps (model, loss, optimizer, cuDNN's
deterministic algorithms as in every run) on random batches that lie on the card, in one process; a second row adds the
augmentation, a third lets cuDNN choose any algorithm. The federation trains on 1, 2 and 4 sites side by side on the one
card, each number in a fresh process: images a second while sites train and over whole rounds, the share of the time in
which no kernel ran (sampled by nvidia-smi over the steady rounds) and the card's memory.

    python benchmarks/bench_gpu.py [--workers 1 2 4] [--sites 4] [--slices 2048] [--batch 64]
    python benchmarks/bench_gpu.py --cpu      # a rehearsal at tiny size without a card; its figures mean nothing
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bench_cohort import COHORT, bench_config, figures_of, make_cohort
from bench_engines import events_of, round_seconds, run_engine
from rich.console import Console
from rich.table import Table

from fl_rsna.cohort.sites.site_folders import read_cohort
from fl_rsna.learning.data.augment import augment
from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.train import make_optimizer, settle_process, start_training
from fl_rsna.settings.config import Config
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelName
from fl_rsna.settings.training import Device
from fl_rsna.task import ICH

REFERENCE, BATCHES = "random data on the card", 8
LOOPS = {REFERENCE: (False, True), "with augmentation": (True, True), "cuDNN free to choose": (False, False)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4], help="sites side by side")
    parser.add_argument("--sites", type=int, default=4)
    parser.add_argument("--slices", type=int, default=2048, help="training slices a site")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--size", type=int, default=224, help="pixels a side")
    parser.add_argument("--steps", type=int, default=100, help="of the reference")
    parser.add_argument("--model", type=ModelName, default=ModelName.efficientnet_b0)
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.cpu and not torch.cuda.is_available():
        print("bench_gpu: expected a CUDA device, found none; rehearse without one with --cpu", file=sys.stderr)
        return 2
    if arguments.cpu:
        arguments.sites, arguments.slices, arguments.rounds, arguments.batch, arguments.size, arguments.steps = (
            2,
            8,
            2,
            4,
            32,
            2,
        )
        arguments.workers = arguments.workers[:1]
    if arguments.one:
        print(json.dumps(one_of(arguments, *arguments.one)))
        return 0
    asked = [f"--{name}={getattr(arguments, name)}" for name in ("rounds", "batch", "size", "steps", "model")]
    asked += ["--cpu"] if arguments.cpu else []
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        make_cohort(Path(name), arguments.sites, arguments.slices, arguments.size, test_patients=2)
        loops = {loop: figures_of(Path(__file__), *asked, "--one", "loop", loop) for loop in LOOPS}
        runs = {n: figures_of(Path(__file__), *asked, "--one", "run", name, str(n)) for n in arguments.workers}
    report(arguments, loops, runs)
    return 0


def one_of(arguments: argparse.Namespace, what: str, *of: str) -> dict[str, Any]:
    """What a fresh process measures."""
    config = bench_config(arguments.rounds, arguments.model, arguments.size)
    config.train.batch_size, config.train.device = arguments.batch, Device.cpu if arguments.cpu else Device.cuda
    if what == "loop":
        return reference_loop(config, arguments.steps, *LOOPS[of[0]])
    return federation_run(config, Path(of[0]), int(of[1]))


def reference_loop(config: Config, steps: int, augmented: bool, deterministic: bool) -> dict[str, float]:
    """Images a second of the bare loop; a quarter of the steps first, uncounted."""
    settle_process()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    device, train = torch.device(config.train.device.value), config.train
    model = build_model(config.model, ICH, ImageKind.hu, seed=0)
    start_training(model, config.model.norm, train, device)
    optimizer = make_optimizer(list_trainable_parameters(model), train, train.learning_rate)
    shape, draws = (BATCHES, train.batch_size, 1, config.model.image_size, config.model.image_size), torch.Generator()
    images = torch.randint(900, 1200, shape, device=device).float()
    labels = torch.randint(0, 2, (BATCHES, train.batch_size, len(ICH.labels)), device=device).float()
    warm_up, start = max(1, steps // 4), 0.0
    for step in range(-warm_up, steps):
        if step == 0:
            start = finished(device)
        batch = images[step % BATCHES]
        batch = augment(batch, train, image=ImageKind.hu, generator=draws) if augmented else batch
        with torch.autocast(device.type, torch.bfloat16, enabled=train.amp and device.type == "cuda"):
            logits = model(batch)
        loss = task_loss(logits, labels[step % BATCHES], ICH)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return {"images_per_s": steps * train.batch_size / (finished(device) - start)}


def finished(device: torch.device) -> float:
    """The time at which everything queued on the card is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def federation_run(config: Config, folder: Path, workers: int) -> dict[str, Any]:
    """Images a second inside the federation over the rounds after the first."""
    run, card = folder / f"run-{workers}", Card()

    def watch(event: str, fields: Mapping[str, Any]) -> None:
        if event == "round_end" and fields["round"] == 1:
            card.begin()
        elif event == "round_end" and fields["round"] == config.rounds:
            card.end()

    run_engine(f"local, workers={workers}", config, read_cohort(folder / COHORT), run, listeners=(watch,))
    events = [event for event in events_of(run) if event.get("round", 0) > 1]
    assert all(event["event"] != "site_failed" for event in events), "a site failed"
    trained = [event["metrics"] for event in events if event["event"] == "site_done" and event["phase"] == "train"]
    images = sum(site["num-examples"] for site in trained) * config.train.local_epochs
    training = sum(event["train_s"] for event in events if event["event"] == "round_end")
    return {
        "images_per_s": images / training,
        "images_per_s_of_rounds": images / sum(round_seconds(run)[1:]),
        "images_per_s_of_a_site": images / sum(site["seconds"] for site in trained),
        "idle": card.idle(),
        "memory_mb": card.memory_mb(),
    }


class Card:
    """What nvidia-smi says of the card ten times a second; nothing where there is none."""

    def __init__(self) -> None:
        self._sampler: subprocess.Popen[str] | None = None
        self._samples: list[tuple[float, float]] = []

    def begin(self) -> None:
        if shutil.which("nvidia-smi") and torch.cuda.is_available():
            asked = [
                "nvidia-smi",
                "--query-gpu=utilization.gpu,memory.used",
                "--format=csv,noheader,nounits",
                "-lms",
                "100",
            ]
            self._sampler = subprocess.Popen(asked, stdout=subprocess.PIPE, text=True)

    def end(self) -> None:
        if self._sampler is not None:
            self._sampler.terminate()
            lines = [line.split(",") for line in self._sampler.communicate()[0].splitlines()]
            self._samples = [(float(line[0]), float(line[1])) for line in lines if len(line) == 2]

    def idle(self) -> float | None:
        """Share of the time in which no kernel ran."""
        return 1 - statistics.mean(busy for busy, _ in self._samples) / 100 if self._samples else None

    def memory_mb(self) -> float | None:
        return max(used for _, used in self._samples) if self._samples else None


def report(arguments: argparse.Namespace, loops: dict[str, dict[str, float]], runs: dict[int, dict[str, Any]]) -> None:
    device = "CPU: a REHEARSAL, figures mean nothing" if arguments.cpu else f"{torch.cuda.get_device_name()}, bf16"
    table = Table(
        title=f"{arguments.model}, {arguments.size} px, batches of {arguments.batch}, {arguments.sites} sites, {device}"
    )
    for name in ("", "images/s in training", "ratio", "images/s over rounds", "GPU idle", "GPU memory, MB"):
        table.add_column(name, justify="right" if name else "left")
    base = loops[REFERENCE]["images_per_s"]
    for loop, found in loops.items():
        table.add_row(loop, f"{found['images_per_s']:.0f}", f"{found['images_per_s'] / base:.3f}")
    for workers, run in runs.items():
        run["ratio"] = run["images_per_s"] / base
        measured = [
            "" if run[name] is None else text.format(run[name])
            for name, text in (("idle", "{:.0%}"), ("memory_mb", "{:.0f}"))
        ]
        over_rounds = f"{run['images_per_s_of_rounds']:.0f}"
        label = f"federation, {workers} side by side"
        table.add_row(label, f"{run['images_per_s']:.0f}", f"{run['ratio']:.3f}", over_rounds, *measured)
    Console(width=120).print(table)
    facts = {
        "rehearsal": arguments.cpu,
        "device": device,
        "model": arguments.model.value,
        "size": arguments.size,
        "batch": arguments.batch,
    }
    print(
        json.dumps({**facts, "sites": arguments.sites, "slices": arguments.slices, "reference": loops, "workers": runs})
    )


if __name__ == "__main__":
    sys.exit(main())
