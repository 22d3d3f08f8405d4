"""How evenly the labels of an offline method are spread, and how much they change."""

import logging

import numpy as np

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.losses.base import Loss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import prototype_head, watched_head
from ssl_platform.ops.partitions import normalized_mutual_information
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)


@HOOKS.register()
class AssignmentHealth(Events):
    """After each assignment of labels to the whole data set: are they balanced, are they stable?

    Reported as ``assignments/...`` if the loss has ``assignments``. Over the sets of prototypes of
    the head:

    - ``smallest``, ``median``, ``largest``: number of images in a cluster; the minimum, the mean
      and the maximum over the sets.
    - ``empty``: share of the clusters without an image.
    - ``nmi``: normalised mutual information with the labels of the previous epoch, mean over the
      sets; 1 if only the numbers of the clusters have changed. Not in the first epoch.

    Args:
        head: name of the `PrototypeHead` that the labels belong to.
        max_empty: warn when a greater share of the clusters is empty.
        max_share: warn when one cluster has a greater share of the images.
    """

    def __init__(self, *, head: str, max_empty: float, max_share: float):
        self.head, self.max_empty, self.max_share = head, max_empty, max_share

    def probe_model(self, model: SSLModel, loss: Loss) -> None:
        watched_head(model, self.head)

    def on_train_start(self, run: Run) -> None:
        # the checkpoint of a resumed run has the labels of the previous epoch
        self.previous = _labels(run) if run.step > 0 else None

    def on_epoch_start(self, run: Run) -> None:
        labels = _labels(run)
        was_reported = run.epoch_images > 0  # the epoch began before this process
        if labels is None or distributed.rank() != 0 or was_reported:
            return
        nums = prototype_head(run.model, self.head).num_prototypes
        sizes = [
            np.bincount(row[row >= 0], minlength=k) for row, k in zip(labels, nums, strict=True)
        ]
        figures = {
            "smallest": float(min(s.min() for s in sizes)),
            "median": float(np.mean([np.median(s) for s in sizes])),
            "largest": float(max(s.max() for s in sizes)),
            "empty": float(np.mean(np.concatenate(sizes) == 0)),
        }
        if self.previous is not None:
            pairs = zip(self.previous, labels, strict=True)
            figures["nmi"] = float(np.mean([normalized_mutual_information(*p) for p in pairs]))
        self.previous = labels
        run.report |= {f"assignments/{name}": value for name, value in figures.items()}
        listed = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        logger.info("epoch %d: assigned: %s", run.epoch + 1, listed)
        self._warn(run.epoch + 1, figures, max(s.max() / max(1, s.sum()) for s in sizes))

    def _warn(self, epoch: int, figures: dict[str, float], largest_share: float) -> None:
        if figures["empty"] > self.max_empty:
            logger.warning(
                "epoch %d: %.0f%% of the clusters are empty: lower heads.%s.num_prototypes, a few "
                "times the number of classes you expect; docs/monitoring.md says more",
                epoch,
                100 * figures["empty"],
                self.head,
            )
        if largest_share > self.max_share:
            logger.warning(
                "epoch %d: one cluster holds %.0f%% of the images, the embeddings are collapsing: "
                "lower optimizer.lr or lengthen schedule.warmup_epochs; docs/monitoring.md says "
                "more",
                epoch,
                100 * largest_share,
            )


def _labels(run: Run) -> np.ndarray | None:
    """(sets of prototypes, num_samples); a copy."""
    return None if run.loss.assignments is None else run.loss.assignments.cpu().numpy().copy()
