"""The command line as a user meets it: what it prints, and the exit code."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from forked import TOOL, tool

from ssl_platform.cli import main

QUICKSTART = "config=pretrain/swav/quickstart"


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(TOOL), *arguments], cwd=cwd, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        ([], 0),
        ([QUICKSTART, "--cfg", "job"], 0),
        (["config=pretrain/swav/qickstart"], 2),
        ([QUICKSTART, "trunk=resnt18", "--cfg", "job"], 2),
    ],
)
def test_help_and_misspelt_names_are_answered_at_once(arguments, code, tmp_path):
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(TOOL.parents[1])!r})\n"
        "from ssl_platform.cli import main\n"
        "code = main(sys.argv[1:])\n"
        "assert not {'torch', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    done = run("config=pretrain/swav/qickstart", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        "error: config=pretrain/swav/qickstart: no such config; did you mean "
        "'pretrain/swav/quickstart'?\n"
    )
    assert not list(tmp_path.iterdir())


def test_cfg_job_prints_what_would_run(tmp_path):
    done = run(QUICKSTART, "optimizer.lr=0.5", "--cfg", "job", cwd=tmp_path)
    assert done.returncode == 0
    assert "lr: 0.5" in done.stdout


def test_a_sweep_runs_every_combination_in_its_own_directory(tmp_path, tiny):
    done = tool(
        *tiny,
        "num_epochs=2",
        "name=sweep",
        "-m",
        "optimizer.lr=0.1,0.2",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    title, header, *rows = done.stdout.splitlines()[-4:]
    assert title.startswith("trainings: ") and header.split()[:6] == [
        "run", "epoch", "loss", "ln", "K", "kNN",
    ]  # fmt: skip
    assert [row.split()[0] for row in rows] == [f"runs/sweep/optimizer.lr=0.{n}" for n in (1, 2)]
    summaries = sorted(tmp_path.glob("runs/sweep/*/summary.json"))
    assert [s.parent.name for s in summaries] == ["optimizer.lr=0.1", "optimizer.lr=0.2"]


def test_a_sweep_with_a_mistake_starts_nothing(tmp_path, tiny):
    done = tool(*tiny, "-m", "optimizer.lr=0.1,fast", cwd=tmp_path)
    assert done.returncode == 2
    assert "optimizer.lr=fast" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_used_directory_is_not_taken_over_by_other_settings(tmp_path, tiny):
    assert tool(*tiny, "num_epochs=2", "~hooks.knn", cwd=tmp_path).returncode == 0
    before = (tmp_path / "runs/pretrain/swav/quickstart/summary.json").read_text()
    done = tool(*tiny, "num_epochs=2", "~hooks.knn", "optimizer.lr=0.3", cwd=tmp_path)
    assert done.returncode == 2
    assert "optimizer.lr: 0.12 there, 0.3 here" in done.stderr
    assert (tmp_path / "runs/pretrain/swav/quickstart/summary.json").read_text() == before


def test_where_to_start_is_said_in_a_word(tmp_path, tiny):
    command = [*tiny, "num_epochs=2", "~hooks.knn"]
    assert tool(*command, "name=first", "resume=never", cwd=tmp_path).returncode == 0
    first = tmp_path / "runs/first/checkpoints/step_00000004"
    again = tool(*command, "name=first", "resume=never", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.startswith(
        "error: output_dir=runs/first: holds a run, and resume.mode=never"
    )
    for name, source in (("first", "auto"), ("second", first), ("third", "runs/first")):
        done = tool(*command, f"name={name}", f"resume={source}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "going on from " in done.stderr
    lines = (tmp_path / "runs/second/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines if "loss" in line] == [5, 6, 7, 8]
    wrong = tool(*command, "name=fourth", "resume=nver", cwd=tmp_path)
    assert (wrong.returncode, wrong.stderr) == (
        2,
        "error: resume.mode=nver: auto, never, or the directory of a run; no nver/config.yaml\n",
    )


def test_a_diverged_training_stops_with_the_step_and_keeps_the_checkpoint(tmp_path, tiny):
    done = tool(*tiny, "optimizer.lr=1e30", cwd=tmp_path)
    assert done.returncode == 4
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: a loss or a gradient became NaN or infinite at step ")
    assert "Traceback" not in done.stderr


def test_two_processes_train_and_report_once(tmp_path, tiny):
    """Here each rank is a Python of its own, as it is for users."""
    done = run(*tiny, "num_epochs=2", "launch.processes=2", "name=two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs/two/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines if "loss" in json.loads(line)]
    assert steps == list(range(1, 9))
    assert done.stdout.count("verdict:") == 1


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["--hydra-help"], "--multirun"),
        ([QUICKSTART, "--hydra-help"], "--multirun"),
        (["--version"], "Hydra"),
    ],
)
def test_flags_of_hydra_that_are_about_no_config_need_none(arguments, shown, tmp_path):
    done = tool(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--cfg", "job", "--package"], "--package: needs a value; which one?"),
        (["--cfg"], "--cfg: needs a value; job or hydra or all"),
        (["--cfg", "job", "--what"], "--what: no such flag; see --help"),
        (["--cfg", "job", "-m"], "-m: --cfg and the like are about one config"),
        (["--config-dir"], "--config-dir: needs a value; which directory?"),
        (["--cfg", "job", "heads.prototypes.name=-1"], "heads.prototypes.name=-1: the name of a"),
        (["--cfg", "job", "+trunk._target_=os.system"], "trunk._target_=os.system: nothing is"),
    ],
)
def test_what_a_run_refuses_is_not_printed(arguments, problem, capsys):
    assert main([QUICKSTART, *arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith(f"error: {problem}") and err.count("\n") == 1 and not out
