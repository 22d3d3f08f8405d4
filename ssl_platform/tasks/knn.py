"""k-nearest-neighbour classification by a trunk's features."""

import logging
from collections.abc import Mapping
from typing import Annotated

import torch
from annotated_types import Ge, Gt, MinLen

from ssl_platform.console.working import working
from ssl_platform.evaluation.baselines import LabelledFeatures
from ssl_platform.evaluation.labelled_images import LabelledImages, open_labelled_images
from ssl_platform.metrics import Metric, measured
from ssl_platform.ops.knn import nearest_neighbours, weighted_votes
from ssl_platform.registry import TASKS
from ssl_platform.tasks.evaluation import Evaluation, EvaluationOptions, Measurement

logger = logging.getLogger(__name__)


@TASKS.register()
class KNN(Evaluation):
    """The nearest training images by cosine vote for their classes, with weight exp(cosine / T).

    Args:
        k: numbers of neighbours; each gets its own figure, from one search.
        temperature: T; 0.07 in published figures.
    """

    def __init__(
        self,
        *,
        k: Annotated[list[Annotated[int, Ge(1)]], MinLen(1)],
        temperature: Annotated[float, Gt(0), "e.g. 0.07"],
    ):
        self.ks, self.temperature = k, temperature
        self.protocol = f"kNN protocol: centre crops, cosine, votes exp(cosine / {temperature:g})"

    def images(self, options: EvaluationOptions) -> tuple[LabelledImages, LabelledImages]:
        return open_labelled_images(options.data, options.test_fraction, options.seed)

    def measure(
        self,
        train: LabelledFeatures,
        test: LabelledFeatures,
        device: torch.device,
        metrics: Mapping[str, Metric],
    ) -> Measurement:
        with working(f"looking for the neighbours of {len(test.labels):,} images"):
            cosines, neighbours = nearest_neighbours(
                test.features[:].to(device), train.features, k=max(self.ks)
            )
        labels = train.labels.to(device)[neighbours]
        truth = test.labels.to(device)
        figures, tables, details = {}, {}, {}
        for k in self.ks:
            votes = weighted_votes(
                cosines[:, :k],
                labels[:, :k],
                temperature=self.temperature,
                num_classes=int(train.labels.max()) + 1,
            )
            figures[f"{k}-NN"], tables[f"{k}-NN"] = measured(metrics, votes, truth)
            if k > len(train.features):
                details[f"{k}-NN"] = f"all {len(train.features)} training images vote"
                logger.info("k=%d: %s, there are no more", k, details[f"{k}-NN"])
        return Measurement(figures, details, tables)
