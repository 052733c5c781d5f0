"""Worker processes load what they need while the command itself still does: begin this before anything slow is imported."""

import multiprocessing
import os
from multiprocessing.context import ForkServerContext
from multiprocessing.forkserver import ensure_running

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")  # read when Flower is imported

PRELOAD = ["fl_rsna.federation.client_app", "torch._dynamo", "efficientnet_pytorch", "efficientnet_lite_pytorch"]


def loading_context() -> ForkServerContext:
    """Processes forked from a server that has loaded what a site needs."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read when a process starts; set later, two workers fight over the cores
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


def begin_loading() -> None:
    """Start that server now; it loads on another core."""
    loading_context()
    ensure_running()
