"""SeLa-v2: clusters of equal size over the whole data set, prototypes learned by gradient descent
(Caron et al., arXiv:2006.09882, appendix D; Asano et al., arXiv:1911.05371).

The authors released no code for it. What the papers leave open is an option here; the defaults and
their reasons are in docs/methods.md.
"""

import logging
from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import DataInfo
from ssl_platform.engine.run import Run
from ssl_platform.losses.offline_clustering import OfflineClusteringLoss, StandaloneClustering
from ssl_platform.models.heads import FreezePrototypes, prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.sinkhorn import Epsilon, balanced_labels
from ssl_platform.ops.temperature import Temperature
from ssl_platform.registry import LOSSES

logger = logging.getLogger(__name__)


@LOSSES.register()
class SeLaV2Loss(OfflineClusteringLoss):
    """Sinkhorn over the whole memory bank at the start of every epoch; its result becomes labels.

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
        temperature: Temperature,
        assign_crops: list[int],
        epsilon: Epsilon,
        tolerance: Annotated[float, Ge(0), "e.g. 0.1"],
        check_every: Annotated[int, Ge(1), "e.g. 10"],
        max_iters: Annotated[int, Ge(1), "e.g. 200"],
        freeze_prototypes_steps: int,
        freeze_prototypes_epochs: int,
    ):
        super().__init__(model, data, head=head, temperature=temperature, assign_crops=assign_crops)
        most = max(prototype_head(model, head).num_prototypes)
        num_images = data.num_local_samples * data.world_size
        if most > num_images:
            raise ValueError(
                f"head={head}: {most} prototypes cannot have equal shares of the {num_images} "
                f"images of an epoch; lower heads.{head}.num_prototypes"
            )
        self.epsilon, self.tolerance = epsilon, tolerance
        self.check_every, self.max_iters = check_every, max_iters
        self.freeze_prototypes = FreezePrototypes(
            head, steps=freeze_prototypes_steps, epochs=freeze_prototypes_epochs
        )

    def on_backward_end(self, run: Run) -> None:
        """Freeze the prototypes at first."""
        self.freeze_prototypes(run.model, position=run.position, epoch=run.epoch)

    def assign(
        self, embeddings: Tensor, prototypes: nn.Linear, generator: torch.Generator
    ) -> Tensor:
        """Labels of equal use; tells where Sinkhorn was stopped before they are."""
        balanced = balanced_labels(
            embeddings,
            prototypes.weight,
            epsilon=self.epsilon,
            tolerance=self.tolerance,
            check_every=self.check_every,
            max_iters=self.max_iters,
        )
        if balanced.error > self.tolerance and distributed.rank() == 0:
            logger.info(
                "Sinkhorn stopped after %d iterations at %.3g, above loss.tolerance=%g: clusters "
                "are less equal than they could be",
                balanced.num_iters,
                balanced.error,
                self.tolerance,
            )
        return balanced.labels

    @classmethod
    def standalone(
        cls,
        model: SSLModel,
        *,
        num_samples: int,
        num_crops: int,
        batch_size: int,
        head: str = "prototypes",
        temperature: float = 0.1,
        assign_crops: Sequence[int] = (0, 1),
        epsilon: float = 0.05,
        tolerance: float = 0.1,
        check_every: int = 10,
        max_iters: int = 200,
        freeze_prototypes_steps: int = 0,
        freeze_prototypes_epochs: int = 0,
    ) -> StandaloneClustering:
        """The loss for a training loop of one's own; the defaults are those of the recipes.

        Args:
            model: trunk and heads.
            num_samples: images of the data set.
            num_crops: M, crops of each image.
            batch_size: B, images of one batch; what does not fill the last one is left out.
            head, temperature, assign_crops: see the class.
            epsilon, tolerance, check_every, max_iters: see the class.
            freeze_prototypes_steps, freeze_prototypes_epochs: see the class.

        Raises:
            ConfigError: what cannot work, one line each.
        """
        options = {
            "head": head,
            "temperature": temperature,
            "assign_crops": list(assign_crops),
            "epsilon": epsilon,
            "tolerance": tolerance,
            "check_every": check_every,
            "max_iters": max_iters,
            "freeze_prototypes_steps": freeze_prototypes_steps,
            "freeze_prototypes_epochs": freeze_prototypes_epochs,
        }
        return StandaloneClustering(
            cls,
            model,
            num_crops=num_crops,
            batch_size=batch_size,
            num_samples=num_samples,
            options=options,
        )
