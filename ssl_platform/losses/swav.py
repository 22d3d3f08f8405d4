"""SwAV: predict the code of one crop from another crop (Caron et al., arXiv:2006.09882)."""

import logging
import math
import warnings
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.distributed import rank
from ssl_platform.engine.run import Run
from ssl_platform.errors import ConfigError
from ssl_platform.losses.base import Loss, partial_batches, unusable_crops
from ssl_platform.losses.standalone import Standalone
from ssl_platform.models.heads import FreezePrototypes, prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.sinkhorn import Epsilon, sinkhorn
from ssl_platform.ops.temperature import Temperature
from ssl_platform.registry import LOSSES

logger = logging.getLogger(__name__)

UNKNOWN_SIZE = 10**12  # of a data set: a loss on its own is not told


@LOSSES.register()
class SwAVLoss(Loss):
    """Swapped prediction: the other crops of an image predict the balanced code of each target
    crop.

    Args:
        head: name of the `PrototypeHead` in the model, with one set of prototypes.
        temperature: of the predictions.
        epsilon, sinkhorn_iters: of the codes, see `ssl_platform.ops.sinkhorn`.
        assign_crops: positions of the crops that give codes; all crops predict.
        queue_length: earlier embeddings that take part in the assignment, over all ranks; 0 for
            none. Shortened to a multiple of the total batch.
        queue_start_epoch: first epoch (from 0) in which the queue is filled; it is used when full.
        freeze_prototypes_steps, freeze_prototypes_epochs: the prototypes are not updated before
            both are over.
    """

    row_dims: ClassVar = {"queue": 1}
    queue: Tensor  # (assign crops, local queue length, D), newest first

    def __init__(
        self,
        model: SSLModel,
        data: DataInfo,
        *,
        head: str,
        temperature: Temperature,
        epsilon: Epsilon,
        sinkhorn_iters: Annotated[int, Ge(1), "e.g. 3"],
        assign_crops: list[int],
        queue_length: Annotated[int, Ge(0), "0 for none"],
        queue_start_epoch: int,
        freeze_prototypes_steps: int,
        freeze_prototypes_epochs: int,
    ):
        super().__init__()
        prototypes = self.prototypes_of(model, head)
        problems = unusable_crops(assign_crops, data.num_crops) + partial_batches(data)
        if not 0 <= queue_length <= data.num_samples:
            problems.append(
                f"queue_length={queue_length}: the data set has {data.num_samples} images; "
                "a queue holds at most each of them once"
            )
        if problems:
            raise ValueError("\n".join(problems))

        self.head = head
        self.temperature, self.epsilon, self.sinkhorn_iters = temperature, epsilon, sinkhorn_iters
        self.assign_crops = assign_crops
        self.queue_start_epoch = queue_start_epoch
        self.freeze_prototypes = FreezePrototypes(
            head, steps=freeze_prototypes_steps, epochs=freeze_prototypes_epochs
        )
        total_batch = data.batch_size * data.world_size
        queue_length -= queue_length % total_batch
        num_prototypes = prototypes.out_features
        self.uniform_loss = math.log(num_prototypes)
        if num_prototypes > total_batch + queue_length:
            warnings.warn(
                f"{num_prototypes} prototypes for {total_batch + queue_length} samples (batch "
                f"{total_batch} + queue {queue_length}): an equal share is less than one sample, "
                "so many prototypes stay unused; lower heads.*.num_prototypes or raise "
                "data.batch_size or loss.queue_length",
                stacklevel=2,
            )
        local_length = queue_length // data.world_size
        queue = torch.zeros(len(assign_crops), local_length, prototypes.in_features)
        self.register_buffer("queue", queue, persistent=False)
        self.queue_has_started = False
        self.queue_is_full = False

    @staticmethod
    def prototypes_of(model: SSLModel, head: str) -> nn.Linear:
        """The one set of prototypes of a head; a ``ValueError`` where it has another number."""
        sets = prototype_head(model, head).prototypes
        if len(sets) != 1:
            raise ValueError(f"head={head}: SwAV needs one set of prototypes, it has {len(sets)}")
        prototypes = sets[0]
        assert isinstance(prototypes, nn.Linear)
        return prototypes

    def on_train_start(self, run: Run) -> None:
        """Look at the queue anew: that of a resumed run may have had another length."""
        self.on_epoch_start(run)

    def on_epoch_start(self, run: Run) -> None:
        """Begin to fill the queue where its epoch has come."""
        self.start_epoch(run.epoch)

    def start_epoch(self, epoch: int) -> None:
        """Begin to fill the queue where its epoch, counted from 0, has come."""
        self.queue_has_started = self.queue.shape[1] > 0 and epoch >= self.queue_start_epoch
        self.queue_is_full = False  # found anew before it is used

    def on_backward_end(self, run: Run) -> None:
        """Freeze the prototypes at first."""
        self.freeze_prototypes(run.model, position=run.position, epoch=run.epoch)

    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """``loss``: the mean cross entropy of codes and predictions over pairs of crops."""
        num_crops = len(batch.crops)
        prototypes = self.prototypes_of(model, self.head)
        embeddings, (scores,) = outputs[self.head]
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        embeddings_M = embeddings.detach().chunk(num_crops)  # M x (B, D)
        scores_M = scores.detach().chunk(num_crops)  # M x (B, K)
        log_predictions = F.log_softmax(scores / self.temperature, dim=1)
        log_predictions = log_predictions.unflatten(0, (num_crops, -1))  # (M, B, K)
        summed = log_predictions.sum(dim=0)

        losses = []
        for slot, target in enumerate(self.assign_crops):
            queue_scores = self._advance_queue(slot, embeddings_M[target], prototypes)
            codes = self._codes(scores_M[target], queue_scores)
            others = (summed - log_predictions[target]) / (num_crops - 1)
            losses.append(-(codes * others).sum(dim=1).mean())
        return {"loss": torch.stack(losses).mean()}

    def get_extra_state(self) -> dict[str, bool]:
        """Whether the queue is being filled, and was seen to be full."""
        return {"queue_has_started": self.queue_has_started, "queue_is_full": self.queue_is_full}

    def set_extra_state(self, state: dict[str, bool]) -> None:
        """Take back what `get_extra_state` gave."""
        self.queue_has_started = state["queue_has_started"]
        self.queue_is_full = state["queue_is_full"]

    def fitted(self, name: str, value: Tensor) -> Tensor:
        """The newest of a queue that was longer; one that was shorter has yet to be filled."""
        length = self.queue.shape[1]
        if value.shape[::2] != self.queue.shape[::2] or value.shape[1] == length:
            return value
        if rank() == 0:
            logger.info("the queue had %d rows in each process, and has %d", value.shape[1], length)
        fitted = torch.zeros_like(self.queue, device=value.device)
        newest = value[:, :length]
        fitted[:, : newest.shape[1]] = newest
        return fitted

    @torch.no_grad()
    def _advance_queue(self, slot: int, embeddings: Tensor, prototypes: nn.Linear) -> Tensor:
        """(Q, K) scores of the queue as it was, none until it is full; then the batch joins it."""
        queue = self.queue[slot].clone()
        if self.queue_has_started and self.training:
            self.queue_is_full = self.queue_is_full or bool(queue[-1].any())
            self.queue[slot] = torch.cat([embeddings.to(queue.dtype), queue])[: len(queue)]
        if not self.queue_has_started or not self.queue_is_full:
            queue = queue[:0]
        return queue.to(prototypes.weight.dtype) @ prototypes.weight.T

    def _codes(self, scores: Tensor, queue_scores: Tensor) -> Tensor:
        """Balanced (B, K) codes of one crop's batch; the queue adds samples to balance over."""
        codes = sinkhorn(
            torch.cat([queue_scores, scores]), epsilon=self.epsilon, num_iters=self.sinkhorn_iters
        )
        return codes[len(queue_scores) :]

    @classmethod
    def standalone(
        cls,
        model: SSLModel,
        *,
        num_crops: int,
        batch_size: int,
        over_ranks: bool = True,
        head: str = "prototypes",
        temperature: float = 0.1,
        epsilon: float = 0.05,
        sinkhorn_iters: int = 3,
        assign_crops: Sequence[int] = (0, 1),
        queue_length: int = 0,
        queue_start_epoch: int = 0,
        freeze_prototypes_steps: int = 0,
        freeze_prototypes_epochs: int = 0,
    ) -> "StandaloneSwAV":
        """The loss for a training loop of one's own; the defaults are the paper's.

        Args:
            model: trunk and heads, not wrapped by DDP.
            num_crops: M, crops of each image.
            batch_size: B, images of one batch of this process.
            over_ranks: whether Sinkhorn balances the samples of all ranks of a process group, and
                ``queue_length`` counts over them; false: each rank is on its own.
            head, temperature, epsilon, sinkhorn_iters: see the class.
            assign_crops, queue_length, queue_start_epoch: see the class.
            freeze_prototypes_steps, freeze_prototypes_epochs: see the class.

        Raises:
            ConfigError: what cannot work, one line each.
        """
        options = {
            "head": head,
            "temperature": temperature,
            "epsilon": epsilon,
            "sinkhorn_iters": sinkhorn_iters,
            "assign_crops": list(assign_crops),
            "queue_length": queue_length,
            "queue_start_epoch": queue_start_epoch,
            "freeze_prototypes_steps": freeze_prototypes_steps,
            "freeze_prototypes_epochs": freeze_prototypes_epochs,
        }
        return StandaloneSwAV(
            cls,
            model,
            num_crops=num_crops,
            batch_size=batch_size,
            num_samples=UNKNOWN_SIZE,
            over_ranks=over_ranks,
            options=options,
        )


class StandaloneSwAV(Standalone[SwAVLoss]):
    """What `SwAVLoss.standalone` gives: ``loss = criterion(model(crops))``."""

    def forward(self, outputs: dict[str, Any], *, epoch: int | None = None) -> Tensor:
        """The loss of a batch, a scalar; in train mode a step.

        Args:
            outputs: of the model, or of its DDP replica, for M crops: by head name.
            epoch: the one under way, from 0; needed where an option counts epochs.

        Raises:
            ConfigError: the epoch is missing, or see `compute`.
        """
        for option in ("queue_start_epoch", "freeze_prototypes_epochs"):
            if epoch is None and self.options[option]:
                told = f"{option}={self.options[option]} counts epochs: criterion(..., epoch=epoch)"
                raise ConfigError([f"SwAVLoss: {told}"])
        if self.training and (epoch or 0) != self.epoch:
            self.epoch = epoch or 0
            self.loss.start_epoch(self.epoch)
        return self.compute(outputs[self.options["head"]])
