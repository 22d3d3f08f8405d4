"""Random numbers by name: what one op draws is no other op's business."""

from itertools import chain
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from swav_ops import swav_ops

from ssl_platform.data.crops.draw import CropDraw
from ssl_platform.data.crops.geometry import Erasing, QuarterTurns
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.ops import Posterize, Solarize, VerticalFlip
from ssl_platform.data.crops.streams import Streams

OPS = swav_ops(flip=0.5, jitter=0.5, grayscale=0.5, blur=0.5) | {
    "solarize": Solarize(probability=0.5, threshold=128),
    "posterize": Posterize(probability=0.5, bits=3),
    "upside_down": VerticalFlip(probability=0.5),
    "turn": QuarterTurns(probability=0.5, turns=[1, 2, 3]),
    "erase": Erasing(probability=0.5, scale=(0.1, 0.3), ratio=(0.3, 3.3), fill="noise"),
    "plug_in": lambda crop, rng: np.roll(crop, rng.integers(8), axis=0),
}
SIZES = {"large": 24, "small": 16, "wide": 12, "other": 24}

some_ops = st.lists(st.sampled_from(sorted(OPS)), unique=True, max_size=6)
some_groups = st.dictionaries(
    st.sampled_from(sorted(SIZES)), st.tuples(st.integers(1, 3), some_ops), min_size=1
)
Groups = dict[str, tuple[int, list[str]]]


def transform_of(groups: Groups) -> MultiCrop:
    return MultiCrop(
        crops={
            name: CropGroup(SIZES[name], count, (0.2, 1.0), ops={key: OPS[key] for key in ops})
            for name, (count, ops) in groups.items()
        },
        ratio=(3 / 4, 4 / 3),
        ops={},
    )


def drawn(groups: Groups, seed: int) -> dict[tuple[Any, ...], Any]:
    """What is drawn, by group, number and op; of an op without a draw an empty list."""
    transform = transform_of(groups)
    draws = iter(transform.draw(50, 60, np.random.default_rng(seed)))
    sizes = list(dict.fromkeys(SIZES[name] for name in groups))
    found: dict[tuple[Any, ...], Any] = {}
    for name in sorted(groups, key=lambda name: sizes.index(SIZES[name])):
        count, ops = groups[name]
        for number in range(count):
            draw: CropDraw = next(draws)
            found[name, number] = draw.box
            left = list(draw.steps)
            for key in ops:
                alone = drawn_alone(name, number, key, seed)
                mine, left = left[: len(alone)], left[len(alone) :]
                assert [value for _, value in mine] == [value for _, value in alone]
                found[name, number, key] = [value for _, value in mine]
            assert not left
    return found


def drawn_alone(name: str, number: int, key: str, seed: int) -> list[Any]:
    transform = transform_of({name: (number + 1, [key])})
    return list(transform.draw(50, 60, np.random.default_rng(seed))[-1].steps)


@settings(max_examples=60, deadline=None)
@given(first=some_groups, second=some_groups, seed=st.integers(0, 2**32))
def test_ops_crops_and_groups_come_and_go_without_moving_others(first, second, seed):
    one, other = drawn(first, seed), drawn(second, seed)
    for place in one.keys() & other.keys():
        assert one[place] == other[place]


@settings(max_examples=25, deadline=None)
@given(groups=some_groups, op=st.sampled_from(sorted(OPS)), seed=st.integers(0, 2**32))
def test_an_op_of_one_group_leaves_the_crops_of_the_others(groups, op, seed):
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    changed = next(iter(groups))
    count, ops = groups[changed]
    new = groups | {changed: (count, [key for key in ops if key != op] or [op])}
    crops = [
        dict(zip(places_of(g), transform_of(g)(image, np.random.default_rng(seed)), strict=True))
        for g in (groups, new)
    ]
    for place in crops[0]:
        if place[0] != changed:
            assert np.array_equal(crops[0][place], crops[1][place])


def places_of(groups: Groups) -> list[tuple[str, int]]:
    sizes = list(dict.fromkeys(SIZES[name] for name in groups))
    order = sorted(groups, key=lambda name: sizes.index(SIZES[name]))
    return [(name, number) for name in order for number in range(groups[name][0])]


def test_numbers_are_uniform_and_independent_in_an_image_and_from_image_to_image():
    names = [("large", "0"), ("large", "0", "flip"), ("large", "1", "flip"), ("small", "0", "flip")]
    streams = Streams(names, [22, 1, 1, 9])
    rng = np.random.default_rng(0)
    values = np.array(
        [list(chain(*streams.uniforms(rng))) for _ in range(4000)]
    )  # (images, numbers)
    assert values.shape == (4000, 33) and values.min() >= 0 and values.max() < 1
    for column in values.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4
    correlations = np.corrcoef(values.T) - np.eye(33)
    assert np.abs(correlations).max() < 5 / np.sqrt(4000)
    later = np.corrcoef(values[:-1].T, values[1:].T)[:33, 33:]
    assert np.abs(later).max() < 5 / np.sqrt(4000)


def test_numbers_stay_what_they_are_from_release_to_release():
    streams = Streams([("large", "0"), ("large", "0", "flip")], [2, 1])
    rng = np.random.Generator(np.random.Philox(key=np.array([7, 3], np.uint64)))
    assert streams.uniforms(rng) == [
        [0.545683794382954, 0.6405024851102078],
        [0.7021398643626413],
    ]
