"""Submit work to SLURM through submitit, and run it there."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ssl_platform.errors import ConfigError, PlatformError, StopRequested
from ssl_platform.launch.job import (
    EX_TEMPFAIL,
    Job,
    Launcher,
    LaunchOptions,
    SlurmOptions,
    Submitted,
    plain_name,
)
from ssl_platform.launch.meeting import port_of_job
from ssl_platform.registry import LAUNCHERS

PACKAGE_PARENT = Path(__file__).parents[2]


NAME = re.compile(r"[A-Za-z0-9._-]+")  # nothing that a shell or sbatch could read as more


@LAUNCHERS.register()
@dataclass(frozen=True)
class Slurm(SlurmOptions, Launcher):
    """Submits jobs to SLURM; several become one array job."""

    is_elsewhere = True

    def world_size(self, options: LaunchOptions) -> int:
        """``launch.processes`` on each node."""
        return options.processes * self.nodes

    def problems(self, options: LaunchOptions) -> list[str]:
        """See `Launcher.problems`."""
        key = "slurm" if options.slurm is not None else "launcher"
        names = {"partition": self.partition, "comment": self.comment}
        names |= {f"more.{key}": f"{key}{value}" for key, value in self.more.items()}
        problems = [
            f"{key}.{name}={text}: letters, digits, dots, dashes and underscores only"
            for name, text in names.items()
            if text is not None and not NAME.fullmatch(text)
        ]
        if find_spec("submitit") is None:
            problems.append(f"{key}.cluster: submitit is not installed; pip install submitit")
        if options.max_restarts and self.world_size(options) > 1:
            problems.append(
                f"max_restarts={options.max_restarts}: with launch=slurm only of one process; "
                "SLURM starts a job of several again as it is set up to"
            )
        return problems

    def launch(self, jobs: Sequence[Job]) -> list[Submitted]:
        """Submit jobs.

        Raises:
            ConfigError: submitit or SLURM is not installed, or SLURM refuses the job.
        """
        try:
            executor = _executor(self, jobs[0].options, jobs[0].name)
            tasks = [_Task(job.work, job.args, self.max_requeues) for job in jobs]
            submitted = executor.submit_array(tasks)
        except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
            raise ConfigError([f"launch=slurm: cannot submit: {_last_line(error)}"]) from error
        return [Submitted(job.job_id, job.paths.stdout) for job in submitted]


def _executor(slurm: SlurmOptions, options: LaunchOptions, name: str) -> Any:
    import submitit

    executor = submitit.AutoExecutor(folder=slurm.folder, cluster=slurm.cluster)
    wanted = {
        "name": plain_name(name),
        "timeout_min": slurm.minutes,
        "nodes": slurm.nodes,
        "tasks_per_node": options.processes,
        "gpus_per_node": slurm.gpus_per_node,
        "cpus_per_task": slurm.cpus_per_task,
        "mem_gb": slurm.mem_gb,
        "slurm_partition": slurm.partition,
        "slurm_comment": slurm.comment,
    }
    executor.update_parameters(
        **{key: value for key, value in wanted.items() if value is not None},
        stderr_to_stdout=True,
        # a checkout that is not installed has to be found by the job too
        slurm_setup=[f"export PYTHONPATH={shlex.quote(str(PACKAGE_PARENT))}:$PYTHONPATH"],
        slurm_additional_parameters={
            "requeue": True,
            "signal": f"USR1@{round(options.stop_seconds)}",
            **slurm.more,
        },
    )
    return executor


@dataclass(frozen=True)
class _Task:
    """What each task of a submitted job runs."""

    work: Callable[..., Any]
    args: tuple
    max_requeues: int

    def __call__(self) -> None:
        import submitit

        environment = submitit.JobEnvironment()
        os.environ.update(_world(environment))
        signals = _Signals()
        try:
            self.work(*self.args)
        except PlatformError as error:
            print(f"error: {error}", file=sys.stderr)
            if isinstance(error, StopRequested) and signal.SIGUSR1 in signals.received():
                self._requeue(environment)
            raise SystemExit(error.exit_code) from None

    def _requeue(self, environment: Any) -> None:
        """Have SLURM start the job again; its time was up, and it goes on from its checkpoint."""
        requeues = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
        if environment.global_rank != 0:
            return
        if requeues >= self.max_requeues:
            print(f"launch.slurm.max_requeues={self.max_requeues}: not requeued", file=sys.stderr)
            return
        print(f"requeued, {requeues + 1} of {self.max_requeues} times", file=sys.stderr)
        subprocess.run(["scontrol", "requeue", environment.job_id], check=True, timeout=60)


class _Signals:
    """Records the signals of this process, whatever handlers it has.

    SIGUSR1 says that the time is nearly up. SIGTERM also comes of ``scancel``, after which a job
    must not return; after a preemption SLURM requeues it by itself.
    """

    def __init__(self) -> None:
        self._reader, writer = os.pipe()
        for descriptor in (self._reader, writer):
            os.set_blocking(descriptor, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1):  # until the training answers them itself
            signal.signal(number, _stop)

    def received(self) -> bytes:
        """Numbers of the signals since the last call."""
        try:
            return os.read(self._reader, 65536)
        except BlockingIOError:
            return b""


def _stop(number: int, _: Any) -> None:
    raise StopRequested(f"ended by {signal.Signals(number).name} before training", EX_TEMPFAIL)


def _world(environment: Any) -> dict[str, str]:
    """The variables by which the tasks of a job find each other; none for a single task."""
    if environment.num_tasks == 1:
        return {}
    number = int(environment.raw_job_id)
    return {
        "RANK": str(environment.global_rank),
        "LOCAL_RANK": str(environment.local_rank),
        "WORLD_SIZE": str(environment.num_tasks),
        "LOCAL_WORLD_SIZE": str(environment.num_tasks // environment.num_nodes),
        "MASTER_ADDR": environment.hostnames[0],
        "MASTER_PORT": str(port_of_job(number)),
    }


def _last_line(error: Exception) -> str:
    text = getattr(error, "stderr", None) or str(error)
    text = text.decode(errors="replace") if isinstance(text, bytes) else text
    return (text.strip().splitlines() or [type(error).__name__])[-1]
