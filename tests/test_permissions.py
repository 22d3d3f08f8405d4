"""What the user of a run may not read, which root may: the tests give root up in a process."""

import os
from pathlib import Path

import pytest
from forked import tool
from PIL import Image

CURE = "; make it readable, or move it away"
LIST_ROOT = "+data.train.root=images"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working directory of everybody's; its parents are not, so that paths are relative."""
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        Image.new("RGB", (40, 40)).save(tmp_path / "images" / label / "1.png")
    (tmp_path / "list.txt").write_text("a/1.png\nb/1.png\n")
    tmp_path.chmod(0o777)
    return tmp_path


def mistake(folder: Path, *overrides: str) -> str:
    """The one line that a command line without rights ends with."""
    (folder / "home").mkdir(mode=0o777, exist_ok=True)
    (folder / "home").chmod(0o777)
    env = {**os.environ, "HOME": "home", "XDG_CACHE_HOME": "home"}
    quickstart = "config=pretrain/swav/quickstart"
    done = tool(quickstart, *overrides, cwd=folder, env=env, is_nobody=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    line = done.stderr.rstrip()
    return line


@pytest.mark.parametrize(
    ("closed", "overrides", "message"),
    [
        (
            "images",
            ["data=folder", "data.train.path=images"],
            "error: data.train.path=images: cannot look into images: Permission denied" + CURE,
        ),
        (
            "images/b",
            ["data=folder", "data.train.path=images"],
            "error: data.train.path=images: cannot look into images/b: Permission denied" + CURE,
        ),
        (
            "list.txt",
            ["data=folder", "data.train.name=ListFile", "data.train.path=list.txt", LIST_ROOT],
            "error: data.train.path=list.txt: cannot be read: Permission denied",
        ),
        (".", [], "error: output_dir=runs/x: cannot be written (Permission denied)"),
    ],
)
def test_what_may_not_be_read_or_written_is_one_line(closed, overrides, message, folder):
    (folder / closed).chmod(0o555 if closed == "." else 0)
    try:
        assert mistake(folder, *overrides, "name=x") == message
    finally:
        (folder / closed).chmod(0o755)


def test_images_that_may_not_be_read_are_one_line(folder):
    for path in (folder / "images").rglob("*.png"):
        path.chmod(0)
    few = ["data.batch_size=2", "loss.queue_length=0", "heads.prototypes.num_prototypes=[2]"]
    told = mistake(folder, "data=folder", "data.train.path=images", *few, "name=x")
    assert told.startswith(
        "error: data.train.path=images: none of the 2 images tried can be read, "
    )
    assert told.endswith("Permission denied")
