"""List the commands of fl_rsna and start one of them: `fl-rsna simulate ...` is the same as `python -m fl_rsna.simulate ...`.

A new command is a module of the package and a line of COMMANDS. This module imports no command, so that the list comes at once.
"""

import runpy
import sys
from difflib import get_close_matches

from fl_rsna.common.command_end import begin_command, end_command

COMMANDS = {  # name of the module -> what it does; the order is that of the list
    "simulate": "run a whole federation on this machine, and write its report",
    "prepare": "convert DICOM files and their labels to images and an index",
    "partition": "assign the patients of prepared data to sites",
    "audit": "check a cohort or a table for patients in two places, and how the sites differ",
    "doctor": "check whether a run with these settings can work here, and what to change",
    "watch": "serve a live page of a run",
    "report": "write the page of a run, or the comparison of several",
    "evaluate": "score new scans with a saved model",
    "ensemble": "score new scans with several saved models together",
    "export": "write a saved model as ONNX, with a model card",
    "replay": "repeat a site's part in a round, and compare it bit by bit",
    "salt": "make the secret under which all hospitals of a federation hash their ids",
    "own_site": "make one site's folder from a hospital's own prepared data",
    "keys": "make the keys and certificates of a federation between machines",
    "superlink": "serve the SuperLink of a federation between machines",
    "site": "take part in a federation as one site",
    "coordinate": "run a federation between machines, from beside the SuperLink",
    "completion": "print the shell's completion of commands, settings and choices",
}


def main() -> None:
    """Start the command that is typed, list all commands, or refuse a name that is none in one sentence."""
    typed = sys.argv[1:]
    if typed and (name := typed[0].replace("-", "_")) in COMMANDS:
        sys.argv[1:] = typed[1:]
        runpy.run_module(f"fl_rsna.{name}", run_name="__main__", alter_sys=True)
        return
    begin_command()
    end_command(lambda: list_commands(typed))


def list_commands(typed: list[str]) -> None:
    """Print the list, or the version with --version. Raises ValueError for a name that is no command."""
    if typed == ["--version"]:
        from fl_rsna.version import code_version

        print(f"fl-rsna {code_version()}")
        return
    if typed and typed[0] not in ("-h", "--help", "help"):
        near = get_close_matches(typed[0].replace("-", "_"), COMMANDS, n=1)
        if near:
            raise ValueError(f"{typed[0]}: no such command; did you mean fl-rsna {near[0]}?")
        said = "expected a command first, e.g. fl-rsna simulate" if "=" in typed[0] else "no such command"
        raise ValueError(f"{typed[0]}: {said}; fl-rsna alone lists all commands")
    width = max(map(len, COMMANDS))
    print("Federated learning that finds intracranial hemorrhage on head CT. Research use, not for diagnosis.\n")
    print("fl-rsna <command> ...         the same as python -m fl_rsna.<command> ...")
    print("fl-rsna <command> --help      what a command does, its main settings, and examples\n")
    for name, line in COMMANDS.items():
        print(f"  {name:<{width}}  {line}")
