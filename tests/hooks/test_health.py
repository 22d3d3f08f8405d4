import logging
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.hooks.health import ClusteringHealth
from ssl_platform.models.heads import Prototyped, PrototypeHead

DIM = NUM_PROTOTYPES = 4
LN_K = math.log(NUM_PROTOTYPES)
FIGURES = {
    "assignment_entropy",
    "sample_entropy",
    "prototypes_used",
    "embedding_std",
    "effective_rank",
}


def a_hook(**options) -> ClusteringHealth:
    defaults = {
        "head": "prototypes",
        "temperature": 0.1,
        "uniform_margin": 0.01,
        "min_used": 0.3,
        "from_epoch": 1,
    }
    return ClusteringHealth(**(defaults | options))


def a_run(dim: int = DIM, num_crops: int = 2) -> SimpleNamespace:
    head = PrototypeHead(
        8, hidden_dim=0, out_dim=dim, num_prototypes=[NUM_PROTOTYPES], batch_norm=False
    )
    return SimpleNamespace(
        model=SimpleNamespace(heads={"prototypes": head}),
        loss=SimpleNamespace(uniform_loss=LN_K),
        train_loader=SimpleNamespace(transform=SimpleNamespace(num_crops=num_crops)),
        device=torch.device("cpu"),
        report={},
        epoch=0,
    )


def health_of(
    run: SimpleNamespace,
    hook: ClusteringHealth,
    steps: list[tuple[Tensor, Tensor]],
    *,
    loss: float = 0.5,
) -> dict[str, float]:
    """The figures after an epoch of steps, each with the first crop's embeddings and scores."""
    hook.on_epoch_start(run)
    for embeddings, scores in steps:
        num_others = run.train_loader.transform.num_crops - 1
        # crops other than the first do not count, whatever they hold
        other = torch.full((num_others * len(scores), 1), 7.0)
        run.outputs = {
            "prototypes": Prototyped(
                torch.cat([embeddings, other.expand(-1, embeddings.shape[1])]),
                [torch.cat([scores, other * torch.arange(scores.shape[1])])],
            )
        }
        run.losses = {"loss": torch.tensor(loss)}
        hook.on_step_end(run)
    run.epoch += 1
    hook.on_epoch_end(run)
    return {name.removeprefix("health/"): value for name, value in run.report.items()}


CORNERS = torch.cat([torch.eye(DIM), -torch.eye(DIM)])  # of zero mean, isotropic
ONE_EACH = torch.eye(NUM_PROTOTYPES).repeat(2, 1)  # scores: every prototype is nearest to two rows


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize("num_crops", [1, 2, 5])
def test_embeddings_that_fill_the_sphere_are_healthy(num_crops, caplog):
    figures = health_of(a_run(num_crops=num_crops), a_hook(temperature=0.01), [(CORNERS, ONE_EACH)])
    assert figures == pytest.approx(
        {
            "assignment_entropy": 1,  # each prototype has a quarter of the rows
            "sample_entropy": 0,  # each row is sure
            "prototypes_used": 1,
            "embedding_std": 1,
            "effective_rank": DIM,
        },
        abs=1e-5,
    )
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("dim", [16, 128])
def test_embeddings_that_are_all_the_same_have_no_spread_and_a_low_effective_rank(dim):
    direction = torch.randn(1, dim, generator=torch.Generator().manual_seed(0))
    embeddings = F.normalize(direction, dim=1).expand(32, dim)
    scores = torch.zeros(32, NUM_PROTOTYPES)
    figures = health_of(a_run(dim), a_hook(), [(embeddings, scores)] * 20)
    assert figures["effective_rank"] == pytest.approx(1, abs=0.5)
    assert figures["embedding_std"] == pytest.approx(0, abs=2e-3)


def test_embeddings_on_a_line_have_effective_rank_one_and_those_in_a_plane_two():
    line = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    plane = torch.cat([line, line.roll(1, dims=1)])
    ranks = [
        health_of(a_run(), a_hook(), [(some, torch.zeros(len(some), NUM_PROTOTYPES))])
        for some in (line, plane)
    ]
    assert [figures["effective_rank"] for figures in ranks] == pytest.approx([1, 2], abs=1e-4)


def test_uniform_predictions_have_full_entropy_of_both_kinds():
    figures = health_of(a_run(), a_hook(), [(CORNERS, torch.zeros(8, NUM_PROTOTYPES))])
    assert figures["assignment_entropy"] == pytest.approx(1)
    assert figures["sample_entropy"] == pytest.approx(1)


def random_steps(num_steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            F.normalize(torch.randn(6, DIM, generator=generator), dim=1),
            torch.rand(6, NUM_PROTOTYPES, generator=generator) * 2 - 1,
        )
        for _ in range(num_steps)
    ]


def test_an_epoch_of_steps_has_the_figures_of_its_rows_together():
    steps = random_steps(5)
    together = tuple(torch.cat(parts) for parts in zip(*steps, strict=True))
    figures = health_of(a_run(), a_hook(), steps)
    assert set(figures) == FIGURES
    assert figures == pytest.approx(health_of(a_run(), a_hook(), [together]), rel=1e-4)


def test_figures_equal_those_that_the_rows_give_directly():
    embeddings, scores = random_steps(1)[0]
    figures = health_of(a_run(), a_hook(), [(embeddings, scores)])
    predictions = torch.softmax(scores.double() / 0.1, dim=1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(embeddings.double().T, correction=0))
    shares = (eigenvalues / eigenvalues.sum()).clamp_min(1e-300)
    mean = predictions.mean(dim=0)
    std = embeddings.double().std(dim=0, correction=0).mean()
    assert figures == pytest.approx(
        {
            "assignment_entropy": -(mean * mean.log()).sum().item() / LN_K,
            "sample_entropy": -(predictions * predictions.log()).sum(dim=1).mean().item() / LN_K,
            "prototypes_used": len(scores.argmax(dim=1).unique()) / NUM_PROTOTYPES,
            "embedding_std": std.item() * DIM**0.5,
            "effective_rank": math.exp(-(shares * shares.log()).sum().item()),
        },
        rel=1e-4,
    )


def test_an_epoch_starts_from_nothing():
    run, hook = a_run(), a_hook()
    health_of(run, hook, random_steps(3))
    second = health_of(run, hook, [(CORNERS, ONE_EACH)])
    assert second == pytest.approx(health_of(a_run(), a_hook(), [(CORNERS, ONE_EACH)]))


ALL_ONE = torch.tensor([[0.9, 0.1, 0.0, -0.4]]).expand(8, NUM_PROTOTYPES)  # of four prototypes
NO_GAIN = "the loss {loss:.3f} is not 1% below ln K = {ln_k:.3f}"
FEW_USED = "only 25.0% of the prototypes were nearest to any image"


@pytest.mark.parametrize(
    ("loss", "scores", "min_used", "signs"),
    [
        (LN_K, ONE_EACH, 0.3, [NO_GAIN]),
        (LN_K * 0.995, ONE_EACH, 0.3, [NO_GAIN]),
        (LN_K * 0.98, ONE_EACH, 0.3, []),
        (0.5, ONE_EACH, 0.3, []),
        (0.5, ALL_ONE, 0.3, [FEW_USED]),
        (0.5, ALL_ONE, 0.25, []),  # just enough
        (LN_K, ALL_ONE, 0.3, [NO_GAIN, FEW_USED]),
    ],
)
def test_each_sign_of_a_collapse_is_one_warning(loss, scores, min_used, signs, caplog):
    health_of(a_run(), a_hook(min_used=min_used), [(CORNERS, scores)] * 3, loss=loss)
    warnings = warnings_of(caplog)
    assert len(warnings) == len(signs)
    for warning, sign in zip(warnings, signs, strict=True):
        assert warning.startswith(f"epoch 1: {sign.format(loss=loss, ln_k=LN_K)}")
        assert "loss.epsilon" in warning


def test_a_loss_without_a_uniform_value_is_not_judged_by_it(caplog):
    run = a_run()
    run.loss.uniform_loss = None
    health_of(run, a_hook(), [(CORNERS, ONE_EACH)], loss=1e6)
    assert warnings_of(caplog) == []


def test_epochs_before_the_first_that_is_judged_are_not_warned_of(caplog):
    run, hook = a_run(), a_hook(from_epoch=3)
    num_warnings = []
    for _ in range(4):
        health_of(run, hook, [(CORNERS, ONE_EACH)], loss=LN_K)
        num_warnings.append(len(warnings_of(caplog)))
    assert num_warnings == [0, 0, 1, 2]


def health_on_this_rank() -> tuple[dict[str, Any], list[str]]:
    steps = random_steps(4)[distributed.rank() :: distributed.world_size()]
    records: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("ssl_platform.hooks.health")
    logger.addHandler(handler)
    try:
        # the mean over ranks is at ln K, the loss of each rank alone is not
        loss = LN_K + (-0.5 if distributed.rank() else 0.5)
        return health_of(a_run(), a_hook(), steps, loss=loss), records
    finally:
        logger.removeHandler(handler)


def test_two_ranks_report_the_figures_of_all_rows_and_the_first_one_warns():
    (first, warned), (second, silent) = run_on_ranks(health_on_this_rank, 2)
    assert first == second
    assert first == pytest.approx(health_of(a_run(), a_hook(), random_steps(4)), rel=1e-4)
    assert [message.startswith(f"epoch 1: the loss {LN_K:.3f} ") for message in warned] == [True]
    assert silent == []
