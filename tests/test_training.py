"""Whole runs of a tiny SwAV through the public functions and the real launcher."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from forked import tool
from loaders import on_folder

import ssl_platform
from ssl_platform.config import compose

QUEUE = ["loss.queue_length=64", "loss.queue_start_epoch=0", "loss.freeze_prototypes_steps=2"]
IN_DOUBLE = ["plugins=[double_trunks]", "trunk.name=DoubleResNet"]


def train(tiny: list[str], output_dir: Path, *overrides: str) -> dict[str, Any]:
    return ssl_platform.run(compose([*tiny, f"output_dir={output_dir}", *overrides]))


def run_tool(arguments: list[str]) -> None:
    done = tool(*arguments)
    assert done.returncode == 0, done.stderr


def folder_of(epoch: int, output_dir: Path, steps_per_epoch: int = 4) -> Path:
    """The checkpoint of an epoch's end."""
    return output_dir / "checkpoints" / f"step_{epoch * steps_per_epoch:08d}"


def saved(output_dir: Path, epoch: int, part: str = "shared.pt") -> dict[str, Any]:
    return torch.load(folder_of(epoch, output_dir) / part, weights_only=True)


def flat(state: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        items = state.items()
    elif isinstance(state, list):
        items = enumerate(state)
    else:
        return {prefix: state}
    return {k: v for key, value in items for k, v in flat(value, f"{prefix}.{key}").items()}


def assert_equal(first: Any, second: Any) -> None:
    first, second = flat(first), flat(second)
    assert first.keys() == second.keys()
    for key, value in first.items():
        same = torch.equal(value, second[key]) if torch.is_tensor(value) else value == second[key]
        assert same, key


def losses(output_dir: Path) -> list[float]:
    lines = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def test_a_run_leaves_what_the_readme_promises(tiny, tmp_path):
    results = train(tiny, tmp_path, "hooks.log.tensorboard=true")
    files = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "crops.png", "summary.json", "tensorboard"} <= files
    assert json.loads((tmp_path / "summary.json").read_text()) == results
    assert set(results["knn"]) == {
        "labels",
        "queries",
        "k",
        "random init",
        "raw pixels",
        "trained",
    }
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [
        "step_00000008",
        "step_00000012",
    ]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == list(range(1, 13))
    health = [line for line in lines if "health/sample_entropy" in line]
    assert [line["epoch"] for line in health] == [1, 2, 3]
    assert all("knn/top1" in line for line in health)


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path):
    short = [*tiny, "num_epochs=2", "~hooks.knn"]
    train(short, tmp_path / "a")
    train(short, tmp_path / "b", "data.num_workers=2")
    assert_equal(saved(tmp_path / "a", 2)["model"], saved(tmp_path / "b", 2)["model"])
    train(short, tmp_path / "c", "seed=1")
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_resumed_run_equals_an_unbroken_one(processes, tiny, tmp_path):
    """The run is cut after its first epoch by leaving out what came later."""
    options = [*tiny, *QUEUE, "save.keep=9"]
    options += ["~hooks.knn"] if processes == 2 else []
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options += [f"launch.processes={processes}", f"output_dir={cut}"]
    run_tool(options)
    shutil.copytree(cut, whole)
    for epoch in (2, 3):
        shutil.rmtree(folder_of(epoch, cut))
    run_tool(options)
    assert losses(cut) == losses(whole)
    ranks = [f"rank_{rank}.pt" for rank in range(processes)]
    for part in ("shared.pt", *ranks):
        assert_equal(saved(whole, 3, part), saved(cut, 3, part))
    queues = [saved(cut, 3, part)["buffers"]["queue"] for part in ranks]
    assert len(queues) == 1 or not torch.equal(*queues)


def test_one_process_and_two_train_alike(tiny, tmp_path, monkeypatch):
    """Batch norm over all processes, global Sinkhorn, the same images in every step."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    alike = [*tiny, *QUEUE, *IN_DOUBLE, "num_epochs=2", "~hooks.knn", "loss.epsilon=0.05"]
    run_tool([*alike, f"output_dir={tmp_path / 'one'}"])
    run_tool([*alike, f"output_dir={tmp_path / 'two'}", "launch.processes=2"])
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-9)


def test_a_finished_run_started_again_only_reports(tiny, tmp_path):
    train(tiny, tmp_path)
    before, summary = saved(tmp_path, 3), (tmp_path / "summary.json").read_text()
    results = train(tiny, tmp_path)
    assert (tmp_path / "summary.json").read_text() == summary
    assert_equal(saved(tmp_path, 3), before)
    assert "trained" in results["knn"]


def test_a_folder_of_photographs_trains_without_validation_images(tiny, tmp_path, photographs):
    center = "data.eval_transform={name: CenterCrop, resize: 32, size: 32}"
    options = [*on_folder(tiny, photographs, batch_size=12), center, "hooks.knn.num_labels=6"]
    results = train(options, tmp_path / "run")
    assert results["knn"]["labels"] == 6


def test_swav_learns(tmp_path):
    """Two passes over some of the built-in images lift kNN well above the untrained trunk."""
    short = ["num_epochs=2", "trunk.width=16", "data.train.num_samples=2500"]
    results = train(
        ["config=pretrain/swav/quickstart", *short, "launch.threads=1"],
        tmp_path,
        "data.val.num_samples=2000",
        "hooks.knn.every_epochs=2",
        "hooks.knn.num_queries=1000",
    )
    trained, random = (results["knn"][name]["top1"] for name in ("trained", "random init"))
    assert trained > random + 10


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_trunk_gives_the_same_losses(tiny, tmp_path, monkeypatch):
    """And its names stay."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    # code that was kept under another ATEN_CPU_CAPABILITY or ONEDNN_MAX_CPU_ISA computes nonsense
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    resnet = ("block", "layers", "width", "stem_kernel", "stem_stride", "stem_pool")
    short = ["num_epochs=2", "~hooks.knn", "~data.transform.crops.small"]  # each size is compiled
    convs = ["plugins=[double_trunks]", "trunk.name=DoubleConvs", "+trunk.out_dim=8"]
    convs += [f"~trunk.{option}" for option in resnet]
    for compiled in ("true", "false"):
        output_dir = tmp_path / compiled
        run_tool([*tiny, *short, *convs, f"compile={compiled}", f"output_dir={output_dir}"])
    assert losses(tmp_path / "true") == pytest.approx(losses(tmp_path / "false"), rel=1e-9)
    models = [saved(tmp_path / compiled, 2)["model"] for compiled in ("true", "false")]
    assert models[0].keys() == models[1].keys()
