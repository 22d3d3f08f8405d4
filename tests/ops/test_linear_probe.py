import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from torch import Tensor

from ssl_platform.ops import linear_probe
from ssl_platform.ops.linear_probe import (
    LinearClassifiers,
    Rows,
    Standard,
    accuracies,
    fit_lbfgs,
    fit_ridge,
    fit_sgd,
)

CLASSES = 3
CPU = torch.device("cpu")


def some_rows(num: int = 60, dim: int = 5, dtype: torch.dtype = torch.float32) -> Rows:
    """Three overlapping clouds; every second row of the table counts."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2 * num) % CLASSES
    centres = torch.randn(CLASSES, dim, generator=generator)
    features = 5 + centres[labels] + torch.randn(2 * num, dim, generator=generator)
    features, positions = features.to(dtype), torch.arange(0, 2 * num, 2)
    return Rows(features, labels, positions, Standard.of(features, positions), CPU)


def whole(rows: Rows) -> tuple[Tensor, Tensor]:
    return rows.read(torch.arange(len(rows)))


def test_rows_are_standardised_and_a_dimension_that_does_not_vary_is_zero():
    rows = some_rows()
    rows.features[:, 2] = 7
    rows = Rows(
        rows.features, rows.labels, rows.positions, Standard.of(rows.features, rows.positions), CPU
    )
    features, labels = whole(rows)
    std, mean = torch.std_mean(features, dim=0, correction=0)
    expected = torch.tensor([1.0, 1, 0, 1, 1])
    torch.testing.assert_close(std, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(mean, torch.zeros(5), atol=1e-5, rtol=0)
    assert labels.equal(rows.labels[::2])


def test_many_settings_at_once_give_what_torch_gives_for_each_alone():
    rows = some_rows()
    rates, decays = [0.01, 0.1, 1.0], [0.0, 0.01]
    options = {"num_epochs": 3, "batch_size": 16, "momentum": 0.9, "seed": 4}
    together = fit_sgd(rows, CLASSES, learning_rates=rates, weight_decays=decays, **options)
    for number, (rate, decay) in enumerate((r, d) for r in rates for d in decays):
        layer = torch.nn.Linear(5, CLASSES)
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
        groups = [
            {"params": [layer.weight], "weight_decay": decay},
            {"params": [layer.bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=rate, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=3 * 4)
        generator = torch.Generator().manual_seed(4)
        for _ in range(3):
            for some in torch.randperm(60, generator=generator).split(16):
                features, labels = rows.read(some)
                optimizer.zero_grad()
                F.cross_entropy(layer(features), labels).backward()
                optimizer.step()
                schedule.step()
        torch.testing.assert_close(together.weight[number], layer.weight.T, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(together.bias[number], layer.bias, atol=1e-5, rtol=1e-4)


def test_a_setting_that_diverges_scores_nothing_and_leaves_the_others_alone():
    rows = some_rows()
    options = {"weight_decays": [1.0], "num_epochs": 5, "batch_size": 16, "momentum": 0, "seed": 0}
    alone = fit_sgd(rows, CLASSES, learning_rates=[0.1], **options)
    both = fit_sgd(rows, CLASSES, learning_rates=[0.1, 1e38], **options)
    torch.testing.assert_close(both.weight[0], alone.weight[0])
    assert not both.weight[1].isfinite().all()
    top1 = accuracies(both, rows)
    assert top1[0] > 60 and top1[1] == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_lbfgs_finds_the_minimum_that_scikit_learn_finds(dtype):
    rows, l2 = some_rows(dtype=dtype), [0.01, 1.0, 0.1]
    found = fit_lbfgs(rows, CLASSES, l2=l2, max_iters=200, tolerance=1e-7)
    features, labels = (values.numpy() for values in whole(rows))
    for number, penalty in enumerate(l2):
        model = LogisticRegression(C=1 / (penalty * len(rows)), tol=1e-8, max_iter=1000)
        model.fit(features.astype(np.float64), labels)
        expected = torch.from_numpy(model.predict_proba(features))
        scores = found.scores(torch.from_numpy(features))[number]
        torch.testing.assert_close(scores.softmax(1), expected.float(), atol=1e-3, rtol=0)


def test_features_too_large_to_be_kept_are_read_anew_in_every_pass(monkeypatch):
    rows = some_rows()
    kept = fit_lbfgs(rows, CLASSES, l2=[0.1], max_iters=50, tolerance=1e-7)
    monkeypatch.setattr(linear_probe, "HELD_BYTES", 0)
    anew = fit_lbfgs(rows, CLASSES, l2=[0.1], max_iters=50, tolerance=1e-7)
    assert torch.equal(kept.weight, anew.weight)


def test_ridge_is_that_of_scikit_learn():
    rows, l2 = some_rows(), [0.001, 1.0]
    found = fit_ridge(rows, CLASSES, l2=l2)
    features, labels = (values.numpy() for values in whole(rows))
    for number, penalty in enumerate(l2):
        model = Ridge(alpha=penalty * len(rows))
        model.fit(features.astype(np.float64), np.eye(CLASSES)[labels])
        np.testing.assert_allclose(found.weight[number].T, model.coef_, atol=1e-5)
        np.testing.assert_allclose(found.bias[number], model.intercept_, atol=1e-5)


def test_accuracies_count_the_class_with_the_highest_score():
    rows = some_rows()
    generator = torch.Generator().manual_seed(1)
    classifiers = LinearClassifiers(
        torch.randn(4, 5, CLASSES, generator=generator), torch.randn(4, CLASSES)
    )
    features, labels = whole(rows)
    found = accuracies(classifiers, rows)
    for number, scores in enumerate(classifiers.scores(features)):
        expected = 100 * (scores.argmax(1) == labels).double().mean().item()
        assert found[number].item() == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_rows_that_are_not_finite_cannot_be_standardised(bad):
    features = torch.ones(20, 3)
    features[7, 1] = bad
    with pytest.raises(ValueError, match=r"^features: some of the rows are NaN or infinite$"):
        Standard.of(features, torch.arange(20))
    Standard.of(features, torch.arange(7))
