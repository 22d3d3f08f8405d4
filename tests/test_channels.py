"""Whole runs on images of one and of five channels: the set of docs/extending.md, grey scans."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import TINY
from image_files import tiff
from omegaconf import OmegaConf
from PIL import Image
from test_docs import BLOCKS
from tiny_runs import assert_equal, losses, run_tool, saved, train, without

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.data.shown import as_rgb
from ssl_platform.errors import ConfigError

CHANNELS = 5
EVAL = "data.eval_transform={name: CenterCrop, resize: 32, size: 32}"
STEPS = ["num_epochs=2", "save.every_steps=1", "save.keep=99", "~hooks.crops"]


def images(number: int, seed: int) -> dict[str, np.ndarray]:
    """Noise whose second channel tells the class."""
    pixels = np.random.default_rng(seed).integers(0, 256, (number, 32, 32, CHANNELS), np.uint8)
    labels = np.arange(number) % 2
    pixels[..., 1] = pixels[..., 1] // 2 + 120 * labels[:, None, None]
    return {"images": pixels, "labels": labels}


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The command of docs/extending.md, small, and the folder with its files."""
    folder = tmp_path_factory.mktemp("five")
    for block in BLOCKS:
        if block.mark == "file" and "five_bands" in block.what:
            path = folder / Path(block.what).name
            path.write_text(block.text)
    part = folder / "configs" / "data" / "five_bands.yaml"
    part.parent.mkdir(parents=True)
    (folder / "five_bands.yaml").rename(part)
    for name, number in (("train", 64), ("test", 32)):
        np.savez(folder / f"{name}.npz", **images(number, len(name)))
    options = without(TINY, "data.")
    own = ["data=five_bands", "plugins=[five_bands]", *STEPS, "hooks.knn.num_labels=20"]
    return [*options, *own, *(f"data.{n}.path={folder}/{f}.npz" for n, f in PATHS)], folder


PATHS = (("train", "train"), ("val", "test"))


@pytest.fixture
def command(five: tuple[list[str], Path], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    overrides, folder = five
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return overrides


@pytest.fixture(scope="module")
def whole(five: tuple[list[str], Path]) -> Path:
    """A run on one process that was never stopped."""
    overrides, folder = five
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", str(folder))
        run_tool(["--config-dir", "configs", *overrides, "name=whole", "launch.threads=1"])
    return folder / "runs" / "whole"


def test_five_channels_train_as_the_guide_says(whole):
    config = OmegaConf.load(whole / "config.yaml")
    assert (config.data.channels, config.trunk.in_channels) == (CHANNELS, CHANNELS)
    assert len(config.data.normalize.mean) == CHANNELS
    assert saved(whole, 1)["model"]["trunk.conv1.weight"].shape[1] == CHANNELS
    assert {"trained", "raw pixels"} <= json.loads((whole / "summary.json").read_text())[
        "knn"
    ].keys()


def test_five_channels_resume_as_if_unbroken_on_one_process_and_two(whole, command, tmp_path):
    tool = ["--config-dir", "configs", *command]
    run_tool([*tool, f"resume.mode={whole}/checkpoints/step_00000003", f"output_dir={tmp_path}/a"])
    assert losses(tmp_path / "a") == losses(whole)[3:]
    assert_equal(saved(whole, 1), saved(tmp_path / "a", 1))
    two = [*tool, "launch.processes=2", "~hooks.knn"]
    run_tool([*two, f"output_dir={tmp_path}/b"])
    assert losses(tmp_path / "b") == pytest.approx(losses(whole), rel=1e-3)
    cut = f"{tmp_path}/b/checkpoints/step_00000001"
    run_tool([*two, f"resume.mode={cut}", f"output_dir={tmp_path}/c"])
    assert losses(tmp_path / "c") == losses(tmp_path / "b")[1:]
    assert_equal(saved(tmp_path / "b", 1), saved(tmp_path / "c", 1))


READ = ["data.num_workers=0", "launch.threads=1"]
EVALUATION = ["plugins=[five_bands]", *READ, EVAL]
SETS = [f"data.{name}={{name: FiveBands, path: {file}.npz}}" for name, file in PATHS]


@pytest.mark.parametrize(
    "job", ["benchmark/knn/folder", "benchmark/linear/cached/folder", "analysis/features"]
)
def test_five_channels_are_evaluated_as_they_were_trained(job, whole, command, tmp_path):
    trained = OmegaConf.load(whole / "config.yaml").data
    overrides = [f"config={job}", f"checkpoint={whole}", *EVALUATION, *SETS]
    overrides += [] if job.startswith("analysis") else ["baselines=false"]
    cfg = compose([*overrides, f"output_dir={tmp_path}"])
    assert (cfg.data.channels, cfg.data.normalize) == (CHANNELS, trained.normalize)
    results = ssl_platform.run(cfg)
    assert results.shapes["pooled"] if job.startswith("analysis") else results.figures


def test_the_clusters_of_five_channels_have_their_pages(whole, command, tmp_path):
    overrides = ["config=analysis/clusters", f"checkpoint={whole}", "plugins=[five_bands]"]
    found = ssl_platform.run(compose([*overrides, *READ, f"output_dir={tmp_path}"]))
    assert found["images"] == 64 and any(tmp_path.glob("sheets/0/*.jpg"))


def problems(overrides: list[str], *more: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose([*overrides, *more], ["configs"])
    return caught.value.problems


THREE = "data.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}"
MISFITS = {
    "data.channels=3": (
        "data.channels=3: the images of data.train, FiveBands, have 5; data.channels=null takes "
    ),
    "trunk.in_channels=3": "trunk.in_channels=3: the images have 5 channels; null takes those",
    THREE: "data.normalize={mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}: a number of each for ",
    "data.transform.ops.grayscale.probability=0.5": (
        "data.transform.ops.grayscale.probability=0.5: needs red, green and blue, and the images "
    ),
    "trunk=colours": "trunk: Colours takes images of 3 channels, these have 5; give it an ",
    "data.val={name: Shapes, num_samples: 64, size: 32, seed: 1}": (
        "data.channels=5: the images of data.val, Shapes, have 3; it has to be the same for "
    ),
}


@pytest.mark.parametrize("misfit", MISFITS)
def test_what_does_not_fit_the_channels_is_one_line(misfit, command):
    Path("colours.py").write_text(COLOURS)
    Path("configs/trunk").mkdir(exist_ok=True)
    Path("configs/trunk/colours.yaml").write_text("name: Colours")
    options = command if "grayscale" not in misfit else [*command, "data.num_workers=0"]
    if misfit == "trunk=colours":
        options = [*without(command, "plugins", "trunk."), "plugins=[five_bands,colours]"]
    first, *others = problems(options, misfit)
    assert first.startswith(MISFITS[misfit])
    assert not others or misfit == "data.channels=3"


def test_a_trunk_that_is_older_than_its_option_takes_the_channels_of_the_images(command):
    Path("configs/trunk").mkdir(exist_ok=True)
    older = "name: ResNet\nblock: basic\nlayers: [1, 1, 1, 1]\nwidth: 8\nstem_kernel: 3\n"
    Path("configs/trunk/older.yaml").write_text(f"{older}stem_stride: 2\nstem_pool: false\n")
    cfg = compose([*command, "trunk=older"], ["configs"])
    assert cfg.trunk.in_channels == CHANNELS


COLOURS = """
import torch
from ssl_platform.registry import TRUNKS

@TRUNKS.register()
class Colours(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out_dim = torch.nn.Conv2d(3, 16, 3), 16

    def forward(self, images):
        return self.conv(images).mean(dim=(2, 3))
"""


def test_weights_for_other_channels_are_refused_or_fitted(pretrained, command, tmp_path):
    start = f"checkpoint={pretrained}"
    (line,) = problems(command, start)
    assert "conv1.weight takes images of 3 channels, the trunk's of 5; a training fits it" in line
    train_options = [*command, start, "adapt_channels=true", "~hooks.knn"]
    cfg = compose([*train_options, f"output_dir={tmp_path}"], ["configs"])
    assert cfg.data.channels == CHANNELS
    ssl_platform.run(cfg)
    (line,) = problems(["config=analysis/features", start, *EVALUATION, SETS[0], "data.channels=5"])
    assert line.startswith(f"{start}: its trunk takes images of 3 channels, these have 5; set data")


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 16-bit grey TIFFs in two classes."""
    folder = tmp_path_factory.mktemp("scans")
    for number in range(24):
        values = np.random.default_rng(number).integers(0, 4096, (40, 40)).astype(np.uint16)
        path = folder / f"class{number % 2}" / f"{number}.tif"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(tiff(values // (1 + number % 2)))
    return folder


def test_grey_scans_of_16_bits_go_through_the_whole_chain(scans, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = [
        "heads.prototypes.num_prototypes=[4]",
        "data.batch_size=8",
        "hooks.knn.num_labels=12",
        "hooks.knn.k=3",
    ]
    crops = "data.transform.crops"
    sizes = [f"{crops}.large.size=24", f"{crops}.small={{size: 16, count: 2, scale: [0.2, 0.5]}}"]
    options = [
        *without(TINY, "data.", "hooks.knn", "heads.prototypes.num"),
        *STEPS[:1],
        "data=bands",
        *small,
        *sizes,
    ]
    run = tmp_path / "run"
    train(
        [*options, "data.num_workers=0", EVAL], run, f"data.train.path={scans}", "data.channels=1"
    )
    config = OmegaConf.load(run / "config.yaml")
    low, high = config.data.range
    assert 0 <= low < 60 < 3900 < high <= 4095 and config.trunk.in_channels == 1
    assert len(config.data.normalize.mean) == 1
    sheet = np.asarray(Image.open(run / "crops.png"))
    assert (sheet[..., 0] == sheet[..., 2]).all() and len(np.unique(sheet)) > 100
    evaluation = [f"checkpoint={run}", *READ, EVAL]
    knn = [f"data.train.path={scans}", "data.val=null", "task.k=[3]"]
    cfg = compose(["config=benchmark/knn/folder", *evaluation, *knn])
    assert (cfg.data.channels, cfg.data.range) == (1, [low, high])
    assert cfg.data.normalize == config.data.normalize
    ssl_platform.run(cfg)
    pages = tmp_path / "pages"
    clusters = ["config=analysis/clusters", f"checkpoint={run}", f"output_dir={pages}"]
    assert ssl_platform.run(compose([*clusters, *READ]))["images"] == 24
    features = ["config=analysis/features", *evaluation, f"data.path={scans}"]
    assert ssl_platform.run(compose(features)).shapes["pooled"]


def test_grey_takes_the_averages_of_a_normalisation_of_colours(scans):
    free = [f"data.transform.ops.jitter.{key}=0" for key in ("saturation", "hue")]
    overrides = ["config=pretrain/swav/folder", f"data.train.path={scans}", "data.channels=1"]
    few = ["data.batch_size=8", "heads.prototypes.num_prototypes=[4]", *free]
    cfg = compose([*overrides, *few, "data.transform.ops.grayscale.probability=0"])
    assert cfg.data.normalize == {"mean": [0.449], "std": [0.225667]}


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 13])
def test_pictures_show_any_number_of_channels(channels):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, channels), np.uint8)
    shown = as_rgb(pixels)
    assert shown.shape == (4, 5, 3)
    first = pixels[..., :3] if channels > 2 else pixels[..., [0, 0, 0]]
    assert (shown == first).all()
