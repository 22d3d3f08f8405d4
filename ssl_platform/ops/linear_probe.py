"""Linear classifiers on features that lie in a file: many settings at the price of few.

Features are standardised with the mean and deviation of the training rows. Every fit returns its
classifiers stacked: ``weight`` (H, D, C) and ``bias`` (H, C), one for each of H settings.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.feature_table import Table

BLOCK = 4096  # rows that are on the device at once
HELD_BYTES = 2**30  # of standardised features at most that are kept for many passes
LBFGS_HISTORY = 10  # pairs of vectors that the curvature is estimated from


class LinearClassifiers(NamedTuple):
    """H classifiers of D features into C classes."""

    weight: Tensor  # (H, D, C)
    bias: Tensor  # (H, C)

    def scores(self, features: Tensor) -> Tensor:
        """(B, D) standardised features to (H, B, C)."""
        return features @ self.weight + self.bias[:, None]

    @torch.no_grad()
    def scores_of(self, rows: "Rows") -> Tensor:
        """(N, C) scores of all rows by the only classifier, on the CPU."""
        return torch.cat([self.scores(features)[0].cpu() for features, _ in rows.blocks()])


@dataclass(frozen=True)
class Standard:
    """Mean and standard deviation of each dimension, (D,) float32."""

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, features: Table, positions: Tensor) -> "Standard":
        """Of some rows of (N, D) features. A dimension that does not vary becomes zero.

        Raises:
            ValueError: a row is not finite.
        """
        total = torch.zeros(2, features.shape[1], dtype=torch.float64)
        for part in positions.split(BLOCK):
            rows = features[part].double()
            total += torch.stack([rows.sum(0), rows.square().sum(0)])
        if not total.isfinite().all():
            raise ValueError("features: some of the rows are NaN or infinite")
        mean, square = total / len(positions)
        variance = (square - mean.square()).clamp(min=0)
        varies = variance > 1e-12 * square
        std = torch.where(varies, variance.sqrt(), torch.inf)
        return cls(mean.float(), std.float())


@dataclass(frozen=True)
class Rows:
    """Some rows of a table of features with their classes, standardised as they are read.

    Args:
        features: (N, D) of any float type.
        labels: (N,) int64.
        positions: (n,) int64 of the rows that count.
        standard: of the training rows.
        device: where the computing is done.
    """

    features: Table
    labels: Tensor
    positions: Tensor
    standard: Standard
    device: torch.device

    def __len__(self) -> int:
        return len(self.positions)

    def read(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """Rows number ``some``: (B, D) float32 features and (B,) labels on the device."""
        positions = self.positions[some]
        rows = self.features[positions].to(self.device, torch.float32)
        mean, std = self.standard.mean.to(self.device), self.standard.std.to(self.device)
        return (rows - mean) / std, self.labels[positions].to(self.device)

    def blocks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """All rows in order."""
        for some in torch.arange(len(self)).split(BLOCK):
            yield self.read(some)

    def passes(self) -> Callable[[], Iterable[tuple[Tensor, Tensor]]]:
        """``blocks`` for many passes: to standardise a block costs more than to classify it, so
        that they are kept where they are not too large."""
        if 4 * len(self) * self.features.shape[1] > HELD_BYTES:
            return self.blocks
        held = list(self.blocks())
        return lambda: held


@torch.no_grad()
def fit_sgd(
    rows: Rows,
    num_classes: int,
    *,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    num_epochs: int,
    batch_size: int,
    momentum: float,
    seed: int,
) -> LinearClassifiers:
    """Cross entropy by SGD, all pairs of a rate and a decay together: one product per step.

    Classifier ``i * len(weight_decays) + j`` has rate i and decay j. They start from zero, the
    rates fall to zero along half a cosine, step by step, and biases do not decay. One that
    diverges ends as NaN and does not touch the others.
    """
    dim, num = rows.features.shape[1], len(learning_rates) * len(weight_decays)
    pairs = torch.cartesian_prod(torch.tensor(learning_rates), torch.tensor(weight_decays))
    rate, decay = pairs.view(num, 2).to(rows.device).unbind(1)
    # one matrix, so that the product with a batch is one too; the last row is the bias
    weight = torch.zeros(dim + 1, num, num_classes, device=rows.device)
    # made once: the allocation of so much memory would cost as much as a product
    velocity, gradient = torch.zeros_like(weight), torch.empty_like(weight)
    generator = torch.Generator().manual_seed(seed)
    num_steps = num_epochs * math.ceil(len(rows) / batch_size)
    batches = (
        some
        for _ in range(num_epochs)
        for some in torch.randperm(len(rows), generator=generator).split(batch_size)
    )
    for step, some in enumerate(batches):
        features, labels = rows.read(some)
        features = F.pad(features, (0, 1), value=1.0)
        errors = (features @ weight.flatten(1)).view(-1, num, num_classes).softmax(dim=2)
        errors[torch.arange(len(labels)), :, labels] -= 1
        torch.mm(features.T / len(labels), errors.flatten(1), out=gradient.flatten(1))
        gradient[:-1].addcmul_(weight[:-1], decay[:, None])
        velocity.mul_(momentum).add_(gradient)
        factor = 0.5 * (1 + math.cos(math.pi * step / num_steps))
        weight.addcmul_(velocity, rate[:, None], value=-factor)
    weight = weight.transpose(0, 1)
    return LinearClassifiers(weight[:, :-1], weight[:, -1])


def fit_lbfgs(
    rows: Rows, num_classes: int, *, l2: Sequence[float], max_iters: int, tolerance: float
) -> LinearClassifiers:
    """Multinomial logistic regression: mean cross entropy + l2 / 2 * ``|weight|^2``, by L-BFGS.

    From the strongest penalty to the weakest, each starting where the one before has ended.

    Args:
        max_iters: of each penalty.
        tolerance: a largest gradient below it ends the search.
    """
    weight = torch.zeros(rows.features.shape[1], num_classes, device=rows.device)
    bias = torch.zeros(num_classes, device=rows.device)
    weight.requires_grad_()
    bias.requires_grad_()
    blocks = rows.passes()
    fitted: dict[float, tuple[Tensor, Tensor]] = {}
    for penalty in sorted(set(l2), reverse=True):
        optimizer = torch.optim.LBFGS(
            [weight, bias],
            max_iter=max_iters,
            tolerance_grad=tolerance,
            tolerance_change=0.0,
            history_size=LBFGS_HISTORY,
            line_search_fn="strong_wolfe",
        )
        optimizer.step(partial(_logistic_loss, blocks, len(rows), weight, bias, penalty))
        fitted[penalty] = weight.detach().clone(), bias.detach().clone()
    weights, biases = zip(*(fitted[penalty] for penalty in l2), strict=True)
    return LinearClassifiers(torch.stack(weights), torch.stack(biases))


def _logistic_loss(
    blocks: Callable[[], Iterable[tuple[Tensor, Tensor]]],
    num_rows: int,
    weight: Tensor,
    bias: Tensor,
    penalty: float,
) -> Tensor:
    """The objective; its gradient is left in ``weight`` and ``bias``."""
    weight.grad = bias.grad = None
    total = penalty / 2 * weight.square().sum()
    total.backward()
    for features, labels in blocks():
        loss = F.cross_entropy(features @ weight + bias, labels, reduction="sum") / num_rows
        loss.backward()
        total = total.detach() + loss.detach()
    return total


@torch.no_grad()
def fit_ridge(rows: Rows, num_classes: int, *, l2: Sequence[float]) -> LinearClassifiers:
    """Least squares of the one-hot labels: mean squared error + l2 * ``|weight|^2``, exactly."""
    dim = rows.features.shape[1]
    gram = torch.zeros(dim, dim, dtype=torch.float64, device=rows.device)
    moment = torch.zeros(dim, num_classes, dtype=torch.float64, device=rows.device)
    counts = torch.zeros(num_classes, dtype=torch.float64, device=rows.device)
    for features, labels in rows.blocks():
        one_hot = F.one_hot(labels, num_classes).double()
        gram += features.T.double() @ features.double()
        moment += features.T.double() @ one_hot
        counts += one_hot.sum(0)
    identity = torch.eye(dim, dtype=torch.float64, device=rows.device)
    weights = [
        torch.linalg.solve(gram / len(rows) + penalty * identity, moment / len(rows))
        for penalty in l2
    ]
    # the features have mean zero over the training rows, so the bias is the mean of the labels
    bias = (counts / len(rows)).expand(len(l2), -1)
    return LinearClassifiers(torch.stack(weights).float(), bias.float())


@torch.no_grad()
def accuracies(classifiers: LinearClassifiers, rows: Rows) -> Tensor:
    """Percent of the rows whose class has the highest score, in one pass over the rows.

    Returns:
        (H,) float64. A classifier that has diverged gets none right.
    """
    hits = torch.zeros(len(classifiers.bias), dtype=torch.float64, device=rows.device)
    for features, labels in rows.blocks():
        scores = classifiers.scores(features)  # (H, B, C)
        is_right = scores.argmax(dim=2) == labels
        hits += (is_right & scores.isfinite().all(dim=2)).sum(dim=1)
    return 100 * hits.cpu() / len(rows)
