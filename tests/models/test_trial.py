"""A trunk or head from outside, tried before a run: one line when it does not do what it has to."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ssl_platform.models import trial as module
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.trial import Trial, problem_of_head, problem_of_trunk

SIZES = [32, 16]


class Trunk(nn.Module):
    """A convolution, and what ``finish`` makes of its map (N, 6, H', W')."""

    def __init__(self, finish, out_dim=6, channels=3):
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(channels, 6, 3, stride=2), nn.BatchNorm2d(6))
        self.finish = finish
        if out_dim is not None:
            self.out_dim = out_dim

    def forward(self, images):
        return self.finish(self.conv(images))


class FlatTrunk(Trunk):
    """Takes images of one size: what it flattens has to be as wide as its layer."""

    def __init__(self):
        super().__init__(lambda x: self.linear(x.reshape(-1, 6 * 15 * 15)))
        self.linear = nn.Linear(6 * 15 * 15, 6)


class ValuesTrunk(Trunk):
    """Its control flow depends on values, which the meta device has none of."""

    def __init__(self):
        super().__init__(lambda x: x.mean((2, 3)) if x.abs().sum() > 0 else x.amax((2, 3)))


class NumpyTrunk(Trunk):
    """Leaves torch on its way."""

    def __init__(self):
        super().__init__(lambda x: x.mean((2, 3)) * float(x.detach().numpy().std() + 1))


def pooled(maps):
    return maps.mean((2, 3))


def tried(build, sizes=SIZES):
    with torch.device("meta"):
        trunk = build()
    return problem_of_trunk(trunk, Trial(trunk, build, torch.device("cpu")), sizes, [32])


@pytest.fixture(params=["small", "large"], autouse=True)
def size_of_module(request, monkeypatch):
    """Once for real, once on the meta device first."""
    is_small = request.param == "small"
    monkeypatch.setattr(module, "SMALL", 10**9 if is_small else 0)
    if is_small:
        monkeypatch.setattr(module, "sys", SimpleNamespace(modules={}))


WANTED = "it has to give features (2, out_dim) float32, one row for each image"
WRONG = {
    "width": (pooled, 7, "a Tensor, float32 (2, 6)", "its out_dim is 7: set self.out_dim = 6"),
    "no width": (pooled, None, "a Tensor, float32 (2, 6)", "it has no out_dim, the number of its"),
    "float": (pooled, "6", "a Tensor, float32 (2, 6)", "its out_dim is 6: set self.out_dim = 6"),
    "map": (lambda x: x, 6, "a Tensor, float32 (2, 6, 15, 15)", f"{WANTED}: average a map over"),
    "tokens": (lambda x: x.flatten(2).mT, 6, "a Tensor, float32 (2, 225, 6)", f"{WANTED}: take "),
    "tuple": (lambda x: (pooled(x), x), 6, "a tuple of 2", f"{WANTED}, and nothing else"),
    "dict": (lambda x: {"out": x}, 6, "a dict of 1", f"{WANTED}, and nothing else"),
    "none": (lambda x: None, 6, "None", f"{WANTED}, and nothing else"),
    "double": (lambda x: pooled(x).double(), 6, "a Tensor, float64 (2, 6)", f"{WANTED}: .float()"),
    "half": (lambda x: pooled(x).half(), 6, "a Tensor, float16 (2, 6)", f"{WANTED}: .float()"),
    "rows": (lambda x: pooled(x)[:1], 6, "a Tensor, float32 (1, 6)", WANTED),
    "flat": (lambda x: x.sum((1, 2, 3)), 6, "a Tensor, float32 (2,)", WANTED),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_feature_is_told_with_what_came_and_what_is_right(kind):
    finish, out_dim, given, told = WRONG[kind]
    line = tried(lambda: Trunk(finish, out_dim))
    assert line.startswith(f"Trunk gave {given} for images (2, 3, 32, 32); {told}")
    assert "\n" not in line


def test_a_trunk_of_one_size_is_told_the_sizes_that_it_does_not_take():
    line = tried(FlatTrunk)
    assert line.startswith("FlatTrunk cannot take images of 16 x 16 pixels: RuntimeError: shape '")
    assert f"({__file__}, line " in line
    assert line.endswith("a size that it takes, or choose a trunk that takes any")
    assert tried(FlatTrunk, [32]) is None
    assert " (nor of 8)" in tried(FlatTrunk, [16, 8])


def test_a_trunk_for_grey_images_is_told_so():
    line = tried(lambda: Trunk(pooled, channels=1))
    assert line.startswith("Trunk takes images of 1 channel, these have 3; ")


class Strided(Trunk):
    """Looks at how its images lie in memory: as those of a run do, channels last."""

    def forward(self, images):
        assert images.is_contiguous(memory_format=torch.channels_last)
        return super().forward(images)


class OwnGradient(Trunk):
    """Needs a gradient within its forward pass."""

    def forward(self, images):
        if not self.training:
            return super().forward(images)
        images = images.detach().requires_grad_(True)
        features = super().forward(images)
        (gradient,) = torch.autograd.grad(features.sum(), images, create_graph=True)
        return features + gradient.mean()


def test_images_that_are_taken_for_contiguous_are_told_before_the_run():
    class Rows(Trunk):
        def forward(self, images):
            return images.view(len(images), -1)[:, :6] * self.conv[0].weight.mean()

    line = tried(lambda: Rows(pooled))
    assert "Use .reshape(...) instead." in line
    assert "; if that is for their size, give all of data.transform.crops" in line


@pytest.mark.parametrize(
    "kind",
    [
        ValuesTrunk,
        NumpyTrunk,
        lambda: Trunk(pooled),
        lambda: Strided(pooled),
        lambda: OwnGradient(pooled),
    ],
)
def test_a_trunk_that_works_is_let_through_whatever_it_is_on_the_meta_device(kind):
    assert tried(kind) is None


def test_a_trunk_that_gives_other_things_in_eval_mode_is_told():
    class Moody(Trunk):
        def __init__(self):
            super().__init__(lambda x: pooled(x) if self.training else x)

    assert tried(Moody).startswith("Moody gave a Tensor, float32 (2, 6, 15, 15)")


def test_trying_leaves_random_numbers_as_they_are():
    with torch.device("meta"):
        trunk = Trunk(pooled).eval()
    before = torch.get_rng_state()
    problem_of_trunk(trunk, Trial(trunk, lambda: Trunk(pooled), torch.device("cpu")), SIZES, [])
    assert torch.equal(torch.get_rng_state(), before)
    assert not trunk.training


class Head(nn.Linear):
    def __init__(self, in_dim, *, gives=None):
        super().__init__(in_dim, 2)
        self.gives = gives

    def forward(self, features):
        return self.gives if self.gives is None else super().forward(features)


def tried_head(build, shape):
    with torch.device("meta"):
        head = build()
    return problem_of_head(head, Trial(head, build, torch.device("cpu")), shape)


def test_a_head_that_gives_nothing_or_takes_another_width_is_told():
    assert tried_head(lambda: Head(6), 6) == (
        "Head gave None for a batch (2, 6); forward() has to return what its loss reads"
    )
    line = tried_head(lambda: nn.Linear(5, 2), 6)
    assert line.startswith("Linear cannot take a batch (2, 6): RuntimeError: ")
    assert tried_head(lambda: nn.Linear(5, 2), (6, 4, 5)) is None


def test_heads_of_ours_are_right():
    options = {"hidden_dim": 5, "out_dim": 4, "num_prototypes": [3], "batch_norm": True}
    assert tried_head(lambda: PrototypeHead(6, **options), 6) is None
