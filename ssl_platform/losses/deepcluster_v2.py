"""DeepCluster-v2: k-means clusters the embeddings of the epoch before, and its centroids are the
prototypes (Caron et al., arXiv:2006.09882, appendix D)."""

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.data.batch import DataInfo
from ssl_platform.losses.offline_clustering import OfflineClusteringLoss, StandaloneClustering
from ssl_platform.models.heads import prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.kmeans import spherical_kmeans
from ssl_platform.ops.temperature import Temperature
from ssl_platform.registry import LOSSES


@LOSSES.register()
class DeepClusterV2Loss(OfflineClusteringLoss):
    """Spherical k-means at the start of every epoch, from new random centroids.

    The prototypes get no gradient: only the clustering moves them.

    Args:
        head, temperature, assign_crops: see `OfflineClusteringLoss`.
        kmeans_iters: iterations of each k-means.
    """

    def __init__(
        self,
        model: SSLModel,
        data: DataInfo,
        *,
        head: str,
        temperature: Temperature,
        assign_crops: list[int],
        kmeans_iters: Annotated[int, Ge(1), "e.g. 10"],
    ):
        super().__init__(model, data, head=head, temperature=temperature, assign_crops=assign_crops)
        module = prototype_head(model, head)
        most = max(module.num_prototypes)
        if most > data.num_local_samples:
            raise ValueError(
                f"head={head}: {most} prototypes, but k-means draws its first centroids from the "
                f"{data.num_local_samples} images that one process sees in an epoch; lower "
                f"heads.{head}.num_prototypes"
            )
        self.kmeans_iters = kmeans_iters
        module.prototypes.requires_grad_(False)

    def assign(
        self, embeddings: Tensor, prototypes: nn.Linear, generator: torch.Generator
    ) -> Tensor:
        """Clusters of k-means; the prototypes become its centroids."""
        centroids, clusters = spherical_kmeans(
            embeddings,
            num_clusters=prototypes.out_features,
            num_iters=self.kmeans_iters,
            generator=generator,
        )
        prototypes.weight.copy_(centroids)
        return clusters

    @classmethod
    def standalone(
        cls,
        model: SSLModel,
        *,
        num_samples: int,
        num_crops: int,
        batch_size: int,
        seed: int = 0,
        head: str = "prototypes",
        temperature: float = 0.1,
        assign_crops: Sequence[int] = (0, 1),
        kmeans_iters: int = 10,
    ) -> StandaloneClustering:
        """The loss for a training loop of one's own; the defaults are the paper's.

        Args:
            model: trunk and heads.
            num_samples: images of the data set.
            num_crops: M, crops of each image.
            batch_size: B, images of one batch; what does not fill the last one is left out.
            seed: of the first centroids of every clustering.
            head, temperature, assign_crops, kmeans_iters: see the class.

        Raises:
            ConfigError: what cannot work, one line each.
        """
        options = {
            "head": head,
            "temperature": temperature,
            "assign_crops": list(assign_crops),
            "kmeans_iters": kmeans_iters,
        }
        return StandaloneClustering(
            cls,
            model,
            num_crops=num_crops,
            batch_size=batch_size,
            num_samples=num_samples,
            seed=seed,
            options=options,
        )
