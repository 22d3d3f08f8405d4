"""What is decided before a run starts is saved with it, for its resume and its evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_files import tiff
from omegaconf import OmegaConf
from PIL import Image

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.config.saved import YOUNGER_THAN_SOME_RUNS
from ssl_platform.config.source import Source
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.engine.build import open_dataset
from ssl_platform.errors import ConfigError, DataError
from ssl_platform.job import running, settled
from ssl_platform.launch.job import Job
from ssl_platform.launch.launchers import Local
from ssl_platform.tasks.trunk import pixels_of_run

RUN = [
    *("config=pretrain/swav/folder", "trunk=resnet10_tiny", "data.batch_size=4", "num_epochs=2"),
    *("schedule.warmup_epochs=0", "heads.prototypes.num_prototypes=[4]", "data.num_workers=0"),
    "loss.freeze_prototypes_epochs=0",
]


def write(folder: Path, *, top: int) -> Path:
    """Eight 16-bit TIFFs of values below ``top``."""
    folder.mkdir(exist_ok=True)
    for number in range(8):
        values = np.random.default_rng(number).integers(0, top, (150, 150)).astype(np.uint16)
        (folder / f"{number}.tif").write_bytes(tiff(values))
    return folder


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checked config, as YAML."""
    images = write(tmp_path_factory.mktemp("checked") / "images", top=65536)
    return OmegaConf.to_yaml(compose([*RUN, f"data.train.path={images}"]))


@pytest.fixture
def started(checked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Starts a run up to where its ranks would; gives the config that they would get."""
    configs: list[Any] = []

    def begin(launcher: Local, jobs: list[Job]) -> list[None]:
        configs.append(OmegaConf.create(jobs[0].args[0]))
        (tmp_path / "run" / "checkpoints").mkdir(exist_ok=True)
        return [None]

    monkeypatch.setattr(Local, "launch", begin)

    def start(images: Path, **values: Any) -> Any:
        cfg = OmegaConf.create(checked)
        for key, value in {"output_dir": str(tmp_path / "run"), **values}.items():
            OmegaConf.update(cfg, key.replace("__", "."), value)
        cfg.data.train.path = str(images)
        running.run_here(cfg)
        return configs[-1]

    return start


def saved(tmp_path: Path) -> Any:
    return OmegaConf.load(tmp_path / "run" / "config.yaml")


def test_auto_is_found_said_kept_and_used_again(started, tmp_path, capsys):
    images = write(tmp_path / "deep", top=4096)
    low, high = started(images, data__range="auto").data.range
    assert [low, high] == saved(tmp_path).data.range
    assert 0 <= low < 50 and 4050 < high <= 4095
    line = f"data.range=auto: [{low},{high}] by the images tried; it is kept with the run"
    assert capsys.readouterr().out.splitlines()[0] == line
    write(images, top=2048)  # which have another range
    assert started(images, data__range="auto").data.range == [low, high]
    assert "auto" not in capsys.readouterr().out
    run = tmp_path / "run"
    kept, colours = {"data.range": [low, high]}, {"channels": 3, "normalize": {"mean": [0.5] * 3}}
    assert pixels_of_run(str(run), colours | {"range": "auto"}, {}) == kept
    assert pixels_of_run(str(run / "checkpoints" / "step_1"), colours, {}) == kept
    assert pixels_of_run(str(run), colours | {"range": [0, 1]}, {}) == {}
    assert pixels_of_run("zoo:swav_800ep", colours | {"range": "auto"}, {}) == {}
    with pytest.raises(ConfigError) as caught:
        started(images, data__range=[0, 100])
    assert f"data.range: {[low, high]} there, [0, 100] here" in caught.value.problems


def test_auto_of_8_bits_is_kept_as_none(started, photographs, tmp_path, capsys):
    assert started(photographs, data__range="auto").data.range is None
    assert "are of 8 bits, which are taken as they are" in capsys.readouterr().out
    assert saved(tmp_path).data.range is None
    assert started(photographs, data__range="auto").data.range is None


def test_auto_is_found_in_the_validation_images_where_those_of_training_are_of_8_bits(
    started, photographs, tmp_path, capsys
):
    images = write(tmp_path / "deep", top=4096)
    node = {"name": "ImageFolder", "path": str(images)}
    low, high = started(photographs, data__val=node, data__range="auto").data.range
    assert 0 <= low < 50 and 4050 < high <= 4095
    assert "warning: data.val" not in capsys.readouterr().out


@pytest.mark.parametrize("where", ["train", "val"])
def test_more_unreadable_images_than_are_allowed_are_told_before_the_ranks_start(
    where, started, photographs, tmp_path
):
    images = write(tmp_path / "deep", top=4096)
    for number in range(2):
        (images / f"{number}.tif").write_bytes(b"")
    node = {"name": "ImageFolder", "path": str(images)}
    train, val = (images, None) if where == "train" else (photographs, node)
    how = "with others in their place" if where == "train" else "without them"
    with pytest.raises(DataError) as caught:
        started(train, data__val=val)
    begin = f"data.{where}: 2 of 8 images tried cannot be read, data.max_bad_fraction=0.01 allows"
    assert str(caught.value).startswith(f"{begin} 1 of 8: ")
    assert str(caught.value).endswith(f"; to go on {how} set data.max_bad_fraction=0.5")
    started(train, data__val=val, data__max_bad_fraction=0.5)


def test_an_evaluation_is_not_told_of_crops_that_it_does_not_take(photographs, pretrained, capsys):
    overrides = ["config=analysis/features", f"checkpoint={pretrained}", f"data.path={photographs}"]
    small = ["data.eval_transform={name: CenterCrop, resize: 48, size: 48}"]
    assert settled.images_found(options_of(compose([*overrides, *small]))) == [
        "data.train: 12 images in 3 classes (class0, class1, class2)"
    ]


def test_auto_that_cannot_be_found_is_one_line(started, tmp_path):
    images = write(tmp_path / "mixed", top=4096)
    (images / "a.tif").write_bytes(tiff(np.ones((150, 150), np.float32)))
    with pytest.raises(ConfigError, match=r"^data\.range=auto: .* float32 and uint16"):
        started(images, data__range="auto")
    assert not (tmp_path / "run").exists()


def test_what_cannot_be_is_refused_before_the_run(tmp_path):
    for number in range(4):
        (tmp_path / f"{number}.tif").write_bytes(tiff(np.ones((9, 9), np.float32)))
    images = f"data.train.path={tmp_path}"
    mistakes = ("data.range=[3,1]", "data.background=blau", "data.max_pixels=0")
    with pytest.raises(ConfigError) as caught:
        compose([*RUN, images, *mistakes])
    assert [p.partition(":")[0] for p in caught.value.problems] == list(mistakes)
    with pytest.raises(ConfigError) as caught:
        compose([*RUN, images])
    (problem,) = caught.value.problems
    assert problem.endswith("set data.range=[low,high] or data.range=auto")


def test_a_run_older_than_the_options_goes_on_with_the_pixels_that_it_began_with(
    started, photographs, tmp_path, capsys
):
    assert started(photographs).data.orientation == "apply"
    cfg = saved(tmp_path)
    for key in YOUNGER_THAN_SOME_RUNS:
        del cfg.data[key]
    OmegaConf.save(cfg, tmp_path / "run" / "config.yaml")
    capsys.readouterr()
    before = PixelOptions(orientation="ignore", background=None, corrupt="use")
    for _ in range(2):  # also once it has gone on
        assert options_of(started(photographs)).data.pixels == before
        assert (
            "this run is older than some options and goes on as it began: data.orientation=ignore, "
            "data.background=null, data.corrupt=use (resume.allow_changes permits another)"
        ) in capsys.readouterr().out
    allowed = started(photographs, resume__allow_changes=["data.orientation"])
    assert options_of(allowed).data.pixels == PixelOptions(background=None, corrupt="use")


def test_data_sets_read_with_the_options(checked, tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    node = {"name": "ImageFolder", "path": str(tmp_path)}
    for orientation, shape in (("apply", (60, 40, 3)), ("ignore", (40, 60, 3))):
        cfg = OmegaConf.create(checked)
        cfg.data.orientation = orientation
        assert open_dataset(node, options_of(cfg).data).read(0).shape == shape


@pytest.mark.parametrize("part", ["imagenet", "imagenet1k", "voc07"])
def test_published_results_keep_the_pixels_that_they_were_found_with(part):
    data = Source.of(["config=pretrain/swav/rn50_100ep", f"data={part}"]).read()[0].data
    assert (data.orientation, data.background, data.corrupt) == ("ignore", None, "use")
    assert (data.range, data.max_pixels) == (None, 50_000_000)
