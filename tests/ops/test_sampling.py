import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ssl_platform.ops.sampling import draw_balanced, stratified_split

labels_with_gaps = arrays(np.int64, st.integers(1, 60), elements=st.integers(-1, 4))


@settings(max_examples=100, deadline=None)
@given(labels_with_gaps, st.integers(0, 70), st.integers(0, 3))
def test_a_draw_has_as_equally_many_per_class_as_there_are(labels, num, seed):
    drawn = draw_balanced(labels, num, np.random.default_rng(seed))
    labelled = np.flatnonzero(labels >= 0)
    assert set(drawn) <= set(labelled)
    assert len(drawn) == min(num, len(labelled))
    assert (np.diff(drawn) > 0).all()
    classes, available = np.unique(labels[labelled], return_counts=True)
    counts = [int((labels[drawn] == c).sum()) for c in classes]
    # a class that has fewer than another by 2 has none left
    for count, num_images in zip(counts, available, strict=True):
        assert count == num_images or count >= max(counts) - 1


@settings(max_examples=50, deadline=None)
@given(labels_with_gaps)
def test_without_a_number_every_labelled_image_is_drawn(labels):
    drawn = draw_balanced(labels, None, np.random.default_rng(0))
    assert drawn.tolist() == np.flatnonzero(labels >= 0).tolist()


def test_a_draw_depends_on_its_seed_alone():
    labels = np.arange(1000) % 10
    draws = [draw_balanced(labels, 50, np.random.default_rng(seed)).tolist() for seed in (0, 0, 1)]
    assert draws[0] == draws[1] != draws[2]


def test_every_image_of_a_class_may_be_drawn():
    labels = np.arange(20) % 2
    seen = {
        position
        for seed in range(60)
        for position in draw_balanced(labels, 4, np.random.default_rng(seed)).tolist()
    }
    assert seen == set(range(20))


@settings(max_examples=100, deadline=None)
@given(labels_with_gaps, st.floats(0.01, 0.99), st.integers(0, 3))
def test_a_split_holds_out_its_fraction_of_every_class(labels, fraction, seed):
    rest, held_out = stratified_split(labels, fraction, np.random.default_rng(seed))
    both = np.concatenate([rest, held_out])
    assert np.sort(both).tolist() == np.flatnonzero(labels >= 0).tolist()
    assert (np.diff(rest) > 0).all() and (np.diff(held_out) > 0).all()
    for label in np.unique(labels[labels >= 0]):
        num, num_held_out = (labels == label).sum(), (labels[held_out] == label).sum()
        if num == 1:
            assert num_held_out == 0
        else:
            assert 1 <= num_held_out < num
            assert abs(num_held_out - fraction * num) <= 1


def test_a_split_depends_on_its_seed_alone():
    labels = np.arange(1000) % 10
    held_out = [
        stratified_split(labels, 0.2, np.random.default_rng(seed))[1].tolist() for seed in (0, 0, 1)
    ]
    assert held_out[0] == held_out[1] != held_out[2]
