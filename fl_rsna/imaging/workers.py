"""Convert files in this process, in processes of this machine or on a Ray cluster, with the same results in the same order.

A file on which a decoder crashes or hangs ends its worker process, but not the preparation. The files of its chunk are
then converted one by one in fresh processes, so that the file at fault is known.
"""

import logging
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

from fl_rsna.common.process import end_with_parent, keep_freed_memory, limit_memory, without_interrupts
from fl_rsna.imaging.convert import Conversion, Result, build_crash_refusal, convert_files
from fl_rsna.imaging.sources import File

CHUNK_FILES = 32
FILE_MEMORY = 4 << 30  # bytes that a worker may take after its start; the largest slice takes a quarter of it
CHUNKS_AHEAD = 3  # chunks per worker: one it works on, one that waits, and one whose results wait for their turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Consecutive input files; `first` is the number of the first one in the whole input."""

    first: int
    files: Sequence[File]


Results = list[Result]
Converter = Callable[[Conversion, Iterable[Chunk]], Generator[Results, None, None]]


def chunks_from(files: Sequence[File], start: int) -> Iterable[Chunk]:
    """Yield the files from number `start` on in chunks of CHUNK_FILES."""
    for first in range(start, len(files), CHUNK_FILES):
        yield Chunk(first=first, files=files[first : first + CHUNK_FILES])


def convert_here(work: Conversion, chunks: Iterable[Chunk]) -> Generator[Results, None, None]:
    """Convert in this process, for files that are trusted not to crash a decoder."""
    keep_freed_memory()
    for chunk in chunks:
        yield convert_files(work, chunk.first, chunk.files)


def convert_local(work: Conversion, chunks: Iterable[Chunk], *, workers: int) -> Generator[Results, None, None]:
    """Convert in `workers` processes of this machine; 0 means one per core."""
    if not workers:
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool, waiting = _start_pool(workers), deque[tuple[Chunk, Future[Results]]]()
    queue = iter(chunks)
    try:
        while True:
            for chunk in islice(queue, CHUNKS_AHEAD * workers - len(waiting)):
                waiting.append((chunk, _submit_chunk(pool, work, chunk)))
            if not waiting:
                return
            chunk, future = waiting.popleft()
            if not isinstance(future.exception(), BrokenProcessPool):
                yield future.result()
                continue
            pool.shutdown(cancel_futures=True)
            pool = _start_pool(workers)
            yield _convert_one_by_one(work, chunk)
            for place, (later, known) in enumerate(tuple(waiting)):
                if not known.done() or known.cancelled() or known.exception() is not None:
                    waiting[place] = later, _submit_chunk(pool, work, later)
    finally:
        pool.shutdown(cancel_futures=True)


def _submit_chunk(pool: ProcessPoolExecutor, work: Conversion, chunk: Chunk) -> Future[Results]:
    """Submit a chunk and return its future; a pool that another chunk has just broken gives a failed future."""
    try:
        with without_interrupts():  # submitting may start a process
            return pool.submit(_convert_chunk, work, chunk)
    except BrokenProcessPool as error:
        failed: Future[Results] = Future()
        failed.set_exception(error)
        return failed


def convert_on_ray(work: Conversion, chunks: Iterable[Chunk], *, workers: int) -> Generator[Results, None, None]:
    """Convert on the Ray cluster at RAY_ADDRESS, or on one started here. The cluster's machines must see the files at the same paths."""
    import ray

    started = not ray.is_initialized()
    if started:
        here = "RAY_ADDRESS" not in os.environ
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about accelerators, which nothing here uses
            ray.init(
                address="local" if here else None,  # None would join any cluster that runs on this machine
                num_cpus=workers or None if here else None,
                log_to_driver=False,
                include_dashboard=False if here else None,
                logging_level=logging.ERROR,
            )
    remote = ray.remote(max_retries=1, max_calls=0)(_convert_chunk)
    ahead = CHUNKS_AHEAD * (workers or int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    queue, waiting = iter(chunks), deque[tuple[Chunk, Any]]()
    try:
        while True:
            for chunk in islice(queue, ahead - len(waiting)):
                waiting.append((chunk, remote.remote(work, chunk)))
            if not waiting:
                return
            chunk, reference = waiting.popleft()
            try:
                results = ray.get(reference)
            except ray.exceptions.RayTaskError as error:
                raise error.cause from None
            except ray.exceptions.RayError:  # the worker died, twice
                results = _convert_one_by_one(work, chunk)
            yield results
    finally:
        if started:
            ray.shutdown()


def _start_pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin_work)


def _begin_work() -> None:
    """Prepare a worker process: it ends with its parent, so that it writes no further, and decoders print nothing to the screen."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what decoders say of a file stands in rejected.csv
    end_with_parent()


def _convert_chunk(work: Conversion, chunk: Chunk) -> Results:
    """Convert the files of a chunk, each under limits of processor time and memory.

    A file that exceeds its time ends the process, because no Python code runs inside a decoder. Beyond the memory limit
    allocations fail; decoders report this or end the process.
    """
    keep_freed_memory()
    limit_memory(FILE_MEMORY)
    results: Results = []
    try:
        for place, file in enumerate(chunk.files):
            signal.setitimer(signal.ITIMER_PROF, work.file_cpu_s)
            results += convert_files(work, chunk.first + place, [file])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return results


def _convert_one_by_one(work: Conversion, chunk: Chunk) -> Results:
    """Convert the files of a chunk one by one, and refuse each file that ends its process."""
    results: Results = []
    pool = _start_pool(1)
    try:
        for place, file in enumerate(chunk.files):
            try:
                with without_interrupts():
                    future = pool.submit(_convert_chunk, work, Chunk(first=chunk.first + place, files=[file]))
                results += future.result()
            except BrokenProcessPool:
                results.append(build_crash_refusal(work, file))
                pool.shutdown()
                pool = _start_pool(1)
    finally:
        pool.shutdown(cancel_futures=True)
    return results
