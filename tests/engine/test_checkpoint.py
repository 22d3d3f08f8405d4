"""Checkpoints on disk: a broken one is named, and the one before it is used."""

import json
import logging
import os
import shutil
from pathlib import Path

import pytest
import torch

from ssl_platform.engine import checkpoint
from ssl_platform.errors import CheckpointError

BYTES = 20_000


def write(output_dir: Path, step: int, epoch: int = 0, epoch_step: int = 1) -> Path:
    folder = checkpoint.partial_folder(output_dir, step)
    folder.mkdir(parents=True)
    states = {"shared.pt": {"step": step}, "rank_0.pt": {"bank": torch.zeros(BYTES // 4)}}
    files = {name: checkpoint.write(folder / name, state) for name, state in states.items()}
    about = {"step": step, "epoch": epoch, "epoch_step": epoch_step}
    return checkpoint.commit(folder, files, about)


def flip_a_bit(path: Path) -> None:
    """In the middle of the tensor, where torch.load sees nothing wrong."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(share: float):
    def damage(path: Path) -> None:
        os.truncate(path, int(share * path.stat().st_size))

    return damage


def test_the_latest_is_the_one_of_the_last_step(tmp_path):
    assert checkpoint.latest(tmp_path) is None
    for step in (9, 10, 100_000_000, 11):
        write(tmp_path, step)
    latest = checkpoint.latest(tmp_path)
    assert latest is not None
    assert checkpoint.read_shared(latest) == {"step": 100_000_000}
    assert json.loads((latest / "manifest.json").read_text())["step"] == 100_000_000


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "rank_0.pt is missing"),
        (cut(0), "rank_0.pt has 0 bytes instead of "),
        (cut(0.1), "rank_0.pt has "),
        (cut(0.999), "rank_0.pt has "),
        (flip_a_bit, "rank_0.pt has changed since it was written"),
    ],
)
def test_a_broken_one_is_named_and_the_one_before_is_used(damage, message, tmp_path, caplog):
    before, broken = write(tmp_path, 1), write(tmp_path, 2)
    damage(broken / "rank_0.pt")
    assert checkpoint.latest(tmp_path) == before
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage().startswith(f"{broken}/{message}")
    assert record.getMessage().endswith(f"; going on from {before}")


@pytest.mark.parametrize("manifest", ["", "{", "[]", "{}", '{"files": {}}', '{"files": {"a": 1}}'])
def test_one_without_a_valid_manifest_is_named_too(manifest, tmp_path, caplog):
    before, broken = write(tmp_path, 1), write(tmp_path, 2)
    (broken / "manifest.json").write_text(manifest)
    assert checkpoint.latest(tmp_path) == before
    assert caplog.text.count(f"{broken / 'manifest.json'} cannot be read (") == 1


def test_when_all_are_broken_nothing_starts_anew(tmp_path):
    folders = [write(tmp_path, step) for step in (1, 2)]
    for folder in folders:
        (folder / "shared.pt").unlink()
    with pytest.raises(CheckpointError) as error:
        checkpoint.latest(tmp_path)
    assert str(error.value).split("; ") == [
        f"{folders[1]}/shared.pt is missing",
        f"{folders[0]}/shared.pt is missing",
        "no checkpoint before is whole",
    ]
    assert error.value.exit_code == 3


def test_a_message_says_what_is_saved(tmp_path):
    assert checkpoint.what_is_saved(tmp_path) == "no checkpoint was saved before"
    folder = write(tmp_path, 4)
    assert checkpoint.what_is_saved(tmp_path) == f"{folder} is from before"
    flip_a_bit(folder / "shared.pt")
    assert "no checkpoint before is whole" in checkpoint.what_is_saved(tmp_path)


def test_a_checkpoint_half_written_or_half_removed_is_not_used(tmp_path):
    whole = write(tmp_path, 1)
    half = checkpoint.partial_folder(tmp_path, 2)
    shutil.copytree(whole, half)
    assert checkpoint.latest(tmp_path) == whole
    checkpoint.remove_partial(tmp_path)
    assert names_in(whole.parent) == [whole.name]


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_latest_stay_and_those_that_are_to_be_kept(tmp_path):
    for step in range(1, 7):
        write(tmp_path, step, epoch=step)
    checkpoint.prune(tmp_path, keep=2, is_kept=lambda about: about.get("epoch") == 3)
    assert names_in(tmp_path / "checkpoints") == [f"step_{step:08d}" for step in (3, 5, 6)]


def test_broken_ones_take_no_place_among_the_latest(tmp_path):
    good, broken = write(tmp_path, 8), write(tmp_path, 12)
    flip_a_bit(broken / "rank_0.pt")
    checkpoint.set_aside_later(good)
    write(tmp_path, 9)
    checkpoint.prune(tmp_path, keep=1, is_kept=lambda about: False)
    assert names_in(good.parent) == ["broken_step_00000012", "step_00000009"]


def test_a_checkpoint_of_the_same_step_is_replaced(tmp_path):
    write(tmp_path, 1)
    flip_a_bit(write(tmp_path, 1) / "rank_0.pt")
    checkpoint.verify(write(tmp_path, 1))
    assert names_in(tmp_path / "checkpoints") == ["step_00000001"]


def test_other_files_among_the_checkpoints_are_named(tmp_path, caplog):
    folder = tmp_path / "checkpoints"
    for name in ("epoch_3", ".hidden", "broken_step_00000004"):
        (folder / name).mkdir(parents=True)
    renamed = write(tmp_path, 2).rename(folder / "best")
    (folder / "model.pth").write_bytes(b"")
    assert checkpoint.latest(tmp_path) is None and not checkpoint.any_in(tmp_path)
    unused = "is not used as a checkpoint: it is not named step_<number>"
    assert caplog.messages == [
        f"{renamed} {unused}",
        f"{folder / 'epoch_3'} {unused} and has no manifest.json",
        f"{folder / 'model.pth'} {unused} and has no manifest.json",
    ]
    caplog.clear()
    (folder / "step_00000009").mkdir()  # as another version may have left it
    write(tmp_path, 8)
    latest = checkpoint.latest(tmp_path)
    assert latest is not None and latest.name == "step_00000008" and checkpoint.any_in(tmp_path)
    assert "step_00000009/manifest.json cannot be read ([Errno 2] No such file" in caplog.text
