"""The lock: exact versions with the hashes of their public files, for pip install --require-hashes.

    python scripts/lock.py            write requirements.lock and requirements-torch.lock from pyproject.toml and constraints.txt
    python scripts/lock.py --check    let pip resolve both without installing anything, and exit 1 where it cannot

requirements.lock holds all that fl_rsna needs but torch; requirements-torch.lock holds torch and the CUDA packages that its build for
Linux needs. Who takes another build of torch, such as the CPU's, installs that first and then requirements.lock alone. The hashes are
those of every file of a release, so that one lock serves Python 3.11 and newer on each system. Needs uv, which Flower brings, and an index.
"""

import argparse
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCK, TORCH_LOCK = ROOT / "requirements.lock", ROOT / "requirements-torch.lock"
OF_TORCH = re.compile(r"(torch|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==")
HEAD = "# Written by scripts/lock.py from pyproject.toml and constraints.txt; {}.\n"
COMPILE = "pip compile pyproject.toml --constraint constraints.txt --python-version 3.11 --universal --generate-hashes"


def lock() -> None:
    """Write both files."""
    uv = Path(sysconfig.get_path("scripts")) / "uv"
    quiet = ["--quiet", "--no-header", "--no-annotate", "--no-config"]
    compiled = subprocess.run(
        [uv, *COMPILE.split(), *quiet], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    blocks = re.split(r"\n(?=\S)", compiled.rstrip("\n"))
    of_torch = [block for block in blocks if OF_TORCH.match(block)]
    others = [block for block in blocks if not OF_TORCH.match(block)]
    LOCK.write_text("\n".join([HEAD.format("torch has its own lock") + others[0], *others[1:]]) + "\n")
    TORCH_LOCK.write_text(
        "\n".join([HEAD.format("torch with CUDA, as the public index has it") + of_torch[0], *of_torch[1:]]) + "\n"
    )
    print(f"{LOCK.name}: {len(others)} packages; {TORCH_LOCK.name}: {len(of_torch)}")


def check() -> int:
    """Let pip resolve all requirements with their hashes; nothing is installed. Return pip's exit code."""
    files = [part for path in (LOCK, TORCH_LOCK) for part in ("--requirement", str(path))]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--require-hashes"]
    code = subprocess.run([*pip, *files]).returncode
    print("both locks resolve" if code == 0 else "the locks do not resolve; write them again: python scripts/lock.py")
    return code


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="resolve the locks that are there")
    if parser.parse_args().check:
        sys.exit(min(1, check()))
    lock()
