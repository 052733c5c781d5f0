"""What a federation between machines takes of each: bytes of the line, memory, CPU and disk, by a whole run on this one over TLS.

    python benchmarks/bench_deployment.py [--sites 2] [--rounds 2] [settings of simulate, such as model=efficientnet_b0 network=int8]

The commands of docs/deploy.md start a SuperLink, the sites and a coordinator. Between each site and the SuperLink stands a relay that
counts what it passes on, TLS and all, in both directions. Every half second the proportional memory (PSS, Linux) of each one's processes is
added up; the largest sum counts. Prints a table and, as the last line, one JSON object: for the coordinator's machine and the
largest of any site's. Images are few and small, so that memory is that of the processes and the network more than of data.
"""

import argparse
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from fl_rsna.cohort.steps import cohort_for_run
from fl_rsna.deployment.keys.key_folder import demo_files, write_new
from fl_rsna.deployment.site_node import free_port
from fl_rsna.settings.compose import compose_config
from fl_rsna.strategies.find import STRATEGIES

SMALL = ["demo.patients=24", "demo.slices_per_series=6", "demo.size=64", "data.size=64"]
SMALL += ["partition.allow_missing_labels=true"]
COORDINATOR = "coordinator"
EVERY_S = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("settings", nargs="*", help="of simulate, for the run")
    asked = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "FLWR_TELEMETRY_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        found = measure(asked.sites, asked.rounds, asked.settings)
    print(f"{'':<14}{'memory MB':>10}{'CPU s':>8}{'disk MB':>9}")
    for who in (COORDINATOR, "site"):
        print(f"{who:<14}{found['memory_mb'][who]:>10.0f}{found['cpu_s'][who]:>8.0f}{found['disk_mb'][who]:>9.1f}")
    print(f"a site's line: {found['down_mb']:.1f} MB down, {found['up_mb']:.1f} MB up in all, TLS included;")
    print(
        f"of it messages: {found['messages_down_mb']:.1f} and {found['messages_up_mb']:.1f} MB; idle {found['idle_kbit_s']:.1f} kbit/s"
    )
    print(json.dumps(found))


def measure(number: int, rounds: int, arguments: list[str]) -> dict[str, object]:
    sites = [f"site-{n}" for n in range(1, number + 1)]
    split = compose_config([*SMALL, "partition.name=bench", f"partition.num_sites={number}"], STRATEGIES)
    cohort_for_run(split, lambda what, done, total: None)
    keys = Path("certificates")
    write_new(keys, demo_files(keys, ["localhost"], sites))
    port, passed, watched = free_port(), dict[str, Counter[str]](), dict[str, list[psutil.Process]]()
    serve = ["superlink", "--certificates", "certificates/superlink", "--state", "state/superlink"]
    with ExitStack() as stack:
        watched[COORDINATOR] = [stack.enter_context(started(*serve, "--host", "127.0.0.1", "--port", str(port)))]
        for site in sites:
            passed[site] = Counter()
            door = relay(port, passed[site])
            place = [
                "--folder",
                f"site_data/bench/{site}",
                "--state",
                f"state/{site}",
                "--name",
                site,
                "--device",
                "cpu",
            ]
            own = ["--keys", f"certificates/sites/{site}", "--superlink", f"localhost:{door}"]
            watched[site] = [stack.enter_context(started("site", *place, *own))]
        peaks, cpu, stop = Counter[str](), dict[tuple[str, int], float](), threading.Event()
        sampler = threading.Thread(target=sample, args=(watched, peaks, cpu, stop))
        sampler.start()
        run = ["model.image_size=64", f"rounds={rounds}", "run.name=bench", "partition.name=bench", *arguments]
        run += [f"deploy.superlink=127.0.0.1:{port}", "deploy.authorized=certificates/authorized"]
        with started("coordinate", *run) as coordinate:
            watched[COORDINATOR].append(coordinate)
            if coordinate.wait() != 0:
                raise SystemExit(Path("coordinate.log").read_text())
        before, start = sum(sum(one.values()) for one in passed.values()), time.monotonic()
        time.sleep(20)  # the line of sites that wait for a run
        idle = (sum(sum(one.values()) for one in passed.values()) - before) / (time.monotonic() - start) / number
        stop.set()
        sampler.join()
    summary = json.loads(Path("runs/bench/summary.json").read_text())
    disk = {site: size_of(Path("state", site)) for site in sites}
    used = {who: sum(seconds for (whose, _), seconds in cpu.items() if whose == who) for who in watched}
    return {
        "sites": number,
        "rounds": rounds,
        "down_mb": max(one["down"] for one in passed.values()) / 1e6,
        "up_mb": max(one["up"] for one in passed.values()) / 1e6,
        "messages_down_mb": summary["bytes_down"] / number / 1e6,
        "messages_up_mb": summary["bytes_up"] / number / 1e6,
        "idle_kbit_s": idle * 8 / 1e3,
        "wall_s": summary["wall_s"],
        "memory_mb": {COORDINATOR: peaks[COORDINATOR] / 1e6, "site": max(peaks[site] for site in sites) / 1e6},
        "cpu_s": {COORDINATOR: used[COORDINATOR], "site": max(used[site] for site in sites)},
        "disk_mb": {
            COORDINATOR: (size_of(Path("state/superlink")) + size_of(Path("runs"))) / 1e6,
            "site": max(disk.values()) / 1e6,
        },
    }


@contextmanager
def started(name: str, *arguments: str) -> Iterator[psutil.Popen]:
    """A command in a session of its own, which ends with the block."""
    with Path(f"{name}.log").open("ab") as log:
        command = [sys.executable, "-m", f"fl_rsna.{name}", *arguments]
        running = psutil.Popen(command, stdout=log, stderr=log, start_new_session=True)
    try:
        yield running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
            running.wait(60)


def relay(port: int, passed: Counter[str]) -> int:
    """Pass connections on to a port of this machine and count the bytes up to it and down from it; return the port to connect to."""
    door = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            site, _ = door.accept()
            server = socket.create_connection(("127.0.0.1", port))
            for source, target, way in ((site, server, "up"), (server, site, "down")):
                threading.Thread(target=pump, args=(source, target, way), daemon=True).start()

    def pump(source: socket.socket, target: socket.socket, way: str) -> None:
        try:
            while content := source.recv(1 << 16):
                passed[way] += len(content)
                target.sendall(content)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # one of both has left
            source.close()
            target.close()

    threading.Thread(target=accept, daemon=True).start()
    return int(door.getsockname()[1])


def sample(
    watched: dict[str, list[psutil.Process]],
    peaks: Counter[str],
    cpu: dict[tuple[str, int], float],
    stop: threading.Event,
) -> None:
    """Note the largest memory of each one's processes together, and the CPU time of every process by its last look."""
    while not stop.wait(EVERY_S):
        for who, roots in watched.items():
            memory = 0
            for process in [each for root in list(roots) for each in tree(root)]:
                try:
                    memory += process.memory_full_info().pss
                    times = process.cpu_times()
                    cpu[who, process.pid] = times.user + times.system
                except psutil.Error:  # it has just ended
                    continue
            peaks[who] = max(peaks[who], memory)


def tree(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
