"""Launchers from outside, and which of them a job gets."""

from collections.abc import Sequence

import launch_work
import pytest
from launch_work import launch_options

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.launch import Job, Launcher, launcher_here, launcher_of
from ssl_platform.registry import LAUNCHERS

HERE = "launch.launcher={name: InThisProcess, ranks: 1}"
AWAY = "launch.launcher={name: Away, host: gpu7}"


@LAUNCHERS.register()
class InThisProcess(Launcher):
    """For a debugger."""

    launched: list[str] = []  # noqa: RUF012 (read by a test)

    def __init__(self, *, ranks: int):
        self.ranks = ranks

    def world_size(self, options):
        return self.ranks

    def problems(self, options):
        return [f"threads={options.threads}: leave it null"] if options.threads else []

    def launch(self, jobs: Sequence[Job]) -> list:
        self.launched += [job.name for job in jobs]
        return [job.work(*job.args) for job in jobs]


@LAUNCHERS.register()
class Away(Launcher):
    """Keeps the jobs that it is given."""

    is_elsewhere = True
    kept: list[Job] = []  # noqa: RUF012 (read by a test)

    def __init__(self, *, host: str):
        if host != "gpu7":
            raise ValueError(f"host={host}: no such machine; gpu7")

    def launch(self, jobs: Sequence[Job]) -> list[str]:
        self.kept.extend(jobs)
        return [f"kept {job.name}" for job in jobs]


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose(["config=pretrain/swav/quickstart", *overrides])
    return caught.value.problems


def test_a_launcher_of_a_plug_in_runs_a_training(tiny, tmp_path):
    options = [*tiny, "~hooks.knn", "launch.threads=null", "num_epochs=1", "name=debugged"]
    options += ["schedule.warmup_epochs=0", f"output_dir={tmp_path}"]
    ssl_platform.run(compose([*options, HERE]))
    assert InThisProcess.launched == ["debugged"]
    assert (tmp_path / "summary.json").exists()


def test_a_job_that_is_handed_over_is_the_whole_run(tiny, tmp_path, capsys):
    options = [*tiny, "~hooks.knn", "num_epochs=1", "schedule.warmup_epochs=0"]
    cfg = compose([*options, AWAY, "device=cuda", "name=there", f"output_dir={tmp_path}/run"])
    ssl_platform.run(cfg)
    assert capsys.readouterr().out == "kept there\n"
    assert not (tmp_path / "run").exists()
    (job,) = Away.kept
    job.args[0].device = "cpu"
    job()
    assert (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("launch.launcher={name: Awya}", "launch.launcher.name=Awya: no such launcher; did you "
         "mean 'Away'?"),
        ("launch.launcher={name: Away, host: gpu8}", "launch.launcher.host=gpu8: no such machine; "
         "gpu7"),
        ("launch.launcher={name: Away, hosts: 1}", "launch.launcher.host: Away needs a value (str);"
         " set launch.launcher.host=..."),
        ("launch.launcher=Away", "launch.launcher=Away: "),
    ],
)  # fmt: skip
def test_a_launcher_that_cannot_be_is_told(override, line):
    assert problems(override)[0].startswith(line)


def test_what_the_processes_decide_follows_the_launcher():
    assert problems("launch.launcher={name: InThisProcess, ranks: 5}", "launch.threads=2") == [
        "launch.threads=2: leave it null",
        "data.batch_size=32: the total batch must be a positive multiple of the 5 processes, e.g. "
        "30",
    ]
    joined = "launch.launcher={name: Joined}"
    assert problems(joined) == [
        "launch.launcher.name=Joined: nothing has started this process as one of several ranks"
    ]
    assert problems("launch=slurm", AWAY)[0] == (
        "launch.launcher: there is launch.slurm too; leave one of them null"
    )


def test_among_ranks_that_are_there_no_launcher_starts_others(monkeypatch):
    options = launch_options(1, launcher={"name": "Away", "host": "gpu7"})
    assert isinstance(launcher_of(options), Away)
    assert LAUNCHERS.get("Local") is type(launcher_here(options))
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert LAUNCHERS.get("Joined") is type(launcher_here(options))
    assert LAUNCHERS.get("Joined") is type(launcher_of(launch_options(1)))
    assert problems(AWAY) == [
        "launch.launcher: the processes are there already; launch.launcher=null"
    ]


def test_a_job_is_called_where_it_is_done():
    job = Job(launch_work.alone, ("here",), launch_options(1))
    assert job()["text"] == "here"
