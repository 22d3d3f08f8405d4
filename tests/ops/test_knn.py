import json
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from ssl_platform.metrics.accuracy import TopKAccuracy
from ssl_platform.ops import knn
from ssl_platform.ops.knn import knn_votes, nearest_neighbours
from ssl_platform.registry import METRICS

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "knn.json").read_text())


@pytest.fixture
def reference() -> dict[str, torch.Tensor]:
    return {
        "queries": torch.tensor(VECTORS["test"], dtype=torch.float64),
        "bank": torch.tensor(VECTORS["train"], dtype=torch.float64),
        "bank_labels": torch.tensor(VECTORS["train_labels"]),
    }


def random_features(seed: int, num: int, dim: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"k{case['k']}-T{case['T']}")
def test_neighbours_votes_and_classes_are_those_of_the_reference(case, reference):
    cosines, neighbours = nearest_neighbours(reference["queries"], reference["bank"], k=case["k"])
    assert neighbours.tolist() == case["neighbours"]
    similarities = torch.tensor(case["similarities"], dtype=torch.float64)
    torch.testing.assert_close(cosines, similarities)

    votes = knn_votes(**reference, k=case["k"], temperature=case["T"], num_classes=3)
    labels = reference["bank_labels"][neighbours]
    weights = (similarities / case["T"]).exp()
    expected = torch.stack([((labels == c) * weights).sum(dim=1) for c in range(3)], dim=1)
    torch.testing.assert_close(
        votes / votes.sum(dim=1, keepdim=True), expected / expected.sum(dim=1, keepdim=True)
    )
    ranking = votes.argsort(dim=1, descending=True).tolist()
    for row, best_first, vote in zip(ranking, case["predictions_best_first"], votes, strict=True):
        num_voted = int((vote > 0).sum())  # a class without a vote has no rank of its own
        assert row[:num_voted] == best_first[:num_voted]


@pytest.mark.parametrize("query_block", [1, 3, 100])
@pytest.mark.parametrize("bank_block", [1, 4, 29, 100])
def test_neighbours_do_not_depend_on_the_blocks(query_block, bank_block, monkeypatch):
    monkeypatch.setattr(knn, "QUERY_BLOCK", query_block)
    monkeypatch.setattr(knn, "BANK_BLOCK", bank_block)
    queries, bank = random_features(0, 7), random_features(1, 30)
    cosines, neighbours = nearest_neighbours(queries, bank, k=5)
    expected = (F.normalize(queries) @ F.normalize(bank).T).sort(dim=1, descending=True)
    torch.testing.assert_close(cosines, expected.values[:, :5])
    assert neighbours.equal(expected.indices[:, :5])


def test_features_of_16_bits_are_compared_in_32():
    queries, bank = random_features(0, 7).half(), random_features(1, 30).half()
    cosines, neighbours = nearest_neighbours(queries, bank, k=5)
    expected = nearest_neighbours(queries.float(), bank.float(), k=5)
    assert cosines.equal(expected[0]) and neighbours.equal(expected[1])


def test_votes_do_not_depend_on_the_length_of_the_features():
    queries, bank, labels = random_features(0, 7), random_features(1, 30), torch.arange(30) % 4
    options = {"k": 5, "temperature": 0.1, "num_classes": 4}
    lengths = torch.linspace(0.1, 50, 30, dtype=torch.float64)[:, None]
    stretched = knn_votes(3 * queries, bank * lengths, labels, **options)
    torch.testing.assert_close(stretched, knn_votes(queries, bank, labels, **options))


def test_more_neighbours_than_the_bank_holds_means_the_whole_bank():
    queries, bank, labels = random_features(0, 7), random_features(1, 6), torch.arange(6) % 2
    options = {"temperature": 0.1, "num_classes": 2}
    votes = knn_votes(queries, bank, labels, k=1000, **options)
    assert votes.equal(knn_votes(queries, bank, labels, k=6, **options))


def test_an_image_of_the_bank_is_its_own_nearest_neighbour():
    bank, labels = random_features(1, 30), torch.arange(30) % 4
    votes = knn_votes(bank, bank, labels, k=1, temperature=0.07, num_classes=4)
    torch.testing.assert_close(votes, torch.eye(4, dtype=torch.float64)[labels])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("bank_block", [4, 65536])
def test_rows_of_the_bank_that_are_not_finite_have_no_vote_and_are_counted(
    bad, bank_block, caplog, monkeypatch
):
    monkeypatch.setattr(knn, "BANK_BLOCK", bank_block)
    queries, bank = random_features(0, 7), random_features(1, 30)
    good = torch.tensor([i for i in range(30) if i not in (3, 17)])
    expected, neighbours = nearest_neighbours(queries, bank[good], k=28)
    bank[3, 2], bank[17] = bad, bad
    cosines, found = nearest_neighbours(queries, bank, k=30)
    torch.testing.assert_close(cosines[:, :28], expected)
    assert found[:, :28].equal(good[neighbours])
    assert cosines[:, 28:].eq(-math.inf).all()
    assert [record.getMessage() for record in caplog.records] == [
        "kNN: 2 of the 30 rows of the bank are NaN or infinite and have no vote"
    ]
    labels, options = torch.arange(30) % 4, {"temperature": 0.07, "num_classes": 4}
    torch.testing.assert_close(
        knn_votes(queries, bank, labels, k=30, **options),
        knn_votes(queries, bank[good], labels[good], k=28, **options),
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_queries_that_are_not_finite_are_counted_as_wrong(bad, caplog):
    bank, labels = random_features(1, 30), torch.arange(30) % 4
    queries = bank[:8].clone()
    queries[2, 1], queries[5] = bad, bad
    votes = knn_votes(queries, bank, labels, k=1, temperature=0.07, num_classes=4)
    expected = torch.eye(4, dtype=torch.float64)[labels[:8]]
    expected[[2, 5]] = math.nan
    torch.testing.assert_close(votes, expected, equal_nan=True)
    for k in (1, 4):
        assert TopKAccuracy(k=k)(votes, labels[:8]) == 75
    assert [record.getMessage() for record in caplog.records] == [
        "kNN: 2 of the 8 queries are NaN or infinite and count as wrong"
    ]


def test_a_bank_without_a_finite_row_is_refused():
    with pytest.raises(ValueError) as error:
        nearest_neighbours(random_features(0, 7), torch.full((30, 8), math.nan), k=5)
    assert str(error.value) == "kNN: none of the 30 rows of the bank is finite"


def test_a_row_of_zeros_has_the_cosine_zero():
    bank = torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    cosines, neighbours = nearest_neighbours(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), bank, k=3)
    assert cosines.tolist() == [[1, 0, -1], [0, 0, 0]]
    assert neighbours[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("temperature", [5e-324, 1e-46, 1e-6, 1e6, 1e300])
def test_extreme_temperatures_give_finite_votes(temperature):
    queries, bank, labels = random_features(0, 7), random_features(1, 30), torch.arange(30) % 4
    votes = knn_votes(
        queries.float(), bank.float(), labels, k=5, temperature=temperature, num_classes=4
    )
    assert votes.isfinite().all()
    assert (votes.amax(dim=1) >= 1).all()


SCORES = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.0, 0.1, 0.9], [0.6, 0.4, 0.0]])
LABELS = torch.tensor([1, 1, 2, 2])


@pytest.mark.parametrize(("k", "percent"), [(1, 50), (2, 75), (3, 100), (5, 100)])
def test_accuracy_is_the_percentage_with_the_label_among_the_k_highest(k, percent):
    assert TopKAccuracy(k=k)(SCORES, LABELS) == percent


def test_accuracy_of_no_class_is_refused():
    problems = METRICS.problems({"name": "TopKAccuracy", "k": 0}, where="top")
    assert problems == ["top.k=0: at least 1"]
