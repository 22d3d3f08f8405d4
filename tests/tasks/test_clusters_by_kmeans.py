"""Clusters of a run without prototypes, by k-means of its features."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from forked import tool
from PIL import Image

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError

TASK = ["config=analysis/clusters", "data.num_workers=0", "device=cpu", "launch.threads=1"]
NUM_GREY = 6  # images of each of two kinds


@pytest.fixture
def two_kinds(tmp_path: Path) -> Path:
    """A folder of dark and of bright images, and a file that is no image."""
    rng = np.random.default_rng(0)
    for name, low in (("bright", 200), ("dark", 10)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(NUM_GREY):
            pixels = rng.integers(low, low + 40, (40, 40, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")
    (tmp_path / "images" / "dark" / "bad.png").write_bytes(b"no image")
    return tmp_path / "images"


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "clusters.csv").open() as file:
        return list(csv.DictReader(file))


def test_k_means_parts_two_kinds_of_images_with_any_number_of_processes(
    pretrained, two_kinds, tmp_path
):
    given = [*TASK, f"checkpoint={pretrained}", f"data.path={two_kinds}", "task.num_clusters=2"]
    summary = ssl_platform.run(compose([*given, f"output_dir={tmp_path / 'one'}"]))
    assert (summary["clusters_by"], summary["unreadable"]) == ("k-means", 1)
    assert summary["sets"][0]["purity"] == summary["sets"][0]["nmi"] == 1
    assert "training_agreement" not in summary["sets"][0]
    one = rows(tmp_path / "one")
    assert [row["cluster_0"] == "" for row in one] == [
        row["image"].endswith("bad.png") for row in one
    ]
    assert len(list((tmp_path / "one" / "sheets" / "0").iterdir())) == 2
    done = tool(*given, f"output_dir={tmp_path / 'two'}", "launch.processes=2")
    assert done.returncode == 0, done.stderr
    two = rows(tmp_path / "two")
    assert [row["cluster_0"] for row in two] == [row["cluster_0"] for row in one]
    assert json.loads((tmp_path / "two" / "summary.json").read_text())["sets"][0]["purity"] == 1


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("task.num_clusters=14", "task.num_clusters=14: there are 13 images"),
        (
            "task.num_clusters=1",
            "task.num_clusters=1: at least 2, e.g. 100, or null for the clusters of prototypes",
        ),
        ("task.kmeans_iters=0", "task.kmeans_iters=0: at least 1, e.g. 20"),
        (
            "task.num_clusters=3 task.head=prototypes",
            "task.head=prototypes: task.num_clusters=3 clusters the trunk's features, not those "
            "of a head; leave one of the two out",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(overrides, line, pretrained, two_kinds):
    given = [*TASK, f"checkpoint={pretrained}", f"data.path={two_kinds}"]
    with pytest.raises(ConfigError) as error:
        compose([*given, *overrides.split()])
    assert error.value.problems == [line]


def test_fewer_readable_images_than_clusters_are_told_at_the_end(pretrained, two_kinds, tmp_path):
    given = [*TASK, f"checkpoint={pretrained}", f"data.path={two_kinds}", "task.num_clusters=13"]
    with pytest.raises(ConfigError, match=r"^task.num_clusters=13: only 12 of these images can be"):
        ssl_platform.run(compose([*given, f"output_dir={tmp_path / 'few'}"]))
