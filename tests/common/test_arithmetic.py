"""What a manifest says of the machine's arithmetic."""

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from fl_rsna.common.arithmetic import describe_arithmetic, name_processor


def describe_in(**environment: str) -> dict[str, object]:
    """The description by a process of its own, with these variables set before NumPy and PyTorch load."""
    program = "import json; from fl_rsna.common.arithmetic import describe_arithmetic; print(json.dumps(describe_arithmetic()))"
    words = {**os.environ, **environment}
    done = subprocess.run([sys.executable, "-c", program], env=words, capture_output=True, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def test_the_description_is_plain_json_and_says_what_pytorch_chose() -> None:
    found = describe_arithmetic()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"] == torch.backends.cpu.get_cpu_capability()
    assert found["processor"]
    assert found["numpy"]


def test_another_instruction_set_is_another_description() -> None:
    plain = describe_in(ATEN_CPU_CAPABILITY="default")
    assert plain["torch"] == "DEFAULT"


def test_the_processor_is_the_one_that_linux_names(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("vendor_id\t: A\nmodel name\t: A 1000\nmodel name\t: A 1000\n")
    assert name_processor(tmp_path / "cpuinfo") == "A 1000"
    assert name_processor(tmp_path / "none") != ""
