"""Near duplicates, outliers, label errors and look-alikes, as the command line finds them."""

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from forked import tool
from PIL import Image
from zoo_files import write_released

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.data.sets.shapes import Shapes
from ssl_platform.errors import ConfigError

TASK = ["config=analysis/neighbours", "data.num_workers=0", "device=cpu", "launch.threads=1"]
NUM_SHAPES = 120


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shapes in folders of their classes, with copies of some and a file that is no image."""
    root, shapes = (
        tmp_path_factory.mktemp("planted"),
        Shapes(num_samples=NUM_SHAPES, size=32, seed=3),
    )
    for index in range(NUM_SHAPES):
        folder = root / f"shape{index % 10}"
        folder.mkdir(exist_ok=True)
        Image.fromarray(shapes.read(index)).save(folder / f"{index:03d}.png")
    for index in (3, 14, 25):
        copy = root / f"shape{index % 10}" / f"{index:03d}_copy.png"
        copy.write_bytes((root / f"shape{index % 10}" / f"{index:03d}.png").read_bytes())
    Image.fromarray(shapes.read(41)).save(root / "shape1" / "041_again.jpg", quality=95)
    (root / "shape0" / "bad.png").write_bytes(b"no image")
    return root


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def names(pair: dict[str, str]) -> tuple[str, str]:
    return Path(pair["image"]).name, Path(pair["other_image"]).name


def test_copies_and_look_alikes_are_found_and_the_rest_is_counted(
    pretrained, planted, here, capsys
):
    given = [*TASK, f"checkpoint={pretrained}", f"data.path={planted}", "name=mine"]
    asked = planted / "shape5" / "025.png"
    summary = ssl_platform.run(compose([*given, f"query={asked}"]))
    folder = here / "runs/mine"
    assert (summary["images"], summary["unreadable"]) == (NUM_SHAPES + 4, 1)
    pairs = {names(row): row["same_pixels"] for row in rows(folder / "duplicates.csv")}
    exact = {("003.png", "003_copy.png"), ("014.png", "014_copy.png"), ("025.png", "025_copy.png")}
    assert {pair for pair, same in pairs.items() if same == "true"} == exact
    assert summary["duplicates"]["same_pixels"] == 3
    assert ("041.png", "041_again.jpg") in pairs
    (first, second, *rest) = rows(folder / "look_alikes.csv")
    assert {Path(row["image"]).name for row in (first, second)} == {"025.png", "025_copy.png"}
    assert len(rest) == 18 and float(second["cosine"]) > 0.999 > float(rest[0]["cosine"])
    images = rows(folder / "images.csv")
    assert len(images) == NUM_SHAPES + 4
    assert not any(row["image"].endswith("bad.png") for row in images)
    distances = [float(row["mean_distance"]) for row in rows(folder / "outliers.csv")]
    assert distances == sorted((float(row["mean_distance"]) for row in images), reverse=True)
    assert json.loads((folder / "summary.json").read_text()) == summary
    assert "look at runs/mine/index.html" in capsys.readouterr().out
    ssl_platform.run(compose([*given, "name=without"]))  # the features are there already
    assert not (here / "runs/without/look_alikes.csv").exists()
    assert (here / "runs/without/images.csv").read_text() == (folder / "images.csv").read_text()


def test_two_processes_find_what_one_finds(pretrained, planted, here):
    given = [*TASK, f"checkpoint={pretrained}", f"data.path={planted}"]
    ssl_platform.run(compose([*given, "name=one"]))
    done = tool(*given, "name=two", "launch.processes=2", "cache.folder=other", cwd=here)
    assert done.returncode == 0, done.stderr
    for name in ("duplicates.csv", "outliers.csv", "label_errors.csv"):
        one, two = (rows(here / "runs" / which / name) for which in ("one", "two"))
        assert [row["image"] for row in one] == [row["image"] for row in two]


def test_images_are_prepared_as_those_of_the_run_or_as_imagenets(pretrained, planted, tmp_path):
    given = [*TASK, f"data.path={planted}"]
    run = compose([*given, f"checkpoint={pretrained}"])
    assert run.data.eval_transform == {"name": "CenterCrop", "resize": 32, "size": 32}
    file = write_released(tmp_path / "released.pth", "swav_resnet50", shrink=True)
    cfg = compose([*given, f"checkpoint={file}"])
    assert cfg.data.eval_transform == {"name": "CenterCrop", "resize": 256, "size": 224}
    small = "data.eval_transform={name: CenterCrop, resize: 40, size: 32}"
    assert compose([*given, f"checkpoint={file}", small]).data.eval_transform.resize == 40


def test_any_images_and_no_labels(pretrained, here):
    given = [*TASK, f"checkpoint={pretrained}", "data=shapes", "data.train.num_samples=30"]
    summary = ssl_platform.run(compose([*given, "task.components=null", "name=shapes"]))
    assert "label_errors" in summary and summary["k"] == 20
    flat = here / "flat"
    flat.mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        pixels = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(pixels, "PNG")
        (flat / f"{number}.png").write_bytes(pixels.getvalue())
    summary = ssl_platform.run(
        compose([*TASK, f"checkpoint={pretrained}", f"data.path={flat}", "name=flat"])
    )
    assert "label_errors" not in summary and summary["k"] == 3
    assert not (here / "runs/flat/label_errors.csv").exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        ("query=no.png", "query=no.png: no such file (working directory: {here})"),
        ("query=[{planted}]", "query={planted}: not a file"),
        ("query={planted}/shape0/bad.png", "query={planted}/shape0/bad.png: text, not an image: "),
        ("task.k=0", "task.k=0: at least 1, e.g. 20"),
        ("task.components=1", "task.components=1: at least 2, e.g. 128, or null for the features"),
        ("task.duplicate_cosine=2", "task.duplicate_cosine=2: "),
        ("task.thumbnail_side=2", "task.thumbnail_side=2: at least 8 pixels"),
        ("data.path=???", "data.path: needs a value; set data.path=..."),
        ("checkpoint=???", "checkpoint: whose weights? checkpoint=<a run, a file, a URL or zoo:N"),
        ("checkpoint=runs/no", "checkpoint=runs/no: "),
    ],
)
def test_mistakes_are_told_in_one_line(overrides, line, pretrained, planted, here):
    given = [f"checkpoint={pretrained}", f"data.path={planted}"]
    places = {"here": here, "planted": planted}
    with pytest.raises(ConfigError) as error:
        compose([*TASK, *given, overrides.format(**places)])
    (problem,) = error.value.problems
    assert problem.startswith(line.format(**places))


def test_one_image_alone_is_refused(pretrained, planted, here):
    (here / "one").mkdir()
    (here / "one" / "a.png").write_bytes((planted / "shape0" / "000.png").read_bytes())
    with pytest.raises(ConfigError, match=r"^data.train: one image alone has no neighbours$"):
        compose([*TASK, f"checkpoint={pretrained}", "data.path=one"])
