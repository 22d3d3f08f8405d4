"""How evenly the labels of an offline method are spread, and how much they change."""

import json
import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.diagnosis import Diagnosis
from ssl_platform.hooks.signs import LABEL_SIGNS, LabelFigures, Sign, signs_of_labels
from ssl_platform.losses.base import Loss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import prototype_head, watched_head
from ssl_platform.ops.partitions import normalized_mutual_information
from ssl_platform.registry import HOOKS

logger = logging.getLogger(__name__)
FIRST_STEPS = 100  # of a run, whose labels may be by chance


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
    - ``nmi_chance``: the same with the labels in a random order; more clusters raise it.

    Args:
        head: name of the `PrototypeHead` that the labels belong to.
        max_empty: a greater share of empty clusters is a sign of a collapse.
        max_share: so is a greater share of the images in one cluster.
    """

    def __init__(self, *, head: str, max_empty: float, max_share: float):
        self.head, self.max_empty, self.max_share = head, max_empty, max_share
        self.diagnosis = Diagnosis(LABEL_SIGNS, patience=1)

    def probe_model(self, model: SSLModel, loss: Loss) -> None:
        watched_head(model, self.head)

    def state_dict(self) -> dict[str, Any]:
        return {"signs": self.diagnosis.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.diagnosis.load_state_dict(state.get("signs", {}))  # an older run has none

    def on_train_start(self, run: Run) -> None:
        # the checkpoint of a resumed run has the labels of the previous epoch
        has_labels = run.step > 0 and run.loss.assignments is not None
        self.previous = _labels(run) if has_labels else None
        self.diagnosis.report(run)

    def on_epoch_start(self, run: Run) -> None:
        if run.loss.assignments is None or run.epoch_images > 0:
            return  # the epoch began before this process
        found = self._signs(run) if distributed.rank() == 0 else []
        found = [Sign(*sign) for sign in json.loads(distributed.broadcast_text(json.dumps(found)))]
        self.diagnosis.look(run, found, since_step=run.step + 1)

    def on_epoch_end(self, run: Run) -> None:
        self.diagnosis.remind(run)

    def _signs(self, run: Run) -> list[Sign]:
        """Report the figures of the labels, and find their signs."""
        labels = _labels(run)
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
            figures |= _agreement(self.previous, labels, run.epoch)
        self.previous = labels
        run.report |= {f"assignments/{name}": value for name, value in figures.items()}
        listed = ", ".join(f"{name} {value:.3g}" for name, value in figures.items())
        logger.info("epoch %d: assigned: %s", run.epoch + 1, listed)
        of_labels = LabelFigures(
            empty=figures["empty"],
            largest_share=max(s.max() / max(1, s.sum()) for s in sizes),
            # those of the first epochs may be by chance: the weights change most
            nmi=figures["nmi"] if run.epoch > 1 and run.step >= FIRST_STEPS else math.nan,
            nmi_chance=figures.get("nmi_chance", math.nan),
        )
        return signs_of_labels(of_labels, max_share=self.max_share, max_empty=self.max_empty)


def _agreement(before: np.ndarray, now: np.ndarray, epoch: int) -> dict[str, float]:
    """How alike the labels of two epochs are, and what that would be by chance."""
    rng = np.random.default_rng(epoch)
    pairs = list(zip(before, now, strict=True))
    alike = [normalized_mutual_information(old, new) for old, new in pairs]
    by_chance = [normalized_mutual_information(old, rng.permutation(new)) for old, new in pairs]
    return {"nmi": float(np.mean(alike)), "nmi_chance": float(np.mean(by_chance))}


def _labels(run: Run) -> np.ndarray:
    """(sets of prototypes, num_samples); a copy."""
    assert run.loss.assignments is not None
    return run.loss.assignments.cpu().numpy().copy()
