"""The examples train on the shapes, log a loss and save their queue; none is longer than its page
in lightly's documentation."""

import json
import math
import runpy
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ssl_platform
from ssl_platform import api, distributed

EXAMPLES = Path(__file__).parents[1] / "examples"
LINES = {  # that are not blank, of lightly's; it has no queue on several GPUs
    "pytorch/swav": 56,
    "pytorch/swav_queue": 90,
    "pytorch_lightning/swav": 60,
    "pytorch_lightning/swav_queue": 89,
    "pytorch_lightning_distributed/swav": 63,
    "pytorch_lightning_distributed/swav_queue": 89,
}
TRAINER = {
    "accelerator": "cpu", "limit_train_batches": 4, "enable_progress_bar": False,
    "enable_model_summary": False, "logger": False, "batch_size": 16,
}  # fmt: skip
SYNCHRONIZE = api.synchronize_batch_norm
TWO_RANKS = {"devices": 2, "strategy": "ddp_fork"}  # the shipped "ddp" starts the script anew


def small_network() -> nn.Module:
    """In the place of a ResNet-18: what is left without its last layer gives 512 features."""
    layers = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 512), nn.BatchNorm1d(512)]
    return nn.Sequential(*layers, nn.Identity())


@pytest.fixture
def run(monkeypatch, tmp_path) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(api, "images", partial(api.images, num_samples=128))

    def run_example(name: str, **options: Any) -> Any:
        main = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]
        main.__globals__["resnet18"] = small_network
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Lightning has some for small machines
            return main(**options)

    return run_example


def queues_in(file: Path | str) -> list[torch.Tensor]:
    """Of each rank, from a checkpoint of Lightning."""
    state = torch.load(file)["state_dict"]["criterion._extra_state"]
    return [rank["queue"] for rank in state["ranks"]]


@pytest.mark.parametrize("name", LINES)
def test_an_example_is_no_longer_than_its_model(name):
    lines = (EXAMPLES / f"{name}.py").read_text().splitlines()
    assert sum(map(bool, map(str.strip, lines))) <= LINES[name]


def test_all_examples_are_here():
    assert {f"{p.parent.name}/{p.stem}" for p in EXAMPLES.rglob("*.py")} == set(LINES)


def test_a_plain_loop_learns(run, capsys):
    model = run("pytorch/swav", batch_size=32, epochs=4)
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()]
    assert len(losses) == 4 and losses[-1] < losses[0]
    saved, *_ = torch.load("swav.pt")
    assert saved.keys() == model.state_dict().keys()


def test_a_plain_loop_with_a_queue_goes_on(run, capsys):
    options = {"batch_size": 32, "queue_length": 64, "epochs": 4}
    run("pytorch/swav_queue", **options)
    losses = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in losses] == [f"epoch {n}" for n in range(4)]
    start, _, criterion, *_ = torch.load("swav_queue.pt")
    assert start == 4 and criterion["_extra_state"]["ranks"][0]["queue"].any()
    run("pytorch/swav_queue", **options)
    assert capsys.readouterr().out == ""


def test_a_lightning_module_logs_its_loss(run):
    trainer = run("pytorch_lightning/swav", max_epochs=2, **TRAINER)
    assert 0 < trainer.callback_metrics["loss"] < 2 * math.log(100)


def test_a_lightning_module_keeps_its_queue(run):
    from pytorch_lightning.callbacks import ModelCheckpoint

    options = TRAINER | {"queue_start_epoch": 0, "max_epochs": 3}
    trainer = run(
        "pytorch_lightning/swav_queue",
        callbacks=[ModelCheckpoint(".", "{epoch}", save_top_k=-1)],
        **options,
    )
    (queue,) = queues_in("epoch=1.ckpt")
    assert queue[:, :64].any(dim=2).all()
    again = run("pytorch_lightning/swav_queue", checkpoint="epoch=1.ckpt", **options)
    assert again.model.criterion.step == trainer.model.criterion.step == 12


def synchronize_and_note(model: nn.Module, **options: Any) -> None:
    """Leaves a file with the rank in the working directory."""
    SYNCHRONIZE(model, **options)
    Path(f"synchronized_{distributed.rank()}").touch()


@pytest.mark.parametrize("distributed_sinkhorn", [True, False])
@pytest.mark.parametrize("sync_batch_norm", [True, False])
def test_two_processes_with_each_switch_on_and_off(
    run, sync_batch_norm, distributed_sinkhorn, monkeypatch
):
    is_queue = sync_batch_norm != distributed_sinkhorn  # the two examples share the four
    monkeypatch.setattr(api, "synchronize_batch_norm", synchronize_and_note)
    queue = {"queue_length": 32, "queue_start_epoch": 0} if is_queue else {}
    trainer = run(
        f"pytorch_lightning_distributed/swav{'_queue' * is_queue}",
        sync_batch_norm=sync_batch_norm,
        distributed_sinkhorn=distributed_sinkhorn,
        max_epochs=1,
        **queue,
        **TRAINER,
        **TWO_RANKS,
    )
    assert trainer.callback_metrics["loss"].isfinite()
    synchronized = {path.name for path in Path().glob("synchronized_*")}
    assert synchronized == ({"synchronized_0", "synchronized_1"} if sync_batch_norm else set())
    assert trainer.lightning_module.criterion.over_ranks == distributed_sinkhorn
    ranks = queues_in(trainer.checkpoint_callback.best_model_path)
    assert len(ranks) == 2
    if is_queue:
        assert ranks[0].any() and not torch.equal(*ranks)


def test_one_process_is_a_switch_too(run):
    trainer = run(
        "pytorch_lightning_distributed/swav", max_epochs=1, devices=1, strategy="auto", **TRAINER
    )
    assert trainer.callback_metrics["loss"].isfinite()


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "notebook.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in cells)
    small = code[0].replace("30, 2000", "1, 200")
    assert small != code[0]
    code[-1] = code[-1].replace('"data.num_workers=0"', '"data.num_workers=0", "launch.threads=1"')
    pretrain = partial(ssl_platform.pretrain, **{"launch.threads": 1})
    monkeypatch.setattr(ssl_platform, "pretrain", pretrain)
    names: dict[str, Any] = {}
    for source in (small, *code[1:]):
        exec(source, names)
    assert names["picture"].size == (8 * 34, 5 * 34)
    assert len(names["clusters"]) == 200
    assert names["results"].figures
