"""Run Flower's task processes for one app only: the one that is installed here.

Flower runs, at every site, whatever Python code comes with a run. The programs that `launch.environment` puts first on the PATH run
this module instead. It refuses a bundle whose files differ from those of the installed `app/`, which holds no code and names fl_rsna's
apps. So a person who may start runs cannot make a site or the server execute their code.

One private name of Flower (1.42) is replaced: `install_from_fab`, in the two modules that call it. Where it is missing, nothing is run.
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
RUNS_IT = {  # program -> the module that installs a bundle, and the program's function
    "flwr-clientapp": ("flwr.supernode.runtime.run_clientapp", "flwr.supernode.cli.flwr_clientapp"),
    "flwr-serverapp": ("flwr.superlink.runtime.run_serverapp", "flwr.superlink.cli.flwr_serverapp"),
}
# Flower's other programs, which fl_rsna does not need
REFUSED = ("flwr-agentapp", "flwr-connector", "flwr-model", "flwr-simulation")
INSTALLS = "install_from_fab"


def install_known(fab_file: bytes, install_dir: Path | None = None, skip_prompt: bool = False) -> Path:
    """Stand in for Flower's `install_from_fab`: accept the bundle of the installed app, raise ValueError for any other."""
    if contents(fab_file) != contents(build_fab_from_disk(APP)):
        raise ValueError(
            "expected the app that is installed here, got another one; install the same version of fl_rsna everywhere, no site runs other code"
        )
    return install_from_fab(fab_file, install_dir, skip_prompt)


def contents(bundle: bytes) -> dict[str, bytes]:
    """Read a bundle's files by name, without the list of hashes that Flower adds; raises ValueError when it is no bundle."""
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as files:
            return {name: files.read(name) for name in files.namelist() if not name.startswith(".info/")}
    except zipfile.BadZipFile as error:
        raise ValueError(f"expected a Flower app bundle, got {error}") from None


def guard_program(program: str) -> Callable[[], Any]:
    """Load Flower's program of that name so that it runs only the installed app. Raises ValueError for an unknown program."""
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
