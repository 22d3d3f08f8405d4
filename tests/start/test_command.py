"""The command ``start``: the file that it writes, what it refuses, and the whole way."""

import os
from pathlib import Path

import numpy as np
import pytest
from forked import tool
from omegaconf import OmegaConf
from PIL import Image

from ssl_platform.config import compose
from ssl_platform.config.overrides import parsed
from ssl_platform.errors import ConfigError
from ssl_platform.reports.typed import value
from ssl_platform.start import timing
from ssl_platform.start.command import start
from ssl_platform.start.recipe import in_yaml
from ssl_platform.start.stages import Stage

TINY = ["num_epochs=2", "data.batch_size=16", "trunk=resnet10_tiny", "launch.threads=1"]


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Forty small pictures in two classes, and a working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "SECONDS", 0.01)
    for index in range(40):
        file = tmp_path / "my images" / ("bright", "dark")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(index).integers(0, 256 - 120 * (index % 2), (20, 20, 3))
        Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "my images"


def test_the_file_says_why_and_the_same_command_goes_on(images, capsys, monkeypatch):
    assert start([str(images), *TINY]) == 0
    text = Path("my_images.yaml").read_text()
    assert "40 images in 2 classes (bright, dark)" in text
    for line in text.splitlines():
        is_value = ": " in line and not line.lstrip().startswith(("#", "- /"))
        assert not is_value or line.endswith("]"), line
    cfg = compose(["config=my_images.yaml"])
    assert (cfg.num_epochs, cfg.data.batch_size, cfg.data.train.path) == (2, 16, str(images))
    told = capsys.readouterr().out
    assert "config=my_images.yaml" in told and "takes about" in told
    with pytest.raises(ConfigError, match="is there already, by the same command; --run"):
        start([str(images), *TINY])

    monkeypatch.setattr(Stage, "run", lambda stage: 75)  # stopped
    assert start([str(images), *TINY, "--run"]) == 75
    assert "pretrain: exit code 75; the same command goes on" in capsys.readouterr().out


def test_a_file_of_another_command_is_not_overwritten(images):
    Path("my_images.yaml").write_text("mine: 1\n")
    for words in ([str(images)], [str(images), "--run"]):
        with pytest.raises(ConfigError, match=r"my_images\.yaml is there already; write another"):
            start(words)
    assert Path("my_images.yaml").read_text() == "mine: 1\n"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["lr=0.1"], "there is no lr; write optimizer.lr=0.1"),
        (["num_epochs=abc"], "num_epochs=abc: a whole number, at least 1"),
        (["loss=deepcluster_v2"], "start decides it"),
        (["trunk=resnt18"], "did you mean 'resnet18'"),
        (["--hours", "0"], "a number of hours"),
        (["--hour", "2"], "--hour"),
        (["--output", "mine.txt"], "ends in .yaml"),
        (["--output", "none/mine.yaml"], "there is no folder none"),
        (["more"], "not an override"),
        (["launch=slurm"], "start decides it"),
    ],
)
def test_a_mistake_is_one_line_before_anything_is_looked_at(words, told, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as error:
        start(["/nowhere", *words])
    (line,) = error.value.problems
    assert told in line
    assert not list(tmp_path.iterdir())


def test_images_have_to_be_named():
    with pytest.raises(ConfigError, match="name a folder of images: start /my/images"):
        start([])


def test_the_command_line_knows_the_word(tmp_path):
    done = tool("start", str(tmp_path / "none"), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {tmp_path / 'none'}: no such directory (working directory: {tmp_path})\n"
    )


def test_a_name_that_is_no_text_and_a_folder_in_the_place_of_the_file_are_refused(
    images, monkeypatch
):
    with pytest.raises(ConfigError, match="its name is no text"):
        start([os.fsdecode(b"/images\xe9")])
    Path("my_images.yaml").mkdir()
    with pytest.raises(ConfigError, match="is there already"):
        start([str(images), "--run"])


@pytest.mark.parametrize("text", ["/a/b c", "it's", "a,b", "${data}", "{x}", "[1]", "a: b # c"])
def test_paths_of_any_letters_are_written_so_that_they_come_back(text, tmp_path):
    path = tmp_path / "one.yaml"
    path.write_text(f"key: {in_yaml(text)}\n")
    assert OmegaConf.load(path).key == text
    assert str(parsed(f"key={value(text)}").value()) == text
