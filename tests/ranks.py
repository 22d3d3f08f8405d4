"""Run a function on several ranks at once, and return what each of them returns.

The processes are started once and serve every test: starting them is most of the work.
"""

import inspect
import runpy
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from datetime import timedelta
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

DEADLINE = timedelta(seconds=200)  # of a collective that waits for a rank that has failed


def run_on_ranks(function: Callable[..., Any], num_ranks: int, *arguments: Any) -> list[Any]:
    """Call ``function(*arguments)``, of a module's top level, on every rank of a new gloo group."""
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store"
        futures = [
            _process(rank).submit(
                _call,
                inspect.getfile(function),
                function.__name__,
                arguments,
                rank,
                num_ranks,
                store,
            )
            for rank in range(num_ranks)
        ]
        wait(futures)
    return [future.result() for future in futures]


@cache
def _process(rank: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(
        1, mp_context=get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    )


def _call(
    file: str, name: str, arguments: tuple[Any, ...], rank: int, num_ranks: int, store: Path
) -> Any:
    function = _module(file)[name]
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=num_ranks, timeout=DEADLINE
    )
    try:
        result = function(*arguments)
        dist.barrier()  # who leaves early closes connections that another rank may still be making
        return result
    finally:
        dist.destroy_process_group()


@cache
def _module(file: str) -> dict[str, Any]:
    """The names of a file: it is found by path, whatever name the test runner imported it by."""
    return runpy.run_path(file)
