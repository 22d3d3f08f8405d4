"""Work for the ranks that tests of launching start; run as a script, it launches one by name.

``launch_work.py NAME PROCESSES [ARGUMENT...]`` prints ``result: ...``, or ``error: TYPE: message``
and leaves with the exit code of the error, as the command line of the platform does.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from forked import fork_ranks

from ssl_platform.errors import CheckpointError, ConfigError, PlatformError, StopRequested
from ssl_platform.launch import Job, LaunchOptions, launcher_here
from ssl_platform.launch.progress import report_step


class TwoPartError(PlatformError):
    """Its constructor does not take its message."""

    exit_code = 7

    def __init__(self, what: str, why: str):
        super().__init__(f"{what}: {why}")


def launch(work: Callable, args: tuple, options: LaunchOptions, *, device: str) -> Any:
    """What the launcher of a job on this machine gives."""
    return launcher_here(options).launch([Job(work, args, options, device)])[0]


def launch_options(processes: int, **given: Any) -> LaunchOptions:
    default = {
        "timeout_minutes": 2.0,
        "stop_seconds": 25.0,
        "max_restarts": 0,
        "slurm": None,
        "threads": 1,
        "worker_start": None,
    }
    return LaunchOptions(processes, **{**default, **given})


def rank() -> int:
    return dist.get_rank()


def collective() -> float:
    total = torch.ones(1)
    dist.all_reduce(total)
    return total.item()


def describe(text: str) -> dict:
    total = torch.tensor([float(rank() + 1)])
    dist.all_reduce(total)
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "OMP_NUM_THREADS")
    return {
        "text": text,
        "total": total.item(),
        "threads": torch.get_num_threads(),
        "environment": {name: os.environ.get(name) for name in names},
    }


def alone(text: str) -> dict:
    return {"text": text, "group": dist.is_initialized(), "pid": os.getpid()}


def in_rank_1(fail: Callable[[], None]) -> None:
    """A work function: rank 1 fails, while rank 0 waits for it in a collective."""
    collective()
    if rank() == 1:
        fail()
    collective()


def config_error() -> None:
    in_rank_1(lambda: _raise(ConfigError(["loss.temperature=0: too cold", "data.root: no folder"])))


def bug() -> None:
    in_rank_1(lambda: {}["missing"])


def killed() -> None:
    in_rank_1(lambda: os.kill(os.getpid(), signal.SIGKILL))


def left_75() -> None:
    in_rank_1(lambda: sys.exit(75))


def left_early() -> None:
    in_rank_1(lambda: os._exit(0))


def wrapped_peer_error() -> None:
    """Rank 0 raises an error of its own because rank 1 is gone."""
    try:
        config_error()
    except RuntimeError as error:
        raise CheckpointError("rank 1 is the reason") from error


def stubborn(folder: str) -> None:
    """Rank 1 fails; rank 0 sleeps and ignores SIGTERM."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(folder, f"rank{rank()}", str(os.getpid()))
    collective()
    if rank() == 1:
        while not Path(folder, "sleeps").exists():  # rank 0 is still in the collective
            time.sleep(0.02)
        raise TwoPartError("the queue", "too short")
    write(folder, "sleeps", "")
    time.sleep(600)


def hang() -> None:
    """Rank 0 waits for a rank that never comes."""
    collective()
    report_step(3)
    if rank() == 1:
        time.sleep(600)
    collective()


def sleep_all() -> None:
    """No rank waits for another, and none works."""
    collective()
    report_step(rank())
    time.sleep(600)


def work_alone(seconds: str) -> float:
    """Rank 0 computes for longer than the time-out, without a step, as rank 1 does."""
    end = time.monotonic() + float(seconds)
    while time.monotonic() < end:
        torch.ones(300, 300) @ torch.ones(300, 300)
        time.sleep(0.02)
    return collective()


def killed_at_step() -> None:
    report_step(7)
    killed()


def stopped() -> None:
    """The kernel stops rank 1, which can then show no stack."""
    collective()
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    collective()


def run_on(folder: str) -> None:
    """Write ``rank<r>`` with the process id, then work until killed."""
    write(folder, f"rank{rank()}", str(os.getpid()))
    while True:
        collective()
        time.sleep(0.02)


def save_when_asked(folder: str) -> None:
    """As run_on; the first signal of any kind ends it as the engine does."""
    asked = []
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    write(folder, f"rank{rank()}", str(os.getpid()))
    while True:
        number = torch.tensor(float(max(asked, default=0)))
        dist.all_reduce(number, op=dist.ReduceOp.MAX)
        if number > 0:
            write(folder, f"saved{rank()}", str(len(asked)))
            raise StopRequested("saved", 130 if number == signal.SIGINT else 75)
        time.sleep(0.02)


def deaf(folder: str) -> None:
    """As run_on; it records signals and goes on."""
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, lambda number, frame: write(folder, f"heard{rank()}", ""))
    run_on(folder)


def write_world(folder: str) -> None:
    total = torch.tensor([float(rank() + 1)])
    dist.all_reduce(total)
    write(folder, f"world{rank()}", f"{total.item()} of {dist.get_world_size()}")


def work_in_job(name: str, *args: str) -> None:
    """What a submitted job does: join the others, and work."""
    launch(globals()[name], args, launch_options(2), device="cpu")


def once_hangs() -> int:
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    collective()
    if attempt == 0 and rank() == 1:
        time.sleep(600)
    collective()
    return attempt


def always_killed(folder: str) -> None:
    Path(folder, f"attempt{os.environ['TORCHELASTIC_RESTART_COUNT']}_{rank()}").touch()
    killed()


def alone_in_a_rank(folder: str) -> int:
    attempt = int(os.environ["TORCHELASTIC_RESTART_COUNT"])
    if attempt == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.getpid() != int(folder)
    return attempt


def write(folder: str, name: str, text: str) -> None:
    part = Path(folder, f"{name}.part")
    part.write_text(text)
    part.rename(Path(folder, name))


def _raise(error: Exception) -> None:
    raise error


def main() -> None:
    name, processes, *args = sys.argv[1:]
    given = json.loads(os.environ.get("LAUNCH_OPTIONS", "{}"))
    if os.environ.get("FORK_RANKS"):
        fork_ranks()
    try:
        options = launch_options(int(processes), **given)
        result = launch(globals()[name], tuple(args), options, device="cpu")
    except PlatformError as error:
        print(f"error: {type(error).__name__}: {error}", flush=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    print(f"result: {json.dumps(result)}", flush=True)


if __name__ == "__main__":
    main()
