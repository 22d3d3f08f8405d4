"""Losses on models whose crops are the raw embeddings: (B, D) rows that the head normalises."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.losses import swav
from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead

BATCH, DIM, NUM_PROTOTYPES = 4, 3, 5


def a_model(*num_prototypes: int, dim: int = DIM) -> SSLModel:
    """With one set of prototypes for each number; float64."""
    torch.manual_seed(0)
    sets = list(num_prototypes) or [NUM_PROTOTYPES]
    head = PrototypeHead(dim, hidden_dim=0, out_dim=dim, num_prototypes=sets, batch_norm=False)
    head.projection = nn.Identity()
    return SSLModel(nn.Identity(), {"prototypes": head}).double()


def some_data(**changes) -> DataInfo:
    values = {
        "num_samples": 100, "num_crops": 4, "batch_size": BATCH, "world_size": 1,
        "steps_per_epoch": 25, "seed": 0,
    }  # fmt: skip
    return DataInfo(**(values | changes))


SWAV = {
    "head": "prototypes", "temperature": 0.1, "epsilon": 0.05, "sinkhorn_iters": 3,
    "assign_crops": [0, 1], "queue_length": 0, "queue_start_epoch": 0,
    "freeze_prototypes_steps": 0, "freeze_prototypes_epochs": 0,
}  # fmt: skip


def a_loss(model: SSLModel, *, data: DataInfo | None = None, **options) -> SwAVLoss:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few samples; it has a test of its own
        return SwAVLoss(model, data or some_data(), **(SWAV | options)).double()


def a_batch(crops: list[Tensor]) -> Batch:
    return Batch(crops, label=torch.zeros(len(crops[0])), index=torch.arange(len(crops[0])))


def random_crops(seed: int, num_crops: int = 4, batch: int = BATCH, dim: int = DIM) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return list(torch.randn(num_crops, batch, dim, dtype=torch.float64, generator=generator))


def loss_of(loss: SwAVLoss, model: SSLModel, crops: list[Tensor]) -> Tensor:
    return loss(model, model(crops), a_batch(crops))["loss"]


def weight_of(model: SSLModel) -> nn.Parameter:
    return model.heads["prototypes"].prototypes[0].weight


def unit(rows: Tensor) -> Tensor:
    return F.normalize(rows, dim=-1)


@contextmanager
def recorded_assignments() -> Iterator[list[tuple[Tensor, Tensor]]]:
    """The scores and the codes of every assignment that SwAV makes inside."""
    assignments = []

    def recording(scores: Tensor, **options) -> Tensor:
        codes = original(scores, **options)
        assignments.append((scores, codes))
        return codes

    original = swav.sinkhorn
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(swav, "sinkhorn", recording)
        yield assignments
