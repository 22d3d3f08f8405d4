"""The clusters of images by weights that are not a run."""

import csv

import pytest
import torch
from zoo_files import write_released

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.zoo import catalogue
from ssl_platform.zoo.trained_run import TrainedRun

TASK = ["config=analysis/clusters_of_file", "data.num_workers=0", "device=cpu"]
SHORT = ["num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn", "~hooks.crops"]


def clusters_in(folder):
    with (folder / "clusters.csv").open() as file:
        return [(row["image"], row["cluster_0"], row["score_0"]) for row in csv.DictReader(file)]


def test_a_run_saved_as_a_file_of_swav_gives_the_clusters_of_the_run(tiny, tmp_path, photographs):
    run = tmp_path / "run"
    cfg = compose([*tiny, *SHORT, f"output_dir={run}"])
    ssl_platform.run(cfg)
    images = f"data.path={photographs}"
    clusters = ["config=analysis/clusters", f"checkpoint={run}", images, "device=cpu"]
    ssl_platform.run(compose([*clusters, "data.num_workers=0"]))
    file = as_swav(run, tmp_path / "swav.pth.tar")
    ssl_platform.run(
        compose(
            [
                *TASK,
                f"checkpoint={file}",
                images,
                "trunk=resnet10_tiny",  # its stem cannot be told from the weights
                "trunk.width=8",
                f"data.eval_transform={dict(cfg.data.eval_transform)}".replace("'", ""),
                f"data.normalize.mean={list(cfg.data.normalize.mean)}",
                f"data.normalize.std={list(cfg.data.normalize.std)}",
                f"output_dir={tmp_path / 'of_file'}",
            ]
        )
    )
    assert clusters_in(tmp_path / "of_file") == clusters_in(run / "clusters")
    assert len(clusters_in(tmp_path / "of_file")) == 12


def as_swav(run, path):
    """The run's model under the names of the official code."""
    names = {
        "trunk.": "module.",
        "heads.prototypes.projection.": "module.projection_head.",
        "heads.prototypes.prototypes.0.": "module.prototypes.",
    }
    renamed = {}
    for key, value in TrainedRun.open(str(run)).state["model"].items():
        old = next(prefix for prefix in names if key.startswith(prefix))
        renamed[names[old] + key.removeprefix(old)] = value
    torch.save(renamed, path)
    return path


def test_a_model_of_the_zoo_with_three_sets(tmp_path, photographs, monkeypatch):
    name = "deepclusterv2_400ep"
    file = tmp_path / f"{name}_pretrain.pth.tar"
    write_released(file, "deepclusterv2_or_selav2_resnet50", shrink=True)
    monkeypatch.setenv(catalogue.MIRROR, tmp_path.as_uri())
    folder = tmp_path / "clusters"
    summary = ssl_platform.run(
        compose(
            [*TASK, f"checkpoint=zoo:{name}", f"data.path={photographs}", f"output_dir={folder}"]
        )
    )
    assert [each["clusters"] for each in summary["sets"]] == [375, 375, 375]
    assert (folder / "index.html").is_file() and (folder / "sheets").is_dir()


def test_weights_without_prototypes_are_told_before_anything_starts(tmp_path, photographs):
    file = tmp_path / "trunk.pth"
    state = {
        key: value
        for key, value in torch.load(write_released(file, "swav_resnet50", shrink=True)).items()
        if "prototypes" not in key
    }
    torch.save(state, file)
    given = [*TASK, f"checkpoint={file}", f"data.path={photographs}"]
    with pytest.raises(ConfigError) as caught:
        compose(given)
    assert caught.value.problems == [
        f"checkpoint={file}: has no prototypes; task.num_clusters=100 clusters its features by "
        "k-means"
    ]
    with pytest.raises(ConfigError, match=r"^task.num_clusters=13: there are 12 images$"):
        compose([*given, "task.num_clusters=13"])
    folder = tmp_path / "by_kmeans"
    small = "data.eval_transform={name: CenterCrop, resize: 32, size: 32}"
    summary = ssl_platform.run(
        compose([*given, "task.num_clusters=3", small, f"output_dir={folder}"])
    )
    assert (summary["clusters_by"], summary["sets"][0]["images"]) == ("k-means", 12)
    assert "verdict" not in (folder / "index.html").read_text()  # there is no run to tell of


@pytest.mark.parametrize("checkpoint", ["zoo:swav_800ep", "https://host/a.pth"])
def test_the_config_for_runs_names_that_for_files(checkpoint, tmp_path):
    with pytest.raises(ConfigError) as caught:
        compose(["config=analysis/clusters", f"checkpoint={checkpoint}", f"output_dir={tmp_path}"])
    assert str(caught.value) == (
        f"checkpoint={checkpoint}: not the directory of a run; for the prototypes of other weights "
        "use config=analysis/clusters_of_file"
    )
