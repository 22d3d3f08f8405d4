"""One process at a time works in a run directory.

The lock is the kernel's, so it ends with the process that holds it, however that ends. The file
says who holds it. Some network file systems lock within one machine only: there, what the file
says about another machine is all that is known, and is believed.
"""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_platform.errors import ConfigError

LOCK_FILE = ".lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make ``directory`` and hold its lock.

    Raises:
        ConfigError: another process has it, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # without O_TRUNC: whoever fails to get the lock must leave the owner's name
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        problem = f"output_dir={directory}: cannot be written ({error.strerror})"
        raise ConfigError([problem]) from error
    try:
        _take(descriptor, directory)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, directory: Path) -> None:
    # lockf and not flock: a data worker that outlives this process does not inherit it
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ConfigError([_in_use(directory, _owner(descriptor))]) from None
    except OSError as error:
        warnings.warn(
            f"{directory}: this file system cannot lock ({error.strerror}); start no second run "
            "in this directory",
            stacklevel=2,
        )
    owner = _owner(descriptor)
    if owner and not _is_stale(owner):
        raise ConfigError(
            [f"{_in_use(directory, owner)}; if it no longer runs, remove {directory / LOCK_FILE}"]
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_me()).encode(), 0)


def _me() -> dict[str, str]:
    return {
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "boot": BOOT_ID.read_text().strip(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }


def _owner(descriptor: int) -> dict[str, str]:
    """Who wrote the file; empty when nobody did."""
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except ValueError:  # it was killed while it wrote its name
        return {}


def _is_stale(owner: dict[str, str]) -> bool:
    """Whether ``owner``, whose lock we have got, is certainly gone.

    It was on this machine, or it was this very job before SLURM started it again elsewhere.
    """
    me = _me()
    return owner.get("host") == me["host"] or (bool(me["job"]) and owner.get("job") == me["job"])


def _in_use(directory: Path, owner: dict[str, str]) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return f"output_dir={directory}: {who} works in it"
