"""What it costs to assign a data set of RSNA's size to many sites, tables and image links included.

An index with every declared column is made up around real labels (or drawn ones, with RSNA's prevalences), images are
hard links to a few tiny PNGs, and `python -m fl_rsna.partition` runs in a fresh process, several times. Printed: median
seconds and peak memory of that process, beside the goals.

    python benchmarks/bench_partition.py [--labels <wide csv>] [--rows 752803] [--sites 100] [--partition iid] [--layout standard] [--repeats 3]
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the process that measures stays small: its memory would count as its children's
    import numpy as np
    import pandas as pd

GOAL_S, GOAL_GB = 60.0, 3.0
ROWS_A_PICTURE = 20_000  # ext4 allows 65,000 links to a file: one here, one at a site, one more with --layout s0
PREVALENCE = {
    "epidural": 0.0042,
    "intraparenchymal": 0.048,
    "intraventricular": 0.035,
    "subarachnoid": 0.047,
    "subdural": 0.063,
}
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, help="CSV with one row a slice and one column a label")
    parser.add_argument("--rows", type=int, default=752_803)
    parser.add_argument("--sites", type=int, default=100)
    parser.add_argument("--partition", default="iid", help="iid, dirichlet, quantity, ...")
    parser.add_argument("--layout", default="standard", help="standard or s0")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where to work; its file system is what is measured")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        make_prepared(arguments.make, arguments.rows, arguments.labels)
        return
    with tempfile.TemporaryDirectory(prefix="bench-", dir=arguments.folder) as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, __file__, "--make", str(folder / "prepared" / "bench"), *sys.argv[1:]], check=True
        )
        seconds, gigabytes = zip(*(partition_once(folder, arguments) for _ in range(arguments.repeats)), strict=True)
    report(arguments, seconds, gigabytes)


def partition_once(folder: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Seconds and peak GB of one `python -m fl_rsna.partition`; its sites are deleted again."""
    command = [
        sys.executable, "-m", "fl_rsna.partition", "data.name=bench", f"partition={arguments.partition}", f"partition.num_sites={arguments.sites}",
        f"partition.layout={arguments.layout}",
        f"paths.prepared={folder / 'prepared'}", f"paths.sites={folder / 'sites'}",
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"partition left with {process.returncode}")
    shutil.rmtree(folder / "sites")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, usage.ru_maxrss * unit / 1e9


def make_prepared(folder: Path, rows: int, labels: Path | None) -> None:
    """A prepared folder as `prepare` would leave it."""
    import numpy as np

    from fl_rsna.common.hashes import table_sha256
    from fl_rsna.imaging.png_store import write_png
    from fl_rsna.task import ICH

    index = make_index(rows, labels)
    (folder / "images").mkdir(parents=True)
    for number, image_id in enumerate(index["image_id"]):
        picture = folder / f"{number // ROWS_A_PICTURE}.png"
        if number % ROWS_A_PICTURE == 0:
            write_png(picture, np.full((8, 8), 1024, np.uint16))
        os.link(picture, folder / "images" / f"{image_id}.png")
    index.to_parquet(folder / "index.parquet", index=False)
    facts = {
        "task": ICH.name,
        "labels": list(ICH.labels),
        "image": "hu",
        "size": 8,
        "index_sha256": table_sha256(index),
    }
    (folder / "prepare.json").write_text(json.dumps(facts))


def make_index(rows: int, labels: Path | None) -> "pd.DataFrame":
    """Patients of one or more series of some 35 slices; slices with the same findings are put together."""
    import numpy as np
    import pandas as pd

    from fl_rsna.cohort.prepared.index import columns_of
    from fl_rsna.task import Rendering

    rng = np.random.default_rng(0)
    found = labels_of(rows, labels, rng)
    series = np.repeat(np.arange(rows), np.clip(rng.normal(34.6, 6, rows).astype(int), 20, 60))[:rows]
    patient = np.cumsum(rng.random(series[-1] + 1) < 0.87)[series]
    rank = np.arange(rows) - np.searchsorted(series, series)
    vendors = [
        f"vendor {n} model {n % 7}|{bits}|{pad}|30/80"
        for n in range(9)
        for bits in ("12u-1024", "16s-1024")
        for pad in ("none", "deep")
    ]
    names = hexadecimal(rng, rows)
    special = {
        "image_id": [f"ID_{name[:9]}{n:x}" for n, name in enumerate(names)],
        "patient_id": hexadecimal(rng, patient[-1] + 1)[patient],
        "study_id": hexadecimal(rng, series[-1] + 1)[series],
        "series_id": hexadecimal(rng, series[-1] + 1)[series],
        "origin": np.array(["north", "south", "east", "west"], dtype=object)[patient % 4],
        "rank": rank.astype("int32"),
        "fingerprint": np.array(vendors, dtype=object)[np.minimum(rng.geometric(0.2, patient[-1] + 1) - 1, len(vendors) - 1)][patient],
        "orientation": np.array([f"1.0000\\0.0000\\0.0000\\0.0000\\{tilt:.4f}\\-0.2000" for tilt in rng.random(50)], dtype=object)[series % 50],
        "png_sha256": hexadecimal(rng, rows),
    }  # fmt: skip
    drawn = {
        name: special.get(name, filler(column.dtype, rows, rng))
        for name, column in columns_of(Rendering.hounsfield).items()
    }
    return pd.concat([pd.DataFrame(drawn), found], axis=1)


def filler(dtype: str, rows: int, rng: "np.random.Generator") -> "np.ndarray":
    """Values of a declared type; a tenth of the numbers is missing."""
    import numpy as np

    if dtype == "bool":
        return rng.random(rows) < 0.1
    if dtype == "float64":
        return np.where(rng.random(rows) < 0.1, np.nan, rng.normal(30, 20, rows))
    if dtype == "int32":
        return rng.integers(0, 512, rows).astype("int32")
    return np.array(["1.2.840.10008.1.2.1", "none", ""], dtype=object)[rng.integers(0, 3, rows)]


def hexadecimal(rng: "np.random.Generator", count: int) -> "np.ndarray":
    import numpy as np

    return np.array([f"{value:016x}" for value in rng.integers(0, 2**63, count)], dtype=object)


def labels_of(rows: int, path: Path | None, rng: "np.random.Generator") -> "pd.DataFrame":
    """Labels of a table, repeated as far as needed, or drawn; slices with the same labels beside each other."""
    import numpy as np
    import pandas as pd

    from fl_rsna.task import ICH

    if path is None:
        known = pd.DataFrame({label: rng.random(rows) < share for label, share in PREVALENCE.items()}).astype("int8")
        known["any"] = known.max(axis=1)
    else:
        known = pd.read_csv(path, usecols=list(ICH.labels), dtype="int8")
    drawn = known[list(ICH.labels)].iloc[np.arange(rows) % len(known)]
    return drawn.sort_values(list(ICH.labels)).reset_index(drop=True)


def report(arguments: argparse.Namespace, seconds: tuple[float, ...], gigabytes: tuple[float, ...]) -> None:
    median, peak = statistics.median(seconds), max(gigabytes)
    spread = f"{min(seconds):.1f} to {max(seconds):.1f}"
    print(
        f"{arguments.rows} slices to {arguments.sites} {arguments.partition} sites, layout {arguments.layout}, "
        f"{arguments.repeats} repeats, fresh processes"
    )
    print(f"{'':<22}{'measured':>12}{'goal':>8}{'share of goal':>16}")
    print(f"{'seconds, median':<22}{median:>12.1f}{GOAL_S:>8.0f}{median / GOAL_S:>16.2f}   ({spread})")
    print(f"{'peak memory, GB':<22}{peak:>12.2f}{GOAL_GB:>8.0f}{peak / GOAL_GB:>16.2f}")
    figures = {
        "rows": arguments.rows, "sites": arguments.sites, "partition": arguments.partition, "layout": arguments.layout, "repeats": arguments.repeats,
        "labels": arguments.labels.name if arguments.labels else "drawn", "seconds": median, "all_seconds": list(seconds), "peak_gb": peak,
        "ratio": {"seconds": median / GOAL_S, "peak_gb": peak / GOAL_GB},
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
