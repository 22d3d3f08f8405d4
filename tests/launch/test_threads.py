"""Threads of torch: how long they spin, and what is said where cores are busy."""

import logging
import os
import subprocess
import sys

import pytest
import torch.distributed as dist
from launch_work import launch, launch_options

from ssl_platform.launch.threads import num_threads, spin_variables, warn_of_busy_cores


@pytest.fixture
def four_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    for name in ("OMP_NUM_THREADS", "GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_spinning_is_bounded_unless_the_user_has_said_how_long(name, four_cores, monkeypatch):
    assert spin_variables() == {"GOMP_SPINCOUNT": "20000"}
    monkeypatch.setenv(name, "passive")
    assert spin_variables() == {}


def test_a_command_sets_the_bound_before_torch_is_imported(tmp_path):
    script = (
        "import os, sys\n"
        "from importlib.abc import MetaPathFinder\n"
        "class Watch(MetaPathFinder):\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch':\n"
        "            print('torch with', os.environ.get('GOMP_SPINCOUNT'), flush=True)\n"
        "            os._exit(0)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "from ssl_platform.cli import main\n"
        "main(['config=pretrain/swav/quickstart', 'seed=-1'])\n"
    )
    environment = {k: v for k, v in os.environ.items() if k != "GOMP_SPINCOUNT"}
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines() == ["torch with 20000"]


def spin_count() -> str | None:
    dist.barrier()  # a rank that ends before another has come would break its start
    return os.environ.get("GOMP_SPINCOUNT")


def test_ranks_that_are_started_have_the_bound(monkeypatch):
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    assert launch(spin_count, (), launch_options(2), device="cpu") == "20000"


def test_threads_of_a_rank(four_cores, monkeypatch):
    assert num_threads(launch_options(1, threads=None)) == 4
    assert num_threads(launch_options(2, threads=None)) == 2
    assert num_threads(launch_options(2, threads=3)) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert num_threads(launch_options(1, threads=None)) == 1
    assert (
        num_threads(launch_options(2, threads=None)) == 2
    )  # which ranks are told, whatever it says


@pytest.mark.parametrize(
    ("given", "load", "is_said"),
    [
        ((1, None), 0.4, False),
        ((1, None), 0.6, True),
        ((1, 2), 1.9, False),
        ((1, 2), 2.9, True),
        ((1, 1), 9.0, False),
        ((4, None), 9.0, False),  # one thread each: nothing better can be set
        ((2, None), 1.0, True),
    ],
)
def test_more_threads_than_free_cores_are_named(given, load, is_said, four_cores, caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_busy_cores(launch_options(given[0], threads=given[1]), load=load)
    assert ["launch.threads=1 may be faster" in m for m in caplog.messages] == [True] * is_said
