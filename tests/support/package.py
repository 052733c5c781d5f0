"""Where the project's files are, for tests that read them."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fl_rsna"
DATA = ROOT.parent / "shared" / "data"  # real data, where a checkout has them beside it
COMMANDS = {path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text()}
