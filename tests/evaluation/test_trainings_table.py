"""What trainings have found, side by side."""

import json
import os
from pathlib import Path

import pytest

from ssl_platform.evaluation.results import Results
from ssl_platform.evaluation.results_table import results_table
from ssl_platform.evaluation.trainings_table import READ, TITLE


def a_run(folder: Path, *lines: dict, baselines: dict | None = None) -> None:
    folder.mkdir(parents=True)
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    if baselines is not None:
        (folder / "baselines.json").write_text(json.dumps(baselines))


LOSS = {"step": 4, "epoch": 0, "loss": 5.5, "uniform_loss": 2.4849}
KNN = {"step": 8, "epoch": 2, "knn/top1": 12.5, "knn/mean_class": 11.9}
BASELINES = {"random init": {"top1": 12.5}, "raw pixels": {"top1": 17.19, "mean_class": 16.7}}


def test_trainings_stand_before_evaluations(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run(Path("runs/b"), LOSS, KNN, {**LOSS, "epoch": 2, "loss": 5.0}, baselines=BASELINES)
    a_run(Path("runs/a"), LOSS)
    a_run(Path("runs/linear"), LOSS)
    config = "config: 1"
    results = Results("linear", {"linear": {"top1": 50.0}}, {}, {"source": "x"}, 0, config)
    results.write(Path("runs/linear"))
    a_run(Path("runs/just_started"))
    assert [line.split() for line in results_table([Path("runs")])] == [
        TITLE.split(),
        ["run", "epoch", "loss", "ln", "K", "kNN", "top1", "kNN", "mean_class", "random", "init",
         "top1", "raw", "pixels", "top1"],
        ["runs/a", "0", "5.500", "2.485"],
        ["runs/b", "2", "5.000", "2.485", "12.50", "11.90", "12.50", "17.19"],
        [],
        ["linear"],
        ["run", "checkpoint", "figure", "result", "published"],
        ["runs/linear", "x", "linear.top1", "50.00"],
    ]  # fmt: skip


def test_crops_and_verdict_have_columns_where_a_run_has_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_run(Path("runs/a"), LOSS, {**LOSS, "views/found": 82.6})
    Path("runs/a/summary.json").write_text('{"verdict": {"kind": "learned little", "text": ""}}')
    a_run(Path("runs/b"), LOSS)
    Path("runs/b/summary.json").write_text('{"verdict": 5}')
    assert [line.split() for line in results_table([Path("runs")])[1:]] == [
        ["run", "epoch", "loss", "ln", "K", "crops", "found", "verdict"],
        ["runs/a", "0", "5.500", "2.485", "82.60", "learned", "little"],
        ["runs/b", "0", "5.500", "2.485"],
    ]


@pytest.mark.parametrize(
    "content", [b"", b"5\n[]\nnull\n", b"\xff\n", b"[" * 100_000, b'{"loss": "a", "epoch": [1]}']
)
def test_what_is_no_metrics_is_no_row(content, tmp_path):
    a_run(tmp_path / "run", baselines={"random init": 5})
    (tmp_path / "run/metrics.jsonl").write_bytes(content)
    assert results_table([tmp_path]) == ["no run has a figure yet"]
    a_run(tmp_path / "other", LOSS)
    with (tmp_path / "other/metrics.jsonl").open("ab") as file:
        file.write(content)
    assert len(results_table([tmp_path])) == 3


def test_the_end_of_a_long_file_is_read_and_no_pipe_is(tmp_path):
    a_run(tmp_path / "run", LOSS)
    with (tmp_path / "run/metrics.jsonl").open("a") as file:
        file.write(" " * READ + "\n" + json.dumps({"loss": 1.0}))
    os.mkfifo(tmp_path / "run/baselines.json")
    _, _, row = results_table([tmp_path])
    assert row.split()[1:] == ["1.000"]
