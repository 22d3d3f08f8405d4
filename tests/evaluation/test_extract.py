"""Features of images by any number of ranks, and of those that are unreadable or not finite."""

import math
from typing import Any

import pytest
import torch
from labelled_rows import Rows
from ranks import run_on_ranks
from torch import Tensor, nn

from ssl_platform.errors import DataError, DivergedError
from ssl_platform.evaluation.features import Features, extract

POSITIONS = [9, 3, 4, 0, 7, 2, 8]


def extract_on_this_rank(num_samples: int, bad: tuple[int, ...] = ()) -> Features:
    loader = Rows(torch.arange(30.0).view(10, 3), POSITIONS[:num_samples], 2, bad)
    return extract(lambda rows: 10 * rows, loader, num_samples)


def extract_on(num_ranks: int, *arguments: Any) -> list[Features]:
    if num_ranks == 1:
        return [extract_on_this_rank(*arguments)]
    return run_on_ranks(extract_on_this_rank, num_ranks, *arguments)


@pytest.mark.parametrize(
    ("num_ranks", "num_samples"), [(1, 7), (2, 1), (2, 6), (2, 7), (3, 4), (3, 6), (3, 7)]
)
def test_features_come_in_the_order_of_the_images_on_every_rank(num_ranks, num_samples):
    expected = 10 * torch.arange(30.0).view(10, 3)[POSITIONS[:num_samples]]
    for features in extract_on(num_ranks, num_samples):
        assert features.rows.equal(expected)


@pytest.mark.parametrize("num_ranks", [1, 2])
def test_rows_of_unreadable_images_are_marked_on_every_rank(num_ranks):
    expected = 10 * torch.arange(30.0).view(10, 3)[POSITIONS]
    for features in extract_on(num_ranks, 7, (3, 8)):
        assert features.readable.tolist() == [position not in (3, 8) for position in POSITIONS]
        assert features.rows[~features.readable].isnan().all()
        rows, labels = features.leave_out(torch.tensor(POSITIONS), "images")
        assert labels.tolist() == [9, 4, 0, 7, 2]
        assert rows.equal(expected[features.readable])


def test_images_none_of_which_can_be_read_are_one_line():
    loader = Rows(torch.zeros(10, 3), [3, 8], batch_size=2, bad=(3, 8))
    with pytest.raises(DataError, match=r"^none of these 2 images can be read$"):
        extract(lambda rows: rows, loader, 2)


@pytest.mark.parametrize("training", [True, False])
def test_a_module_embeds_in_eval_mode_and_gets_its_mode_back(training):
    norm = nn.BatchNorm1d(3).train(training)
    values = torch.arange(30.0).view(10, 3)
    features = extract(norm, Rows(values, range(10), batch_size=4), 10).rows
    torch.testing.assert_close(features, values / (1 + norm.eps) ** 0.5)
    assert norm.training is training
    assert norm.num_batches_tracked == 0


def some_images() -> Tensor:
    return torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_features_of_which_none_is_finite_are_refused(bad):
    def embed(images: Tensor) -> Tensor:
        return images.mean(dim=(2, 3))

    images = some_images()
    images[1:, 0] = bad
    rows = extract(embed, Rows(images, range(6), 2, bad=(4,)), 6).rows
    assert rows.isfinite().all(dim=1).tolist() == [True] + [False] * 5
    images[0, 1] = bad
    with pytest.raises(DivergedError) as error:
        extract(embed, Rows(images, range(6), 2, bad=(4,)), 6)
    assert str(error.value) == (
        "the features of all 6 images are NaN or infinite: so are the weights, or the running "
        "statistics of batch norms; take an earlier checkpoint, or train with a lower optimizer.lr"
    )
