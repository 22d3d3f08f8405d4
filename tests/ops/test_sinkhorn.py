import json
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from ranks import run_on_ranks
from torch import Tensor
from torch.nn import functional as F

from ssl_platform import distributed
from ssl_platform.ops.sinkhorn import _by_factors, _by_logarithms, sinkhorn

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "sinkhorn.json").read_text())
CASES = [case for case in VECTORS["cases"] if case["iterations"] > 0]
FLOAT32_MAX = torch.finfo(torch.float32).max

any_epsilon = st.floats(5e-324, 1.7e308) | st.sampled_from([1e-320, 1e-46, 1e-30, 0.05, 1e30, 1e39])
cosines = arrays(
    np.float64,
    array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
    elements=st.floats(-1, 1),
)
seldom = settings(max_examples=50, deadline=None)


def textbook(scores: Tensor, *, epsilon: float, num_iters: int) -> Tensor:
    """The exponential form, in float64, a prototype and a sample at a time."""
    codes = torch.exp(scores.double() / epsilon)  # (N, K)
    num_samples, num_prototypes = codes.shape
    codes /= codes.sum()
    for _ in range(num_iters):
        for prototype in range(num_prototypes):
            codes[:, prototype] /= codes[:, prototype].sum() * num_prototypes
        for sample in range(num_samples):
            codes[sample] /= codes[sample].sum() * num_samples
    return codes * num_samples


def cosines_of(seed: int, num_samples: int, num_prototypes: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(num_samples, num_prototypes, dtype=torch.float64, generator=generator) * 2 - 1


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("dtype", "rtol", "atol"), [(torch.float64, 1e-6, 0), (torch.float32, 1e-4, 1e-6)]
)
def test_codes_equal_those_of_the_reference(case, dtype, rtol, atol):
    scores = torch.tensor(case["scores"], dtype=dtype)
    codes = sinkhorn(scores, epsilon=case["epsilon"], num_iters=case["iterations"])
    assert codes.dtype == dtype
    torch.testing.assert_close(codes, torch.tensor(case["q"], dtype=dtype), rtol=rtol, atol=atol)


@seldom
@given(cosines, st.floats(0.03, 1), st.integers(1, 5))
def test_codes_equal_the_textbook(scores, epsilon, num_iters):
    codes = sinkhorn(torch.from_numpy(scores), epsilon=epsilon, num_iters=num_iters)
    expected = textbook(torch.from_numpy(scores), epsilon=epsilon, num_iters=num_iters)
    torch.testing.assert_close(codes, expected, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize("epsilon", [0.005, 0.02, 0.05, 0.5])
def test_float32_is_near_float64_at_any_epsilon(epsilon):
    generator = torch.Generator().manual_seed(0)
    samples, prototypes = (
        F.normalize(torch.randn(n, 32, dtype=torch.float64, generator=generator), dim=1)
        for n in (512, 300)
    )
    scores = samples @ prototypes.T
    codes = sinkhorn(scores.float(), epsilon=epsilon, num_iters=3)
    expected = sinkhorn(scores.float().double(), epsilon=epsilon, num_iters=3)
    assert codes.isfinite().all()
    assert (codes - expected).abs().max() <= 2e-5


@pytest.mark.parametrize("num_iters", [1, 3, 30])
@pytest.mark.parametrize("extremes", [(-59.0, 0.0), (-59.2, 0.0), (2.0, 61.1), (2.0, 61.2)])
def test_nothing_changes_where_factors_give_way_to_logarithms(extremes, num_iters):
    # the smallest of all entries alone in its row and column is the hardest case for the factors
    scores = torch.full((6, 5), extremes[1])
    scores[0], scores[:, 0] = extremes[0], extremes[0]
    codes = sinkhorn(scores, epsilon=1.0, num_iters=num_iters)
    expected = sinkhorn(scores.double(), epsilon=1.0, num_iters=num_iters)
    torch.testing.assert_close(codes.double(), expected, rtol=1e-4, atol=1e-6)


def any_finite(dtype: torch.dtype) -> st.SearchStrategy[Tensor]:
    width = torch.finfo(dtype).bits
    return arrays(
        np.dtype(f"float{width}"),
        array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6),
        elements=st.floats(width=width, allow_nan=False, allow_infinity=False)
        | st.floats(-1, 1, width=width),
    ).map(torch.from_numpy)


both_ways = pytest.mark.parametrize("codes_of", [sinkhorn, _by_logarithms])


@both_ways
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
@settings(max_examples=100, deadline=None)
@given(st.data(), any_epsilon, st.integers(1, 5) | st.sampled_from([40, 300]))
def test_codes_are_finite_for_any_scores_epsilon_and_iterations(
    codes_of, dtype, data, epsilon, num_iters
):
    scores = data.draw(any_finite(dtype))
    if codes_of is _by_logarithms:
        scores = scores.to(torch.promote_types(dtype, torch.float32))
    codes = codes_of(scores, epsilon=epsilon, num_iters=num_iters)
    assert (codes >= 0).all()  # which NaN is not
    ones = torch.ones(len(scores), dtype=codes.dtype)
    torch.testing.assert_close(codes.sum(dim=1), ones, rtol=1e-5, atol=0)


# as many as make factors that are never scaled overflow
SHAPES = [(1, 3000, 40), (2048, 2, 40), (8, 3000, 60), (4096, 10, 60), (256, 10, 100), (1, 1, 9)]


@both_ways
@pytest.mark.parametrize(
    ("num_samples", "num_prototypes", "num_iters", "dtype"),
    [(*case, torch.float32) for case in SHAPES]
    + [(40, 6, 1000, torch.float64), (6, 40, 1000, torch.float64), (300, 7, 10**4, torch.float32)],
)
def test_prototypes_are_used_equally_after_any_number_of_iterations(
    codes_of, num_samples, num_prototypes, num_iters, dtype
):
    generator = torch.Generator().manual_seed(0)
    samples, prototypes = (
        F.normalize(torch.randn(n, 16, dtype=dtype, generator=generator), dim=1)
        for n in (num_samples, num_prototypes)
    )
    codes = codes_of(samples @ prototypes.T, epsilon=0.05, num_iters=num_iters)
    share = torch.full((num_prototypes,), num_samples / num_prototypes, dtype=dtype)
    torch.testing.assert_close(codes.sum(dim=0), share, rtol=1e-4, atol=0)


@seldom
@given(
    cosines.filter(lambda scores: scores.shape[0] != scores.shape[1]),
    st.floats(0.5, 1e30),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_prototypes_are_used_equally_in_the_end_whatever_the_scores(scores, epsilon, dtype):
    # at a range of 4 an iteration leaves at most tanh(2)^2 = 0.93 of what is unequal
    scores = torch.from_numpy(scores).to(dtype)
    share = torch.full((scores.shape[1],), scores.shape[0] / scores.shape[1], dtype=dtype)
    for codes_of in (sinkhorn, _by_logarithms):
        codes = codes_of(scores, epsilon=epsilon, num_iters=300)
        torch.testing.assert_close(codes.sum(dim=0), share, rtol=1e-5, atol=0)


@seldom
@given(cosines, st.floats(0.01, 1), st.integers(1, 50))
def test_factors_and_logarithms_give_the_same_codes(scores, epsilon, num_iters):
    scores = torch.from_numpy(scores)
    torch.testing.assert_close(
        sinkhorn(scores, epsilon=epsilon, num_iters=num_iters),
        _by_logarithms(scores, epsilon, num_iters),
        rtol=1e-9,
        atol=1e-300,
    )


@pytest.mark.parametrize("epsilon", [1e-320, 1e-46, 1e39, 1e300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_iters", [1, 3])
def test_equal_scores_have_equal_codes_at_any_epsilon(epsilon, dtype, num_iters):
    codes = sinkhorn(torch.full((4, 5), 0.3, dtype=dtype), epsilon=epsilon, num_iters=num_iters)
    torch.testing.assert_close(codes, torch.full_like(codes, 1 / 5))


def test_scores_that_differ_by_more_than_the_number_type_holds_count_where_epsilon_is_large():
    scores = torch.tensor([[FLOAT32_MAX, -FLOAT32_MAX], [0.0, 0.0]])
    codes = sinkhorn(scores, epsilon=3.5e38, num_iters=2)
    expected = sinkhorn(scores.double(), epsilon=3.5e38, num_iters=2)
    torch.testing.assert_close(codes.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilon": 0.0}, "epsilon=0.0: must be above 0"),
        ({"epsilon": float("nan")}, "epsilon=nan: must be above 0"),
        ({"num_iters": 0}, "num_iters=0: at least 1"),
    ],
)
def test_numbers_that_cannot_be_are_refused(changed, message):
    with pytest.raises(ValueError) as error:
        sinkhorn(torch.zeros(2, 3), **({"epsilon": 0.05, "num_iters": 3} | changed))
    assert str(error.value) == message


@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize(
    "scores",
    [
        [[FLOAT32_MAX, -FLOAT32_MAX, 0.0], [-FLOAT32_MAX, FLOAT32_MAX, 0.0]],
        [[-FLOAT32_MAX, -FLOAT32_MAX], [FLOAT32_MAX, FLOAT32_MAX]],
        [[-FLOAT32_MAX, FLOAT32_MAX]] * 3,
        [[1e-45, -1e-45, 0.0]],
    ],
)
def test_the_highest_scores_of_float32_give_finite_codes(scores, num_iters):
    codes = sinkhorn(torch.tensor(scores), epsilon=1e-3, num_iters=num_iters)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(), torch.tensor(float(len(scores))))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_scores_are_computed_in_float32(dtype):
    scores = cosines_of(0, 8, 5).to(dtype)
    codes = sinkhorn(scores, epsilon=0.05, num_iters=3)
    assert codes.dtype == torch.float32
    assert codes.equal(sinkhorn(scores.float(), epsilon=0.05, num_iters=3))


@pytest.mark.parametrize(
    "scores",
    [cosines_of(0, 1, 5).expand(4, 5), cosines_of(1, 1, 7), torch.tensor([[1e30, 0.0, -1e30]] * 2)],
)
def test_identical_samples_share_the_prototypes_equally(scores):
    codes = sinkhorn(scores, epsilon=0.05, num_iters=3)
    torch.testing.assert_close(codes, torch.full_like(codes, 1 / scores.shape[1]))


@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize("shape", [(8, 5), (3, 6)])
def test_a_constant_per_prototype_or_for_all_scores_changes_nothing(shape, num_iters):
    # each iteration starts with the prototypes; a constant per sample does count in the first one
    scores = cosines_of(0, *shape)
    codes = sinkhorn(scores, epsilon=0.05, num_iters=num_iters)
    for constants in (cosines_of(1, 1, shape[1]), 3.7):
        shifted = sinkhorn(scores + constants, epsilon=0.05, num_iters=num_iters)
        torch.testing.assert_close(shifted, codes, rtol=1e-9, atol=0)


@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize("shape", [(8, 5), (3, 6)])
def test_permuting_samples_and_prototypes_permutes_the_codes(shape, num_iters):
    scores = cosines_of(0, *shape)
    rows, columns = torch.arange(shape[0]).flip(0), torch.arange(shape[1]).roll(2)
    codes = sinkhorn(scores, epsilon=0.05, num_iters=num_iters)
    permuted = sinkhorn(scores[rows][:, columns], epsilon=0.05, num_iters=num_iters)
    torch.testing.assert_close(permuted, codes[rows][:, columns], rtol=1e-9, atol=0)


@pytest.mark.parametrize("shape", [(416, 50), (32, 50), (50, 416)])
def test_factors_that_cannot_overflow_are_not_looked_at(shape):
    """For small batches, to look at them takes a third of the time; it changes no bit."""
    scores = cosines_of(0, *shape).float() / 2
    with patch("ssl_platform.ops.sinkhorn._power_of_two_over") as look:
        codes = sinkhorn(scores, epsilon=0.05, num_iters=3)
    look.assert_not_called()
    scaled = _by_factors(scores, scores.amax(), log_range=1000.0, epsilon=0.05, num_iters=3)
    assert codes.equal(scaled)


def test_the_scores_are_left_alone_and_the_codes_carry_no_gradient():
    scores = cosines_of(0, 8, 5).requires_grad_()
    before = scores.detach().clone()
    codes = sinkhorn(scores, epsilon=0.05, num_iters=3)
    assert scores.equal(before)
    assert not codes.requires_grad


RANK_CASES = [
    *[(seed, scale, n) for seed in (0, 1) for scale in (1.0, 1e4) for n in (1, 3, 10)],
    (3, 1.0, 1000),
    (2, 1e300, 3),
]


def codes_of_this_rank(cases: list[tuple[float, float, int]]) -> list[Tensor]:
    rank, world_size = distributed.rank(), distributed.world_size()
    return [
        sinkhorn(
            (cosines_of(seed, 12, 5) * scale).chunk(world_size)[rank], epsilon=0.05, num_iters=n
        )
        for seed, scale, n in cases
    ]


@pytest.mark.parametrize("num_ranks", [2, 3])
def test_several_ranks_get_the_codes_of_one_process_with_all_samples(num_ranks):
    on_ranks = run_on_ranks(codes_of_this_rank, num_ranks, RANK_CASES)
    for parts, whole in zip(
        zip(*on_ranks, strict=True), codes_of_this_rank(RANK_CASES), strict=True
    ):
        torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-9, atol=1e-300)
