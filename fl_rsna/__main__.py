"""List the commands, or start one of them: python -m fl_rsna <command> ... is the same as fl-rsna <command> ..."""

from fl_rsna.cli.commands import main

if __name__ == "__main__":
    main()
