"""Runs that go on with another batch, other images or another number of epochs."""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_resume import checkpoints, refused, stop_at
from test_training import train

from ssl_platform import checkpoint
from ssl_platform.config import compose
from ssl_platform.errors import CheckpointError, StopRequested
from ssl_platform.hooks.log import _Console
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.optim.schedules import EpochCosine, Steps, WarmupCosine
from ssl_platform.position import take_position

HERE = Path(__file__).parent
STOP = 6  # of 12: in the middle of the second epoch


@pytest.fixture(autouse=True)
def no_traces_of_the_plugin(monkeypatch):
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def small(tiny) -> list[str]:
    return [*tiny, "~hooks.knn", "~hooks.crops", "plugins=[kill_hook]", "num_epochs=3"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run of 128 images in batches of 32 that was stopped; not to be written to."""
    from conftest import TINY

    folder = tmp_path_factory.mktemp("stopped") / "run"
    overrides = [*TINY, "~hooks.knn", "~hooks.crops", "plugins=[kill_hook]"]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(StopRequested):
        patch.syspath_prepend(HERE)
        train(overrides, folder, stop_at(STOP))
    return folder


@pytest.fixture
def run_dir(stopped, tmp_path) -> Path:
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def rates(output_dir: Path) -> dict[int, float]:
    """Learning rate by step."""
    lines = map(json.loads, (output_dir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["lr"] for line in lines if "lr" in line}


@pytest.mark.parametrize(
    ("change", "num_epochs", "steps_per_epoch", "position"),
    [
        ("data.batch_size=16", 3, 8, 12),
        ("data.batch_size=64", 3, 2, 3),
        ("data.batch_size=20", 3, 6, 9),  # 64 of 128 images are done, three batches are left
        ("data.train.num_samples=96", 3, 3, 5),
        ("data.train.num_samples=200", 3, 6, 9),
        ("num_epochs=5", 5, 4, 6),
        ("num_epochs=2", 2, 4, 6),
    ],
)
def test_a_run_goes_on_where_it_was_with_other_epochs(
    change, num_epochs, steps_per_epoch, position, small, run_dir, monkeypatch, caplog
):
    """Learning rate, frozen prototypes, lines and time left follow the position in the epochs."""
    total, frozen = num_epochs * steps_per_epoch, []
    monkeypatch.setattr(PrototypeHead, "drop_prototype_gradients", lambda _: frozen.append(1))
    caplog.set_level("INFO")
    allowed = "[output_dir, data.batch_size, data.train, loss.freeze_prototypes_steps]"
    freezing = f"loss.freeze_prototypes_steps={position + 2}"
    train(small, run_dir, change, freezing, f"resume.allow_changes={allowed}")
    schedule = WarmupCosine(
        0.12, num_epochs, steps_per_epoch, warmup_epochs=1, start_lr=0.0, final_lr=0.0
    )
    found = rates(run_dir)
    assert list(found) == list(range(1, STOP + total - position + 1))
    assert list(found.values())[STOP:] == [schedule(p) for p in range(position, total)]
    assert len(frozen) == 2
    heads = [m.partition(":")[0] for m in caplog.messages if re.match(r"epoch \d+/", m)]
    assert heads == [
        f"epoch {1 + p // steps_per_epoch}/{num_epochs} step {p + 1}/{total}"
        for p in range(position, total)
    ]
    assert all(", ETA 0:0" in m for m in caplog.messages if m.startswith(tuple(heads)))
    (told,) = [m for m in caplog.messages if m.startswith("the schedule now")]
    assert told == (
        f"the schedule now is one of {num_epochs} epochs of {steps_per_epoch} steps, 3 epochs of 4 "
        f"steps before: lr {found[STOP]:.3g} at the step before, {schedule(position):.3g} at the "
        f"next (epoch 2), {schedule(total - 1):.3g} at the last"
    )
    assert checkpoints(run_dir)[-1] == STOP + total - position
