"""SeLa-v2: clusters of equal size over the whole data set, prototypes learned by gradient descent
(Caron et al., arXiv:2006.09882, appendix D; Asano et al., arXiv:1911.05371).

The authors released no code for it. What the papers leave open is an option here; the defaults and
their reasons are in docs/methods.md.
"""

import logging

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import DataInfo
from ssl_platform.engine.run import Run
from ssl_platform.losses.offline_clustering import OfflineClusteringLoss
from ssl_platform.models.heads import prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.sinkhorn import balanced_labels
from ssl_platform.registry import LOSSES

logger = logging.getLogger(__name__)


@LOSSES.register()
class SeLaV2Loss(OfflineClusteringLoss):
    """Sinkhorn over the whole memory bank at the start of every epoch, rounded to labels.

    Args:
        head, temperature, assign_crops: see `OfflineClusteringLoss`.
        epsilon: divides the cosines in the kernel of `ssl_platform.ops.sinkhorn.balanced_labels`.
        tolerance, check_every, max_iters: when Sinkhorn stops, see there.
        freeze_prototypes_steps, freeze_prototypes_epochs: the prototypes are not updated before
            both are over.
    """

    def __init__(
        self,
        model: SSLModel,
        data: DataInfo,
        *,
        head: str,
        temperature: float,
        assign_crops: list[int],
        epsilon: float,
        tolerance: float,
        check_every: int,
        max_iters: int,
        freeze_prototypes_steps: int,
        freeze_prototypes_epochs: int,
    ):
        problems = []
        if epsilon <= 0:
            problems.append(f"epsilon={epsilon}: must be positive, e.g. 0.05")
        if tolerance < 0:
            problems.append(f"tolerance={tolerance}: 0 or more, e.g. 0.1")
        if check_every < 1 or max_iters < 1:
            problems.append(f"check_every={check_every}, max_iters={max_iters}: at least 1 each")
        super().__init__(
            model,
            data,
            head=head,
            temperature=temperature,
            assign_crops=assign_crops,
            problems=problems,
        )
        most = max(prototype_head(model, head).num_prototypes)
        if most > data.num_local_samples * data.world_size:
            raise ValueError(
                f"head={head}: {most} prototypes cannot have equal shares of the "
                f"{data.num_local_samples * data.world_size} images of an epoch; lower "
                f"heads.{head}.num_prototypes"
            )
        self.epsilon, self.tolerance = epsilon, tolerance
        self.check_every, self.max_iters = check_every, max_iters
        self.freeze_prototypes_steps = freeze_prototypes_steps
        self.freeze_prototypes_epochs = freeze_prototypes_epochs

    def on_backward_end(self, run: Run) -> None:
        if run.position < self.freeze_prototypes_steps or run.epoch < self.freeze_prototypes_epochs:
            prototype_head(run.model, self.head).drop_prototype_gradients()

    def assign(
        self, embeddings: Tensor, prototypes: nn.Linear, generator: torch.Generator
    ) -> Tensor:
        found = balanced_labels(
            embeddings,
            prototypes.weight,
            epsilon=self.epsilon,
            tolerance=self.tolerance,
            check_every=self.check_every,
            max_iters=self.max_iters,
        )
        if found.error > self.tolerance and distributed.rank() == 0:
            logger.info(
                "Sinkhorn stopped after %d iterations at %.3g, above loss.tolerance=%g: clusters "
                "are less equal than they could be",
                found.num_iters,
                found.error,
                self.tolerance,
            )
        return found.labels
