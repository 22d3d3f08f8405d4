"""Figures that show whether the clustering collapses, and a warning when it does."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.losses.base import Loss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import Prototyped, prototype_head, watched_head
from ssl_platform.ops.entropy import effective_rank, entropy
from ssl_platform.ops.temperature import Temperature
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)

REMEDIES = (
    "try, one at a time, what is not set so yet: a smaller loss.epsilon (0.03), fewer prototypes "
    "(a few times the number of classes you expect), a lower optimizer.lr or a longer "
    "schedule.warmup_epochs, "
    "loss.freeze_prototypes_epochs=1, a larger data.batch_size, weaker crops "
    "(data.transform.crops.*.scale) or jitter; see docs/monitoring.md for the signs"
)


@HOOKS.register()
class ClusteringHealth(Events):
    """At the end of each epoch: how are the prototypes used, and how are the embeddings spread?

    Reported as ``health/...``, over the first crop of every image of the epoch, for the first set
    of prototypes of the head:

    - ``assignment_entropy``: entropy of the mean prediction, divided by ln K; 1 when all prototypes
      are used equally, near 0 when all images go to one.
    - ``sample_entropy``: mean entropy of the prediction for one image, divided by ln K; near 1 when
      all prototypes are equally probable, which with an assignment entropy of 1 is a collapse.
    - ``prototypes_used``: share of the prototypes that are nearest to at least one image.
    - ``embedding_std``: mean standard deviation of an embedding's entries times sqrt(D); 1 when the
      embeddings fill the sphere, 0 when they are all the same.
    - ``effective_rank``: of the embeddings' covariance, from 1 to D.

    Args:
        head: name of a `PrototypeHead`.
        temperature: of the predictions; that of the loss.
        uniform_margin: warn when the mean loss of the epoch is within this fraction of its value
            for a uniform prediction (ln K).
        min_used: warn when a smaller share of the prototypes was used.
        from_epoch: no warnings before this epoch, counted from 1.
    """

    def __init__(
        self,
        *,
        head: str,
        temperature: Temperature,
        uniform_margin: float,
        min_used: float,
        from_epoch: int,
    ):
        self.head, self.temperature = head, temperature
        self.uniform_margin, self.min_used, self.from_epoch = uniform_margin, min_used, from_epoch
        self.totals: dict[str, Tensor] = {}  # of this rank, over the epoch so far

    def probe_model(self, model: SSLModel, loss: Loss) -> None:
        watched_head(model, self.head)

    def state_dict(self) -> dict[str, Any]:
        return self.totals

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.totals = dict(state)

    def on_epoch_start(self, run: Run) -> None:
        head = prototype_head(run.model, self.head)
        num_prototypes, dim = head.num_prototypes[0], head.out_dim
        shapes: dict[str, tuple[int, ...]] = {
            "count": (),
            "loss": (),
            "entropy": (),
            "prediction": (num_prototypes,),
            "nearest": (num_prototypes,),
            "embedding": (dim,),
            "product": (dim, dim),
        }
        self.totals = {
            name: torch.zeros(shape, device=run.device) for name, shape in shapes.items()
        }

    @torch.no_grad()
    def on_step_end(self, run: Run) -> None:
        output: Prototyped = run.outputs[self.head]
        rows = len(output.embeddings) // run.train_loader.transform.num_crops
        embeddings, scores = output.embeddings[:rows].float(), output.scores[0][:rows].float()
        predictions = (scores / self.temperature).softmax(dim=1)
        totals = self.totals
        totals["count"] += rows
        totals["loss"] += run.losses["loss"] * rows
        totals["entropy"] += entropy(predictions).sum()
        totals["prediction"] += predictions.sum(dim=0)
        totals["nearest"] += torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1])
        totals["embedding"] += embeddings.sum(dim=0)
        totals["product"] += embeddings.T @ embeddings

    def on_epoch_end(self, run: Run) -> None:
        totals = {name: distributed.all_reduce_sum(t) for name, t in self.totals.items()}
        self.totals = {}
        report = {f"health/{name}": value.item() for name, value in _figures(totals).items()}
        run.report |= report
        mean_loss = (totals["loss"] / totals["count"]).item()
        if distributed.rank() == 0 and run.epoch >= self.from_epoch:
            for sign in self._signs(report, mean_loss, run.loss.uniform_loss):
                logger.warning("epoch %d: %s; %s", run.epoch, sign, REMEDIES)

    def _signs(
        self, report: dict[str, float], mean_loss: float, uniform_loss: float | None
    ) -> list[str]:
        signs = []
        if uniform_loss is not None and mean_loss > uniform_loss * (1 - self.uniform_margin):
            signs.append(
                f"the loss {mean_loss:.3f} is not {self.uniform_margin:.0%} below ln K = "
                f"{uniform_loss:.3f}, its value when "
                "every image gets the same uniform prediction: nothing is being learned"
            )
        if report["health/prototypes_used"] < self.min_used:
            signs.append(
                f"only {report['health/prototypes_used']:.1%} of the prototypes were nearest to "
                "any image: the clusters are collapsing into a few"
            )
        return signs


def _figures(totals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The figures of an epoch, from the totals over all ranks."""
    log_k, count = math.log(len(totals["prediction"])), totals["count"]
    mean = totals["embedding"] / count
    covariance = totals["product"] / count - mean.outer(mean)
    # of rounding: the trace of the second moments is 1
    noise = len(mean) * torch.finfo(covariance.dtype).eps
    return {
        "assignment_entropy": entropy(totals["prediction"] / count) / log_k,
        "sample_entropy": totals["entropy"] / count / log_k,
        "prototypes_used": (totals["nearest"] > 0).float().mean(),
        "embedding_std": covariance.diagonal().clamp_min(0).sqrt().mean() * len(mean) ** 0.5,
        "effective_rank": effective_rank(covariance, noise=noise),
    }
