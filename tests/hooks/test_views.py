"""Crops that find each other in a run: figures, verdict, and no bit of the training moves."""

import json

import pytest
from tiny_runs import assert_equal, lines, saved, stopped_at, train, without

from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import CollapseError
from ssl_platform.registry import HOOKS

SHORT = ["~hooks.knn", "~hooks.crops", "hooks.views.num_images=60"]


@pytest.fixture
def watched(tiny: list[str]) -> list[str]:
    return [*without(tiny, "hooks.knn", "~hooks.views"), *SHORT]


def test_views_are_measured_without_labels_and_change_no_bit(watched, tiny, tmp_path):
    results = train(watched, tmp_path / "watched", "data.val=null", "hooks.views.every_epochs=2")
    views = results["views"]
    assert views["images"] == 60
    assert [*views] == ["images", "random init", "raw pixels", "trained"]
    assert views["trained"]["found"] != views["random init"]["found"]
    told = [line["views/found"] for line in lines(tmp_path / "watched") if "views/found" in line]
    assert len(told) == 1 and results["verdict"]["kind"]
    written = json.loads((tmp_path / "watched" / "summary.json").read_text())
    assert written["verdict"] == results["verdict"]
    assert "checkpoint=" in results["verdict"]["next"]
    alone = [*without(tiny, "hooks.knn"), "~hooks.knn", "~hooks.crops", "data.val=null"]
    train(alone, tmp_path / "alone")
    for part in ("model", "optimizer"):
        assert_equal(*(saved(tmp_path / run, 3)[part] for run in ("watched", "alone")))


def test_a_run_that_goes_on_has_the_baselines_of_its_start(watched, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend("tests")
    whole = train(watched, tmp_path / "whole")
    stopped_at(6, watched, tmp_path / "stopped", "plugins=[kill_hook]")
    again = train(watched, tmp_path / "stopped", "plugins=[kill_hook]")
    assert again["views"] == whole["views"] and again["verdict"]["text"] == whole["verdict"]["text"]


@HOOKS.register()
class Sick(Events):
    """A doctor that has seen a sign of collapse."""

    def on_train_end(self, run: Run) -> None:
        run.results["doctor"] = [
            {"sign": "ln K", "text": "the loss is ln K", "remedy": "try first loss.epsilon=0.03"}
        ]


@pytest.mark.parametrize("large_crops", [2, 1])
def test_a_collapse_fails_the_run_where_asked_once_all_is_saved(watched, tmp_path, large_crops):
    sick = [
        *without(watched, "num_epochs"), "num_epochs=1", "schedule.warmup_epochs=0",
        f"data.transform.crops.large.count={large_crops}", "loss.assign_crops=[0]",
        "+hooks.sick={name: Sick}",
    ]  # fmt: skip
    with pytest.raises(CollapseError, match="fail_on=collapse"):
        train(sick, tmp_path, "fail_on=collapse")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["verdict"]["kind"] == "collapsed"
    assert summary["views"]["trained"]["found"] != summary["views"]["random init"]["found"]
    assert saved(tmp_path, 1)
    assert train(sick, tmp_path)["verdict"]["kind"] == "collapsed"  # fail_on is free to change
