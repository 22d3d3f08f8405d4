import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.errors import CollapseError
from ssl_platform.hooks.health import FIRST_STEPS, ClusteringHealth, EmbeddingHealth
from ssl_platform.hooks.signs import LABEL_SIGNS, STEP_SIGNS
from ssl_platform.models.heads import Prototyped, PrototypeHead

DIM = NUM_PROTOTYPES = 4
LN_K = math.log(NUM_PROTOTYPES)
FIGURES = {
    "assignment_entropy",
    "sample_entropy",
    "prototypes_used",
    "embedding_std",
    "effective_rank",
}
OF_TWO_CROPS = {"agreement", "brightness", "colour"}


def a_hook(**options) -> ClusteringHealth:
    defaults = {"head": "prototypes", "temperature": 0.1, "every_steps": 2, "stop": None}
    return ClusteringHealth(**(defaults | options))


def a_run(dim: int = DIM, num_crops: int = 2) -> SimpleNamespace:
    head = PrototypeHead(
        8, hidden_dim=0, out_dim=dim, num_prototypes=[NUM_PROTOTYPES], batch_norm=False
    )
    return SimpleNamespace(
        model=SimpleNamespace(heads={"prototypes": head}),
        loss=SimpleNamespace(uniform_loss=LN_K, head="prototypes"),
        loggers=SimpleNamespace(config={}),
        schedule=lambda position: 0.1,
        position=0,
        step=0,
        results={},
        output_dir=Path("/there/is/no/run"),
        num_crops=num_crops,
        device=torch.device("cpu"),
        report={},
        epoch=0,
    )


def health_of(
    run: SimpleNamespace,
    hook: ClusteringHealth,
    steps: list[tuple[Tensor, Tensor]],
    *,
    loss: float = 0.5,
) -> dict[str, float]:
    """The figures after an epoch of steps, each with the first crop's embeddings and scores."""
    hook.on_epoch_start(run)
    for embeddings, scores in steps:
        num_others = run.num_crops - 1
        # crops other than the first do not count for the figures of one crop, whatever they hold
        other = torch.full((num_others * len(scores), 1), 7.0)
        run.outputs = {
            "prototypes": Prototyped(
                torch.cat([embeddings, other.expand(-1, embeddings.shape[1])]),
                [torch.cat([scores, other * torch.arange(scores.shape[1])])],
            )
        }
        run.losses = {"loss": torch.tensor(loss)}
        crops = [torch.rand(len(scores), 3, 4, 4)] * run.num_crops
        run.batch = SimpleNamespace(crops=crops, index=torch.arange(len(scores)))
        run.step += 1
        hook.on_step_end(run)
    run.epoch += 1
    hook.on_epoch_end(run)
    report = {name.removeprefix("health/"): value for name, value in run.report.items()}
    return {name: value for name, value in report.items() if name not in OF_TWO_CROPS}


CORNERS = torch.cat([torch.eye(DIM), -torch.eye(DIM)])  # of zero mean, isotropic
ONE_EACH = torch.eye(NUM_PROTOTYPES).repeat(2, 1)  # scores: every prototype is nearest to two rows


@pytest.mark.parametrize("num_crops", [1, 2, 5])
def test_embeddings_that_fill_the_sphere_are_healthy(num_crops):
    figures = health_of(a_run(num_crops=num_crops), a_hook(temperature=0.01), [(CORNERS, ONE_EACH)])
    assert figures == pytest.approx(
        {
            "assignment_entropy": 1,  # each prototype has a quarter of the rows
            "sample_entropy": 0,  # each row is sure
            "prototypes_used": 1,
            "embedding_std": 1,
            "effective_rank": DIM,
        },
        abs=1e-5,
    )


@pytest.mark.parametrize("dim", [16, 128])
def test_embeddings_that_are_all_the_same_have_no_spread_and_a_low_effective_rank(dim):
    direction = torch.randn(1, dim, generator=torch.Generator().manual_seed(0))
    embeddings = F.normalize(direction, dim=1).expand(32, dim)
    scores = torch.zeros(32, NUM_PROTOTYPES)
    figures = health_of(a_run(dim), a_hook(), [(embeddings, scores)] * 20)
    assert figures["effective_rank"] == pytest.approx(1, abs=0.5)
    assert figures["embedding_std"] == pytest.approx(0, abs=2e-3)


def test_embeddings_on_a_line_have_effective_rank_one_and_those_in_a_plane_two():
    line = torch.tensor([[1.0, 0, 0, 0], [-1.0, 0, 0, 0]])
    plane = torch.cat([line, line.roll(1, dims=1)])
    ranks = [
        health_of(a_run(), a_hook(), [(some, torch.zeros(len(some), NUM_PROTOTYPES))])
        for some in (line, plane)
    ]
    assert [figures["effective_rank"] for figures in ranks] == pytest.approx([1, 2], abs=1e-4)


def test_uniform_predictions_have_full_entropy_of_both_kinds():
    figures = health_of(a_run(), a_hook(), [(CORNERS, torch.zeros(8, NUM_PROTOTYPES))])
    assert figures["assignment_entropy"] == pytest.approx(1)
    assert figures["sample_entropy"] == pytest.approx(1)


def random_steps(num_steps: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [
        (
            F.normalize(torch.randn(6, DIM, generator=generator), dim=1),
            torch.rand(6, NUM_PROTOTYPES, generator=generator) * 2 - 1,
        )
        for _ in range(num_steps)
    ]


def test_an_epoch_of_steps_has_the_figures_of_its_rows_together():
    steps = random_steps(5)
    together = tuple(torch.cat(parts) for parts in zip(*steps, strict=True))
    figures = health_of(a_run(), a_hook(), steps)
    assert set(figures) == FIGURES
    assert figures == pytest.approx(health_of(a_run(), a_hook(), [together]), rel=1e-4)


def test_figures_equal_those_that_the_rows_give_directly():
    embeddings, scores = random_steps(1)[0]
    figures = health_of(a_run(), a_hook(), [(embeddings, scores)])
    predictions = torch.softmax(scores.double() / 0.1, dim=1)
    eigenvalues = torch.linalg.eigvalsh(torch.cov(embeddings.double().T, correction=0))
    shares = (eigenvalues / eigenvalues.sum()).clamp_min(1e-300)
    mean = predictions.mean(dim=0)
    std = embeddings.double().std(dim=0, correction=0).mean()
    assert figures == pytest.approx(
        {
            "assignment_entropy": -(mean * mean.log()).sum().item() / LN_K,
            "sample_entropy": -(predictions * predictions.log()).sum(dim=1).mean().item() / LN_K,
            "prototypes_used": len(scores.argmax(dim=1).unique()) / NUM_PROTOTYPES,
            "embedding_std": std.item() * DIM**0.5,
            "effective_rank": math.exp(-(shares * shares.log()).sum().item()),
        },
        rel=1e-4,
    )


def test_an_epoch_starts_from_nothing():
    run, hook = a_run(), a_hook()
    health_of(run, hook, random_steps(3))
    second = health_of(run, hook, [(CORNERS, ONE_EACH)])
    assert second == pytest.approx(health_of(a_run(), a_hook(), [(CORNERS, ONE_EACH)]))


def test_figures_of_two_crops_are_reported_where_there_are_two():
    for num_crops, wanted in ((1, set()), (2, OF_TWO_CROPS)):
        run = a_run(num_crops=num_crops)
        health_of(run, a_hook(), random_steps(80))  # enough images to judge colours by
        reported = {name.removeprefix("health/") for name in run.report}
        assert reported == FIGURES | wanted


class Named(NamedTuple):
    """The output of a head, as BYOL's."""

    projection: Tensor
    prediction: Tensor


POINT = (torch.tensor([[1.0, 0, 0, 0]]).expand(8, DIM), ONE_EACH)
HEALTHY = (CORNERS, ONE_EACH)
FIRST = [HEALTHY] * FIRST_STEPS


def doctor_of(hook: EmbeddingHealth, steps: list, **options: Any) -> tuple[SimpleNamespace, list]:
    """The run after these steps, and at which of them the signs changed to which."""
    run, signs = a_run(**options), []
    hook.on_train_start(run)
    for number, step in enumerate(steps, 1):
        health_of(run, hook, [step])
        now = [entry["sign"] for entry in run.results["doctor"]]
        if now != (signs[-1][1] if signs else []):
            signs.append((number, now))
    return run, signs


def test_a_collapse_is_told_at_the_third_look_and_taken_back_at_the_third_without():
    hook = a_hook(temperature=0.01)
    _, signs = doctor_of(hook, FIRST + [POINT] * 10 + [HEALTHY] * 10)
    assert signs == [(FIRST_STEPS + 6, ["point"]), (FIRST_STEPS + 16, [])]


def test_a_sign_that_comes_and_goes_is_not_told_and_the_first_steps_do_not_count():
    _, signs = doctor_of(a_hook(temperature=0.01), FIRST + [POINT, POINT, HEALTHY, HEALTHY] * 5)
    assert signs == []
    _, signs = doctor_of(a_hook(temperature=0.01), [POINT] * FIRST_STEPS + [HEALTHY])
    assert signs == []


def test_a_sign_has_its_figures_a_remedy_and_the_step_since_when_it_holds():
    run, _ = doctor_of(a_hook(temperature=0.01), FIRST + [POINT] * 6)
    (entry,) = run.results["doctor"]
    assert entry.keys() == {"sign", "text", "remedy", "since_step"}
    assert entry["since_step"] == FIRST_STEPS + 1
    assert "their spread is 0.000" in entry["text"]
    assert entry["remedy"] == "a lower optimizer.lr"  # of no config


@pytest.mark.parametrize("stop", [True, ["point"], ["line", "point"]])
def test_a_run_ends_at_a_sign_that_it_is_to_stop_for(stop):
    with pytest.raises(
        CollapseError, match=r"stopped at step 36, as hooks\.health\.stop asks"
    ) as e:
        doctor_of(a_hook(temperature=0.01, stop=stop), FIRST + [POINT] * 10)
    assert e.value.exit_code == 6


@pytest.mark.parametrize("stop", [None, False, [], ["line"]])
def test_a_run_goes_on_at_other_signs(stop):
    doctor_of(a_hook(temperature=0.01, stop=stop), FIRST + [POINT] * 10)


def test_a_sign_that_is_not_there_cannot_stop_a_run():
    with pytest.raises(ValueError, match=r"stop=\['poin'\]: there is no sign poin; .*'point'"):
        a_hook(stop=["poin"])
    assert a_hook(stop=True).stop == (*STEP_SIGNS, *LABEL_SIGNS)


def test_a_resumed_hook_goes_on_as_an_unbroken_one():
    steps = FIRST + [POINT] * 9
    unbroken, _ = doctor_of(a_hook(temperature=0.01), steps)
    for cut in (FIRST_STEPS + 3, FIRST_STEPS + 7):
        run, first, second = a_run(), a_hook(temperature=0.01), a_hook(temperature=0.01)
        first.on_train_start(run)
        for number, step in enumerate(steps):
            if number == cut:
                second.load_state_dict(first.state_dict())
                run.results = {}
                second.on_train_start(run)
            health_of(run, first if number < cut else second, [step])
        assert run.results == unbroken.results


@pytest.mark.parametrize("kind", ["rows", "tuple", "named", "dict"])
def test_a_head_without_prototypes_is_watched_for_the_signs_of_embeddings(kind):
    hook = EmbeddingHealth(head=None, every_steps=2, stop=None)
    run = a_run()
    run.loss.uniform_loss = None
    run.model.heads = {"other": None, "mine": None}
    run.loss.head = "mine"
    rows = torch.cat([POINT[0] * 3, POINT[0] * 5])  # of any length
    output = {
        "rows": rows,
        "tuple": (rows, rows.mean()),
        "named": Named(rows, rows),
        "dict": {"a": {"b": rows}},
    }[kind]
    hook.on_train_start(run)
    for _ in range(FIRST_STEPS + 6):
        run.step += 1
        run.losses = {"loss": torch.tensor(0.5)}
        run.outputs = {"other": None, "mine": output}
        run.batch = SimpleNamespace(crops=[torch.rand(8, 3, 4, 4)] * 2, index=torch.arange(8))
        hook.on_step_end(run)
    hook.on_epoch_end(run)
    assert [entry["sign"] for entry in run.results["doctor"]] == ["point"]
    assert run.report["health/embedding_std"] == pytest.approx(0, abs=1e-3)


def test_a_head_that_gives_no_rows_is_left_alone():
    hook, run = EmbeddingHealth(head=None, every_steps=1, stop=True), a_run()
    run.outputs = {"prototypes": torch.zeros(8, 2, 2)}
    run.losses = {"loss": torch.tensor(0.5)}
    run.batch = SimpleNamespace(crops=[torch.rand(8, 3, 4, 4)], index=torch.arange(8))
    hook.on_train_start(run)
    hook.on_step_end(run)
    hook.on_epoch_end(run)
    assert run.report == {}
    assert run.results == {"doctor": []}


def health_on_this_rank() -> tuple[dict[str, float], list[tuple[int, list[str]]]]:
    def of_rank(steps: list) -> list:
        rank, size = distributed.rank(), distributed.world_size()
        return [tuple(part[rank::size] for part in step) for step in steps]

    figures = health_of(a_run(), a_hook(), of_rank(random_steps(4)))
    _, signs = doctor_of(a_hook(temperature=0.01), of_rank(FIRST + [POINT] * 8))
    return figures, signs


def test_two_ranks_have_the_figures_of_all_rows_and_agree_on_the_signs():
    first, second = run_on_ranks(health_on_this_rank, 2)
    assert first == second
    figures, signs = health_on_this_rank()
    assert first == (pytest.approx(figures, rel=1e-4), signs)
    assert signs == [(FIRST_STEPS + 6, ["point"])]
