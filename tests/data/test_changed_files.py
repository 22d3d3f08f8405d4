"""Images' files that have changed since a run was saved."""

import logging
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from loaders import on_folder
from tiny_runs import train

from ssl_platform.config.options import DataOptions
from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.dataset import NUM_STAMPS, FileChanges
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.shapes import Shapes
from ssl_platform.data.sets.subset import StratifiedSubset
from ssl_platform.engine import state
from ssl_platform.errors import CheckpointError
from ssl_platform.evaluation.feature_cache import images_provenance


def opened(folder: Path) -> ImageFolder:
    return ImageFolder(path=str(folder))


def touch(path: Path, seconds: int = 100) -> None:
    """Give it another time, and no other bytes."""
    os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns + seconds * 10**9))


def test_a_changed_image_is_told_by_name_and_one_with_other_bytes_with_its_sizes(photographs):
    dataset = opened(photographs)
    sample = dataset.sample()
    assert len(sample) == 12
    assert dataset.changes_since(sample) == FileChanges([], [], False)
    first, gone = photographs / "class1" / "1.jpg", photographs / "class2" / "2.jpg"
    touch(first)
    gone.unlink()
    changes = dataset.changes_since(sample)
    assert (changes.resized, changes.is_copy) == ([], False)
    assert set(changes.touched) == {str(first), str(gone)}
    before = first.stat().st_size
    first.write_bytes(first.read_bytes() + b"more")
    changes = dataset.changes_since(sample)
    assert changes.resized == [f"{first}: {before} bytes before, {before + 4} now"]
    assert (changes.touched, changes.is_copy) == ([str(gone)], False)


def test_a_copy_is_taken_for_one(photographs, tmp_path):
    sample = opened(photographs).sample()
    shutil.copytree(photographs, tmp_path / "copy", copy_function=shutil.copyfile)
    for path in (tmp_path / "copy").rglob("*.jpg"):
        touch(path)
    assert opened(tmp_path / "copy").changes_since(sample) == FileChanges([], [], True)


def test_what_is_no_file_has_no_stamps_and_a_part_has_its_own(photographs):
    shapes = Shapes(num_samples=20, size=16, seed=0)
    assert shapes.sample() == {}
    assert shapes.changes_since({}) == FileChanges([], [], False)
    whole = opened(photographs)
    part = StratifiedSubset(whole, fraction=0.5, seed=0)
    stamps = {index: whole.stamp(int(part.positions[index])) for index in range(len(part))}
    assert part.sample() == stamps


def test_a_large_set_is_sampled(monkeypatch):
    dataset = Shapes(num_samples=5 * NUM_STAMPS, size=16, seed=0)
    monkeypatch.setattr(dataset, "stamp", lambda index: (index, 0))
    sample = dataset.sample()
    assert len(sample) == NUM_STAMPS and sample == dataset.sample()
    assert max(sample) > 4 * NUM_STAMPS


def test_cached_features_of_images_with_other_bytes_are_stale(photographs):
    normalize = Normalize([0.5] * 3, [0.5] * 3)
    data = DataOptions({}, None, {}, {}, normalize, 1, 0, max_bad_fraction=0.0)
    before, again = (images_provenance(opened(photographs), np.arange(12), data) for _ in "12")
    assert before == again
    touch(photographs / "class1" / "1.jpg")
    after = images_provenance(opened(photographs), np.arange(12), data)
    assert {key for key in after if after[key] != before[key]} == {"images"}


@pytest.fixture(autouse=True)
def same_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state, "change_of_length", lambda run, shared: None)


def resume(folder: Path, *, sample: dict | None, exact: bool = False, allow: str = "") -> None:
    """What a resume asks of the files, without a run."""
    dataset = opened(folder)
    options = state.ResumeOptions("auto", [allow], exact)
    run = SimpleNamespace(
        train_data=dataset,
        data_fingerprint=dataset.fingerprint(),
        device=SimpleNamespace(type="cpu"),
        train_loader=SimpleNamespace(transform=None),
    )
    shared = {"data": dataset.fingerprint(), "world_size": 1, "environment": {}}
    saved = shared if sample is None else shared | {"data_sample": sample}
    state._check_fits(run, options, Path("step_1"), saved)


def test_a_resume_says_what_was_written_anew_and_an_exact_one_refuses(photographs, caplog):
    sample = opened(photographs).sample()
    path = photographs / "class1" / "1.jpg"
    touch(path)
    message = (
        "step_1: the result is no longer bit for bit an unbroken run's: 1 of the 12 training "
        f"images looked at have been written anew since ({path})"
    )
    resume(photographs, sample=sample)
    assert caplog.messages == [message]
    with pytest.raises(CheckpointError) as caught:
        resume(photographs, sample=sample, exact=True)
    assert str(caught.value) == f"{message} (resume.exact=false goes on)"


def test_a_resume_goes_on_with_a_copy_and_from_before_the_sample(photographs, caplog):
    caplog.set_level(logging.INFO)
    sample = opened(photographs).sample()
    for path in photographs.rglob("*.jpg"):
        touch(path)
    resume(photographs, sample=sample, exact=True)
    assert caplog.messages == ["step_1: the images have other times than then: taken for a copy"]
    resume(photographs, sample=None, exact=True)
    assert len(caplog.messages) == 1


def test_a_run_does_not_go_on_with_other_bytes_unless_it_is_allowed(tmp_path, tiny, photographs):
    options = [*on_folder(tiny, photographs, batch_size=12), "~hooks.knn"]
    options += ["heads.prototypes.num_prototypes=[8]"]
    run_dir = tmp_path / "run"
    train(options, run_dir, "num_epochs=2")
    path = photographs / "class1" / "1.jpg"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes() + b"\0")
    longer = ["num_epochs=3", "resume.allow_changes=[num_epochs]"]
    with pytest.raises(CheckpointError) as caught:
        train(options, run_dir, *longer)
    assert str(caught.value) == (
        f"{run_dir}/checkpoints/step_00000002 was written with other training images: 1 of "
        f"the 12 training images looked at have other sizes ({path}: {size} bytes before, "
        f"{size + 1} now): bring those back, start a new run with name=..., or allow it with "
        "resume.allow_changes=[data.train]"
    )
    train(options, run_dir, "num_epochs=3", "resume.allow_changes=[num_epochs,data.train]")
    assert (run_dir / "checkpoints/step_00000003").is_dir()
