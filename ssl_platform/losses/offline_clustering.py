"""What DeepCluster-v2 and SeLa-v2 share: predict the cluster that a sample was given before the
epoch, from embeddings of the epoch before (Caron et al., arXiv:2006.09882, appendix D)."""

import logging
import math
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.console.working import counted, working
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.data.loading.sampler import BEFORE_TRAINING
from ssl_platform.engine.run import Run
from ssl_platform.errors import ConfigError, DivergedError
from ssl_platform.losses.base import UNASSIGNED, Loss, partial_batches, unusable_crops
from ssl_platform.losses.memory_bank import MemoryBank
from ssl_platform.losses.standalone import Standalone
from ssl_platform.models.heads import prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.finite import num_bad_rows
from ssl_platform.ops.temperature import Temperature

logger = logging.getLogger(__name__)


class OfflineClusteringLoss(Loss):
    """Cross entropy of every crop's scores against labels that hold for an epoch.

    A subclass says how embeddings become labels. Each set of prototypes has labels of its own.

    Args:
        head: name of the `PrototypeHead` in the model.
        temperature: of the predictions.
        assign_crops: positions of the crops whose embeddings are remembered and clustered; the sets
            of prototypes take them in turn. All crops predict.

    Raises:
        ValueError: options that cannot work, one line each.
    """

    row_dims: ClassVar = {"bank.index": 0, "bank.embeddings": 1}
    assignments: Tensor  # (sets of prototypes, num_samples) int64; UNASSIGNED: not in the bank

    def __init__(
        self,
        model: SSLModel,
        data: DataInfo,
        *,
        head: str,
        temperature: Temperature,
        assign_crops: list[int],
    ):
        super().__init__()
        module = prototype_head(model, head)
        if problems := unusable_crops(assign_crops, data.num_crops) + partial_batches(data):
            raise ValueError("\n".join(problems))
        self.head, self.temperature, self.seed = head, temperature, data.seed
        self.uniform_loss = sum(map(math.log, module.num_prototypes)) / len(module.num_prototypes)
        self.bank = MemoryBank(data, crops=assign_crops, dim=module.out_dim)
        table = torch.full((len(module.num_prototypes), data.num_samples), UNASSIGNED)
        self.register_buffer("assignments", table)

    @abstractmethod
    def assign(
        self, embeddings: Tensor, prototypes: torch.nn.Linear, generator: torch.Generator
    ) -> Tensor:
        """Label the samples of all ranks' banks with one set of prototypes; collective.

        Args:
            embeddings: (S, D) unit rows of this rank.
            prototypes: the set, of unit length; may be changed, equally on all ranks.
            generator: on the CPU, in the same state on all ranks; decided by the seed, the epoch
                and the set, so that a resumed run draws what an unbroken one would.

        Returns:
            (S,) int64 labels of this rank's rows.
        """

    def on_train_start(self, run: Run) -> None:
        """Set the bank to the step of the epoch, which is another one with another batch."""
        self.bank.cursor = run.epoch_step * self.bank.batch_size

    def on_epoch_start(self, run: Run) -> None:
        """Make the labels of this epoch from the bank, which a pass of its own fills at first."""
        if run.step == 0:
            # in the order of the first epoch, over crops that no epoch draws again
            run.train_sampler.set_epoch(run.epoch, crops_of=BEFORE_TRAINING)
            self.fill_bank(run.model, run.train_loader, micro_batch=run.micro_batch)
            run.train_sampler.set_epoch(run.epoch)
        self.assign_epoch(run.model, epoch=run.epoch, step=run.step)

    def fill_bank(
        self, model: SSLModel, batches: Iterable[Batch], *, micro_batch: int | None = None
    ) -> None:
        """One pass over the data without training, before the first epoch.

        Args:
            model: in train mode.
            batches: of all crops, in the order of the first epoch; those of this rank.
            micro_batch: images that go through the model at once; None for a whole batch.
        """
        if distributed.rank() == 0:
            logger.info("filling the memory bank: one pass over the images without training")
        # In train mode and crop by crop, as the official script does.
        embed = partial(self._embeddings, model, micro_batch)
        self.bank.fill(embed, counted(batches, "filling the memory bank", None, "batches"))

    def _embeddings(self, model: SSLModel, micro_batch: int | None, crop: Tensor) -> Tensor:
        parts = crop.split(micro_batch or len(crop))
        return torch.cat([model([part])[self.head].embeddings for part in parts])

    @torch.no_grad()
    def assign_epoch(self, model: SSLModel, *, epoch: int, step: int) -> None:
        """Make the labels of an epoch from the bank; collective.

        Args:
            model: with the prototypes, which become unit vectors, or centroids.
            epoch: from 0; the draws of a clustering depend on it.
            step: finished steps, for messages.

        Raises:
            DivergedError: the bank holds what is not finite.
        """
        head = prototype_head(model, self.head)
        self._refuse_bad_rows(epoch, step)
        head.normalize_prototypes()
        for number, (prototypes, table) in enumerate(
            zip(head.prototypes, self.assignments, strict=True)
        ):
            assert isinstance(prototypes, torch.nn.Linear)
            generator = torch.Generator().manual_seed(_seed_of(self.seed, epoch, number))
            with working(f"clustering {number + 1} of {len(self.assignments)}"):
                labels = self.assign(self.bank.slab(number), prototypes, generator)
            table.fill_(UNASSIGNED)
            self.bank.spread(labels, table)
        self.bank.rewind()

    def _refuse_bad_rows(self, epoch: int, step: int) -> None:
        bad = sum(map(num_bad_rows, self.bank.embeddings))
        if bad:
            raise DivergedError(
                f"{bad} of the {self.bank.embeddings.shape[:2].numel()} embeddings to cluster at "
                f"step {step} (epoch {epoch + 1}) are NaN or infinite: lower optimizer.lr, "
                "lengthen schedule.warmup_epochs, and leave hooks.finite in, which names the step"
            )

    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """``loss``: the mean over labelled rows, then over sets; the batch joins the bank."""
        num_crops = len(batch.crops)
        embeddings, scores_H = outputs[self.head]
        losses = []
        for scores, table in zip(scores_H, self.assignments, strict=True):
            targets = table[batch.index].repeat(num_crops)
            scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
            total = F.cross_entropy(
                scores / self.temperature, targets, ignore_index=UNASSIGNED, reduction="sum"
            )
            # a batch without any label has no mean, and no gradient
            losses.append(total / (targets != UNASSIGNED).sum().clamp_min(1))
        embeddings_M = embeddings.detach().chunk(num_crops)
        if self.training:
            self.bank.write(batch.index, [embeddings_M[crop] for crop in self.bank.crops])
        return {"loss": torch.stack(losses).mean()}


class StandaloneClustering(Standalone[OfflineClusteringLoss]):
    """What ``standalone`` of an offline method gives: ``start_epoch`` makes the labels of an epoch,
    ``loss = criterion(model(crops), index)`` predicts them. It works in one process."""

    def start_epoch(self, epoch: int, batches: Iterable[Sequence[Any]]) -> None:
        """Make the labels of an epoch, the model in train mode: to be called before its batches.

        Args:
            epoch: from 0.
            batches: items (crops, ..., index), such as a ``DataLoader`` gives; read once, before
                the first epoch, to fill the bank.

        Raises:
            ConfigError: this is one of several processes.
            DivergedError: an embedding is not finite.
        """
        if distributed.world_size() > 1:
            name = self.kind.__name__
            raise ConfigError(
                [f"{name}: on its own it works in one process; ssl_platform.run has several"]
            )
        if self.step == 0:
            self.loss.fill_bank(self.model, map(self._batch, batches))
        self.loss.assign_epoch(self.model, epoch=epoch, step=self.step)
        self.epoch = epoch

    def _batch(self, item: Sequence[Any]) -> Batch:
        device = self.loss.assignments.device
        index = item[-1].to(device)
        return Batch([crop.to(device) for crop in item[0]], torch.full_like(index, -1), index)

    def forward(self, outputs: dict[str, Any], index: Tensor) -> Tensor:
        """The loss of a batch, a scalar; in train mode a step.

        Args:
            outputs: of the model for M crops: by head name.
            index: (B,) int64 positions of the images in the data set.

        Raises:
            ConfigError: no epoch was started, or see `compute`.
        """
        if self.epoch < 0:
            raise ConfigError(
                [f"{self.kind.__name__}: call start_epoch(epoch, batches) before the batches"]
            )
        return self.compute(outputs[self.options["head"]], index)


def _seed_of(*numbers: int) -> int:
    """A seed for several numbers: other ones give independent draws, neighbours too."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)
