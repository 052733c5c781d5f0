"""Print the completion of fl-rsna for a shell: eval "$(fl-rsna completion bash)"."""

if __name__ == "__main__":
    from fl_rsna.cli.start import start_command

    start_command("completion")

import argparse

from fl_rsna.cli.arguments import Parser, create_parser
from fl_rsna.common.command_end import end_command

ABOUT = """Print the completion of commands, settings and choices for a shell, which is switched on by one line:

  eval "$(fl-rsna completion bash)"

The line in ~/.bashrc switches it on for every new shell. Paths are completed by the shell itself."""
EXAMPLES = """examples:
  fl-rsna completion bash
  fl-rsna completion bash > ~/.local/share/bash-completion/completions/fl-rsna
  fl-rsna completion bash --of "fl-rsna simulate strategy=fed"
more: docs/commands.md"""


def completion(arguments: argparse.Namespace) -> None:
    """Print the shell's function, or with --of what the last word of a line may become, a line each."""
    from fl_rsna.cli.completion import BASH, complete_line

    print(BASH if arguments.of is None else "".join(f"{one}\n" for one in complete_line(arguments.of)), end="")


def declare_arguments() -> Parser:
    """Declare the options and paths of this command; --help shows them and the shell completes them."""
    parser = create_parser("completion", ABOUT, EXAMPLES)
    parser.add_argument("shell", choices=["bash"], help="the shell that completes")
    parser.add_argument(
        "--of", metavar="LINE", help="say what the last word of this line may become; the shell asks for it"
    )
    return parser


if __name__ == "__main__":
    end_command(lambda: completion(declare_arguments().parse_args()))
