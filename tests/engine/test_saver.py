"""When and what a saver writes. test_state.py shows that resumed runs equal unbroken ones."""

import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ranks import run_on_ranks
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.config.options import SaveOptions
from ssl_platform.engine.run import Events
from ssl_platform.engine.saver import Saver, _copied
from ssl_platform.errors import DivergedError
from ssl_platform.losses.base import Loss

PROGRAM = """
import sys, threading
from pathlib import Path
import torch
from ssl_platform.engine.saver import _in_thread, _write

states = {"rank_0.pt": {"x": torch.ones(9)}}
is_ending = threading.Event()
_in_thread(_write, Path(sys.argv[1]), states, is_ending.wait)
threading._register_atexit(is_ending.set)
raise SystemExit(3)
"""


def test_an_error_elsewhere_does_not_cut_off_a_write(tmp_path):
    """Python waits for the thread: to end a thread that is inside torch crashes the process."""
    folder = tmp_path / "epoch"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (3, "")
    assert (folder / "rank_0.pt").is_file()


def test_a_copy_takes_the_memory_of_the_one_before_and_no_tensor_that_of_another():
    tensor, memory = torch.ones(2), {}
    state = {"a.b": [tensor], "a": {"b": (torch.zeros(2), "text")}, "number": 1}
    first = _copied(state, memory)
    tensor += 1
    again = _copied(state, memory)
    assert str(again) == str(state)
    assert again["a.b"][0] is first["a.b"][0] is not tensor
    assert again["a.b"][0] is not again["a"]["b"][0]


class Owner(Loss):
    """A loss that owns some of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))
        self.register_buffer("table", torch.ones(2))
        self.register_buffer("queue", torch.ones(2), persistent=False)
        self.temperature = 1.0

    def get_extra_state(self) -> dict[str, float]:
        return {"temperature": self.temperature}

    def forward(self, *arguments: object) -> dict[str, Tensor]:
        raise NotImplementedError


class Watcher(Events):
    def __init__(self) -> None:
        self.total, self.best, self.figure = torch.zeros(2), torch.tensor(math.inf), math.nan

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "best": self.best, "figure": self.figure}


def a_run(folder: Path) -> tuple[SimpleNamespace, Saver]:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.randn(4, 2)).square().sum().backward()
    optimizer.step()
    saver = Saver(folder, SaveOptions(None, 1, None, 1, None, asynchronous=False, max_failures=1))
    run = SimpleNamespace(
        model=model,
        loss=Owner(),
        optimizer=optimizer,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
        hooks={"watch": Watcher()},
        report={"metric": math.nan},
        train_loader=SimpleNamespace(transform=None),
        train_sampler=SimpleNamespace(num_samples=12, steps_per_epoch=6),
        train_data=SimpleNamespace(classes=None),
        data_fingerprint="",
        data_sample={},
        device=torch.device("cpu"),
        output_dir=folder,
        epoch=1,
        epoch_step=1,
        epoch_images=2,
        num_epochs=2,
        step=7,
        scheduled={},
        fire=lambda event: None,
    )
    return run, saver


def moment(run: Any) -> Tensor:
    return run.optimizer.state[run.model[0].bias]["exp_avg_sq"]


TENSORS: dict[str, Callable[[Any], Tensor]] = {
    "model.0.weight": lambda run: run.model[0].weight,
    "model.1.running_var": lambda run: run.model[1].running_var,
    "loss.scale": lambda run: run.loss.scale,
    "loss.table": lambda run: run.loss.table,
    "loss.queue": lambda run: run.loss.queue,
    "optimizer.state.1.exp_avg_sq": moment,
    "hooks.watch.total": lambda run: run.hooks["watch"].total,
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_nan_in_anything_that_is_saved_is_named_and_not_saved(name, tmp_path):
    run, saver = a_run(tmp_path)
    saver.save(run)
    before = sorted((tmp_path / "checkpoints").rglob("*"))
    TENSORS[name](run).data.view(-1)[-1] = math.nan
    run.step = 8
    with pytest.raises(DivergedError) as error:
        saver.save(run)
    folder = tmp_path / "checkpoints" / "step_00000007"
    assert str(error.value) == (
        f"{name}: no longer finite at step 8 (epoch 2): no checkpoint of it is written; "
        f"{folder} is from before"
    )
    assert sorted((tmp_path / "checkpoints").rglob("*")) == before


def test_a_nan_in_a_number_of_the_loss_is_not_saved(tmp_path):
    run, saver = a_run(tmp_path)
    run.loss.temperature = math.nan
    with pytest.raises(DivergedError, match=r"^loss\._extra_state\.temperature: no longer finite"):
        saver.save(run)
    assert not (tmp_path / "checkpoints").exists()


def test_a_state_that_could_not_be_read_again_is_refused_at_once(tmp_path):
    run, saver = a_run(tmp_path)
    run.hooks["watch"].figure = np.float64(1)
    with pytest.raises(TypeError, match=r"hooks\.watch\.figure is a float64: .* plain values only"):
        saver.save(run)
    assert not (tmp_path / "checkpoints").exists()


def test_infinite_is_a_fault_of_the_training_and_not_of_what_watches_it(tmp_path):
    run, saver = a_run(tmp_path)
    run.hooks["watch"].total.fill_(math.inf)
    moment(run).fill_(3e38)  # large is finite
    saver.save(run)
    run.step = 8
    run.model[0].bias.data.fill_(math.inf)
    run.loss.table.fill_(-math.inf)
    with pytest.raises(DivergedError, match=r"^model\.0\.bias and 1 more: no longer finite"):
        saver.save(run)


def test_hooks_may_have_seen_steps_that_the_scaler_left_out(tmp_path):
    run, saver = a_run(tmp_path)
    run.scaler = torch.amp.GradScaler("cpu")
    run.hooks["watch"].total.fill_(math.nan)
    saver.save(run)
    run.loss.queue.fill_(math.nan)
    with pytest.raises(DivergedError, match=r"^loss\.queue: no longer finite"):
        saver.save(run)


def save_with_nan_on_the_last_rank(folder: str) -> str:
    run, saver = a_run(Path(folder))
    if distributed.rank() == distributed.world_size() - 1:
        run.loss.queue.fill_(math.nan)
    with pytest.raises(DivergedError) as error:
        saver.save(run)
    return str(error.value)


def test_every_rank_names_what_is_not_finite_on_any(tmp_path):
    message = (
        "loss.queue: no longer finite at step 7 (epoch 2): no checkpoint of it is written; no "
        "checkpoint was saved before"
    )
    assert run_on_ranks(save_with_nan_on_the_last_rank, 2, str(tmp_path)) == [message] * 2
