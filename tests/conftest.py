import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, as the commands do
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

import gc
from pathlib import Path

import pytest
import torch
from tiny import tiny_cohort

from fl_rsna.cohort.sites.site_folders import Cohort

torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
gc.disable()  # until every test is imported


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Cohort:
    """Three tiny sites and a test site; tests must not change them."""
    return tiny_cohort(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_cohort(tmp_path: Path) -> Cohort:
    """A tiny cohort a test may break."""
    return tiny_cohort(tmp_path / "own")


def pytest_collection_finish() -> None:
    """Let the collector never look at what is there already: Flower calls it for every array that it reads."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Names a test by how many bytes it is given, not by the bytes: every worker must come to the same name."""
    return f"{len(val)}_bytes" if isinstance(val, bytes) else None
