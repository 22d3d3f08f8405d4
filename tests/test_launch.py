import logging
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import launch_work
import pytest
import torch
from forked import fork_ranks
from launch_work import launch_options
from torch import distributed
from torch.distributed.elastic import multiprocessing as elastic

from ssl_platform.errors import ConfigError
from ssl_platform.launch import RankFailedError, joined_world, launch, meeting
from ssl_platform.launch.peer_errors import is_peer_error, is_peer_timeout

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


def two_ranks(work: Callable, *args: str, **options):
    return launch(work, args, launch_options(2, **options), device="cpu")


def eventually(condition: Callable[[], object], seconds: float = DEADLINE) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def rank_pids(folder: Path) -> list[int]:
    files = [folder / "rank0", folder / "rank1"]
    assert eventually(lambda: all(file.exists() for file in files))
    return [int(file.read_text()) for file in files]


def all_gone(pids: list[int]) -> bool:
    return eventually(lambda: not any(map(is_running, pids)))


# ---- results


def test_one_process_runs_here_without_a_group() -> None:
    result = launch(launch_work.alone, ("hello",), launch_options(1), device="cpu")
    assert result == {"text": "hello", "group": False, "pid": os.getpid()}
    assert torch.get_num_threads() == 1


def test_two_ranks_reduce_and_rank_0_returns(capfd: pytest.CaptureFixture) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    text = "x" * 1_000_000  # more than a pipe holds
    result = two_ranks(launch_work.describe, text)
    assert result["text"] == text
    assert result["total"] == 3.0
    assert result["threads"] == 1
    assert result["environment"] == {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "OMP_NUM_THREADS": "1",
    }
    assert capfd.readouterr() == ("", "")
    assert before == {number: signal.getsignal(number) for number in before}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ConfigError) as caught:
        launch(launch_work.alone, ("",), launch_options(8), device="cuda")
    assert caught.value.problems == ["launch.processes=8: this machine has 2 GPUs"]


# ---- failures


SIGKILLED = "rank 1 was killed by SIGKILL{} (out of memory is the usual cause)"
FAILURES = {
    launch_work.wrapped_peer_error: (
        ConfigError, "loss.temperature=0: too cold\ndata.root: no folder", 2,
    ),
    launch_work.killed: (RankFailedError, SIGKILLED.format(""), 137),
    launch_work.killed_at_step: (RankFailedError, SIGKILLED.format(" after step 7"), 137),
    launch_work.left_early: (
        RankFailedError, "rank 1 left with exit code 0 before its work was done", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("work", FAILURES, ids=lambda work: work.__name__)
def test_the_error_of_the_first_rank_that_fails_is_raised(work, capfd):
    kind, message, exit_code = FAILURES[work]
    with pytest.raises(kind) as caught:
        two_ranks(work)
    assert (str(caught.value), caught.value.exit_code) == (message, exit_code)
    assert capfd.readouterr() == ("", "")


def test_bug_comes_back_with_one_traceback(capfd: pytest.CaptureFixture) -> None:
    with pytest.raises(RankFailedError) as caught:
        two_ranks(launch_work.bug)
    message = str(caught.value)
    assert message.startswith("rank 1 failed:\nTraceback")
    assert message.endswith("KeyError: 'missing'")
    assert message.count("Traceback") == 1
    assert caught.value.exit_code == 1
    assert capfd.readouterr() == ("", "")


def gloo_group(store: Any, rank: int) -> Any:
    return distributed.ProcessGroupGloo(store, rank, 2, timedelta(seconds=0.3))


@pytest.mark.parametrize("is_late", [True, False])
def test_gloo_s_errors_of_a_rank_that_is_late_or_gone_are_known(is_late, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    store = distributed.HashStore()
    with ThreadPoolExecutor() as pool:
        groups = list(pool.map(partial(gloo_group, store), range(2)))
    if not is_late:
        del groups[1]
    with pytest.raises(RuntimeError) as caught:
        groups[0].allreduce([torch.ones(1)]).wait()
    assert is_peer_error(caught.value)
    assert is_peer_timeout(caught.value) == is_late


def test_errors_of_a_store_are_known_and_others_are_none_of_another_rank():
    with pytest.raises(distributed.DistStoreError) as caught:
        distributed.HashStore().wait(["missing"], timedelta(seconds=0.01))
    assert is_peer_timeout(caught.value)
    assert not is_peer_error(RuntimeError("the request timed out"))
    assert not is_peer_timeout(RuntimeError("the request timed out"))


def test_survivor_that_ignores_sigterm_is_ended(tmp_path: Path) -> None:
    with pytest.raises(RankFailedError) as caught:
        two_ranks(launch_work.stubborn, str(tmp_path))
    assert str(caught.value) == "the queue: too short"  # its class cannot be rebuilt from that
    assert caught.value.exit_code == 7
    assert time.time() - (tmp_path / "rank1").stat().st_mtime < DEADLINE
    assert not any(map(is_running, rank_pids(tmp_path)))


@pytest.mark.parametrize(
    ("work", "first", "place"),
    [
        (launch_work.hang, "rank 1 has stalled after step 3", "in hang"),
        (launch_work.stopped, "rank 1 has stalled", None),
    ],
)
def test_the_rank_that_others_wait_for_is_named_with_its_stack(work, first, place):
    with pytest.raises(RankFailedError) as caught:
        two_ranks(work, timeout_minutes=0.1)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{first}: nothing for launch.timeout_minutes=0.1"
    if place is None:
        assert len(lines) == 1
    else:
        assert lines[1] == "Stack (most recent call first):"
        assert lines[2].endswith(place)


def test_ranks_that_do_nothing_are_named_each_with_its_stack():
    with pytest.raises(RankFailedError) as caught:
        two_ranks(launch_work.sleep_all, timeout_minutes=0.1)
    message = str(caught.value)
    assert [line for line in message.splitlines() if line.startswith("rank")] == [
        f"rank {rank} has stalled after step {rank}: nothing for launch.timeout_minutes=0.1"
        for rank in (0, 1)
    ]
    assert message.count("in sleep_all") == 2


def test_a_rank_that_works_has_not_stalled():
    assert two_ranks(launch_work.work_alone, "10", timeout_minutes=0.1) == 2


# ---- restarts


def test_a_stalled_rank_starts_all_of_them_again(caplog):
    """As a dead one does, in test_restarts.py."""
    with caplog.at_level(logging.WARNING):
        attempt = two_ranks(launch_work.once_hangs, max_restarts=2, timeout_minutes=0.1)
    assert attempt == 1
    (message,) = caplog.messages
    assert message.startswith("rank 1 ")
    assert message.splitlines()[-1] == "restart 1 of 2"


def test_restarts_come_to_an_end(tmp_path):
    with pytest.raises(RankFailedError, match="rank 1 was killed by SIGKILL"):
        two_ranks(launch_work.always_killed, str(tmp_path), max_restarts=1)
    assert len(list(tmp_path.iterdir())) == 4


def test_what_would_fail_again_is_not_restarted(caplog):
    with pytest.raises(ConfigError):
        two_ranks(launch_work.config_error, max_restarts=3)
    with pytest.raises(SystemExit) as caught:
        two_ranks(launch_work.left_75, max_restarts=3)
    assert caught.value.code == 75
    assert not caplog.messages


def test_a_single_process_is_restarted_too():
    result = launch(
        launch_work.alone_in_a_rank,
        (str(os.getpid()),),
        launch_options(1, max_restarts=1),
        device="cpu",
    )
    assert result == 1


# ---- signals and sockets


def test_ranks_listen_on_loopback_only_and_die_with_the_launcher(start, tmp_path: Path) -> None:
    launcher = start(
        *(str(WORK), "run_on", "2", str(tmp_path)),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),  # as a shell's & does
    )
    pids = rank_pids(tmp_path)
    assert listening(launcher.pid)
    addresses = [a for pid in (launcher.pid, *pids) for a in listening(pid)]
    assert set(addresses) <= set(LOOPBACK)
    launcher.send_signal(signal.SIGINT)  # stays ignored
    assert not eventually(lambda: launcher.poll() is not None, seconds=0.5)
    launcher.kill()
    assert all_gone(pids)


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


def test_ctrl_c_ends_all(start, tmp_path: Path) -> None:
    launcher = start(str(WORK), "run_on", "2", str(tmp_path))
    pids = rank_pids(tmp_path)
    os.killpg(launcher.pid, signal.SIGINT)  # as a terminal does
    assert launcher.communicate(timeout=DEADLINE) == ("", "")
    assert launcher.returncode == 130
    assert not any(map(is_running, pids))


def test_ctrl_c_while_ranks_start(start, tmp_path: Path) -> None:
    """They import Python and torch meanwhile."""
    launcher = start(str(WORK), "run_on", "2", str(tmp_path), env={"FORK_RANKS": ""})
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children")
    assert eventually(lambda: len(children.read_text().split()) == 3)  # ranks, resource tracker
    pids = [int(pid) for pid in children.read_text().split()]
    os.killpg(launcher.pid, signal.SIGINT)
    assert launcher.communicate(timeout=DEADLINE) == ("", "")
    assert launcher.returncode == 130
    assert all_gone(pids)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_ranks_are_asked_to_stop_once_and_their_code_is_the_job_s(start, tmp_path, number, code):
    launcher = start(str(WORK), "save_when_asked", "2", str(tmp_path))
    pids = rank_pids(tmp_path)
    launcher.send_signal(number)
    assert launcher.communicate(timeout=DEADLINE) == ("error: StopRequested: saved\n", "")
    assert launcher.returncode == code
    assert [(tmp_path / f"saved{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert not any(map(is_running, pids))


@pytest.mark.parametrize("again", [True, False])
def test_ranks_that_do_not_stop_are_ended(start, tmp_path, again):
    """By a second signal, or when their time is up."""
    seconds = 600 if again else 1
    options = {"LAUNCH_OPTIONS": f'{{"stop_seconds": {seconds}, "max_restarts": 1}}'}
    launcher = start(str(WORK), "deaf", "2", str(tmp_path), env=options)
    pids = rank_pids(tmp_path)
    launcher.send_signal(signal.SIGUSR1)
    assert eventually(lambda: len(list(tmp_path.glob("heard?"))) == 2)
    if again:
        launcher.send_signal(signal.SIGUSR1)
    output, errors = launcher.communicate(timeout=DEADLINE)
    assert output.startswith("error: StopRequested: ended by SIGUSR1; the same command goes on")
    assert (launcher.returncode, errors) == (75, "")
    assert not any(map(is_running, pids))


# ---- worlds that others started


@pytest.mark.parametrize(
    ("variables", "world"),
    [
        ({}, None),
        ({"RANK": "3", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}, (3, 8, 1)),
        ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2, 1)),
        ({"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}, (5, 8, 1)),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "4", "SLURM_NTASKS": "8"}, (2, 4, 1)),  # srun -n 4
        ({**MPI_TASK, "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"}, (3, 8, 1)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}, (3, 8, 1)),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "4", "WORLD_SIZE": "4"}, (2, 4, 1)),
        # torchrun on each of two nodes, started by srun
        (
            {
                **{"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4"},
                **{**TASK, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"},
            },
            (5, 8, 1),
        ),
    ],
)
def test_joined_world(environment, variables: dict[str, str], world: tuple | None) -> None:
    environment(**variables)
    joined = joined_world()
    assert (joined and joined[:3]) == world


@pytest.mark.parametrize(
    "step",
    [
        {"SLURM_STEP_NUM_TASKS": "1"},
        {},  # sbatch's script
        {"SLURM_STEP_ID": str(0xFFFFFFFA)},  # salloc's interactive step
        {"SLURM_STEP_ID": "3", "SLURM_STEP_NUM_TASKS": "1"},  # srun -n 1 in a job of four
    ],
)
def test_the_script_and_the_shell_of_a_slurm_job_are_none_of_its_tasks(step, environment, caplog):
    environment(SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_LOCALID="0", SLURM_JOB_ID="7", **step)
    assert joined_world() is None
    with caplog.at_level(logging.WARNING):
        launch(launch_work.alone, ("here",), launch_options(1), device="cpu")
    assert caplog.messages == [
        "SLURM_NTASKS=4: one process is started here, with launch.processes=1; srun python ... "
        "starts one for each task"
    ]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one': the env"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "rank 2 is outside a world of 2 (RANK, WORLD_SIZE)"),
        ({"RANK": "1"}, "RANK=1: WORLD_SIZE is not set; set both, or unset RANK"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2: RANK is not set; set both, or unset WORLD_SIZE"),
        (
            {"RANK": "0", "WORLD_SIZE": "4", **TASK, "SLURM_STEP_NUM_TASKS": "4"},
            "RANK=0, but this is process 2 of 4 (SLURM_PROCID): unset RANK WORLD_SIZE",
        ),
        (
            {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "8"},
            "LOCAL_RANK=0, LOCAL_WORLD_SIZE=8: cannot be in a world of 2 (WORLD_SIZE); unset what",
        ),
    ],
)
def test_world_that_cannot_be(environment, variables, message) -> None:
    environment(**variables)
    with pytest.raises(ConfigError) as caught:
        joined_world()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"RANK": "0", "WORLD_SIZE": "4"}, "rank 0 {} for ranks 1, 2, 3 of 4 at 127.0.0.1:{}"),
        ({"RANK": "2", "WORLD_SIZE": "4"}, "rank 2 {} for rank 0 of 4 at 127.0.0.1:{}"),
        (
            {"RANK": "2", "WORLD_SIZE": "4", "TORCHELASTIC_USE_AGENT_STORE": "True"},
            "rank 2 {} for torchrun at 127.0.0.1:{}",
        ),
    ],
)
def test_missing_ranks_are_named_within_seconds(variables, told, monkeypatch, environment, caplog):
    monkeypatch.setattr(meeting, "WARN_SECONDS", 0.1)
    port = str(15000 + job_with_free_port())
    environment(**variables, LOCAL_WORLD_SIZE="4", MASTER_PORT=port)
    with caplog.at_level(logging.WARNING), pytest.raises(RankFailedError) as caught:
        launch(launch_work.describe, ("",), launch_options(1, timeout_minutes=0.01), device="cpu")
    cure = "; if nothing starts them, type: unset RANK WORLD_SIZE"
    assert caplog.messages == [told.format("waits", port) + cure]
    assert str(caught.value) == (
        told.format("has waited", port) + " for launch.timeout_minutes=0.01" + cure
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (
            {"RANK": "1", "MASTER_ADDR": "no.such.host.invalid", "MASTER_PORT": "29500"},
            "^MASTER_ADDR=no.such.host.invalid: no machine of this name",
        ),
        ({"RANK": "0"}, "MASTER_PORT is not set"),
        (
            {"RANK": "0", "MASTER_PORT": "1", "SLURM_JOB_NODELIST": "node[1-2]"},
            "scontrol gives no hosts",
        ),
    ],
)
def test_a_world_whose_store_has_no_address_is_refused(variables, message, environment):
    environment(WORLD_SIZE="2", **variables)
    with pytest.raises(ConfigError, match=message):
        two_ranks(launch_work.describe, "nowhere")


@pytest.mark.parametrize(
    ("rank", "error", "message"),
    [
        ("0", ConfigError, "^MASTER_PORT={}: Address already in use; "),
        ("1", RankFailedError, "^what listens at 127.0.0.1:{} is not the"),
    ],
)
def test_another_program_at_the_port_is_named(rank, error, message, environment, monkeypatch):
    monkeypatch.setattr(meeting, "ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        environment(RANK=rank, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_PORT=port)
        with pytest.raises(error, match=message.format(port)):
            two_ranks(launch_work.describe, "nowhere")


def test_world_of_one(environment, caplog: pytest.LogCaptureFixture) -> None:
    environment(RANK="0", WORLD_SIZE="1", GLOO_SOCKET_IFNAME="lo", NCCL_SOCKET_IFNAME="lo")
    with caplog.at_level(logging.WARNING):
        result = two_ranks(launch_work.describe, "one")
    assert result["total"] == 1.0
    assert caplog.messages == ["launch.processes=2: not used in a world of 1"]
    assert not torch.distributed.is_initialized()


TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(WORK))


def test_torchrun_is_told_the_error(start) -> None:
    job = start(*TORCHRUN, "config_error", "2")
    output, errors = job.communicate(timeout=DEADLINE)
    assert job.returncode == 1
    assert "error: ConfigError: loss.temperature=0: too cold" in output
    assert "ConfigError: loss.temperature=0: too cold" in errors


def test_under_torchrun_the_stalled_rank_is_named(start) -> None:
    job = start(*TORCHRUN, "hang", "2", env={"LAUNCH_OPTIONS": '{"timeout_minutes": 0.15}'})
    output, _ = job.communicate(timeout=DEADLINE)
    assert job.returncode == 1
    assert [line for line in output.splitlines() if line.startswith("error: ")] == [
        "error: RankFailedError: rank 1 stalled after step 3: rank 0 has waited for "
        "launch.timeout_minutes=0.15"
    ]


def test_slurm(start, tmp_path: Path) -> None:
    scontrol = tmp_path / "scontrol"
    scontrol.write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames node[1-2]" ] && echo 127.0.0.1\necho n2'
    )
    scontrol.chmod(scontrol.stat().st_mode | stat.S_IXUSR)
    job = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_JOB_ID": str(job_with_free_port()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "GLOO_SOCKET_IFNAME": "lo",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    tasks = [
        start(
            *(str(WORK), "describe", "1", "slurm"),
            env={**job, "SLURM_PROCID": rank, "SLURM_LOCALID": rank},
        )
        for rank in ("0", "1")
    ]
    for task in tasks:
        output, errors = task.communicate(timeout=DEADLINE)
        assert task.returncode == 0, errors
        assert '"total": 3.0' in output


def job_with_free_port() -> int:
    """A SLURM_JOB_ID whose port nobody uses."""
    for port in range(15000 + os.getpid() % 10000, 30000):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port - 15000
    raise AssertionError("no port is free")
