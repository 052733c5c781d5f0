"""python -m fl_rsna.export: a saved model as ONNX, checked against torch, with a model card.

    python -m fl_rsna.export model=runs/<name>
    python -m fl_rsna.export model=<file>.safetensors out=<new folder>

model   a run's folder, or a model file
site    a site's folder whose slices ONNX and torch are compared on, besides random values and a synthetic head; by
        default the test site of the run's cohort, where it is at hand
out     the new folder, by default export/ in the run's folder: model.onnx, model_card.md, check.json

model.onnx takes stored values (HU + 1024 as float32 [B,1,S,S], or uint8 RGB [B,S,S,3] for windowed images), has the
windows inside and gives probabilities. It is written only when no probability differs from torch's by more than 1e-4.
Needs the extra `export`: pip install 'fl-rsna[export]'. Research use, not for diagnosis.
Exit codes: 0 done, 1 ONNX and torch differ, 2 the request cannot be met (one sentence on stderr).
"""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("export", loads="PyTorch")

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded

from fl_rsna.cli.command import run_own_command
from fl_rsna.cli.own_settings import OwnSettings
from fl_rsna.evaluation.settings import ExportConfig


def main(asked: ExportConfig) -> None:
    """Write the model as ONNX with its card, and print how far ONNX and torch differ."""
    from fl_rsna.evaluation.export import CARD, ONNX, export  # loads torch, which a refused setting need not wait for
    from fl_rsna.reporting.record.console import console

    out, check = export(asked)
    for what, count in check["slices"].items():
        difference = check["greatest_difference"][what]
        console.print(
            f"ONNX against torch, {count} images {what}: greatest difference {difference:.2g}", soft_wrap=True
        )
    console.print(f"model: {out / ONNX}, {check['onnx_bytes'] / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"card: {out / CARD}", soft_wrap=True)


if __name__ == "__main__":
    run_own_command(main, OwnSettings(command="export", schema=ExportConfig))
