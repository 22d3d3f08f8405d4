"""Gradients by micro-batches are those of the whole batch, and a step leaves nothing else."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from tiny_losses import a_loss, some_data
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.engine import gradients
from ssl_platform.engine.gradients import compute_gradients
from ssl_platform.errors import ConfigError
from ssl_platform.losses.base import Loss
from ssl_platform.losses.cross_entropy import CrossEntropyLoss
from ssl_platform.losses.deepcluster_v2 import DeepClusterV2Loss
from ssl_platform.losses.sela_v2 import SeLaV2Loss
from ssl_platform.models import SSLModel
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.linear_head import LinearHead
from ssl_platform.models.sync_batch_norm import synchronize_batch_norm
from ssl_platform.models.teacher import EMATeacher, Outputs
from ssl_platform.ops.joined import join

BATCH, CLASSES, DIM = 6, 5, 4
CPU = torch.device("cpu")
OFFLINE = {"head": "prototypes", "temperature": 0.1, "assign_crops": [0, 1]}
FROZEN = {"freeze_prototypes_steps": 0, "freeze_prototypes_epochs": 0}


class Trunk(nn.Module):
    """Convolutions; ``norm`` may draw random numbers or move its buffers."""

    out_dim = 8

    def __init__(self, norm: nn.Module):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.Conv2d(8, 8, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images).mean(dim=(2, 3))


class Contrastive(Loss):
    """As a plug-in may be written: it uses a weight itself, changes outputs in place, draws, and
    compares all images of the batch."""

    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        embeddings, (scores,) = outputs["prototypes"]
        scores.mul_(torch.rand(1))
        rows = F.dropout(embeddings, 0.2) @ model.heads["prototypes"].prototypes[0].weight.T
        cosines = rows @ rows.T
        cosines.fill_diagonal_(float("-inf"))
        partner = torch.arange(len(rows)).roll(len(batch.index))
        unused = sum(weight.square().sum() for weight in model.heads["unused"].parameters())
        return {"loss": F.cross_entropy(cosines, partner) + scores.square().mean() + unused}


class OfTeacher(Loss):
    """Every crop predicts what the teacher says of the last crop, then of the first."""

    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        scores = outputs["prototypes"].scores[0].chunk(3)
        targets = outputs["teacher"]["prototypes"].scores[0].softmax(dim=1).chunk(2)
        losses = [F.cross_entropy(score, target) for score in scores for target in targets]
        return {"loss": torch.stack(losses).mean()}


class Case(NamedTuple):
    heads: dict[str, nn.Module]
    loss: Callable[[SSLModel, DataInfo], Loss]


def prototypes(*nums: int) -> dict[str, nn.Module]:
    options = {"hidden_dim": 8, "out_dim": DIM, "num_prototypes": list(nums), "batch_norm": False}
    return {"prototypes": PrototypeHead(8, **options)}


def linear(num_classes: int) -> LinearHead:
    options = {"layer": "pooled", "pool": None, "batch_norm": False, "init_std": None}
    return LinearHead(8, num_classes=num_classes, **options)


def case_of(name: str) -> Case:
    if name == "swav":
        return Case(
            prototypes(7), lambda m, d: a_loss(m, data=d, queue_length=BATCH * d.world_size)
        )
    if name == "deepcluster_v2":
        return Case(
            prototypes(5, 3), lambda m, d: DeepClusterV2Loss(m, d, **OFFLINE, kmeans_iters=2)
        )
    if name == "sela_v2":
        sinkhorn = {"epsilon": 0.05, "tolerance": 0.1, "check_every": 5, "max_iters": 20}
        return Case(
            prototypes(5, 3), lambda m, d: SeLaV2Loss(m, d, **OFFLINE, **sinkhorn, **FROZEN)
        )
    if name == "cross_entropy":
        return Case({"first": linear(CLASSES), "second": linear(CLASSES)}, CrossEntropyLoss)
    if name == "of a teacher":
        return Case(prototypes(7), lambda m, d: OfTeacher())
    assert name == "plug-in"
    return Case(prototypes(7) | {"unused": nn.Linear(8, 2)}, lambda m, d: Contrastive())


CASES = ["swav", "deepcluster_v2", "sela_v2", "cross_entropy", "plug-in", "of a teacher"]


def a_run(name: str, micro_batch: int | None, norm: Callable[[], nn.Module]) -> SimpleNamespace:
    torch.manual_seed(0)
    world_size, case = distributed.world_size(), case_of(name)
    data = some_data(
        num_crops=3, batch_size=BATCH, world_size=world_size, num_samples=60,
        num_classes=CLASSES, steps_per_epoch=5,
    )  # fmt: skip
    model = SSLModel(Trunk(norm()), case.heads)
    if name == "of a teacher":
        model.teacher = EMATeacher(model, 3, momentum=0.9, crops=[2, 0], batch_norm="train")
    model.double()
    synchronize_batch_norm(model, group_size=0, world_size=world_size, device=CPU)
    loss = case.loss(model, data).double()
    if loss.assignments is not None:
        loss.assignments.copy_(torch.randint(0, 3, loss.assignments.shape))
    loss.queue_has_started = True
    return SimpleNamespace(
        model=model, replica=model, loss=loss, micro_batch=micro_batch, device=CPU,
        autocast_dtype=None,
        scaler=torch.amp.GradScaler("cpu", enabled=False), outputs={}, losses={},
    )  # fmt: skip


def a_batch(step: int) -> Batch:
    """The images of this rank."""
    random = torch.Generator().manual_seed(10 * step + distributed.rank())
    sizes = [10, 10, 7]
    crops = [torch.randn(BATCH, 3, s, s, generator=random, dtype=torch.float64) for s in sizes]
    label = torch.randint(-1, CLASSES, (BATCH,), generator=random)
    return Batch(crops, label=label, index=torch.randperm(60, generator=random)[:BATCH])


Trace = list[dict[str, Any]]


def trained(run: SimpleNamespace, compute: Callable = compute_gradients) -> Trace:
    """What three steps compute, and what they leave behind."""
    run.replica, trace = distributed.replicate(run.model, a_batch(0).crops), []
    run.replica.train()
    torch.manual_seed(1 + distributed.rank())
    for step in range(3):
        run.model.zero_grad(set_to_none=True)
        compute(a_batch(step), run)
        grads = {n: p.grad.clone() for n, p in run.model.named_parameters() if p.grad is not None}
        buffers = dict(run.model.named_buffers()) | dict(run.loss.named_buffers())
        outputs = [leaf.detach() for leaf in torch.utils._pytree.tree_leaves(dict(run.outputs))]
        trace.append(
            {
                "loss": run.losses["loss"].detach(), **grads, "drawn": torch.get_rng_state(),
                **{name: buffer.clone() for name, buffer in buffers.items() if buffer is not None},
                **{f"output {number}": output for number, output in enumerate(outputs)},
            }
        )  # fmt: skip
        with torch.no_grad():
            for weight in run.model.parameters():
                weight.sub_(0.1 * weight.grad if weight.grad is not None else 0)
    return trace


def steps_of(name: str, micro_batch: int | None) -> Trace:
    return trained(a_run(name, micro_batch, lambda: nn.GroupNorm(2, 8)))


def assert_alike(first: Trace, second: Trace) -> None:
    for one, other in zip(first, second, strict=True):
        assert one.keys() == other.keys()
        for name, value in one.items():
            torch.testing.assert_close(other[name], value, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("micro_batch", [1, 2, 4])  # 4 leaves 2 for the last, as after an epoch
@pytest.mark.parametrize("name", CASES)
def test_by_micro_batches_as_by_the_whole_batch(name, micro_batch):
    assert_alike(steps_of(name, None), steps_of(name, micro_batch))


@pytest.mark.parametrize("name", CASES)
def test_the_same_on_two_processes(name):
    whole = run_on_ranks(steps_of, 2, name, None)
    by_parts = run_on_ranks(steps_of, 2, name, 2)
    for one, other in zip(whole, by_parts, strict=True):
        assert_alike(one, other)
    for first, second in zip(*by_parts, strict=True):
        weights = [key for key in first if key.startswith(("trunk.", "heads."))]
        assert weights and all(first[key].equal(second[key]) for key in weights)


class Unfolded(nn.Module):
    """Drop-out, batch norm, and buffers of its own that the output depends on."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(8)
        self.register_buffer("passes", torch.zeros(()))
        self.spectral = nn.utils.parametrizations.spectral_norm(nn.Conv2d(8, 8, 1))

    def forward(self, maps: Tensor) -> Tensor:
        self.passes += 1
        return self.spectral(F.dropout(self.norm(maps), 0.3)) * (1 + self.passes / 10)


def in_one_graph(batch: Batch, run: SimpleNamespace) -> None:
    """The same micro-batches, with all that their gradients need kept at once."""
    heads = [head for head in run.model.heads.values() if isinstance(head, PrototypeHead)]
    for head in heads:  # once: a graph cannot have weights that change
        head.normalize_prototypes()
        head.normalize_prototypes = lambda: None
    parts, of_teacher = [], []
    for start in range(0, BATCH, 2):
        crops = [crop[start : start + 2] for crop in batch.crops]
        # each for itself: inside, weights are cast once, and gradients added up in 16 bits
        with torch.autocast("cpu", run.autocast_dtype, enabled=run.autocast_dtype is not None):
            parts.append(run.model(crops))
            of_teacher.append(dict(run.model.with_teacher({}, crops)))
    sizes = [2] * len(parts)
    run.outputs = Outputs(join(parts, sizes) | join(of_teacher, sizes))
    run.losses = run.loss(run.model, run.outputs, batch)
    run.scaler.scale(run.losses["loss"]).backward()
    for head in heads:
        del head.normalize_prototypes
    if distributed.is_distributed():
        for weight in run.model.parameters():
            if weight.grad is not None:
                distributed.all_reduce_sum(weight.grad).div_(distributed.world_size())


def in_both_ways(name: str) -> tuple[Trace, Trace]:
    ways = [(a_run(name, 2, Unfolded), way) for way in (in_one_graph, compute_gradients)]
    first, second = (trained(run, way) for run, way in ways)
    return first, second


@pytest.mark.parametrize("name", CASES)
def test_random_draws_and_running_statistics_are_those_of_one_pass(name):
    assert_alike(*in_both_ways(name))


def test_the_same_with_synchronised_batch_norms():
    for first, second in run_on_ranks(in_both_ways, 2, "swav"):
        assert_alike(first, second)


@pytest.mark.parametrize("name", ["swav", "cross_entropy"])
def test_the_same_in_16_bits_with_a_scaler(name):
    first, second = (a_run(name, 2, lambda: nn.GroupNorm(2, 8)) for _ in range(2))
    for run, compute in ((first, in_one_graph), (second, compute_gradients)):
        run.model.float()
        run.autocast_dtype = torch.bfloat16
        run.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
        torch.manual_seed(0)
        batch = a_batch(0)
        compute(batch._replace(crops=[crop.float() for crop in batch.crops]), run)
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-5)


class NoGraph(nn.Module):
    def forward(self, features: Tensor) -> Any:
        return {"rows": features, "mean": features.mean()}


def test_an_output_without_rows_is_named():
    run = a_run("plug-in", 2, nn.Identity)
    run.model.heads["unused"] = NoGraph()
    run.model.double()
    with pytest.raises(ConfigError) as error:
        compute_gradients(a_batch(0), run)
    assert error.value.problems == [
        "data.micro_batch=2: heads.unused.mean is a tensor (), and micro-batches need tensors "
        "with one row for each crop (6 here), in tuples, lists or dicts; data.micro_batch=null "
        "takes anything"
    ]


def test_no_more_than_a_micro_batch_is_kept_for_the_gradients():
    sizes: list[int] = []
    run = a_run("swav", 2, nn.Identity)

    def kept(tensor: Tensor) -> Tensor:
        if tensor.shape[1:] in ((3, 10, 10), (3, 7, 7)):  # what the first convolution keeps
            sizes.append(len(tensor))
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(kept, lambda tensor: tensor):
        compute_gradients(a_batch(0), run)
    assert set(sizes) == {2, 4}  # one small crop, two large ones


def test_what_batch_norms_see_is_said(caplog):
    run = a_run("swav", 2, lambda: nn.BatchNorm2d(8))
    run.train_loader = SimpleNamespace(batch_size=BATCH)
    with caplog.at_level("INFO"):
        gradients.tell_of_micro_batches(run)
    assert caplog.messages == [
        "data.micro_batch=2: batch norms see 2 images of a process at a time, not 6; all else is "
        "as without micro-batches"
    ]
    caplog.clear()
    run.model.trunk = Trunk(nn.GroupNorm(2, 8))
    gradients.tell_of_micro_batches(run)
    assert not caplog.messages
