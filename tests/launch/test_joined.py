"""Ranks that torchrun, SLURM or MPI have started."""

import logging
import os
import socket
import stat
from pathlib import Path

import launch_work
import pytest
import torch
from launch_work import launch, launch_options
from launched import (
    DEADLINE,
    MPI_TASK,
    TASK,
    WORK,
    two_ranks,
)

from ssl_platform.errors import ConfigError
from ssl_platform.launch import RankFailedError, joined_world, meeting

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
