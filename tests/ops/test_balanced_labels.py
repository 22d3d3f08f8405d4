"""Labels of equal use: against the definition in matrix form, and against the soft codes."""

from typing import NamedTuple
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from held_memory import HeldMemory
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_on_ranks
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.ops import sinkhorn as sinkhorn_module
from ssl_platform.ops.sinkhorn import BalancedLabels, balanced_labels, sinkhorn

seldom = settings(max_examples=50, deadline=None)
seeds = st.integers(0, 2**32)


class Textbook(NamedTuple):
    labels: Tensor
    num_iters: int
    error: float
    plan: Tensor  # (N, K)


def textbook(
    embeddings: Tensor,
    prototypes: Tensor,
    *,
    epsilon: float,
    tolerance: float,
    check_every: int,
    max_iters: int,
) -> Textbook:
    """The definition: matrices and vectors, no logarithms, float64."""
    kernel = torch.exp(embeddings.double() @ prototypes.double().T / epsilon)
    num_samples, num_prototypes = kernel.shape
    c = torch.full((num_samples,), 1 / num_samples, dtype=torch.float64)
    for num_iters in range(1, max_iters + 1):
        r = (1 / num_prototypes) / (kernel.T @ c)
        c_before, c = c, (1 / num_samples) / (kernel @ r)
        error = (c_before / c - 1).abs().sum().item()
        if num_iters % check_every == 0 and error <= tolerance:
            break
    plan = c[:, None] * kernel * r
    return Textbook(plan.argmax(dim=1), num_iters, error, plan)


def unit_rows(seed: int, num: int, width: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, width, dtype=torch.float64, generator=generator), dim=1)


def clustered(seed: int, num: int, width: int, num_clusters: int) -> Tensor:
    """Unit rows in clusters of random sizes."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.rand(num_clusters, generator=generator) + 0.1
    members = shares.multinomial(num, replacement=True, generator=generator)
    return F.normalize(
        unit_rows(seed + 1, num_clusters, width)[members] + 0.7 * unit_rows(seed + 2, num, width),
        dim=1,
    )


def counts(labels: Tensor, num_prototypes: int) -> Tensor:
    return labels.bincount(minlength=num_prototypes)


def assert_same(found: BalancedLabels, expected: BalancedLabels | Textbook) -> None:
    assert found.labels.equal(expected.labels)
    assert found.num_iters == expected.num_iters
    assert found.error == pytest.approx(expected.error, rel=1e-6, abs=1e-11)


SELA = {"epsilon": 0.05, "tolerance": 0.1, "check_every": 10, "max_iters": 200}


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((40, 6), SELA),
        ((40, 6), SELA | {"check_every": 1}),
        ((40, 6), SELA | {"max_iters": 1}),
        ((40, 6), SELA | {"tolerance": 0.0, "max_iters": 25}),
        ((40, 6), SELA | {"tolerance": 1e9}),
        ((40, 6), SELA | {"tolerance": 1e9, "max_iters": 7}),
        ((5, 12), SELA | {"epsilon": 0.1, "tolerance": 1e-6, "check_every": 3}),
        ((300, 1), SELA | {"check_every": 1}),
        ((300, 20), SELA | {"epsilon": 0.02}),
    ],
)
def test_labels_iterations_and_error_follow_the_definition(shape, options):
    embeddings, prototypes = unit_rows(0, shape[0], 4), unit_rows(1, shape[1], 4)
    found = balanced_labels(embeddings, prototypes, **options)
    assert_same(found, textbook(embeddings, prototypes, **options))
    assert found.labels.dtype == torch.int64


@seldom
@given(
    seeds,
    st.integers(2, 12),
    st.integers(1, 6),
    st.fixed_dictionaries(
        {
            "epsilon": st.floats(0.05, 1),
            "tolerance": st.floats(1e-4, 1),
            "check_every": st.integers(1, 4),
            "max_iters": st.integers(1, 30),
        }
    ),
    st.integers(1, 20),
)
def test_any_data_in_any_blocks_follow_the_definition(
    seed, num_samples, num_prototypes, options, block_size
):
    embeddings, prototypes = unit_rows(seed, num_samples, 4), unit_rows(~seed, num_prototypes, 4)
    with patch.object(sinkhorn_module, "BLOCK", block_size):
        found = balanced_labels(embeddings, prototypes, **options)
    assert_same(found, textbook(embeddings, prototypes, **options))


def test_the_tolerance_bounds_how_far_the_prototypes_are_from_equal_use():
    """After r the plan's columns sum to 1/K, its rows to w_n = c_before / (c N). Then c divides row
    n by w_n N, which moves at most |w_n - 1/N|: in all, the stopping sum / N."""
    num_samples, num_prototypes = 20_000, 300
    embeddings = clustered(0, num_samples, 64, num_clusters=50)
    prototypes = unit_rows(9, num_prototypes, 64)
    found = balanced_labels(embeddings, prototypes, **SELA)
    expected = textbook(embeddings, prototypes, **SELA)
    assert_same(found, expected)
    assert found.error <= 0.1
    distance = (expected.plan.sum(dim=0) - 1 / num_prototypes).abs().sum()
    assert distance <= found.error / num_samples + 1e-12
    share = num_samples / num_prototypes
    nearest = counts((embeddings @ prototypes.T).argmax(dim=1), num_prototypes)
    labelled = counts(found.labels, num_prototypes)
    assert nearest.max() > 5 * share
    assert labelled.min() > 0
    assert labelled.max() < 3 * share


@pytest.mark.parametrize("epsilon", [0.05, 0.005, 0.004, 0.001])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_prototypes_opposite_to_all_data_get_their_share(epsilon, dtype):
    """Below 0.01 the kernel of such a prototype is 0 in float32 for all samples, at 0.001 mostly
    in float64."""
    towards = F.one_hot(torch.zeros(1, dtype=torch.int64), 8)
    embeddings = F.normalize(2 * towards + unit_rows(0, 600, 8), dim=1).to(dtype)
    away = F.normalize(0.5 * unit_rows(1, 5, 8) - 2 * towards, dim=1)
    prototypes = torch.cat([away, unit_rows(2, 5, 8)]).to(dtype)
    options = {"epsilon": epsilon, "tolerance": 1.0, "check_every": 10, "max_iters": 1000}
    found = balanced_labels(embeddings, prototypes, **options)
    assert found.error <= 1
    labelled = counts(found.labels, 10)
    assert labelled.min() >= 30
    assert labelled.max() <= 90
    if dtype == torch.float64:
        scores = embeddings @ prototypes.T
        codes = sinkhorn(scores, epsilon=epsilon, num_iters=found.num_iters)
        assert found.labels.equal(codes.argmax(dim=1))


@pytest.mark.parametrize("epsilon", [1e-320, 1e-46, 1e-30, 1e-6, 1e30, 1e300])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_any_epsilon_gives_every_sample_a_label(epsilon, dtype):
    embeddings, prototypes = unit_rows(0, 30, 8).to(dtype), unit_rows(1, 5, 8).to(dtype)
    found = balanced_labels(embeddings, prototypes, **(SELA | {"epsilon": epsilon}))
    assert 0 <= found.labels.min() <= found.labels.max() < 5
    assert found.error >= 0  # which NaN is not
    if epsilon < 1:  # with a large one the prototypes are equally good
        assert counts(found.labels, 5).min() > 0


@seldom
@given(seeds, st.sampled_from([0.004, 0.05, 0.5]))
def test_permuting_samples_and_prototypes_permutes_the_labels(seed, epsilon):
    options = SELA | {"epsilon": epsilon, "max_iters": 30}
    embeddings, prototypes = unit_rows(seed, 40, 8), unit_rows(~seed, 6, 8)
    whole = balanced_labels(embeddings, prototypes, **options)
    rows, columns = torch.arange(40).flip(0), torch.arange(6).roll(2)
    permuted = balanced_labels(embeddings[rows], prototypes[columns], **options)
    assert_same(
        permuted._replace(labels=columns[permuted.labels]),
        whole._replace(labels=whole.labels[rows]),
    )


@seldom
@given(seeds)
def test_turning_the_space_and_a_constant_per_prototype_change_nothing(seed):
    embeddings, prototypes = unit_rows(seed, 40, 8), unit_rows(~seed, 6, 8)
    expected = balanced_labels(embeddings, prototypes, **SELA)
    rotation = torch.linalg.qr(unit_rows(seed + 1, 8, 8)).Q
    assert_same(balanced_labels(embeddings @ rotation, prototypes @ rotation, **SELA), expected)
    # a further dimension in which all samples are 1 adds a constant to a prototype's cosines
    wider = torch.cat([embeddings, torch.ones(40, 1)], dim=1)
    shifted = torch.cat([prototypes, 5 * unit_rows(seed + 1, 6, 1)], dim=1)
    assert_same(balanced_labels(wider, shifted, **SELA), expected)


def test_the_first_of_equal_prototypes_gets_the_samples():
    corners = torch.eye(3, dtype=torch.float64)
    found = balanced_labels(corners.repeat(4, 1), corners.repeat_interleave(2, dim=0), **SELA)
    assert found.labels.equal(torch.tensor([0, 2, 4]).repeat(4))


def test_the_error_of_float32_embeddings_falls_to_any_tolerance():
    embeddings = clustered(0, 5000, 16, num_clusters=10).float()
    prototypes = unit_rows(9, 30, 16).float()
    found = balanced_labels(embeddings, prototypes, **SELA | {"tolerance": 1e-8})
    assert found.error <= 1e-8
    exact = balanced_labels(embeddings.double(), prototypes.double(), **SELA | {"tolerance": 1e-8})
    assert (found.labels == exact.labels).double().mean() > 0.999


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings, prototypes = unit_rows(0, 40, 8).to(dtype), unit_rows(1, 6, 8).to(dtype)
    expected = balanced_labels(embeddings.float(), prototypes.float(), **SELA)
    assert_same(balanced_labels(embeddings, prototypes, **SELA), expected)


def test_the_arguments_are_left_alone_and_trained_prototypes_are_welcome():
    embeddings, prototypes = unit_rows(0, 40, 8), unit_rows(1, 6, 8).requires_grad_()
    before = embeddings.clone(), prototypes.detach().clone()
    balanced_labels(embeddings, prototypes, **SELA)
    assert embeddings.equal(before[0])
    assert prototypes.equal(before[1])


def test_the_scores_of_all_samples_are_never_held_at_once():
    num_samples, num_prototypes, block_size = 2000, 200, 50
    embeddings = unit_rows(0, num_samples, 4).float()
    prototypes = unit_rows(1, num_prototypes, 4).float()
    with HeldMemory() as memory:
        codes = sinkhorn(embeddings @ prototypes.T, epsilon=0.05, num_iters=1)
    assert memory.most > codes.nbytes
    with HeldMemory() as memory, patch.object(sinkhorn_module, "BLOCK", block_size):
        balanced_labels(embeddings, prototypes, **SELA | {"max_iters": 2})
    blocks = 3 * 8 * block_size * num_prototypes
    assert memory.most < blocks + 3 * 8 * num_samples
    assert memory.most < codes.nbytes / 5


RANK_CASES = [
    (options, epsilon)
    for options in (SELA | {"max_iters": 45}, SELA | {"tolerance": 1e-3, "check_every": 7})
    for epsilon in (0.05, 0.02)
]


def found_on_this_rank(shares: list[int]) -> list[BalancedLabels]:
    """``shares``: samples of each rank, which are neighbours in the order of one process."""
    embeddings, prototypes = clustered(0, sum(shares), 8, num_clusters=5), unit_rows(9, 12, 8)
    mine = embeddings.split(shares)[distributed.rank()]
    with patch.object(sinkhorn_module, "BLOCK", 64):
        return [
            balanced_labels(mine, prototypes, **options | {"epsilon": epsilon})
            for options, epsilon in RANK_CASES
        ]


@pytest.mark.parametrize("shares", [[130, 170], [300, 0], [1, 100, 199]])
def test_several_ranks_find_the_labels_of_one_process_with_all_samples(shares):
    on_ranks = run_on_ranks(found_on_this_rank, len(shares), shares)
    for parts, whole in zip(
        zip(*on_ranks, strict=True), found_on_this_rank([sum(shares)]), strict=True
    ):
        assert [len(part.labels) for part in parts] == shares
        assert len({(part.num_iters, part.error) for part in parts}) == 1
        assert_same(parts[0]._replace(labels=torch.cat([part.labels for part in parts])), whole)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0: must be above 0"),
        ({"check_every": 0}, "check_every=0: at least 1"),
        ({"max_iters": 0}, "max_iters=0: at least 1"),
        (
            {"embeddings": torch.tensor([[torch.nan] + [0.0] * 7] * 2 + [[0.0] * 8])},
            "embeddings: 2 of 3 rows are NaN or infinite",
        ),
        (
            {"prototypes": torch.full((6, 8), torch.inf)},
            "prototypes: 6 of 6 rows are NaN or infinite",
        ),
    ],
)
def test_an_argument_out_of_range_is_named(wrong, message):
    right = {"embeddings": unit_rows(0, 40, 8), "prototypes": unit_rows(1, 6, 8)} | SELA
    with pytest.raises(ValueError) as error:
        balanced_labels(**right | wrong)
    assert str(error.value) == message
