"""Results side by side, and what they may be compared with."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ssl_platform.config.shipped import runnable
from ssl_platform.config.source import Source
from ssl_platform.errors import ConfigError
from ssl_platform.evaluation.results import Results
from ssl_platform.evaluation.results_table import published_beside, results_table
from ssl_platform.zoo.catalogue import models

TOOL = Path(__file__).parents[2] / "tools" / "results.py"


def results(
    config: str,
    figures: dict[str, dict[str, float]],
    *overrides: str,
    source: str = "zoo:swav_800ep",
) -> Results:
    """Those of a shipped config, which need not be run for that."""
    cfg, problems = Source.of([f"config={config}", *overrides]).read()
    assert problems == []
    return Results(
        protocol=config,
        figures=figures,
        baselines={"random init": {name: {"top1": 4.0} for name in figures}},
        weights={"source": source, "format": "swav", "sha256": "0" * 64},
        seed=0,
        config=OmegaConf.to_yaml(cfg),
    )


def knn(top1: float, *overrides: str, **options: str) -> Results:
    figures = {"20-NN": {"top1": top1}, "10-NN": {"top1": 64.0}}
    return results("benchmark/knn/imagenet1k", figures, *overrides, **options)


def test_a_figure_by_the_published_protocol_is_held_against_its_tolerance():
    mine = ["data.path=/my/imagenet", "launch.processes=8", "name=mine", "baselines=false"]
    assert published_beside(knn(65.3, *mine)) == {
        "20-NN.top1": "65.7 (-0.40, within 0.5)",
        "10-NN.top1": "none by this protocol",
    }
    assert published_beside(knn(64.0))["20-NN.top1"] == "65.7 (-1.70, NOT within 0.5)"


def test_a_figure_by_another_protocol_says_what_differs():
    assert published_beside(knn(65.3, "task.temperature=0.1", "data.eval_transform.size=192")) == {
        "20-NN.top1": (
            "65.7 by another protocol (data.eval_transform.size: 192, there 224; "
            "task.temperature: 0.1, there 0.07)"
        ),
        "10-NN.top1": "none by this protocol",
    }
    cached = results("benchmark/linear/cached/imagenet1k", {"linear": {"top1": 74.0}})
    assert published_beside(cached) == {"linear.top1": "none by this protocol"}


@pytest.mark.parametrize("name", ["swav_800ep", "selav2_400ep", "swav_RN50w5_400ep"])
def test_the_linear_evaluation_of_each_published_model_is_comparable(name):
    model = models()[name]
    figures = {"linear (best epoch)": {"top1": model.top1 + 0.2, "epoch": 99.0}}
    result = results(model.linear, figures, source=f"zoo:{name}")
    assert published_beside(result)["linear (best epoch).top1"] == (
        f"{model.top1} (+0.20, within {model.tolerance})"
    )
    shortened = results(model.linear, figures, "num_epochs=1", source=f"zoo:{name}")
    assert published_beside(shortened)["linear (best epoch).top1"] == (
        f"{model.top1} by another protocol (num_epochs: 1, there 100)"
    )


def test_every_published_figure_names_a_config_that_is_there():
    assert {config for model in models().values() for config in model.figures} <= set(runnable())


def test_weights_that_nobody_published_have_nothing_beside_them():
    assert published_beside(knn(65.3, source="runs/mine")) == {}


def test_results_of_one_protocol_stand_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, result in (
        ("b", knn(65.3)),
        ("a", knn(40, source="runs/mine")),
        ("c", results("benchmark/linear/cached/imagenet1k", {"linear": {"top1": 74.0}})),
    ):
        folder = Path("runs") / name
        folder.mkdir(parents=True)
        result.write(folder)
    table = [line.split() for line in results_table([Path("runs")])]
    assert table == [
        ["benchmark/knn/imagenet1k"],
        ["run", "checkpoint", "figure", "result", "random", "init", "published"],
        ["runs/a", "runs/mine", "20-NN.top1", "40.00", "4.00"],
        ["runs/a", "runs/mine", "10-NN.top1", "64.00", "4.00"],
        ["runs/b", "zoo:swav_800ep", "20-NN.top1", "65.30", "4.00", "65.7", "(-0.40,", "within",
         "0.5)"],
        ["runs/b", "zoo:swav_800ep", "10-NN.top1", "64.00", "4.00", "none", "by", "this",
         "protocol"],
        [],
        ["benchmark/linear/cached/imagenet1k"],
        ["run", "checkpoint", "figure", "result", "random", "init", "published"],
        ["runs/c", "zoo:swav_800ep", "linear.top1", "74.00", "4.00", "none", "by", "this",
         "protocol"],
    ]  # fmt: skip


def test_what_holds_no_results_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"^runs: no such directory .*: {tmp_path}\)$"):
        results_table([Path("runs")])
    Path("runs").mkdir()
    with pytest.raises(ConfigError, match=r"^runs: no results\.json .*ng writes metrics\.jsonl$"):
        results_table([Path("runs")])
    Path("runs/results.json").write_text("{}")
    with pytest.raises(ConfigError) as error:
        results_table([Path("runs")])
    assert str(error.value) == (
        "runs/results.json: not the results of an evaluation (protocol: Field required)"
    )


def test_the_tool_prints_the_table_or_one_line(tmp_path):
    (tmp_path / "runs").mkdir()
    knn(65.3).write(tmp_path / "runs")
    options = {"capture_output": True, "text": True, "cwd": tmp_path}
    done = subprocess.run([sys.executable, TOOL], **options)
    assert done.returncode == 0, done.stderr
    assert "65.7 (-0.40, within 0.5)" in done.stdout
    done = subprocess.run([sys.executable, TOOL, "no"], **options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: no: no such directory (working directory: {tmp_path})\n"


@pytest.mark.parametrize(
    "content",
    [
        b"[]", b"5", b"\xff", b"[" * 100_000, b"{}",
        {"figures": 5}, {"figures": {"a": {"top1": "b"}}}, {"baselines": [1]}, {"weights": None},
        {"config": "a: [*x"}, {"config": "[" * 5000}, {"config": 5}, {"protocol": None},
    ],
)  # fmt: skip
def test_results_that_somebody_else_made_up_are_refused_in_one_line(tmp_path, content):
    if isinstance(content, dict):
        content = json.dumps(asdict(knn(65.3)) | content).encode()
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"results.json: not the results of an eval") as error:
        results_table([tmp_path])
    assert len(error.value.problems) == 1


def test_a_pipe_is_no_results(tmp_path):
    os.mkfifo(tmp_path / "results.json")
    with pytest.raises(ConfigError, match=r"no results\.json in it or below"):
        results_table([tmp_path])
