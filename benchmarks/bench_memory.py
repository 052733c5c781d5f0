"""python benchmarks/bench_memory.py: the memory a training step is said to take against what it does take.

Every set-up runs in a process of its own: the network and optimizer of a site, three steps of a batch, and the peak of
its memory above what it had before (torch's own count on CUDA, else the resident set, Linux only). Prints a table and,
as the last line, one JSON object.

    --setups efficientnet_b0:96:16 ...    network, image size, batch size
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from fl_rsna.learning.models.classifier import build_model
from fl_rsna.learning.training.local_rule import list_trainable_parameters
from fl_rsna.learning.training.loss import task_loss
from fl_rsna.learning.training.memory_estimate import footprint
from fl_rsna.learning.training.train import make_optimizer, start_training
from fl_rsna.settings.data import ImageKind
from fl_rsna.settings.model import ModelConfig, ModelName
from fl_rsna.settings.training import TrainConfig
from fl_rsna.task import ICH

SETUPS = (
    "efficientnet_lite0:96:16",
    "efficientnet_b0:96:16",
    "efficientnet_b0:224:8",
    "efficientnet_b0:224:32",
    "efficientnet_b3:128:8",
)
STEPS = 3


def settings(setup: str) -> tuple[ModelConfig, TrainConfig]:
    name, size, batch = setup.split(":")
    model = ModelConfig(name=ModelName(name), image_size=int(size), pretrained=False)
    return model, TrainConfig(batch_size=int(batch), amp=False)


def estimated(setup: str) -> int:
    return footprint(*settings(setup), ICH, ImageKind.hu).training


def measured(setup: str) -> int:
    """Bytes, found by a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--measure", setup], capture_output=True, text=True, check=True)
    return int(done.stdout)


def measure(setup: str) -> int:
    """Train STEPS batches in this process; the peak of its memory above the start."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(1)
    if device.type == "cuda":
        _steps(setup, device)
        return torch.cuda.max_memory_allocated()
    tiny = "efficientnet_lite0:32:2"
    _steps(tiny, device)  # what torch loads on first use is no one batch's
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak is measured again from here
    before = _status("VmRSS")
    _steps(setup, device)
    return _status("VmHWM") - before


def _steps(setup: str, device: torch.device) -> None:
    model, train = settings(setup)
    network = build_model(model, ICH, ImageKind.hu, seed=0)
    start_training(network, model.norm, train, device)
    optimizer = make_optimizer(list_trainable_parameters(network), train, 1e-3)
    for _ in range(STEPS):
        images = torch.rand(train.batch_size, 1, model.image_size, model.image_size, device=device) * 1100
        loss = task_loss(network(images), torch.zeros(train.batch_size, len(ICH.labels), device=device), ICH)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setups", nargs="+", default=SETUPS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(measure(asked.measure))
        return
    rows = []
    print(f"{'network:pixels:batch':<28}{'estimated MB':>14}{'measured MB':>14}{'ratio':>8}")
    for setup in asked.setups:
        said, took = estimated(setup), measured(setup)
        rows.append({"setup": setup, "estimated": said, "measured": took, "ratio": said / took})
        print(f"{setup:<28}{said / 1e6:>14.0f}{took / 1e6:>14.0f}{said / took:>8.2f}", flush=True)
    print(json.dumps({"device": "cuda" if torch.cuda.is_available() else "cpu", "steps": STEPS, "rows": rows}))


if __name__ == "__main__":
    main()
