"""The clusters of a trained run's images, as the command line finds them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import tool
from PIL import Image
from pyarrow import parquet

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.errors import ConfigError

ROUNDING = 1e-4  # of a cosine; those of two images are further apart
TASK = ["config=analysis/clusters", "data.num_workers=0", "device=cpu"]


def a_run(method: str, tiny: list[str], folder: Path, photographs: Path, *more: str) -> Path:
    """Three epochs on the twelve photographs."""
    keep = [o for o in tiny if not o.startswith(("config=", "data.", "loss.", "heads.prot"))]
    overrides = [
        f"config=pretrain/{method}/quickstart",
        *keep,
        "data=folder",
        f"data.train.path={photographs}",
        "data.transform.crops.large.size=32",
        "data.transform.crops.small.size=20",
        "data.eval_transform={name: CenterCrop, resize: 32, size: 32}",
        "data.batch_size=4",
        "data.num_workers=0",
        "heads.prototypes.hidden_dim=16",
        "heads.prototypes.out_dim=8",
        "~hooks.knn",
        f"output_dir={folder}",
        *more,
    ]
    ssl_platform.run(compose(overrides))
    return folder


@pytest.fixture
def swav_run(tiny, tmp_path, photographs) -> Path:
    more = [
        "heads.prototypes.num_prototypes=[4]",
        "loss.queue_length=0",
        "loss.freeze_prototypes_epochs=0",
    ]
    return a_run("swav", tiny, tmp_path / "run", photographs, *more)


def clusters(run: Path, *overrides: str) -> dict:
    return ssl_platform.run(compose([*TASK, f"checkpoint={run}", *overrides]))


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "clusters.csv").open() as file:
        return list(csv.DictReader(file))


def test_every_image_gets_a_cluster_and_every_file_is_written(swav_run, photographs):
    summary = clusters(swav_run)
    folder = swav_run / "clusters"
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.yaml", "index.html", "names.js", "clusters.csv", "clusters.parquet",
        "sheets", "by_cluster", "summary.json",
    }  # fmt: skip
    rows = table(folder)
    assert [row["image"] for row in rows] == sorted(map(str, photographs.rglob("*.jpg")))
    assert {row["seen"] for row in rows} == {"true"}
    assert parquet.read_table(folder / "clusters.parquet").num_rows == 12
    (figures,) = summary["sets"]
    assert figures["images"] == 12
    assert {"nmi", "ari", "purity", "hungarian_accuracy"} <= set(figures)
    assert json.loads((folder / "summary.json").read_text()) == summary
    links = sorted((folder / "by_cluster").rglob("*.jpg"))
    assert sorted(str(link.resolve()) for link in links) == [row["image"] for row in rows]
    for link in links:
        row = rows[int(link.name.partition("_")[0])]
        assert int(link.parent.name) == int(row["cluster_0"])
    sheets = {int(path.stem) for path in (folder / "sheets" / "0").iterdir()}
    assert sheets == {int(row["cluster_0"]) for row in rows}


@pytest.mark.parametrize("method", ["deepcluster_v2", "sela_v2"])
def test_an_offline_run_has_clusters_by_each_set_and_the_labels_of_its_training(
    method, tiny, tmp_path, photographs
):
    run = a_run(
        method, tiny, tmp_path / "run", photographs, "heads.prototypes.num_prototypes=[3, 2]"
    )
    clusters(run)
    state = torch.load(run / "checkpoints" / "step_00000009" / "shared.pt", weights_only=True)
    labels = state["loss"]["assignments"]
    rows = table(run / "clusters")
    for number in (0, 1):
        assert {int(row[f"cluster_{number}"]) for row in rows} <= set(range(3))
        assert [int(row[f"training_cluster_{number}"]) for row in rows] == labels[number].tolist()


def test_images_from_elsewhere_are_told_from_those_of_the_training(swav_run, photographs, tmp_path):
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    (mixed / "again").symlink_to(photographs / "class0")
    Image.fromarray(np.full((40, 40, 3), 90, np.uint8)).save(mixed / "new.png")
    clusters(swav_run, f"data.path={mixed}", "name=mixed")
    seen = {Path(row["image"]).name: row["seen"] for row in table(swav_run / "mixed")}
    assert seen.pop("new.png") == "false"
    assert len(seen) == 4 and set(seen.values()) == {"true"}


def test_a_copy_of_an_image_has_its_cluster_alone_or_among_others(swav_run, photographs, tmp_path):
    clusters(swav_run)
    rows = {Path(row["image"]).name: row for row in table(swav_run / "clusters")}
    for number in (0, 5):
        alone = tmp_path / f"alone{number}"
        alone.mkdir()
        original = next(photographs.rglob(f"{number}.jpg"))
        (alone / "copy.jpg").write_bytes(original.read_bytes())
        clusters(swav_run, f"data.path={alone}", f"name=alone{number}")
        (row,) = table(swav_run / f"alone{number}")
        assert row["cluster_0"] == rows[original.name]["cluster_0"]
        score = float(rows[original.name]["score_0"])
        assert float(row["score_0"]) == pytest.approx(score, abs=ROUNDING)


def test_two_processes_find_what_one_finds(swav_run):
    clusters(swav_run)
    done = tool(*TASK, f"checkpoint={swav_run}", "name=two", "launch.processes=2")
    assert done.returncode == 0, done.stderr
    one, two = table(swav_run / "clusters"), table(swav_run / "two")
    for first, second in zip(one, two, strict=True):
        assert first["image"] == second["image"]
        assert first["cluster_0"] == second["cluster_0"]
        assert float(first["score_0"]) == pytest.approx(float(second["score_0"]), abs=ROUNDING)
    sheets = [
        sorted(p.name for p in (swav_run / n / "sheets/0").iterdir()) for n in ("clusters", "two")
    ]
    assert sheets[0] == sheets[1]


def test_an_unreadable_image_has_no_cluster_and_the_others_have_theirs(
    swav_run, photographs, tmp_path, capsys
):
    clusters(swav_run)
    bad = photographs / "class1" / "4.jpg"
    bad.write_bytes(b"no image")
    summary = clusters(swav_run, "name=after")
    assert summary["unreadable"] == 1
    line = f"of 12 images tried: 1 unreadable, first {bad}: text, not an image: fetch it again"
    assert line in capsys.readouterr().out
    before, after = table(swav_run / "clusters"), table(swav_run / "after")
    for first, second in zip(before, after, strict=True):
        if second["image"].endswith("4.jpg"):
            assert second["cluster_0"] == second["score_0"] == ""
        else:
            assert first["cluster_0"] == second["cluster_0"]


def test_a_list_of_images_is_a_path_too(swav_run, photographs):
    listed = ["class1/4.jpg", "class0/3.jpg"]
    (photographs / "list.csv").write_text("".join(f"{name},apple\n" for name in listed))
    clusters(swav_run, f"data.path={photographs}/list.csv", "name=listed")
    assert [row["image"] for row in table(swav_run / "listed")] == [
        f"{photographs}/{name}" for name in listed
    ]
    assert '"classes": {"0": "apple"}' in (swav_run / "listed" / "index.html").read_text()


def test_an_earlier_checkpoint_of_a_run_can_be_asked(swav_run):
    folder = swav_run / "checkpoints" / "step_00000006"
    clusters(folder, f"output_dir={swav_run / 'early'}")
    assert len(table(swav_run / "early")) == 12


def mistake(*overrides: str) -> str:
    with pytest.raises(ConfigError) as error:
        compose([*TASK, *overrides])
    (problem,) = error.value.problems
    return problem


def test_mistakes_are_told_in_one_line(swav_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = f"(working directory: {tmp_path})"
    assert mistake() == "checkpoint: the config needs a value (str); set checkpoint=..."
    assert mistake("checkpoint=runs/no") == (
        f"checkpoint=runs/no: no such directory {here}; give that of a run, runs/<name>"
    )
    (tmp_path / "empty").mkdir()
    assert mistake("checkpoint=empty") == (
        "checkpoint=empty: not the directory of a run, empty/config.yaml is missing"
    )
    assert mistake("checkpoint=run", "data.path=/nowhere") == (
        f"data.path=/nowhere: no such directory {here}"
    )
    assert mistake("checkpoint=run", "data.split=val") == (
        "data.split=val: the run has no such images; set data.path"
    )
    assert mistake("checkpoint=run", "task.head=other") == (
        "task.head=other: has to be a PrototypeHead; the model's heads are ['prototypes']"
    )
    assert mistake("checkpoint=run", "task.images_per_sheet=0") == (
        "task.images_per_sheet=0: at least 1"
    )
    assert mistake("checkpoint=run", "optimizer.lr=1").startswith(
        "optimizer.lr=1: there is no optimizer; only a training has this key; choose from "
    )
    for folder in (swav_run / "checkpoints").iterdir():
        (folder / "shared.pt").write_bytes(b"damaged")
    assert mistake("checkpoint=run").startswith(
        "checkpoint=run: run/checkpoints/step_00000009/shared.pt has 7 bytes instead of "
    )
    last = "run/checkpoints/step_00000009"
    assert mistake(f"checkpoint={last}").startswith(
        f"checkpoint={last}: {last}/shared.pt has 7 bytes instead of "
    )
