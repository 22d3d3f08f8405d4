"""What a training costs as it grows: the formulas of the benchmarks against counts."""

import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import costs
import numpy as np
import pytest
import scaling
import torch
from ranks import run_on_ranks

from ssl_platform.data.batch import DataInfo
from ssl_platform.data.loading.sampler import ShuffledSampler
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.losses.deepcluster_v2 import DeepClusterV2Loss
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.sampling import draw_balanced

METHODS = ["swav", "deepcluster_v2", "sela_v2"]
N = 400_000


def counted(name: str, output_dir: Path) -> tuple[dict[str, Any], dict[str, Counter]]:
    predicted, counts = scaling.count(scaling.TRAININGS[name], str(output_dir))
    return {moment: costs.by_size(calls) for moment, calls in predicted.items()}, counts


@pytest.mark.parametrize("name", METHODS)
def test_every_collective_of_two_processes_is_predicted(name, tmp_path):
    for predicted, counts in run_on_ranks(counted, 2, name, tmp_path):
        assert counts == predicted
        assert counts["step"].total() > 100


def peak_of(work: Callable[[], Any]) -> tuple[Any, int, int]:
    """What it returns, the bytes that it holds afterwards, and the most that it held."""
    tracemalloc.start()
    result = work()
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return result, held, peak


def arrays_of(num_images: int, world_size: int, name_bytes: float = 20) -> dict[str, float]:
    bank = costs.Bank(num_sets=3, num_slabs=2, dim=128)
    arrays = costs.memory(num_images, world_size, name_bytes=name_bytes, bank=bank)
    return {array.name: array.bytes for array in arrays}


@pytest.mark.parametrize("world_size", [1, 2, 8, 64])
def test_the_order_of_an_epoch_takes_what_is_said(world_size):
    sampler = ShuffledSampler(N, batch_size=64, rank=0, world_size=world_size, seed=0)
    order, held, peak = peak_of(lambda: iter(sampler))
    expected = arrays_of(N, world_size)
    assert held == pytest.approx(
        expected["positions of the epoch, as Python's numbers"], rel=0.02, abs=20_000
    )
    assert peak == pytest.approx(costs.order_peak(N, world_size), rel=0.02)
    assert next(order)[0] == 0


def test_the_names_of_files_take_what_is_said():
    names = Names.pack([b"n01440764_%010d" % number for number in range(N)])
    files, held, _ = peak_of(lambda: FileTable([b"/images"], [N], names))
    assert held + names.text.nbytes == pytest.approx(arrays_of(N, 1)["file names"], rel=0.01)
    assert len(files) == N


def test_drawing_labelled_images_takes_what_is_said():
    labels = np.arange(N) % 1000
    _, _, peak = peak_of(lambda: draw_balanced(labels, 1000, np.random.default_rng(0)))
    expected = arrays_of(N, 1)["kNN: labelled images, equally per class"]
    assert peak == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("num_images", [10**6, 10**9])
@pytest.mark.parametrize("world_size", [8, 64])
def test_the_bank_takes_what_is_said(num_images, world_size):
    """On the meta device, where a billion images take no memory."""
    with torch.device("meta"):
        head = PrototypeHead(
            2048, hidden_dim=0, out_dim=128, num_prototypes=[3000] * 3, batch_norm=False
        )
        model = SSLModel(torch.nn.Identity(), {"prototypes": head})
        info = DataInfo(
            num_samples=num_images,
            num_crops=8,
            batch_size=500 // world_size,
            world_size=world_size,
            steps_per_epoch=num_images // world_size // (500 // world_size),
            seed=0,
        )
        loss = DeepClusterV2Loss(
            model, info, head="prototypes", temperature=0.1, assign_crops=[0, 1], kmeans_iters=10
        )
    expected = arrays_of(num_images, world_size)
    sizes = {name: buffer.nbytes for name, buffer in loss.named_buffers()}
    assert sizes["assignments"] == expected["cluster labels of all images"]
    assert sizes["bank.embeddings"] == pytest.approx(expected["bank: embeddings"], rel=1e-4)
    assert sizes["bank.index"] == pytest.approx(expected["bank: positions"], rel=1e-4)
