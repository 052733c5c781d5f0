"""Flower's task processes, for one app alone: the one that is installed here.

Flower runs, at every site, whatever Python code comes with a run. The programs that `launch.environment` puts first on the PATH start
here instead, and refuse a bundle that is not, file by file, the installed `app/`, which holds no code but names fl_rsna's apps.
So nobody who may start runs can have a site, or the server, execute code of theirs.

The one name of Flower that is replaced, `install_from_fab` in the two modules that call it, is private (1.42): where it is
missing, nothing is run.
"""

import io
import sys
import zipfile
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from flwr.cli.build import build_fab_from_disk
from flwr.cli.install import install_from_fab

APP = Path(__file__).with_name("app")
RUNS_IT = {  # by program: the module that installs a bundle, and the program itself
    "flwr-clientapp": ("flwr.supernode.runtime.run_clientapp", "flwr.supernode.cli.flwr_clientapp"),
    "flwr-serverapp": ("flwr.superlink.runtime.run_serverapp", "flwr.superlink.cli.flwr_serverapp"),
}
REFUSED = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-simulation")  # Flower's others, none of them ours
INSTALLS = "install_from_fab"


def install_known(fab_file: bytes, install_dir: Path | None = None, skip_prompt: bool = False) -> Path:
    """As Flower's `install_from_fab`, for the bundle of the installed app. Raises ValueError for any other."""
    if contents(fab_file) != contents(build_fab_from_disk(APP)):
        raise ValueError(
            "expected the app that is installed here, got another one; install the same version of fl_rsna everywhere, no site runs other code"
        )
    return install_from_fab(fab_file, install_dir, skip_prompt)


def contents(bundle: bytes) -> dict[str, bytes]:
    """A bundle's files by name, without the list of hashes Flower adds; raises ValueError when it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as files:
            return {name: files.read(name) for name in files.namelist() if not name.startswith(".info/")}
    except zipfile.BadZipFile as error:
        raise ValueError(f"expected a Flower app bundle, got {error}") from None


def guard_program(program: str) -> Callable[[], Any]:
    """Flower's program of that name, with its way to code from elsewhere closed. Raises ValueError when it is not known."""
    if program not in RUNS_IT:
        raise ValueError(f"expected one of {', '.join(RUNS_IT)}, got {program}; fl_rsna runs no other of Flower's apps")
    installer, runner = (import_module(name) for name in RUNS_IT[program])
    if getattr(installer, INSTALLS, None) is not install_from_fab:
        raise ValueError(
            f"expected {installer.__name__}.{INSTALLS} in this version of Flower, got none; install flwr>=1.42,<1.43"
        )
    setattr(installer, INSTALLS, install_known)
    act: Callable[[], Any] = getattr(runner, program.replace("-", "_"))
    return act


if __name__ == "__main__":
    from fl_rsna.common.command_end import end_command

    program = sys.argv.pop(1)
    end_command(lambda: guard_program(program)())
