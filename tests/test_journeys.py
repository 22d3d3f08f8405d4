"""Newcomers: what they type about a folder of theirs, and what they read."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from forked import tool

from ssl_platform.evaluation.results_table import results_table
from ssl_platform.start import timing
from ssl_platform.start.command import start
from ssl_platform.start.stages import Stage

SMALL = ["num_epochs=2", "data.batch_size=16", "trunk=resnet10_tiny", "launch.threads=1"]
KINDS: list[Callable[[np.ndarray, tuple[int, int], int], object]] = [
    lambda canvas, at, white: cv2.circle(canvas, at, 6, white, -1),
    lambda canvas, at, white: cv2.rectangle(canvas, at, (at[0] + 9, at[1] + 4), white, -1),
]


@pytest.fixture
def type_words(tmp_path, monkeypatch, capsys) -> Callable[..., str]:
    """Types a command, as it is printed, in an empty directory; returns what it prints."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "SECONDS", 0.01)

    def typed(*words: str) -> str:
        done = tool(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    def run(stage: Stage) -> int:
        print(typed(*stage.arguments))
        return 0

    monkeypatch.setattr(Stage, "run", run)

    def type_words(*words: str) -> str:
        if words[0] != "start":
            return typed(*words)
        capsys.readouterr()
        assert start(list(words[1:])) == 0
        return capsys.readouterr().out

    return type_words


def draw(folder: Path, *, number: int, classes: bool, depth: type = np.uint8) -> Path:
    """A folder of PNGs with a figure each, of two kinds; grey if they are of 16 bits."""
    rng = np.random.default_rng(0)
    for index in range(number):
        kind = index % 2
        canvas = rng.integers(0, 60, (28, 28, 3), np.uint8)
        KINDS[kind](canvas, tuple(map(int, rng.integers(8, 16, 2))), (255, 255, 255))
        if depth is np.uint16:
            canvas = canvas[..., 0].astype(np.uint16) * 13 + 700
        path = folder / (("round", "flat")[kind] if classes else "") / f"{index:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), canvas)
    return folder


def next_words(told: str) -> list[str]:
    """The command that a run ends with, without its program."""
    (line,) = re.findall(r"^next: (.*)", told, re.M)
    words = shlex.split(line)
    return words[words.index("ssl_platform") + 1 :]


def test_a_labelled_folder(type_words, tmp_path):
    """By one command to the end; then all results, and copies that lie in the folder."""
    images = draw(tmp_path / "figures", number=48, classes=True)
    (images / "flat/copy.png").write_bytes((images / "flat/001.png").read_bytes())
    told = type_words("start", "figures", *SMALL, "--run")
    assert "49 images in 2 classes (flat, round)" in told and "are copies of others" in told
    assert re.search(r"^  verdict: (learned|learned little|collapsed|no proof)\. ", told, re.M)
    assert "20-NN top1" in told and "runs/figures/report.html" in told
    for page in ("report.html", "clusters/index.html"):
        assert (tmp_path / "runs/figures" / page).is_file()
    told = type_words("config=analysis/neighbours", "checkpoint=runs/figures", "data.path=figures")
    (tables,) = {path.parent for path in (tmp_path / "runs").rglob("*duplicates*.csv")}
    text = "".join(path.read_text() for path in tables.glob("*duplicates*.csv"))
    assert "copy.png" in text and "001.png" in text
    (training,) = (
        line for line in results_table([Path("runs")]) if line.startswith("runs/figures ")
    )
    assert re.search(r" (learned|learned little|collapsed|no proof)$", training)


def test_a_flat_folder(type_words, tmp_path):
    """By the shipped recipe, which ends with a verdict and the command to type next."""
    draw(tmp_path / "flat pictures", number=40, classes=False)
    crops = ["data.transform.crops.large.size=24", "data.transform.crops.small.size=16"]
    told = type_words(
        "config=pretrain/swav/folder", "data.train.path=flat pictures", "name=mine", *SMALL, *crops,
        "data.eval_transform={resize: 24, size: 24}", "schedule.warmup_epochs=0",
        "heads.prototypes.num_prototypes=[8]", "data.num_workers=0",
    )  # fmt: skip
    assert "no kNN accuracy: no set of images has labels" in told
    assert re.search(r"^verdict: (learned|learned little|collapsed|no proof): ", told, re.M)
    told = type_words(*next_words(told))
    assert "runs/mine/" in told
    assert (tmp_path / "runs/mine/report.html").is_file()


def test_grey_scans_of_16_bits(type_words, tmp_path):
    """Neither their one channel nor their range has to be told."""
    draw(tmp_path / "scans", number=40, classes=False, depth=np.uint16)
    told = type_words("start", "scans", *SMALL, "--run")
    assert "grey, uint16 values" in told and "no classes" in told
    recipe = (tmp_path / "scans.yaml").read_text()
    for value in ("channels: 1", "range: auto"):
        assert re.search(rf"^  {value} ", recipe, re.M)
    assert "  verdict: " in told
    assert (tmp_path / "runs/scans/clusters/index.html").is_file()
