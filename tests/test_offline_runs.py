"""Whole runs of DeepCluster-v2 and SeLa-v2: labels that hold for an epoch, kept and resumed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY
from tiny_runs import assert_equal, lines, losses, run_tool, saved, train, without
from torch import Tensor

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.data.batch import Batch
from ssl_platform.data.loading.loader import Loader
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_epoch
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals

METHODS = ["deepcluster_v2", "sela_v2"]
EVERY_STEP = ["save.every_steps=1", "save.keep=99"]
OWN = {"sela_v2": ["loss.freeze_prototypes_steps=2"], "deepcluster_v2": []}


def tiny_of(method: str, tiny: list[str]) -> list[str]:
    """The quick start of a method, as small as that of SwAV; 130 images, of which 128 are used."""
    return [
        f"config=pretrain/{method}/quickstart",
        *without(tiny, "config=", "loss.", "heads.prototypes.num"),
        "data.train.num_samples=130",
        "heads.prototypes.num_prototypes=[12, 8, 12]",
        "save.keep=9",
        *OWN[method],
    ]


def figures(output_dir: Path) -> list[dict[str, float]]:
    """The figures of the labels in the log, epoch by epoch."""
    return [
        {key: value for key, value in line.items() if key.startswith("assignments/")}
        for line in lines(output_dir)
        if "assignments/largest" in line
    ]


@pytest.fixture(scope="module", params=METHODS)
def unbroken(request, tmp_path_factory) -> tuple[list[str], Path]:
    """A run that was never stopped, and its command; it is not to be written to."""
    folder = tmp_path_factory.mktemp(request.param)
    overrides = tiny_of(request.param, TINY)
    train(overrides, folder, *EVERY_STEP)
    return overrides, folder


# within the first epoch, whose labels are those of the pass before; at an epoch's end; within
@pytest.mark.parametrize("step", [1, 4, 7])
def test_a_run_killed_after_any_step_resumes_as_if_it_had_not_been(step, unbroken, tmp_path):
    overrides, whole = unbroken
    train(overrides, tmp_path, f"resume.mode={whole / 'checkpoints' / f'step_{step:08d}'}")
    assert losses(tmp_path) == losses(whole)[step:]
    later = figures(tmp_path)
    assert later == figures(whole)[-len(later) :]
    for part in ("shared.pt", "rank_0.pt"):
        assert_equal(saved(whole, 3, part), saved(tmp_path, 3, part))


@pytest.mark.parametrize("method", METHODS)
def test_the_same_on_two_processes(method, tiny, tmp_path):
    overrides = [*tiny_of(method, tiny), "launch.processes=2", "~hooks.knn"]
    unbroken, cut = tmp_path / "unbroken", tmp_path / "cut"
    run_tool([*overrides, *EVERY_STEP, f"output_dir={unbroken}"])
    first = unbroken / "checkpoints" / "step_00000002"
    run_tool([*overrides, f"resume.mode={first}", f"output_dir={cut}"])
    assert losses(cut) == losses(unbroken)[2:]
    for part in ("shared.pt", "rank_0.pt", "rank_1.pt"):
        assert_equal(saved(unbroken, 3, part), saved(cut, 3, part))
    banks = [saved(cut, 3, f"rank_{rank}.pt")["buffers"]["bank.index"].tolist() for rank in (0, 1)]
    assert len({*banks[0], *banks[1]}) == 128  # each rank has its own images


class Recorded:
    """A loader that keeps what it gives."""

    def __init__(self, loader: Loader):
        self.loader = loader
        self.passes: list[dict[int, list[Tensor]]] = []  # crops by position in the data set

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __iter__(self) -> Iterator[Batch]:
        self.passes.append({})
        for batch in self.loader:
            for row, index in enumerate(batch.index.tolist()):
                self.passes[-1][index] = [crop[row].clone() for crop in batch.crops]
            yield batch


@pytest.mark.parametrize("method", METHODS)
def test_the_pass_that_fills_the_bank_has_crops_of_its_own(method, tiny, tmp_path):
    overrides = [*tiny_of(method, tiny), "~hooks.knn", f"output_dir={tmp_path}"]
    options = options_of(compose(overrides))
    run, saver = Builder(options).run(), Saver(tmp_path, options.save)
    run.train_loader = recorded = Recorded(run.train_loader)
    run.hooks = {}
    with StopSignals() as stop:
        train_epoch(run, saver, stop)
        train_epoch(run, saver, stop)
    before, *epochs = recorded.passes
    assert len(epochs) == 2 and before.keys() == epochs[0].keys()  # so that all have a label
    for epoch in epochs:
        for index in before.keys() & epoch.keys():
            assert not any(map(torch.equal, before[index], epoch[index]))


def test_a_checkpoint_has_the_labels_and_the_bank(unbroken):
    _, folder = unbroken
    labels = saved(folder, 3)["loss"]["assignments"]
    assert labels.shape == (3, 130)
    assert (labels >= 0).sum(dim=1).tolist() == [128, 128, 128]
    assert labels.amax(dim=1).le(11).all() and labels[1].max() <= 7
    bank = saved(folder, 3, "rank_0.pt")["buffers"]
    assert bank["bank.embeddings"].shape == (2, 128, 8)
    assert len(set(bank["bank.index"].tolist())) == 128


def test_the_log_tells_how_the_labels_are_spread(unbroken):
    _, folder = unbroken
    first, *later = figures(folder)
    names = ("smallest", "median", "largest", "empty")
    assert set(first) == {f"assignments/{name}" for name in names}
    assert len(later) == 2 and all(0 <= line["assignments/nmi"] <= 1 for line in later)
    assert first["assignments/smallest"] <= 128 / 12 <= first["assignments/largest"]
