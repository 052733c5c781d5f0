"""Begin every command: print its --help, read its arguments, and say that it loads, before anything is imported that takes time."""

import sys
from collections.abc import Sequence

from fl_rsna.cli.hydra_arguments import FLAGS, VALUED
from fl_rsna.common.command_end import begin_command, end_command

HELP = ("-h", "--help")


def start_command(name: str, *, goes_on: bool = False, loads: str = "") -> None:
    """Install the ends of command_end.py, answer --help, and rewrite the command line in key=value settings.

    `goes_on` says that the command, typed again, continues what it has done so far. `loads` names what is imported next and takes
    seconds; a terminal is told so on stderr, with the settings as they were read where they were typed in another way. A command without a
    guide reads its arguments itself.
    """
    begin_command(goes_on=goes_on)
    from fl_rsna.cli.guides import GUIDES, list_command_keys, write_help

    typed = sys.argv[1:]
    topic = find_topic(typed)
    if topic is not None and name in GUIDES:
        end_command(lambda: print(write_help(name, topic), end=""))
    if topic is None and name in GUIDES:
        from fl_rsna.cli.guess import RUNS, read_arguments
        from fl_rsna.settings.suggest import list_keys

        sys.argv[1:] = read_arguments(name, typed, list_keys() if name in RUNS else list_command_keys(name))
    if loads and topic is None and sys.stderr.isatty():
        read = "" if sys.argv[1:] == typed else " " + " ".join(sys.argv[1:])
        print(f"{name}{read}: loading {loads} ...", file=sys.stderr, flush=True)


def find_topic(arguments: Sequence[str]) -> str | None:
    """Find what --help is asked for: the argument after it or what follows its equals sign, an empty text alone; None without --help."""
    for place, argument in enumerate(arguments):
        option, _, topic = argument.partition("=")
        if option in HELP:
            after = [*arguments[place + 1 :], ""][0]
            return topic or ("" if "=" in after or after in (*FLAGS, *VALUED) else after)
    return None
