"""A search: what is tried before it, what is refused, and what Optuna finds."""

import re

import pytest
from conftest import TINY
from forked import tool
from tiny_runs import refused, without

from ssl_platform.config import compose, search
from ssl_platform.config.source import sweep_jobs
from ssl_platform.errors import ConfigError
from ssl_platform.job.objective import objective_of, problems_of_searched

OPTUNA = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize"]


@pytest.fixture
def installed(monkeypatch):
    monkeypatch.setattr(search, "_is_installed", lambda: True)


def test_each_value_is_tried_once_and_both_ends_of_an_interval(installed):
    swept = ["a=1", "b=x,y,z", "c=tag(log, interval(0.01, 1))", "d=range(0,3)"]
    assert [job[:4] for job in sweep_jobs([*swept, *OPTUNA])] == [
        ["a=1", "b=x", "c=0.01", "d=0"],
        ["a=1", "b=y", "c=0.01", "d=0"],
        ["a=1", "b=z", "c=0.01", "d=0"],
        ["a=1", "b=x", "c=1.0", "d=0"],
        ["a=1", "b=x", "c=0.01", "d=1"],
        ["a=1", "b=x", "c=0.01", "d=2"],
    ]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            OPTUNA[:1],
            "hydra/sweeper=optuna: which way is better? add hydra.sweeper.direction=maxim",
        ),
        (
            ["hydra/sweeper=ax"],
            "hydra/sweeper=ax: optuna, or leave it out to run every combination",
        ),
        (
            [*OPTUNA, "hydra.sweeper.custom_search_space=os.system"],
            "hydra.sweeper.custom_search_space=os.system: nothing is called from a config",
        ),
    ],
)
def test_a_search_that_cannot_be_made_is_one_line(overrides, line, installed):
    with pytest.raises(ConfigError) as error:
        sweep_jobs(["a=1,2", *overrides])
    (problem,) = error.value.problems
    assert problem.startswith(line)


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(search, "_is_installed", lambda: False)
    with pytest.raises(ConfigError, match=r"not installed; pip install 'ssl_platform\[optuna\]'"):
        sweep_jobs(["a=1,2", *OPTUNA])


def test_an_objective_that_nothing_gives_is_found_by_the_check(tiny, tmp_path):
    assert refused(tiny, tmp_path, "objective=knn.traned.top1") == [
        "objective=knn.traned.top1: no hook of this config gives such a number; did you mean "
        "'knn.trained.*'?"
    ]
    without_knn = [*without(tiny, "hooks.knn"), "~hooks.knn"]
    (line,) = refused(without_knn, tmp_path, "objective=views.x")
    assert line.endswith("choose from images_per_second, seconds")


def test_a_search_needs_an_objective_and_runs_here(tiny):
    cfg = compose(tiny)
    lines = ["objective=null: a search needs one, e.g. objective=views.trained.found"]
    assert problems_of_searched(cfg) == lines
    (line,) = problems_of_searched(compose([*tiny, "objective=seconds", "launch=slurm"]))
    assert line.startswith("launch: a search waits for each of its runs")


def test_an_objective_that_a_run_lacks_names_a_near_one():
    results = {"knn": {"trained": {"top1": 50}, "k": 3}, "verdict": {"kind": "learned"}}
    assert objective_of(results, "knn.trained.top1") == 50.0
    with pytest.raises(ConfigError, match=r"objective=knn.trained.top5: .* 'knn.trained.top1'\?"):
        objective_of(results, "knn.trained.top5")


def test_optuna_searches_for_what_needs_no_labels(tmp_path):
    pytest.importorskip("optuna", reason="hydra-optuna-sweeper is not installed")
    command = [*without(TINY, "hooks.knn", "~hooks.views"), "~hooks.knn", "num_epochs=2"]
    command += ["name=search", "hooks.views.num_images=20", "-m", *OPTUNA]
    command += ["optimizer.lr=interval(0.05,0.5)"]
    more = ["objective=views.trained.found", "hydra.sweeper.n_trials=2"]
    done = tool(*command, *more, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()[-3:]
    numbers = {row.split()[0]: re.findall(r" (\d+\.\d+)", row) for row in rows}
    assert "crops found" in header and len(numbers) == 2
    (best,) = re.findall(r"Best parameters: {'optimizer.lr': (.*)}", done.stdout)
    found = {run: float(figures[-1]) for run, figures in numbers.items()}
    assert found[f"runs/search/optimizer.lr={best}"] == max(found.values())
