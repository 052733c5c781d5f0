"""Check whether a run with these settings can work here, and say what to change: python -m fl_rsna.doctor [the settings of simulate].

Everything that simulate would refuse before a run is a problem, in the same sentence (checks/request.py). The command prints a line a
check: ok, warning (the run works, but perhaps not as expected) or problem (it does not work). It writes nothing and does not use the
network. Exit codes: 0 no problem, 1 at least one, 2 the arguments cannot be read.
"""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python says so here
        sys.exit("problem  python: %d.%d; install Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

    from fl_rsna.cli.start import start_command

    start_command("doctor", loads="PyTorch and Flower")

    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from fl_rsna.checks.check import State, check_packages, check_python, read_requirements

    try:
        first = [check_python(), *check_packages(read_requirements())]
    except ModuleNotFoundError as error:  # the package `packaging`
        sys.exit(f"problem  packages: {error.name} is missing; pip install --editable . in the project's folder")
    if any(check.state is State.problem for check in first):
        for check in first:  # plain lines, for the packages that print tables may be missing
            print(f"{check.state:<9}{check.what}: {check.found}" + (f"; {check.change}" if check.change else ""))
        sys.exit(1)

    from fl_rsna.checks.doctor import examine
    from fl_rsna.cli.command import run_command

    run_command(lambda config: examine(config, first), makes_runs=False)
