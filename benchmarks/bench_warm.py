"""What a ClientApp's process costs before it does anything: started from scratch, as Flower does it, against forked from a loaded one.

    python benchmarks/bench_warm.py [--repeats 5]

Seconds by the clock from asking until a process that has loaded Flower, torch and the site's code has ended; medians. Prints a table and, as
the last line, one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from fl_rsna.common.process import PRELOAD
from fl_rsna.deployment import ask_warm

LOADED = f"""
import os, sys
from importlib import import_module
from pathlib import Path
for name in {PRELOAD!r}:
    import_module(name)
from fl_rsna.deployment.known_app import guard_program
guard_program("flwr-clientapp")
"""
SERVES = LOADED + "from fl_rsna.deployment.warm import serve\nserve(Path(sys.argv[1]), lambda: None, os.getppid())\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    os.environ |= {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0"}
    path = Path(tempfile.mkdtemp()) / "warm"
    server = subprocess.Popen([sys.executable, "-c", SERVES, str(path)])
    while not path.exists():
        time.sleep(0.1)
    ask = [sys.executable, "-I", "-S", ask_warm.__file__, str(path)]
    try:
        cold, warm = [], []
        for _ in range(repeats):
            cold.append(seconds(lambda: subprocess.run([sys.executable, "-c", LOADED], check=True)))
            warm.append(seconds(lambda: subprocess.run(ask, check=True)))
    finally:
        server.kill()
        server.wait()
    found = {"cold_s": statistics.median(cold), "warm_s": statistics.median(warm)}
    found["ratio"] = found["warm_s"] / found["cold_s"]
    print(f"from scratch  {found['cold_s']:.2f} s\nforked        {found['warm_s']:.2f} s, {found['ratio']:.3f} of that")
    print(json.dumps(found))


def seconds(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
