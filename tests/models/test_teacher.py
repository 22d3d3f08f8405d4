"""A teacher beside a tiny student: what it averages, what it sees, and the modes of its parts."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_platform.errors import ConfigError
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import MLPHead, PrototypeHead
from ssl_platform.models.teacher import EMATeacher, student_parameters

MOMENTUM = 0.75


class Trunk(nn.Sequential):
    """With dropout, a buffer that is no statistic, and a weight that is never trained."""

    def __init__(self):
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.5)
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), *pooled)
        self.out_dim = 4
        self.register_buffer("mask", torch.full((2,), -torch.inf))
        self.fixed = nn.Parameter(torch.zeros(2), requires_grad=False)


def a_model(crops: list[int] | None = None, batch_norm: str = "train", **options) -> SSLModel:
    torch.manual_seed(0)
    head = PrototypeHead(4, hidden_dim=5, out_dim=3, num_prototypes=[6], batch_norm=True)
    model = SSLModel(Trunk(), {"prototypes": head}, **options)
    model.teacher = EMATeacher(model, 4, momentum=MOMENTUM, crops=crops, batch_norm=batch_norm)
    return model.double()


def some_crops() -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    sizes = (8, 8, 6, 6)
    return [torch.randn(5, 3, s, s, dtype=torch.float64, generator=random) for s in sizes]


@torch.no_grad()
def moved(model: SSLModel) -> dict[str, Tensor]:
    """Change everything of the student; returns the state of all before."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name, value in (*student_parameters(model), *model.named_buffers()):
        if not name.startswith("teacher."):
            value.add_(1)
    return before


NORMS = {"trunk.1", "heads.prototypes.projection.1"}
STATISTICS = {f"{norm}.{name}" for norm in NORMS for name in ("running_mean", "running_var")}
COUNTERS = {f"{norm}.num_batches_tracked" for norm in NORMS}


@pytest.mark.parametrize(
    ("crops", "batch_norm", "are_own"),
    [(None, "train", False), ([], "eval", False), ([0], "eval", False), ([0, 1], "train", True)],
)
def test_weights_are_averaged_and_statistics_unless_they_are_its_own(crops, batch_norm, are_own):
    model = a_model(crops, batch_norm)
    before = moved(model)
    model.teacher.update(model)
    for name, value in model.teacher.state_dict().items():
        start, now = before[f"teacher.{name}"], model.state_dict()[name]
        if are_own and name in STATISTICS | COUNTERS:
            expected = start
        elif name in COUNTERS | {"trunk.mask", "trunk.fixed"}:
            expected = now
        else:
            expected = MOMENTUM * start + (1 - MOMENTUM) * now
        torch.testing.assert_close(value, expected, msg=name)


@pytest.mark.parametrize(("momentum", "expected"), [(1.0, 0), (0.0, 1)])
def test_a_momentum_is_read_at_each_step(momentum, expected):
    model = a_model()
    model.teacher.momentum = momentum
    before = moved(model)
    model.teacher.update(model)
    weight, own = model.trunk[0].weight, model.teacher.trunk[0].weight
    assert torch.equal(own, weight if expected else before["teacher.trunk.0.weight"])


def test_a_teacher_sees_its_crops_in_their_order_and_gives_no_gradients():
    model, crops = a_model([3, 0]), some_crops()
    model.train()
    outputs = model.with_teacher(model(crops), crops)
    assert set(outputs) == {"prototypes", "teacher"}
    seen = outputs["teacher"]["prototypes"]
    assert seen.embeddings.shape == (10, 3) and not seen.scores[0].requires_grad
    other = a_model([3, 0])
    other.trunk[5].p = 0.0  # the teacher has no dropout
    expected = other([crops[3], crops[0]])["prototypes"]
    torch.testing.assert_close(seen.embeddings, expected.embeddings.detach())


def test_statistics_of_a_teacher_in_eval_mode_are_not_moved_by_its_crops():
    for batch_norm, num_passes in (("train", 2), ("eval", 0)):
        model, crops = a_model([0, 2], batch_norm).train(), some_crops()
        model.with_teacher(model(crops), crops)
        assert model.teacher.trunk[1].num_batches_tracked == num_passes
        assert model.trunk[1].num_batches_tracked == 2


def modes(module: nn.Module) -> set[bool]:
    return {m.training for m in module.modules() if isinstance(m, _BatchNorm)}


def test_only_batch_norms_are_in_train_mode_and_not_those_of_frozen_parts():
    model = a_model([0]).train()
    assert modes(model.teacher) == {True} and not model.teacher.trunk[5].training
    assert modes(model.eval().teacher) == {False}
    frozen = a_model([0], freeze_trunk=True).train()
    assert modes(frozen.teacher.trunk) == {False} and modes(frozen.teacher.heads) == {True}
    model.freeze(model.trunk[1].parameters())
    assert modes(model.train().teacher.trunk) == {False}
    assert modes(model.teacher.heads) == {True}
    assert modes(a_model([0], "eval").train().teacher) == {False}


def test_the_average_of_prototypes_has_unit_length_where_it_is_used():
    model, crops = a_model([0, 1]).train(), some_crops()
    for _ in range(3):
        model.with_teacher(model(crops), crops)
        moved(model)
        model.teacher.update(model)
    head = model.teacher.heads["prototypes"]
    scores = model.with_teacher(model(crops), crops)["teacher"]["prototypes"].scores[0]
    lengths = head.prototypes[0].weight.norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert scores.abs().max() <= 1


def test_weights_that_trunk_and_head_share_stay_shared():
    trunk, head = Trunk(), nn.Linear(4, 4)
    head.bias = trunk[1].bias
    model = SSLModel(trunk, {"one": head})
    teacher = EMATeacher(model, 2, momentum=0.5, crops=None, batch_norm="train")
    assert teacher.heads["one"].bias is teacher.trunk[1].bias is not trunk[1].bias
    teacher.update(model)


def test_no_optimizer_sees_a_teacher():
    model = a_model()
    names = [name for name, _ in student_parameters(model)]
    assert names and not any(name.startswith("teacher") for name in names)
    assert not any(p.requires_grad for p in model.teacher.parameters())


@pytest.mark.parametrize("crops", [[4], [-1], [0, 0]])
def test_crops_that_are_not_there_are_refused(crops):
    told = f"crops={crops}: different positions of crops, from 0 to 3 (the data has 4 crops)"
    with pytest.raises(ValueError) as error:
        a_model(crops)
    assert str(error.value) == told


def test_a_head_of_the_name_of_the_teachers_outputs_is_refused():
    model = SSLModel(Trunk(), {"teacher": nn.Identity()})
    with pytest.raises(ValueError, match=r"too: rename heads\.teacher"):
        EMATeacher(model, 2, momentum=0.9, crops=None, batch_norm="train")


def test_an_output_that_is_not_there_is_one_line():
    crops = some_crops()
    model = a_model()
    outputs = model.with_teacher(model(crops), crops)
    for name, told in (("teacher", "add teacher=ema"), ("embedding", "are ['prototypes']")):
        with pytest.raises(ConfigError) as error:
            outputs[name]
        (line,) = error.value.problems
        assert line.startswith("loss: it reads the output") and told in line


def test_layers_of_an_mlp_head():
    rows = torch.randn(6, 8)
    head = MLPHead(8, hidden_dims=[5, 4], out_dim=3, batch_norm=True, normalize=True)
    kinds = [type(layer).__name__ for layer in head]
    hidden = ["Linear", "BatchNorm1d", "ReLU"]
    assert kinds == [*hidden, *hidden, "Linear", "UnitLength"]
    torch.testing.assert_close(head(rows).norm(dim=1), torch.ones(6))
    plain = MLPHead(8, hidden_dims=[], out_dim=3, batch_norm=True, normalize=False)
    torch.testing.assert_close(plain(rows), rows @ plain[0].weight.T + plain[0].bias)
