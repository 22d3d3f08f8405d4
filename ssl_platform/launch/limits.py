"""What this process may use of its machine, and the errors of one that has reached a limit."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ssl_platform.errors import ConfigError, DiskError, PlatformError, first_line
from ssl_platform.files import OF_DISK

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")
RUN_BYTES = 3 * 2**29  # of addresses: threads, kernels and their scratch, sockets
OPEN_FILES = 64  # of a process, beside what it has for each rank and each data worker
FILES_OF_RANK, FILES_OF_WORKER = 4, 8
ULIMITS = {  # by flag: what it limits, and its unit
    "-f": (resource.RLIMIT_FSIZE, 1024),
    "-n": (resource.RLIMIT_NOFILE, 1),
    "-u": (resource.RLIMIT_NPROC, 1),
    "-v": (resource.RLIMIT_AS, 1024),
}
MEMORY_WORDS = (  # of torch, of C++ and of the loader of libraries
    "allocate memory",
    "out of memory",
    "bad_alloc",
    "create a primitive",
    "unable to mmap",
    "failed to map segment",
)


def memory() -> tuple[int, str]:
    """Bytes that this process may have, and the beginning of a sentence about them."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    allowed = min(_cgroup_limits(), default=physical)
    if allowed < physical:
        return allowed, "its control group (of a container, or a job) may have"
    return physical, "this machine has"


def _cgroup_limits() -> Iterator[int]:
    """Memory limits, in bytes, of the control groups that this process is in and their parents."""
    lines = OWN_CGROUPS.read_text().splitlines() if OWN_CGROUPS.exists() else []
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = CGROUPS, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = CGROUPS / "memory", "memory.limit_in_bytes"
        else:
            continue
        folder = root / group.lstrip("/")
        for place in (folder, *folder.parents):
            limit = place / name
            text = limit.read_text().strip() if limit.is_file() else ""
            if text.isdecimal():
                yield int(text)
            if place == root:
                break


def ulimit(kind: int) -> int | None:
    """The limit of a `resource.RLIMIT_...`; None for none."""
    soft, _ = resource.getrlimit(kind)
    return None if soft == resource.RLIM_INFINITY else soft


def has_few_addresses() -> bool:
    """Whether ``ulimit -v`` limits the addresses of this process."""
    return ulimit(resource.RLIMIT_AS) is not None


def addresses_problems(needed: int = 0) -> list[str]:
    """What is wrong with ``ulimit -v`` for a run that takes ``needed`` bytes in each process."""
    limit = ulimit(resource.RLIMIT_AS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    least = mapped + RUN_BYTES + needed
    if limit is None or limit >= least:
        return []
    return [
        f"ulimit -v {limit // 1024}: Python and torch map {_gib(mapped)} of addresses, and with "
        f"this run each process takes {_gib(least)}; type ulimit -v unlimited, or at least "
        f"{-(-least // 1024)}"
    ]


def check_torch_fits() -> None:
    """Load torch in another process first where addresses are limited: it may abort.

    Raises:
        ConfigError: it cannot be loaded.
    """
    limit = ulimit(resource.RLIMIT_AS)
    if limit is None:
        return
    code = "import sys; sys.path[:0] = sys.argv[1:]; import ssl_platform.job.check"
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode != 0:
        raise ConfigError(
            [
                f"ulimit -v {limit // 1024}: torch cannot be loaded with so few addresses; type "
                "ulimit -v unlimited, or some GiB more"
            ]
        )


def open_files_problems(world_size: int, num_workers: int) -> list[str]:
    """What is wrong with ``ulimit -n``; its soft limit is raised to what a process needs."""
    needed = OPEN_FILES + FILES_OF_RANK * world_size + FILES_OF_WORKER * max(0, num_workers)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return []
    if hard == resource.RLIM_INFINITY or hard >= needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
        return []
    return [
        f"ulimit -n {hard}: launch.processes={world_size} and data.num_workers={num_workers} need "
        f"{needed} open files in each process; type ulimit -n {needed}, or lower data.num_workers"
    ]


def limit_error(error: BaseException) -> PlatformError | None:
    """The error to show where a limit is the reason of ``error``; None where none is."""
    number = error.errno if isinstance(error, OSError) else None
    text = first_line(error)
    if number in OF_DISK:
        return DiskError(text + (_ulimit_is("-f") if number == errno.EFBIG else ""))
    if number == errno.ENAMETOOLONG:
        return ConfigError([text])
    if number in (errno.EMFILE, errno.ENFILE):
        return PlatformError(f"{text}{_ulimit_is('-n')}: raise it")
    if number == errno.EAGAIN or "start new thread" in text:
        return PlatformError(
            f"no further process or thread can be started ({text}){_ulimit_is('-u')}: lower "
            "launch.processes or data.num_workers, or raise the limit of your account"
        )
    if not _is_of_memory(error, text):
        return None
    return PlatformError(
        f"out of memory ({text}){_ulimit_is('-v')}: lower data.batch_size, "
        "data.micro_batch, data.eval_batch_size, data.num_workers or launch.processes, or give it "
        "more"
    )


def _is_of_memory(error: BaseException, text: str) -> bool:
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    may_be = isinstance(error, RuntimeError | ImportError | OSError)
    return may_be and any(word in text.lower() for word in MEMORY_WORDS)


def _ulimit_is(flag: str) -> str:
    """``; ulimit -n is 1024``, or nothing where there is no such limit."""
    kind, unit = ULIMITS[flag]
    limit = ulimit(kind)
    return "" if limit is None else f"; ulimit {flag} is {limit // unit}"


def _gib(num_bytes: float) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
