from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.resnet import ResNet

BATCH = 3


def a_trunk() -> ResNet:
    torch.manual_seed(0)
    return ResNet(
        block="basic",
        layers=[1, 1, 1, 1],
        width=8,
        stem_kernel=3,
        stem_stride=1,
        stem_pool=False,
    )


def a_head(in_dim: int = 64, **options) -> PrototypeHead:
    torch.manual_seed(1)
    defaults = {"hidden_dim": 16, "out_dim": 6, "num_prototypes": [5], "batch_norm": True}
    return PrototypeHead(in_dim, **(defaults | options))


def a_model() -> SSLModel:
    return SSLModel(a_trunk(), {"prototypes": a_head()}).double()


def crops_of(sizes: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(BATCH, 3, size, size, dtype=torch.float64, generator=generator)
        for size in sizes
    ]


def counters(module: nn.Module) -> set[int]:
    return {
        int(m.num_batches_tracked)
        for m in module.modules()
        if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)
    }


@pytest.mark.parametrize(
    ("sizes", "num_passes"), [([16, 16, 8, 8, 8], 2), ([16, 16], 1), ([16, 12, 8], 3)]
)
def test_trunk_statistics_count_resolutions_and_head_statistics_count_steps(sizes, num_passes):
    model = a_model()
    for step in (1, 2):
        model(crops_of(sizes))
        assert counters(model.trunk) == {num_passes * step}
        assert counters(model.heads) == {step}


def test_rows_come_crop_after_crop_as_from_a_pass_of_each_crop_alone():
    model, crops = a_model(), crops_of([16, 16, 8, 8, 8])
    model(crops)  # statistics other than those of an untrained model
    model.eval()
    embeddings, (scores,) = model(crops)["prototypes"]
    alone = [model([crop])["prototypes"] for crop in crops]
    torch.testing.assert_close(embeddings, torch.cat([output.embeddings for output in alone]))
    torch.testing.assert_close(scores, torch.cat([output.scores[0] for output in alone]))


def test_crops_of_one_size_share_their_statistics():
    together, alone = a_model(), a_model()
    crops = crops_of([16, 16])
    features = together.trunk(torch.cat(crops))
    outputs = alone(crops)["prototypes"]
    expected = together.heads["prototypes"](features)
    torch.testing.assert_close(outputs.embeddings, expected.embeddings)
    first_norm, expected_norm = alone.trunk.bn1, together.trunk.bn1
    torch.testing.assert_close(first_norm.running_mean, expected_norm.running_mean)
    torch.testing.assert_close(first_norm.running_var, expected_norm.running_var)


def test_every_head_sees_the_features_of_all_crops():
    heads = {"one": a_head(), "two": a_head(num_prototypes=[4, 7]), "plain": nn.Identity()}
    model = SSLModel(a_trunk(), heads).double().eval()
    outputs = model(crops_of([16, 8]))
    assert list(outputs) == list(heads)
    assert outputs["plain"].shape == (2 * BATCH, model.trunk.out_dim)
    for name in ("one", "two"):
        expected = model.heads[name](outputs["plain"])
        torch.testing.assert_close(outputs[name].embeddings, expected.embeddings)


# The head


def features_of(num: int = 8, dim: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(num, dim, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("training", [True, False])
def test_prototypes_have_unit_length_after_a_forward(training):
    head = a_head(num_prototypes=[5, 3]).double().train(training)
    directions = [F.normalize(p.weight.detach(), dim=1) for p in head.prototypes]
    head(features_of())
    for prototypes, direction in zip(head.prototypes, directions, strict=True):
        torch.testing.assert_close(prototypes.weight.detach(), direction)
        lengths = prototypes.weight.detach().norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_embeddings_have_unit_length_and_scores_are_cosines():
    head = a_head(num_prototypes=[5, 3]).double()
    embeddings, scores = head(features_of())
    torch.testing.assert_close(
        embeddings.norm(dim=1), torch.ones(len(embeddings), dtype=torch.float64)
    )
    for prototypes, some_scores in zip(head.prototypes, scores, strict=True):
        expected = F.cosine_similarity(embeddings[:, None], prototypes.weight[None], dim=2)
        torch.testing.assert_close(some_scores, expected)


def test_the_gradient_of_the_prototypes_is_the_plain_one_of_the_unit_vectors():
    head = a_head().double()
    with torch.no_grad():
        head.prototypes[0].weight.mul_(3)  # the length before has no say
    embeddings, (scores,) = head(features_of())
    coefficients = torch.linspace(-1, 2, scores.numel(), dtype=torch.float64).view_as(scores)
    (scores * coefficients).sum().backward()
    expected = coefficients.T @ embeddings.detach()
    torch.testing.assert_close(head.prototypes[0].weight.grad, expected)


@pytest.mark.parametrize(
    ("options", "layers"),
    [
        ({"num_prototypes": [2]}, ["Linear", "BatchNorm1d", "ReLU", "Linear"]),
        ({"num_prototypes": [2, 9, 9]}, ["Linear", "BatchNorm1d", "ReLU", "Linear"]),
        ({"batch_norm": False}, ["Linear", "ReLU", "Linear"]),
        ({"hidden_dim": 0}, ["Linear"]),
        ({"hidden_dim": 0, "batch_norm": False}, ["Linear"]),
    ],
)
def test_a_head_has_the_layers_and_the_sets_of_prototypes_that_are_asked_for(options, layers):
    head = a_head(**options)
    assert [type(module).__name__ for module in head.projection] == layers
    embeddings, scores = head(features_of().float())
    assert embeddings.shape == (8, 6)
    assert [some.shape for some in scores] == [(8, k) for k in options.get("num_prototypes", [5])]


@pytest.mark.parametrize("num_prototypes", [[], [1], [5, 0], [-3]])
def test_a_set_of_fewer_than_two_prototypes_is_refused(num_prototypes):
    with pytest.raises(ValueError) as error:
        a_head(num_prototypes=num_prototypes)
    assert str(error.value).startswith(f"num_prototypes={num_prototypes}: ")


def test_a_frozen_trunk_gets_no_gradient_and_keeps_its_statistics():
    model = SSLModel(a_trunk(), {"prototypes": a_head()}, freeze_trunk=True).double()
    before = {name: value.clone() for name, value in model.trunk.state_dict().items()}
    model.train()
    outputs = model(crops_of([16, 16]))["prototypes"]
    outputs.scores[0].sum().backward()
    assert not model.trunk.training
    assert model.heads.training
    assert all(p.grad is None and not p.requires_grad for p in model.trunk.parameters())
    assert all(p.grad is not None for p in model.heads["prototypes"].projection.parameters())
    after = model.trunk.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_each_head_reads_its_layer_crop_after_crop():
    heads = {"last": nn.Identity(), "inner": nn.Flatten()}
    model = SSLModel(a_trunk(), heads, layers={"inner": "layer2"}).double().eval()
    first, second = crops_of([16, 16])
    outputs = model([first, second])
    assert torch.equal(outputs["last"], model.trunk(torch.cat([first, second])))
    assert outputs["inner"].shape == (2 * BATCH, 16 * 8 * 8)
    alone = model([second])["inner"]
    assert torch.allclose(outputs["inner"][BATCH:], alone)


def test_a_copy_of_a_model_reads_its_own_layers():
    model = SSLModel(a_trunk(), {"inner": nn.Flatten()}, layers={"inner": "layer2"}).double().eval()
    crops = crops_of([16, 16])
    before = model(crops)["inner"]
    copied = deepcopy(model)
    torch.nn.init.zeros_(model.trunk.layer1[0].conv1.weight)
    assert torch.equal(copied(crops)["inner"], before)
    assert not torch.equal(model(crops)["inner"], before)


def test_a_layer_that_is_exchanged_before_the_first_pass_is_read_as_it_is_then():
    model = SSLModel(a_trunk(), {"inner": nn.Flatten()}, layers={"inner": "layer1"}).double().eval()
    model.trunk.layer1 = nn.Identity()
    (crop,) = crops_of([16])
    stem = model.trunk.bn1(model.trunk.conv1(crop)).relu()
    assert torch.equal(model([crop])["inner"], stem.flatten(1))
