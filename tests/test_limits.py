"""Limits of the machine: told as such, in one line, before a run starts where that is possible."""

import errno
import io
import os
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from test_cli import QUICKSTART, TOOL

from ssl_platform import files as disk
from ssl_platform.cli import main
from ssl_platform.config import compose
from ssl_platform.engine.saver import Saver
from ssl_platform.errors import ConfigError, DiskError, PlatformError
from ssl_platform.launch import limits, rank

GIB = 2**30
UNLIMITED = resource.RLIM_INFINITY


@pytest.fixture
def ulimit(monkeypatch):
    """Have this process believe in a limit, which need not hold for it."""
    asked: dict[int, int] = {}
    real = resource.getrlimit
    monkeypatch.setattr(
        resource, "getrlimit", lambda kind: (asked[kind],) * 2 if kind in asked else real(kind)
    )
    return asked.__setitem__


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "CGROUPS", tmp_path / "fs")
    monkeypatch.setattr(limits, "OWN_CGROUPS", tmp_path / "own")

    def _write(own: str, **files: str) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "fs" / name.replace("__", "/").replace("_in_", ".limit_in_")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return _write


# ---- memory and addresses


def test_the_smallest_limit_of_the_control_groups_counts(groups):
    physical = limits.memory()
    assert physical[1] == "this machine has"
    groups("0::/job/step\n")
    assert limits.memory() == physical
    names = {"job__step__memory.max": "max\n", "job__memory.max": f"{GIB}\n"}
    groups("0::/job/step\n", **names, **{"memory.max": f"{2 * GIB}\n"})
    allowed = (GIB, "its control group (of a container, or a job) may have")
    assert limits.memory() == allowed
    groups("4:cpu,memory:/a\n", memory__a__memory_in_bytes=f"{GIB}\n")
    assert limits.memory() == allowed
    groups("4:cpu,memory:/a\n", memory__a__memory_in_bytes=f"{2**63 - 4096}\n")  # none is set
    assert limits.memory() == physical


def test_a_run_that_the_control_group_cannot_hold_is_refused(groups, tiny):
    groups("0::/\n", **{"memory.max": str(2**20)})
    with pytest.raises(ConfigError, match=r"its control group .* may have 0.0"):
        compose(tiny)


@pytest.mark.parametrize("kind", ["AS", "NOFILE"])
def test_too_few_addresses_or_open_files_are_refused_before_the_run(kind, ulimit, tiny):
    ulimit(getattr(resource, f"RLIMIT_{kind}"), 40)
    with pytest.raises(ConfigError) as caught:
        compose([*tiny, "launch.processes=2"])
    (line,) = caught.value.problems
    if kind == "AS":
        assert line.startswith("ulimit -v 0: Python and torch map ")
        assert "type ulimit -v unlimited, or at least " in line
    else:
        assert line == (
            "ulimit -n 40: launch.processes=2 and data.num_workers=0 need 72 open files in each "
            "process; type ulimit -n 72, or lower data.num_workers"
        )


def test_the_soft_limit_of_open_files_is_raised():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, hard))
    try:
        assert limits.open_files_problems(world_size=2, num_workers=1) == []
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (80, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_addresses_that_torch_does_not_fit_into_are_one_line(tmp_path):
    """It would end in a traceback, or be aborted for a std::bad_alloc."""
    done = subprocess.run(
        ["bash", "-c", 'ulimit -v 1500000; exec "$@"', "-", sys.executable, str(TOOL), QUICKSTART],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "error: ulimit -v 1500000: torch cannot be loaded with so few addresses; type ulimit -v "
        "unlimited, or some GiB more\n",
    )


# ---- errors of a run that has come to a limit


@pytest.mark.parametrize(
    ("error", "limit", "code", "line"),
    [
        (MemoryError(), "AS", 1, "out of memory (MemoryError); ulimit -v is 97: lower data.batch"),
        (RuntimeError("could not create a primitive"), "AS", 1, "out of memory (could not create"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "AS", 1, "out of memory ([Errno 12] C"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "AS", 1, "out of memory (CUDA out"),
        (
            OSError(errno.EMFILE, "Too many open files", "x.png"),
            "NOFILE",
            1,
            "[Errno 24] Too many open files: 'x.png'; ulimit -n is 100000: raise it",
        ),
        (
            BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
            "NPROC",
            1,
            "no further process or thread can be started ([Errno 11] Resource temporarily "
            "unavailable); ulimit -u is 100000: lower launch.processes or data.num_workers, or "
            "raise the limit of your account",
        ),
        (RuntimeError("can't start new thread"), "NPROC", 1, "no further process or thread can "),
        (
            OSError(errno.ENOSPC, "No space left on device", "results.json"),
            "FSIZE",
            5,
            "[Errno 28] No space left on device: 'results.json'",
        ),
        (OSError(errno.EFBIG, "File too large"), "FSIZE", 5, "[Errno 27] File too large; ulimit -"),
    ],
)
def test_an_error_of_a_limit_is_one_line(error, limit, code, line, ulimit, monkeypatch, capsys):
    ulimit(getattr(resource, f"RLIMIT_{limit}"), 100_000)

    def fail(*_):
        raise error

    monkeypatch.setattr("ssl_platform.cli._composed", fail)
    assert main([QUICKSTART]) == code
    told = capsys.readouterr().err
    assert told.startswith(f"error: {line}")
    assert told.count("\n") == 1


def test_other_errors_keep_their_traceback():
    for error in (RuntimeError("shapes differ"), OSError(errno.ENOENT, "no such file"), KeyError()):
        assert limits.limit_error(error) is None


def test_a_limit_that_a_rank_comes_to_is_one_line_too(ulimit):
    told = rank.to_raise(MemoryError("std::bad_alloc"), 1)
    assert type(told) is PlatformError
    assert str(told).startswith("rank 1: out of memory (std::bad_alloc): lower data.batch_size")
    assert type(rank.to_raise(OSError(errno.EDQUOT, "Disk quota exceeded"), 1)) is DiskError
    assert str(rank.exit_error(1, -6)) == "rank 1 was killed by SIGABRT"
    ulimit(resource.RLIMIT_AS, 10**10)
    assert str(rank.exit_error(1, -6)).endswith("SIGABRT (out of memory is the usual cause)")


# ---- disks


@pytest.mark.parametrize(
    ("number", "free_names", "why"),
    [
        (
            errno.ENOSPC,
            0,
            "No space left on device: no inodes are free, which every file takes one of; remove "
            "some files",
        ),
        (errno.ENOSPC, 7, "No space left on device: it needs 1.5 MiB, 0.2 MiB are free"),
        (errno.EDQUOT, 7, "Disk quota exceeded"),
        (errno.EROFS, 7, "Read-only file system"),
        (errno.EFBIG, 7, "File too large: ulimit -f is 100, a checkpoint takes 1.5 MiB"),
    ],
)
def test_why_a_checkpoint_cannot_be_written(number, free_names, why, ulimit, tmp_path, monkeypatch):
    ulimit(resource.RLIMIT_FSIZE, 102_400)
    usage = SimpleNamespace(total=GIB, free=2**18)
    names = SimpleNamespace(f_files=100, f_favail=free_names)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    monkeypatch.setattr(os, "statvfs", lambda _: names)
    error = OSError(number, os.strerror(number))
    assert disk.why_not_written(error, tmp_path / "checkpoints", 3 * 2**19) == why


def test_a_disk_without_inodes_is_refused_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr("ssl_platform.engine.saver._checkpoint_bytes", lambda _: 1)
    names = SimpleNamespace(f_files=100, f_favail=3, f_bavail=9, f_blocks=9, f_bfree=9, f_frsize=1)
    monkeypatch.setattr(os, "statvfs", lambda _: names)
    saver = Saver(tmp_path, None)
    with pytest.raises(ConfigError, match=r": 3 inodes are free there, a checkpoint needs 4, one "):
        saver.check_room(None)
    names.f_files = 0  # a file system that makes them as it goes
    saver.check_room(None)


def test_a_working_directory_that_was_removed_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main([QUICKSTART]) == 2
    assert capsys.readouterr().err == (
        "error: the working directory is gone (No such file or directory): cd to one that is "
        "there\n"
    )


def test_the_disk_is_the_reason_behind_what_torch_says(tmp_path):
    class Full(io.BytesIO):
        def write(self, _):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises((RuntimeError, OSError)) as caught:
        torch.save({"a": torch.ones(2**20)}, Full())
    assert disk.why_not_written(caught.value, tmp_path, 1).startswith("No space left on device: ")


def test_a_name_that_is_too_long_is_told():
    error = OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), "x")
    assert isinstance(limits.limit_error(error), ConfigError)
