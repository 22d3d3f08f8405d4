"""Is a training collapsing? Figures of its embeddings and prototypes, and the signs they give."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.engine import checkpoint
from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import CollapseError, nearest
from ssl_platform.hooks.diagnosis import RESULT, Diagnosis
from ssl_platform.hooks.signs import LABEL_SIGNS, STEP_SIGNS, Figures, signs_of
from ssl_platform.losses.base import Loss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import Prototyped, watched_head
from ssl_platform.ops.entropy import effective_rank, entropy, participation_ratio
from ssl_platform.ops.pairs import crop_colours, figures_of_pairs, sums_of_pairs
from ssl_platform.ops.sums import Sums, added, over_ranks
from ssl_platform.ops.temperature import Temperature
from ssl_platform.registry import HOOKS

PATIENCE = 3  # looks in a row: with one every 15 steps a sign is told within 60 steps
FIRST_STEPS = 30  # of a run, of which no sign counts: embeddings of random weights are alike
MAX_DIM = 512  # entries of a row that are watched, where a head has no prototypes and may be wide
SIGNS = (*STEP_SIGNS, *LABEL_SIGNS)


@HOOKS.register()
class EmbeddingHealth(Events):
    """Every few steps: is there a sign of a collapse? After an epoch: how are embeddings spread?

    Reported as ``health/...``, over the first crop of every image of the epoch; an embedding is a
    row of a head's output, of unit length:

    - ``embedding_std``: mean standard deviation of an embedding's entries times sqrt(D); 1 when the
      embeddings fill the sphere, 0 when they are all the same.
    - ``effective_rank``: of the embeddings' covariance, from 1 to D.
    - ``agreement``, ``brightness``, ``colour``: of the first two crops, see
      `ssl_platform.ops.pairs`.

    The sums stay on the device, the host reads them once in some steps.

    Args:
        head: whose output is watched; null for that of the loss, or else the first.
        every_steps: steps between two looks at the signs of a collapse.
        stop: signs that end the run with `CollapseError`: their names, true for all, null for none.
    """

    def __init__(
        self, *, head: str | None, every_steps: Annotated[int, Ge(1)], stop: bool | list[str] | None
    ):
        chosen = SIGNS if stop is True else tuple(stop or ())
        for name in chosen:
            if name not in SIGNS:
                raise ValueError(f"stop={stop}: there is no sign {name}; {nearest(name, SIGNS)}")
        self.head, self.every_steps, self.stop = head, every_steps, chosen
        self.diagnosis = Diagnosis(STEP_SIGNS, patience=PATIENCE)
        self.window: Sums = {}  # of this rank, since the latest look
        self.epoch: Sums = {}  # of its epoch
        self.rate = math.inf  # of learning, at the latest look

    def state_dict(self) -> dict[str, Any]:
        sums = {"window": self.window, "epoch": self.epoch}
        return sums | {"rate": self.rate, "signs": self.diagnosis.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        # an older run has none of them
        self.window, self.epoch = dict(state.get("window", {})), dict(state.get("epoch", {}))
        self.rate = state.get("rate", math.inf)
        self.diagnosis.load_state_dict(state.get("signs", {}))

    def on_train_start(self, run: Run) -> None:
        self.diagnosis.report(run)

    def on_epoch_start(self, run: Run) -> None:
        self.epoch = {}

    @torch.no_grad()
    def on_step_end(self, run: Run) -> None:
        sums = self.sums(run)
        self.epoch, self.window = added(self.epoch, sums), added(self.window, sums)
        if run.step % self.every_steps == 0:
            self._look(run)

    def on_epoch_end(self, run: Run) -> None:
        if self.epoch:
            for name, value in self._reported(over_ranks(self.epoch)).items():
                if not value.isnan() and name != "light_agreement":
                    run.report[f"health/{name}"] = value.item()
        self.epoch = {}
        self.diagnosis.remind(run)

    def measured(self, run: Run, sums: Sums) -> Figures:
        """The figures of some steps, from the sums of this rank over them; collective."""
        watched = self._watched(over_ranks(sums))
        # of the first rank: the others may round in another way
        values = distributed.broadcast(torch.stack(list(watched.values()))).tolist()
        return Figures(
            uniform_loss=math.nan if run.loss.uniform_loss is None else run.loss.uniform_loss,
            rate_rises=float(run.schedule(run.position) > self.rate),
            **dict(zip(watched, values, strict=True)),
        )

    def _look(self, run: Run) -> None:
        """Find the signs of the latest steps, and stop the run where it is to stop."""
        if self.window:
            figures, self.window = self.measured(run, self.window), {}
            self.rate = run.schedule(run.position)
            since = max(0, run.step - self.every_steps) + 1
            found = signs_of(figures) if since > FIRST_STEPS else []
            self.diagnosis.look(run, found, since_step=since)
        for entry in run.results[RESULT]:
            if entry["sign"] in self.stop:
                raise CollapseError(
                    f"stopped at step {run.step}, as hooks.health.stop asks for the sign "
                    f"{entry['sign']!r}: {entry['text']}; try first {entry['remedy']}; "
                    f"{checkpoint.what_is_saved(run.output_dir)}"
                )

    def sums(self, run: Run) -> Sums:
        """Of the latest batch of this rank; none where the head gives no rows."""
        assert run.batch is not None
        rows = self._rows(run)
        if rows is None:
            return {}
        crops, num_images = run.batch.crops, len(run.batch.index)
        first, second = rows[:num_images], rows[num_images : 2 * num_images]
        sums = {
            "count": torch.full((), float(num_images), device=run.device),
            "loss": run.losses["loss"].detach().float() * num_images,
            "embedding": first.sum(dim=0),
            "product": first.T @ first,
        }
        if len(crops) > 1:
            colours = crop_colours(crops[0]), crop_colours(crops[1])
            sums |= sums_of_pairs((first, second), colours)
        return sums

    def _rows(self, run: Run) -> Tensor | None:
        """(crops x images, D) float32 of unit length, crop after crop."""
        named = self.head or getattr(run.loss, "head", None)
        heads = dict(run.model.heads.items())
        output = run.outputs[
            named if isinstance(named, str) and named in heads else next(iter(heads))
        ]
        if isinstance(output, Prototyped):
            return output.embeddings.float()
        for leaf in distributed.tensors_of(output):
            if leaf.dim() == 2 and leaf.is_floating_point():
                return F.normalize(leaf[:, :MAX_DIM].float(), dim=1)
        return None

    def _reported(self, sums: Sums) -> dict[str, Tensor]:
        """The figures of an epoch."""
        mean, covariance = _moments(sums)
        noise = (
            len(mean) * torch.finfo(covariance.dtype).eps
        )  # of rounding: the trace of the second moments is 1
        return {
            "embedding_std": covariance.diagonal().clamp_min(0).sqrt().mean() * len(mean) ** 0.5,
            "effective_rank": effective_rank(covariance, noise=noise),
            **_of_pairs(sums),
        }

    def _watched(self, sums: Sums) -> dict[str, Tensor]:
        """The figures of some steps, by their names in `Figures`."""
        _, covariance = _moments(sums)
        return {
            "loss": sums["loss"] / sums["count"],
            "images": sums["count"],
            "spread": covariance.trace().clamp_min(0).sqrt(),
            "dimensions": participation_ratio(covariance),
            **_of_pairs(sums),
        }


@HOOKS.register()
class ClusteringHealth(EmbeddingHealth):
    """`EmbeddingHealth` for a head with prototypes, of which it watches the first set.

    Also reported:

    - ``assignment_entropy``: entropy of the mean prediction, divided by ln K; 1 when all prototypes
      are used equally, near 0 when all images go to one.
    - ``sample_entropy``: mean entropy of the prediction for one image, divided by ln K; near 1 when
      all prototypes are equally probable, which with an assignment entropy of 1 is a collapse.
    - ``prototypes_used``: share of the prototypes that are nearest to at least one image.

    Args:
        head: name of a `PrototypeHead`.
        temperature: of the predictions; that of the loss.
        every_steps, stop: see `EmbeddingHealth`.
    """

    def __init__(
        self,
        *,
        head: str,
        temperature: Temperature,
        every_steps: Annotated[int, Ge(1)],
        stop: bool | list[str] | None,
    ):
        super().__init__(head=head, every_steps=every_steps, stop=stop)
        self.temperature = temperature

    def probe_model(self, model: SSLModel, loss: Loss) -> None:
        watched_head(model, str(self.head))

    def sums(self, run: Run) -> Sums:
        assert run.batch is not None
        output: Prototyped = run.outputs[str(self.head)]
        scores = output.scores[0][: len(run.batch.index)].float()
        predictions = (scores / self.temperature).softmax(dim=1)
        return super().sums(run) | {
            "entropy": entropy(predictions).sum(),
            "prediction": predictions.sum(dim=0),
            "nearest": torch.bincount(scores.argmax(dim=1), minlength=scores.shape[1]).float(),
        }

    def _reported(self, sums: Sums) -> dict[str, Tensor]:
        count, log_k = sums["count"], math.log(len(sums["prediction"]))
        return {
            "assignment_entropy": entropy(sums["prediction"] / count) / log_k,
            "sample_entropy": sums["entropy"] / count / log_k,
            "prototypes_used": (sums["nearest"] > 0).float().mean(),
            **super()._reported(sums),
        }

    def _watched(self, sums: Sums) -> dict[str, Tensor]:
        count, num_prototypes = sums["count"], len(sums["nearest"])
        return super()._watched(sums) | {
            "sample_entropy": sums["entropy"] / count / math.log(num_prototypes),
            "prototypes": torch.full_like(count, num_prototypes),
            "prototypes_used": entropy(sums["nearest"] / count).exp(),
        }


def _moments(sums: Sums) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the embeddings."""
    mean = sums["embedding"] / sums["count"]
    return mean, sums["product"] / sums["count"] - mean.outer(mean)


def _of_pairs(sums: Sums) -> dict[str, Tensor]:
    """How alike two crops are; nothing where there is one crop."""
    if "products" not in sums:
        return {}
    return {name: value.float() for name, value in figures_of_pairs(sums, sums["count"]).items()}
