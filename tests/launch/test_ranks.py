"""Ranks of one machine: started, watched, restarted, ended."""

import logging
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import launch_work
import pytest
import torch
from launch_work import launch, launch_options
from launched import (
    DEADLINE,
    LOOPBACK,
    WORK,
    eventually,
    listening,
    rank_pids,
    two_ranks,
)
from torch import distributed

from ssl_platform.errors import ConfigError
from ssl_platform.launch import RankFailedError
from ssl_platform.launch.peer_errors import is_peer_error, is_peer_timeout


def is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


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
