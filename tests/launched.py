"""What tests of launching share."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import launch_work
from launch_work import launch, launch_options

WORK = Path(launch_work.__file__)
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF00000100007F")  # as in /proc/net
TASK = {"SLURM_PROCID": "2", "SLURM_LOCALID": "1", "SLURM_STEP_ID": "0"}  # of a job of SLURM
MPI_TASK = {
    f"OMPI_COMM_WORLD_{name}": value
    for name, value in (("RANK", "3"), ("SIZE", "8"), ("LOCAL_RANK", "1"), ("LOCAL_SIZE", "4"))
}
DEADLINE = 200.0  # of a machine with much else to do
WORLD_VARIABLES = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
    *("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_JOB_NODELIST"),
    *("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_JOB_NUM_NODES", "TORCHELASTIC_RUN_ID"),
)


def two_ranks(work: Callable, *args: str, **options):
    return launch(work, args, launch_options(2, **options), device="cpu")


def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def rank_pids(folder: Path) -> list[int]:
    files = [folder / "rank0", folder / "rank1"]
    assert eventually(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


def listening(pid: int) -> list[str]:
    """Local addresses, as /proc/net writes them, that a process listens on."""
    links = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            links.append(os.readlink(descriptor))
    addresses = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in links:
                addresses.append(fields[1].split(":")[0])
    return addresses
