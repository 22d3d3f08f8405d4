"""Fixtures of the tests of launching."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from forked import fork_ranks
from launched import (
    WORK,
    WORLD_VARIABLES,
)
from torch.distributed.elastic import multiprocessing as elastic


@pytest.fixture(autouse=True)
def no_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in WORLD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """That ranks start as a Python of their own is shown in test_cli.py."""
    monkeypatch.setattr(elastic, "start_processes", elastic.start_processes)
    fork_ranks()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen]]:
    """Start a program in a session of its own; it is killed when the test ends."""
    started = []

    def _start(*command: str, **options) -> subprocess.Popen:
        environment = {
            **os.environ,
            "PYTHONPATH": str(WORK.parents[1]),
            "FORK_RANKS": "1",
            **options.pop("env", {}),
        }
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [sys.executable, *command],
                env=environment,
                stdout=pipe,
                stderr=pipe,
                text=True,
                start_new_session=True,
                **options,
            )
        )
        return started[-1]

    yield _start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Set variables of the environment, for one test."""

    def _set(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return _set
