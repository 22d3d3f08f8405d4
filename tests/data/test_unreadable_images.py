"""Images that cannot be read: others stand in for them, until there are too many."""

import logging

import pytest
import torch
from loaders import Numbered, loader

from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import SequentialSampler
from ssl_platform.errors import DataError


def failure(data: Loader) -> str:
    """The message of the error that iterating ends with, without keeping the loader alive."""
    try:
        list(data)
    except DataError as error:
        return str(error)
    raise AssertionError("no error")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_bad_image_has_a_stand_in_and_is_logged_once(num_workers, caplog):
    data = loader(Numbered(12, bad=(2, 3, 11)), num_workers=num_workers, max_bad_fraction=0.25)
    with caplog.at_level(logging.WARNING):
        passes = [torch.cat([batch.index for batch in data]).tolist() for _ in range(2)]
    assert passes[0] == passes[1]
    for index, read in enumerate(passes[0]):
        assert read not in (2, 3, 11) and (read == index or index in (2, 3, 11))
    messages = sorted(record.message for record in caplog.records)
    assert messages == [f"unreadable image {i}.jpg: not an image" for i in (11, 2, 3)]


def indices(data: Loader) -> list[int]:
    return torch.cat([batch.index for batch in data]).tolist()


def test_stand_ins_are_the_same_for_any_workers_ranks_and_place_to_start_from():
    bad, options = tuple(range(40, 90)), {"max_bad_fraction": 0.5}
    dataset = Numbered(128, bad=bad)
    whole = indices(loader(dataset, **options))
    by_workers = loader(dataset, num_workers=2, **options)
    assert indices(by_workers) == whole
    for rank in range(2):
        sampler = SequentialSampler(range(128), rank, 2)
        assert indices(loader(dataset, sampler, **options)) == whole[rank::2]
    rest = SequentialSampler(range(70, 128), 0, 1)
    assert indices(loader(dataset, rest, **options)) == whole[70:]
    stand_ins = whole[40:90]
    assert not set(stand_ins) & set(bad)
    assert len(set(stand_ins)) > 20  # not the one good image behind a row of bad ones
    other_seed = loader(dataset, seed=6, **options)
    assert indices(other_seed)[40:90] != stand_ins


def test_any_number_of_bad_images_in_a_row_has_stand_ins():
    data = loader(
        Numbered(200, bad=tuple(range(1, 200))),
        max_bad_fraction=1.0,
    )
    assert indices(data) == [0] * 200


@pytest.mark.parametrize("num_workers", [0, 2])
def test_one_bad_image_is_always_allowed(num_workers):
    data = loader(Numbered(12, bad=(5,)),
                  num_workers=num_workers, max_bad_fraction=0.0)  # fmt: skip
    assert len(indices(data)) == 12
    assert data.unreadable == [5]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_where_nothing_stands_in_the_row_is_marked(num_workers):
    data = loader(
        Numbered(12, bad=(2, 3, 11)), num_workers=num_workers,
        max_bad_fraction=0.25, replace_bad=False,
    )  # fmt: skip
    readable = []
    for batch in data:
        marks = data.readable(batch.index)
        readable += marks.tolist()
        pixels = data.to_pixels(batch.crops[0])
        assert (pixels[~marks.numpy()] == 0).all()
        assert pixels[marks.numpy()][:, 0, 0, 0].tolist() == batch.index[marks].tolist()
    assert readable == [index not in (2, 3, 11) for index in range(12)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_bad_images_end_the_run(num_workers):
    data = loader(Numbered(20, bad=(2, 3, 11)), num_workers=num_workers, max_bad_fraction=0.1)
    assert failure(data) == (
        "3 of 20 images cannot be read, data.max_bad_fraction=0.1 allows 2: "
        "2.jpg (not an image), 11.jpg (not an image), 3.jpg (not an image); "
        "to go on with others in their place set data.max_bad_fraction=0.3"
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_set_without_a_readable_image_ends_the_run(num_workers):
    data = loader(
        Numbered(30, bad=tuple(range(30))),
        SequentialSampler([6], 0, 1),
        num_workers=num_workers,
        max_bad_fraction=1.0,
    )
    message = failure(data)
    assert message.startswith("none of the 30 images can be read: 6.jpg (not an image), ")
    assert message.endswith(" and 25 more")
    assert "\n" not in message
