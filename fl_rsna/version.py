"""Identify the running code: sites that compute together must run the same."""

import hashlib
import importlib.metadata
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent


@cache
def code_version() -> str:
    """Return the package's version and the start of a hash of its modules, e.g. `0.2.0 (code 1a2b3c4d5e6f)`."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(f"{path.relative_to(PACKAGE).as_posix()} ".encode() + hashlib.sha256(path.read_bytes()).digest())
    try:
        version = importlib.metadata.version("fl-rsna")
    except importlib.metadata.PackageNotFoundError:  # a checkout that was not installed
        version = "unknown"
    return f"{version} (code {digest.hexdigest()[:12]})"
