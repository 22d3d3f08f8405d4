"""DeepCluster-v2 and SeLa-v2: what they share, and what each adds."""

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from tiny_losses import DIM, a_model, some_data, unit
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.data.loading.sampler import ShuffledSampler
from ssl_platform.errors import DivergedError
from ssl_platform.losses.base import UNASSIGNED
from ssl_platform.losses.deepcluster_v2 import DeepClusterV2Loss
from ssl_platform.losses.sela_v2 import SeLaV2Loss
from ssl_platform.models import SSLModel
from ssl_platform.ops.kmeans import lloyd
from ssl_platform.ops.sinkhorn import balanced_labels
from ssl_platform.optim.larc import LARC

VECTORS = Path(__file__).parents[1] / "vectors"
DATA = some_data(num_samples=20, num_crops=2, steps_per_epoch=4)


COMMON = {"head": "prototypes", "temperature": 0.1, "assign_crops": [0, 1]}
SINKHORN = {"epsilon": 0.05, "tolerance": 0.1, "check_every": 10, "max_iters": 200}
UNFROZEN = {"freeze_prototypes_steps": 0, "freeze_prototypes_epochs": 0}


def deepcluster(model: SSLModel, data: DataInfo = DATA, **options) -> DeepClusterV2Loss:
    return DeepClusterV2Loss(model, data, **(COMMON | {"kmeans_iters": 5} | options)).double()


def sela(model: SSLModel, data: DataInfo = DATA, **options) -> SeLaV2Loss:
    return SeLaV2Loss(model, data, **(COMMON | SINKHORN | UNFROZEN | options)).double()


METHODS = {"deepcluster": deepcluster, "sela": sela}


def images(num: int = 20, num_crops: int = 2, dim: int = DIM) -> Tensor:
    """(num, crops, dim): crops of an image resemble each other."""
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(num, 1, dim, dtype=torch.float64, generator=generator)
    noise = torch.randn(num, num_crops, dim, dtype=torch.float64, generator=generator)
    return centres + 0.1 * noise


def batches(order: list[int], batch_size: int, rank: int = 0, ranks: int = 1) -> list[Batch]:
    """This rank's share of the batches of the images in that order."""
    share = batch_size // ranks
    share_of_batches = []
    for start in range(0, len(order), batch_size):
        index = torch.tensor(order[start : start + batch_size][rank * share : (rank + 1) * share])
        crops = list(images()[index].unbind(dim=1))
        share_of_batches.append(Batch(crops, label=torch.zeros_like(index), index=index))
    return share_of_batches


def a_run(model: SSLModel, loader: list[Batch], *, step: int = 0, epoch: int = 0):
    sampler = ShuffledSampler(20, batch_size=4, rank=0, world_size=1, seed=0)
    return SimpleNamespace(
        model=model, train_loader=loader, train_sampler=sampler, step=step, position=step,
        epoch=epoch, micro_batch=None,
    )  # fmt: skip


def started(method: str, *num_prototypes: int):
    """A model and its loss at the beginning of the first epoch, over images 0 to 15."""
    model = a_model(*num_prototypes)
    loss = METHODS[method](model)
    loss.on_epoch_start(a_run(model, batches(list(range(16)), 4)))
    return model, loss


# ---- one step


def test_a_step_equals_that_of_the_reference():
    case = json.loads((VECTORS / "deepclusterv2_step.json").read_text())
    prototypes = [torch.tensor(rows, dtype=torch.float64) for rows in case["prototypes"]]
    z_raw = torch.tensor(case["z_raw"], dtype=torch.float64, requires_grad=True)
    index = torch.tensor(case["batch_indices"])
    num_crops = sum(case["crops"])
    model = a_model(*map(len, prototypes), dim=z_raw.shape[1])
    for layer, weight in zip(model.heads["prototypes"].prototypes, prototypes, strict=True):
        layer.weight.data = weight.clone()
    data = replace(DATA, num_samples=len(case["assignments"][0]), num_crops=num_crops)
    loss = deepcluster(model, data, temperature=case["temperature"])
    loss.assignments.copy_(torch.tensor(case["assignments"]))
    batch = Batch(list(z_raw.chunk(num_crops)), label=torch.zeros_like(index), index=index)

    value = loss(model, model(batch.crops), batch)["loss"]
    value.backward()

    expected = case["expected"]
    close = {"rtol": 1e-6, "atol": 1e-12}
    assert value.item() == pytest.approx(expected["loss"], rel=1e-6)
    torch.testing.assert_close(
        z_raw.grad, torch.tensor(expected["grad_z_raw"], dtype=torch.float64), **close
    )
    assert all(p.weight.grad is None for p in model.heads["prototypes"].prototypes)
    rows = slice(0, len(index))
    assert loss.bank.index[rows].tolist() == expected["memory_index"]
    torch.testing.assert_close(
        loss.bank.embeddings[:, rows],
        torch.tensor(expected["memory_embeddings"], dtype=torch.float64),
        **close,
    )


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_is_the_mean_of_cross_entropies_over_labelled_rows(method):
    model = a_model(4, 6)
    loss = METHODS[method](model)
    (batch,) = batches([3, 5, 7, 9], 4)
    loss.assignments[:, [3, 5, 9]] = torch.tensor([[1, 2, 3], [5, 0, 2]])
    outputs = model(batch.crops)
    expected = []
    for scores, table in zip(outputs["prototypes"].scores, loss.assignments, strict=True):
        rows = [
            -torch.log_softmax(scores[crop * 4 + row] / 0.1, dim=0)[table[index]]
            for crop in range(2)
            for row, index in enumerate(batch.index)
            if index != 7
        ]
        expected.append(sum(rows) / len(rows))
    value = loss(model, outputs, batch)["loss"]
    assert value.item() == pytest.approx((sum(expected) / 2).item(), rel=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_without_labels_has_no_loss_and_no_gradient(method):
    model = a_model(4)
    loss = METHODS[method](model)
    (batch,) = batches([0, 1, 2, 3], 4)
    batch.crops[0].requires_grad_()
    value = loss(model, model(batch.crops), batch)["loss"]
    value.backward()
    assert value.item() == 0
    assert batch.crops[0].grad.abs().max() == 0


@pytest.mark.parametrize("method", METHODS)
def test_half_precision_scores_are_compared_in_float32(method):
    model = a_model(4)
    loss = METHODS[method](model)
    loss.assignments.zero_()
    (batch,) = batches([0, 1, 2, 3], 4)
    embeddings, scores = model(batch.crops)["prototypes"]
    outputs = {"prototypes": (embeddings.half(), [s.half() for s in scores])}
    value = loss(model, outputs, batch)["loss"]
    exact = F.cross_entropy(scores[0].half().double() / 0.1, torch.zeros(8, dtype=torch.long))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-5)


def test_the_uniform_loss_is_the_mean_ln_k():
    expected = (math.log(4) + math.log(6)) / 2
    assert deepcluster(a_model(4, 6)).uniform_loss == pytest.approx(expected)


# ---- bank and table


def test_the_bank_keeps_the_epoch_that_just_was():
    model, loss = started("deepcluster", 4)
    for step, batch in enumerate(batches(list(range(19, 3, -1)), 4)):
        loss(model, model(batch.crops), batch)
        assert loss.bank.index[4 * step : 4 * step + 4].tolist() == batch.index.tolist()
    assert loss.bank.index.tolist() == list(range(19, 3, -1))
    expected = unit(images()[loss.bank.index]).transpose(0, 1)
    torch.testing.assert_close(loss.bank.embeddings, expected)


def test_images_that_the_epoch_left_out_have_no_label():
    _, loss = started("deepcluster", 4, 4)
    assert (loss.assignments[:, :16] >= 0).all()
    assert (loss.assignments[:, 16:] == UNASSIGNED).all()


def test_the_sets_of_prototypes_take_the_crops_in_turn():
    model = a_model(4, 4, 4)
    loss = deepcluster(model)
    seen = []
    loss.assign = lambda embeddings, prototypes, generator: (
        seen.append(embeddings.clone()) or torch.zeros(len(embeddings), dtype=torch.long)
    )
    loss.on_epoch_start(a_run(model, batches(list(range(16)), 4)))
    crops = unit(images()[:16]).unbind(dim=1)
    for embeddings, crop in zip(seen, [0, 1, 0], strict=True):
        torch.testing.assert_close(embeddings, crops[crop])


def labels_of_a_rank(method: str) -> tuple[list[list[int]], list[list[float]]]:
    """Labels and prototypes after an epoch's start, k-means begun from the same four rows."""
    rank, ranks = distributed.rank(), distributed.world_size()
    model = a_model(4, 4, 4)
    data = replace(DATA, batch_size=4 // ranks, world_size=ranks)
    loss = METHODS[method](model, data)
    if method == "deepcluster":
        loss = with_given_start(loss)
    order = [3, 1, 4, 15, 9, 2, 6, 5, 8, 7, 0, 10, 11, 12, 13, 14]
    loss.on_epoch_start(a_run(model, batches(order, 4, rank, ranks)))
    weights = [p.weight.flatten().tolist() for p in model.heads["prototypes"].prototypes]
    return loss.assignments.tolist(), weights


def with_given_start(loss: DeepClusterV2Loss) -> DeepClusterV2Loss:
    start = unit(images()[[0, 5, 10, 15], 0])

    def assign(embeddings: Tensor, prototypes: nn.Linear, generator: torch.Generator) -> Tensor:
        centroids, clusters = lloyd(embeddings, start, num_iters=5)
        prototypes.weight.copy_(centroids)
        return clusters

    loss.assign = assign
    return loss


@pytest.mark.parametrize("method", METHODS)
def test_one_process_and_several_label_alike(method):
    labels, weights = labels_of_a_rank(method)
    for ranks in (2, 4):
        found = run_on_ranks(labels_of_a_rank, ranks, method)
        for other_labels, other_weights in found:
            assert other_labels == labels
            torch.testing.assert_close(torch.tensor(other_weights), torch.tensor(weights))
            assert other_weights == found[0][1]  # bit for bit on all ranks


@pytest.mark.parametrize("method", METHODS)
def test_labels_depend_on_the_seed_and_the_epoch_and_not_on_other_draws(method):
    def labels(seed: int, epoch: int, stir: bool) -> list[list[int]]:
        model = a_model(4, 4, 4)
        loss = METHODS[method](model, replace(DATA, seed=seed))
        if stir:
            torch.rand(7)
        loss.on_epoch_start(a_run(model, batches(list(range(16)), 4), epoch=epoch))
        return loss.assignments.tolist()

    assert labels(0, 0, stir=True) == labels(0, 0, stir=False)
    if method == "deepcluster":
        assert labels(1, 0, stir=False) != labels(0, 0, stir=False)
        assert labels(0, 1, stir=False) != labels(0, 0, stir=False)


@pytest.mark.parametrize("method", METHODS)
def test_embeddings_that_are_not_finite_are_not_clustered(method):
    model, loss = started(method, 4, 4)
    before = loss.assignments.clone()
    loss.bank.embeddings[0, 3, 1] = loss.bank.embeddings[1, 5] = math.nan
    with pytest.raises(DivergedError) as error:
        loss.on_epoch_start(a_run(model, [], step=4, epoch=1))
    assert str(error.value) == (
        "2 of the 32 embeddings to cluster at step 4 (epoch 2) are NaN or infinite: lower "
        "optimizer.lr, lengthen schedule.warmup_epochs, and leave hooks.finite in, which names the "
        "step"
    )
    assert loss.assignments.equal(before)


# ---- DeepCluster-v2


def test_the_centroids_become_the_prototypes():
    model, loss = started("deepcluster", 4, 4)
    for number, prototypes in enumerate(model.heads["prototypes"].prototypes):
        centroids = prototypes.weight
        torch.testing.assert_close(centroids.norm(dim=1), torch.ones(4, dtype=torch.float64))
        nearest = (loss.bank.slab(number) @ centroids.T).argmax(dim=1)
        assert nearest.tolist() == loss.assignments[number, :16].tolist()


def test_only_the_clustering_moves_the_prototypes():
    model = a_model(4)
    model.trunk = nn.Linear(DIM, DIM).double()
    loss = deepcluster(model)
    optimizer = LARC(
        model.parameters(),
        lr=0.1, momentum=0.9, weight_decay=0.1, trust_coefficient=0.1, eps=1e-8, clip=False,
    )  # fmt: skip
    loader = batches(list(range(16)), 4)
    loss.on_epoch_start(a_run(model, loader))
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    for batch in loader:
        optimizer.zero_grad()
        loss(model, model(batch.crops), batch)["loss"].backward()
        optimizer.step()
    for name, value in model.named_parameters():
        if "prototypes.0" in name:
            torch.testing.assert_close(value, before[name])
        else:
            assert not torch.equal(value, before[name])


# ---- SeLa-v2


def test_labels_are_those_that_use_all_prototypes_equally():
    model, loss = started("sela", 4, 4)
    for number, prototypes in enumerate(model.heads["prototypes"].prototypes):
        expected = balanced_labels(loss.bank.slab(number), prototypes.weight, **SINKHORN)
        assert loss.assignments[number, :16].equal(expected.labels)


def test_prototypes_are_frozen_at_first_and_learned_then():
    model = a_model(4, 4)
    loss = sela(model, freeze_prototypes_steps=3, freeze_prototypes_epochs=1)
    for step, epoch, is_frozen in ((0, 0, True), (3, 0, True), (2, 1, True), (3, 1, False)):
        for prototypes in model.heads["prototypes"].prototypes:
            prototypes.weight.grad = torch.ones_like(prototypes.weight)
        loss.on_backward_end(a_run(model, [], step=step, epoch=epoch))
        for prototypes in model.heads["prototypes"].prototypes:
            assert (prototypes.weight.grad is None) == is_frozen


# ---- refusals


@pytest.mark.parametrize(
    ("method", "num_prototypes", "data", "options", "message"),
    [
        (
            "deepcluster", [4], {}, {"assign_crops": [0, 2]},
            "assign_crops=[0, 2]: different positions of crops, from 0 to 1 (the data has 2 crops)",
        ),
        (
            "deepcluster", [4, 9], {"world_size": 2, "batch_size": 2}, {},
            "head=prototypes: 9 prototypes, but k-means draws its first centroids from the 8 "
            "images that one process sees in an epoch; lower heads.prototypes.num_prototypes",
        ),
        (
            "sela", [17], {}, {},
            "head=prototypes: 17 prototypes cannot have equal shares of the 16 images of an epoch; "
            "lower heads.prototypes.num_prototypes",
        ),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_one_line(method, num_prototypes, data, options, message):
    with pytest.raises(ValueError) as error:
        METHODS[method](a_model(*num_prototypes), replace(DATA, **data), **options)
    assert str(error.value) == message
