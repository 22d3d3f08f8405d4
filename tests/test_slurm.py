"""Jobs for SLURM: what is submitted, and what a job does when it runs. SLURM itself is played."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import launch_work
import pytest
from forked import tool
from launch_work import launch_options
from launched import DEADLINE, LOOPBACK, eventually, listening, rank_pids

from ssl_platform.errors import ConfigError
from ssl_platform.launch import Job
from ssl_platform.launch.slurm import Slurm, _Task

SBATCH = '#!/bin/sh\ncp "$1" "$FAKE_SLURM/script"; echo Submitted batch job 41\n'
SCONTROL = '#!/bin/sh\necho "$@" >> "$FAKE_SLURM/scontrol"\n'
SRUN = """#!{python}
import os, signal, subprocess, sys
output = sys.argv[sys.argv.index("--output") + 1]
command = sys.argv[sys.argv.index("--output") + 2 :]
tasks = []
signal.signal(signal.SIGUSR1, lambda number, _: [task.send_signal(number) for task in tasks])
signal.signal(signal.SIGTERM, lambda number, _: [task.send_signal(number) for task in tasks])
for rank in range(int(os.environ["SLURM_NTASKS"])):
    variables = {{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)}}
    with open(output.replace("%j", "41").replace("%t", str(rank)), "ab") as log:
        tasks.append(subprocess.Popen(
            command, env={{**os.environ, **variables}}, stdout=log, stderr=log))
sys.exit(max(task.wait() for task in tasks))
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch) -> Path:
    """A cluster of one machine: commands on PATH that write down what they are asked."""
    for name, text in (("sbatch", SBATCH), ("scontrol", SCONTROL), ("srun", SRUN)):
        script = tmp_path / "bin" / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(text.format(python=sys.executable) if name == "srun" else text)
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    return tmp_path


def slurm_options(folder: Path, **given) -> Slurm:
    default = {
        "cluster": "slurm",
        "folder": str(folder / "jobs"),
        "partition": None,
        "minutes": 30,
        "max_requeues": 2,
        "nodes": 1,
        "gpus_per_node": 0,
        "cpus_per_task": 2,
        "mem_gb": None,
        "comment": None,
        "more": {},
    }
    return Slurm(**{**default, **given})


def submitted(folder: Path, work, *jobs: tuple, processes: int = 2, **given):
    launcher = slurm_options(folder, **given)
    options = launch_options(processes, stop_seconds=90.0, slurm=launcher)
    return launcher.launch([Job(work, args, options, name="sweep/lr=0.1") for args in jobs])


@pytest.fixture
def run_job(slurm) -> Iterator:
    """Run the submitted script as SLURM does; a job that is left over is killed."""
    started = []

    def _run(num_tasks: int, restarts: int = 0) -> subprocess.Popen:
        job = {"SLURM_JOB_ID": "41", "SLURM_NTASKS": str(num_tasks), "SLURM_JOB_NUM_NODES": "1"}
        job |= {"SLURM_JOB_NODELIST": "localhost", "SLURM_RESTART_COUNT": str(restarts)}
        command = ["bash", str(slurm / "script")]
        environment = {**os.environ, **job}
        started.append(subprocess.Popen(command, env=environment, start_new_session=True))
        return started[-1]

    yield _run
    for job in started:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
        job.wait()


def flags(script: Path) -> dict[str, str]:
    lines = [line for line in script.read_text().splitlines() if line.startswith("#SBATCH")]
    pairs = [shlex.split(line)[1].removeprefix("--").partition("=") for line in lines]
    return {key: value for key, _, value in pairs}


def test_what_is_asked_of_slurm(slurm):
    (job,) = submitted(
        slurm, launch_work.alone, ("x",),
        partition="gpu", nodes=2, gpus_per_node=2, mem_gb=64, comment="deadline",
        more={"qos": "high", "constraint": "a100"},
    )  # fmt: skip
    assert (job.job_id, job.log) == ("41", slurm / "jobs" / "41_0_log.out")
    asked = flags(slurm / "script")
    expected = {
        "job-name": "sweep-lr-0.1",
        "partition": "gpu",
        "time": "30",
        "nodes": "2",
        "ntasks-per-node": "2",
        "gpus-per-node": "2",
        "cpus-per-task": "2",
        "mem": "64GB",
        "comment": "deadline",
        "qos": "high",
        "constraint": "a100",
        "signal": "USR1@90",
        "requeue": "",
        "output": str(slurm / "jobs" / "%j_0_log.out"),
    }
    assert expected.items() <= asked.items()


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"partition": "x; touch y"}, "partition=x; touch y: letters, digits, dots, dashes and"),
        ({"comment": "a\n#SBATCH --wrap=id"}, "comment=a\n#SBATCH --wrap=id: letters, digits"),
        ({"more": {"qos": "$(id)"}}, "more.qos=qos$(id): letters, digits, dots"),
        ({"more": {"a b": 1}}, "more.a b=a b1: letters, digits, dots"),
    ],
)
def test_what_slurm_must_not_be_given(tmp_path, given, problem):
    options = slurm_options(tmp_path, **given)
    (line,) = options.problems(launch_options(1, slurm=options))
    assert line.startswith(f"slurm.{problem}")


def test_without_submitit_or_slurm_one_line_says_so(slurm, monkeypatch):
    (slurm / "bin" / "sbatch").write_text("#!/bin/sh\necho invalid partition >&2; exit 1\n")
    with pytest.raises(ConfigError, match=r"^launch=slurm: cannot submit: .*invalid partition"):
        submitted(slurm, launch_work.alone, ("x",))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ConfigError, match=r"^launch=slurm: cannot submit: .*on a slurm cluster"):
        submitted(slurm, launch_work.alone, ("x",))
    monkeypatch.setitem(sys.modules, "submitit", None)
    options = slurm_options(slurm)
    assert options.problems(launch_options(1, slurm=options)) == [
        "slurm.cluster: submitit is not installed; pip install submitit"
    ]


@pytest.mark.parametrize(
    ("number", "restarts", "requeues"),
    [
        (signal.SIGUSR1, 1, "requeue 41\n"),
        (signal.SIGTERM, 0, ""),  # scancel: it must not return
    ],
)
def test_a_job_whose_time_is_up_saves_and_queues_again(slurm, run_job, number, restarts, requeues):
    submitted(slurm, launch_work.work_in_job, ("save_when_asked", str(slurm)))
    job = run_job(2, restarts)
    pids = rank_pids(slurm)
    assert {address for pid in pids for address in listening(pid)} <= set(LOOPBACK)
    for pid in pids:
        os.kill(pid, number)
    assert job.wait(timeout=DEADLINE) == 75
    record = slurm / "scontrol"
    assert (slurm / "saved0").exists()
    assert (slurm / "saved1").exists()
    assert "error: saved" in (slurm / "jobs" / "41_0_log.out").read_text()
    assert (record.read_text() if record.exists() else "") == requeues


def test_the_last_turn_is_not_queued_again(slurm, monkeypatch, capsys):
    job = _Task(launch_work.alone, (), max_requeues=2)
    for restarts in ("1", "2"):
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
        job._requeue(SimpleNamespace(global_rank=0, job_id="41"))
    assert (slurm / "scontrol").read_text() == "requeue 41\n"
    assert capsys.readouterr().err.splitlines() == [
        "requeued, 2 of 2 times", "launch.slurm.max_requeues=2: not requeued",
    ]  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # submitit's Popen
def test_submitit_s_own_machine_runs_a_job(slurm):
    (job,) = submitted(slurm, launch_work.work_in_job, ("write_world", str(slurm)), cluster="local")
    assert eventually(lambda: len(list(slurm.glob("world?"))) == 2)
    assert (slurm / "world1").read_text() == "3.0 of 2"
    assert job.log.exists()
    os.waitpid(int(job.job_id), 0)


def test_a_training_is_submitted_and_runs(slurm, run_job, tiny, monkeypatch):
    monkeypatch.chdir(slurm)
    arguments = [*tiny, "num_epochs=1", "~hooks.knn", "schedule.warmup_epochs=0", "name=job"]
    done = tool(*arguments, "launch=slurm", "launch.slurm.cpus_per_task=1")
    assert done.stdout == f"submitted job 41, log in {slurm}/runs/slurm/41_0_log.out\n", done.stderr
    assert done.returncode == 0
    assert not (slurm / "runs/job/metrics.jsonl").exists()
    assert run_job(1).wait(timeout=DEADLINE) == 0, (slurm / "runs/slurm/41_0_log.out").read_text()
    assert (slurm / "runs/job/summary.json").exists()


def test_a_sweep_is_one_array(slurm, tiny, monkeypatch):
    monkeypatch.chdir(slurm)
    arguments = [*tiny, "launch=slurm", "name=sweep", "-m", "seed=1,2"]
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("submitted")] == [
        f"submitted job 41_{i}, log in {slurm}/runs/slurm/41_{i}_0_log.out" for i in (0, 1)
    ]
    assert flags(slurm / "script")["array"] == "0-1%2"
    assert not (slurm / "runs/sweep").exists()
