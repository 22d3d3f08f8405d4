"""Whole runs of a tiny SwAV through the public functions and the real launcher."""

import json
import shutil
from pathlib import Path

import pytest
from loaders import on_folder
from tiny_runs import (
    QUEUE,
    assert_equal,
    checkpoints,
    lines,
    losses,
    run_tool,
    saved,
    train,
)

TESTS = str(Path(__file__).parents[1])
IN_DOUBLE = ["plugins=[double_trunks]", "trunk.name=DoubleResNet"]


def test_a_run_leaves_what_the_readme_promises(tiny, tmp_path):
    results = train(tiny, tmp_path, "loggers.tensorboard.enabled=true")
    files = {path.name for path in tmp_path.iterdir()}
    assert {"config.yaml", "metrics.jsonl", "crops.png", "summary.json", "tensorboard"} <= files
    assert json.loads((tmp_path / "summary.json").read_text()) == results
    knn = {"labels", "queries", "k", "random init", "raw pixels", "trained"}
    assert set(results["knn"]) == knn
    assert checkpoints(tmp_path) == [8, 12]
    assert [line["step"] for line in lines(tmp_path) if "loss" in line] == list(range(1, 13))
    health = [line for line in lines(tmp_path) if "health/sample_entropy" in line]
    assert [line["epoch"] for line in health] == [1, 2, 3]
    assert all("knn/top1" in line for line in health)


def test_the_same_seed_gives_the_same_weights(tiny, tmp_path):
    short = [*tiny, "num_epochs=2", "~hooks.knn"]
    train(short, tmp_path / "a")
    train(short, tmp_path / "b", "data.num_workers=2")
    assert_equal(saved(tmp_path / "a", 2)["model"], saved(tmp_path / "b", 2)["model"])
    train(short, tmp_path / "c", "seed=1")
    assert losses(tmp_path / "c") != losses(tmp_path / "a")


def test_one_process_and_two_train_alike(tiny, tmp_path, monkeypatch):
    """Batch norm over all processes, global Sinkhorn, the same images in every step."""
    monkeypatch.setenv("PYTHONPATH", TESTS)
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


@pytest.mark.parametrize(
    ("method", "num_samples", "gain"),
    [("swav", 2500, 10), ("deepcluster_v2", 3000, 6), ("sela_v2", 3000, 4)],
)
def test_a_method_learns(method, num_samples, gain, tmp_path):
    """Two passes over some of the built-in images lift kNN well above the untrained trunk."""
    results = train(
        [f"config=pretrain/{method}/quickstart", "num_epochs=2", "trunk.width=16"],
        tmp_path,
        "launch.threads=1",
        f"data.train.num_samples={num_samples}",
        "data.val.num_samples=1000",
        "hooks.knn.every_epochs=2",
        "++hooks.report=null",
    )
    trained, random = (results["knn"][name]["top1"] for name in ("trained", "random init"))
    assert trained > random + gain


@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_a_compiled_trunk_gives_the_same_losses(tiny, tmp_path, monkeypatch):
    """And its names stay."""
    monkeypatch.setenv("PYTHONPATH", TESTS)
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
