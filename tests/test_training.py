"""Whole runs of a tiny SwAV through the public functions and the real launcher."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import ssl_platform
from ssl_platform.config import compose

TOOL = Path(__file__).parents[1] / "tools" / "run_distributed.py"
QUEUE = ["loss.queue_length=64", "loss.queue_start_epoch=0", "loss.freeze_prototypes_steps=2"]


def train(tiny: list[str], output_dir: Path, *overrides: str) -> dict[str, Any]:
    return ssl_platform.run(compose([*tiny, f"output_dir={output_dir}", *overrides]))


def run_tool(arguments: list[str]) -> None:
    command = [sys.executable, str(TOOL), *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
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
    train(tiny, tmp_path / "a")
    train(tiny, tmp_path / "b", "data.num_workers=2")
    assert_equal(saved(tmp_path / "a", 3)["model"], saved(tmp_path / "b", 3)["model"])
    train(tiny, tmp_path / "c", "seed=1")
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


@pytest.mark.parametrize("place", ["data.transform.augment_on=device", "data.normalize_on=workers"])
def test_it_does_not_matter_where_crops_are_finished(place, tiny, tmp_path):
    options = ["~hooks.knn", "num_epochs=2", "data.num_workers=2"]
    train(tiny, tmp_path / "here", *options)
    train(tiny, tmp_path / "there", *options, place)
    # the first steps: later ones magnify what is rounded otherwise
    assert losses(tmp_path / "there")[:2] == pytest.approx(losses(tmp_path / "here")[:2], rel=1e-3)


@pytest.mark.parametrize("augment_on", ["workers", "device"])
def test_a_resumed_run_equals_an_unbroken_one(augment_on, tiny, tmp_path):
    """The run is cut after its first epoch by removing what came later."""
    options = [*QUEUE, "save.keep=9", f"data.transform.augment_on={augment_on}"]
    train(tiny, tmp_path / "unbroken", *options)
    expected = losses(tmp_path / "unbroken")
    train(tiny, tmp_path / "cut", *options)
    for epoch in (2, 3):
        shutil.rmtree(folder_of(epoch, tmp_path / "cut"))
    train(tiny, tmp_path / "cut", *options)
    assert losses(tmp_path / "cut") == expected
    for part in ("shared.pt", "rank_0.pt"):
        assert_equal(saved(tmp_path / "unbroken", 3, part), saved(tmp_path / "cut", 3, part))


def test_a_resumed_run_of_two_processes_equals_an_unbroken_one(tiny, tmp_path):
    both = [*tiny, *QUEUE, "launch.processes=2", "~hooks.knn"]
    run_tool([*both, f"output_dir={tmp_path / 'unbroken'}", "save.keep=9"])
    run_tool([*both, f"output_dir={tmp_path / 'cut'}", "save.keep=9"])
    shutil.rmtree(folder_of(3, tmp_path / "cut"))
    run_tool([*both, f"output_dir={tmp_path / 'cut'}", "save.keep=9"])
    assert losses(tmp_path / "cut") == losses(tmp_path / "unbroken")
    for part in ("shared.pt", "rank_0.pt", "rank_1.pt"):
        assert_equal(saved(tmp_path / "unbroken", 3, part), saved(tmp_path / "cut", 3, part))
    queues = [saved(tmp_path / "cut", 3, f"rank_{r}.pt")["buffers"]["queue"] for r in (0, 1)]
    assert not torch.equal(*queues)


def test_one_process_and_two_train_alike(tiny, tmp_path):
    """Batch norm over all processes, global Sinkhorn, the same images in every step."""
    # a small learning rate, so that rounding is not magnified from step to step
    alike = [*tiny, *QUEUE, "num_epochs=2", "~hooks.knn", "optimizer.lr=0.01", "loss.epsilon=0.05"]
    run_tool([*alike, f"output_dir={tmp_path / 'one'}"])
    run_tool([*alike, f"output_dir={tmp_path / 'two'}", "launch.processes=2"])
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_a_finished_run_started_again_only_reports(tiny, tmp_path):
    train(tiny, tmp_path)
    before, summary = saved(tmp_path, 3), (tmp_path / "summary.json").read_text()
    results = train(tiny, tmp_path)
    assert (tmp_path / "summary.json").read_text() == summary
    assert_equal(saved(tmp_path, 3), before)
    assert "trained" in results["knn"]


def test_a_folder_of_photographs_trains_without_validation_images(tiny, tmp_path, photographs):
    folder = [
        "data=folder",
        f"data.train.path={photographs}",
        "data.transform.crops.large.size=32",
        "data.transform.crops.small.size=20",
        "data.eval_transform={name: CenterCrop, resize: 32, size: 32}",
        "data.batch_size=12",
        "data.num_workers=0",
        "hooks.knn.num_labels=6",
    ]
    keep = [o for o in tiny if "num_samples" not in o and not o.startswith("data.")]
    keep = [o for o in keep if "num_labels" not in o]
    results = train([*keep, *folder], tmp_path / "run")
    assert results["knn"]["labels"] == 6


def test_swav_learns(tmp_path):
    """Two passes over the built-in images lift kNN well above the untrained trunk."""
    results = train(
        ["config=pretrain/swav/quickstart", "num_epochs=2", "launch.threads=1"],
        tmp_path,
        "hooks.knn.every_epochs=2",
        "hooks.knn.num_queries=1000",
    )
    trained, random = (results["knn"][name]["top1"] for name in ("trained", "random init"))
    assert trained > random + 15


def test_a_compiled_trunk_gives_the_same_losses(tiny, tmp_path):
    """Up to rounding, which the steps magnify; and its names stay."""
    for compiled in ("true", "false"):
        one_size = "~data.transform.crops.small"  # each size is compiled for itself
        train(tiny, tmp_path / compiled, one_size, "~hooks.knn", f"compile={compiled}")
    first, second = (losses(tmp_path / compiled)[:2] for compiled in ("true", "false"))
    assert first == pytest.approx(second, rel=1e-4)
    models = [saved(tmp_path / compiled, 3)["model"] for compiled in ("true", "false")]
    assert models[0].keys() == models[1].keys()
