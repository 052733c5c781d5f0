"""python -m fl_rsna.doctor [the words of simulate]: whether a run with these settings can work here, and what to change.

All that simulate would refuse before a run is a problem, in the sentence that simulate says (checks/request.py).

One line a check: ok, warning (it will run, but not as one may think) or problem (it will not run). Nothing is written
and nothing is asked of the network. Exit codes: 0 no problem, 1 at least one, 2 the words cannot be read.
"""

import sys

if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - whoever runs it with an older one learns it here
        sys.exit("problem  python: %d.%d; install Python 3.11 or newer" % sys.version_info[:2])  # noqa: UP031

    from fl_rsna.common.command_end import begin_command

    begin_command()

    import os

    os.environ.setdefault("OMP_NUM_THREADS", "1")

    from fl_rsna.checks.check import State, check_packages, check_python, read_requirements

    try:
        first = [check_python(), *check_packages(read_requirements())]
    except ModuleNotFoundError as error:  # packaging, which everything else needs as well
        sys.exit(f"problem  packages: {error.name} is missing; pip install --editable . in the project's folder")
    if any(check.state is State.problem for check in first):
        for check in first:  # without the packages that print tables
            print(f"{check.state:<9}{check.what}: {check.found}" + (f"; {check.change}" if check.change else ""))
        sys.exit(1)

    from fl_rsna.checks.doctor import examine
    from fl_rsna.cli.command import run_command

    run_command(lambda config: examine(config, first), makes_runs=False)
