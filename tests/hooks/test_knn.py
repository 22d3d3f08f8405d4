import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from labelled_rows import DataSet, Rows, a_data_set
from torch import nn

from ssl_platform.hooks.knn import KNNMonitor
from ssl_platform.loggers.group import LoggerGroup
from ssl_platform.metrics.accuracy import TopKAccuracy


def a_run(train: DataSet, val: DataSet | None, folder: Path) -> SimpleNamespace:
    torch.manual_seed(0)
    trunk = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return SimpleNamespace(
        train_data=train,
        val_data=val,
        eval_loader=lambda data, positions: Rows(data.images, positions, batch_size=4),
        model=SimpleNamespace(trunk=trunk, teacher=None),
        evaluated=SimpleNamespace(trunk=trunk),
        metrics={"top1": TopKAccuracy(k=1)},
        output_dir=folder,
        loggers=LoggerGroup(),
        results={},
        report={},
        step=0,
        epoch=0,
    )


def a_monitor(**options) -> KNNMonitor:
    defaults = {
        "every_epochs": 2,
        "num_labels": 6,
        "num_queries": None,
        "k": 1,
        "temperature": 0.07,
        "seed": 0,
    }
    return KNNMonitor(**(defaults | options))


def test_features_that_tell_the_classes_apart_score_100_percent(tmp_path):
    run = a_run(a_data_set([0, 1, 2] * 10), a_data_set([2, 1, 0] * 3), tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    assert json.loads((tmp_path / "baselines.json").read_text()) == {
        "random init": {"top1": 100},
        "raw pixels": {"top1": 100},
    }
    for run.epoch in (1, 2, 3):
        run.report = {}
        monitor.on_epoch_end(run)
        assert run.report == ({"knn/top1": 100} if run.epoch == 2 else {})
    monitor.on_train_end(run)
    assert run.results["knn"]["trained"] == {"top1": 100}
    assert run.results["knn"]["labels"] == 6


def test_unreadable_images_are_left_out_of_the_score_and_told(tmp_path, caplog):
    caplog.set_level("INFO")
    train, val = a_data_set([0, 1, 2] * 10), a_data_set([2, 1, 0] * 3)
    val.images[[1, 5]] = val.images[[0, 4]]  # what a stand-in would be
    run = a_run(train, val, tmp_path)
    bad = {30: [3], 9: [1, 5]}
    run.eval_loader = lambda data, positions: Rows(data.images, positions, 4, bad[len(data)])
    monitor = a_monitor(num_labels=None, every_epochs=1)
    monitor.on_train_start(run)
    run.epoch = 1
    monitor.on_epoch_end(run)
    assert run.report == {"knn/top1": 100}
    assert "1 of the 30 images of the kNN accuracy cannot be read and are left out" in caplog.text
    assert "2 of the 9 images of the kNN accuracy cannot be read and are left out" in caplog.text
    monitor.on_train_end(run)
    assert (run.results["knn"]["labels"], run.results["knn"]["queries"]) == (29, 7)
    again, run.results = a_monitor(num_labels=None), {}
    again.on_train_start(run)
    again.load_state_dict(monitor.state_dict())
    again.on_train_end(run)  # nothing is left to do, or to measure
    assert (run.results["knn"]["labels"], run.results["knn"]["queries"]) == (29, 7)


def test_without_validation_images_the_queries_are_other_training_images(tmp_path):
    run = a_run(a_data_set([0, 1, 2] * 10), None, tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    both = [*monitor.bank.positions, *monitor.queries.positions]
    assert sorted(both) == list(range(30))


NAMES = ["ant", "bee", "cat"]  # kinds 0, 1, 2


@pytest.mark.parametrize(
    ("val", "num_queries", "told"),
    [
        (a_data_set([2, 1, 0] * 3, NAMES), 9, []),
        (a_data_set([0, 1, 2] * 3, ["cat", "ant", "bee"], [2, 0, 1] * 3), 9, []),
        (
            a_data_set([0, 1] * 3, ["bee", "cat"], [1, 2] * 3), 6,
            ["kNN: data.val: has no image of 1 of the 3 classes of data.train (ant): figures are "
             "of the other classes"],
        ),
        (
            a_data_set([0, 1, 2, 3] * 3, ["ant", "axe", "bee", "cat"], [0, 2, 1, 2] * 3), 9,
            ["kNN: data.val: 3 images are of classes that data.train does not have (axe); they are "
             "left out"],
        ),
        (
            a_data_set([0, 1] * 3, ["x", "y"]), 24,
            ["data.val: none of its classes (x, y) is of data.train; the kNN accuracy is of other "
             "training images"],
        ),
        (
            a_data_set([0, 1] * 3), 24,
            ["data.val: its classes cannot be matched with others: data.train has names for 3 "
             "classes, data.val has numbers for 2 classes; give both of them names, or the same "
             "number of classes; the kNN accuracy is of other training images"],
        ),
        *[
            (val, 24,
             ["data.val: no image has a label; the kNN accuracy is of other training images"])
            for val in (a_data_set([-1] * 3, NAMES, [0] * 3), a_data_set(None))
        ],
        (
            a_data_set([2, 1, 0] * 3), 9,
            ["kNN: data.val: its classes have no names; the two sets are matched by number"],
        ),
    ],
)  # fmt: skip
def test_knn_matches_the_classes_of_other_folders_by_name(val, num_queries, told, tmp_path, caplog):
    """Features that tell the classes apart score 100 whatever the folders are."""
    run = a_run(a_data_set([0, 1, 2] * 10, NAMES), val, tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    monitor.on_train_end(run)
    assert run.results["knn"]["trained"] == {"top1": 100}
    assert run.results["knn"]["queries"] == num_queries
    assert caplog.messages == told


def test_without_labels_of_training_images_those_of_validation_images_serve(tmp_path):
    run = a_run(a_data_set(None), a_data_set([0, 1, 2] * 10), tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    monitor.on_train_end(run)
    assert run.results["knn"]["trained"] == {"top1": 100}
    assert (run.results["knn"]["labels"], run.results["knn"]["queries"]) == (6, 24)


def test_a_bank_that_would_take_all_images_leaves_a_fifth_to_ask_of(tmp_path):
    run = a_run(a_data_set([0, 1, 2] * 10), None, tmp_path)
    monitor = a_monitor(num_labels=30)
    monitor.on_train_start(run)
    assert len(monitor.bank.positions) == 24
    queries = monitor.queries.positions
    assert np.bincount(run.train_data.labels[queries]).tolist() == [2, 2, 2]
    assert not set(queries) & set(monitor.bank.positions)


@pytest.mark.parametrize("num_labels", [None, 40, 20])
def test_a_rare_class_is_in_the_bank_and_asked_of_and_counts_as_much(num_labels, tmp_path):
    run = a_run(a_data_set([0] * 40 + [1] * 5 + [2]), None, tmp_path)
    monitor = a_monitor(num_labels=num_labels)
    monitor.on_train_start(run)
    banked, asked = (run.train_data.labels[p.positions] for p in (monitor.bank, monitor.queries))
    assert {*banked} == {0, 1, 2} and {*asked} == {0, 1}
    assert not {*monitor.bank.positions} & {*monitor.queries.positions}
    monitor.on_train_end(run)
    knn = run.results["knn"]
    rare, large = np.sort(np.bincount(asked))
    assert knn["trained"] == {"top1": 100, "mean_class": 100}
    assert knn["judged_by"] == "mean_class"
    assert knn["equal_queries"] == pytest.approx(4 / (1 / large + 1 / rare))


@pytest.mark.parametrize(
    ("labels", "sizes"),
    [
        ([0, 0, 1, -1, -1], (2, 1, 2)),  # one query; k is the bank
        ([0, 0, 0, 1, 1, 1], (4, 2, 4)),
        ([0, 1, 2], None),  # a class of one image has none to ask of
        ([0, 1, -1, -1], None),
    ],
)
def test_few_labels_are_shared_by_bank_and_queries(labels, sizes, tmp_path, caplog):
    run = a_run(a_data_set([max(label, 0) for label in labels]), None, tmp_path)
    run.train_data.labels = np.array(labels)
    run.train_data.images = run.train_data.images[: len(labels)]
    monitor = a_monitor(num_labels=1000, k=20)
    monitor.on_train_start(run)
    monitor.on_train_end(run)
    knn = run.results.get("knn")
    assert (knn and (knn["labels"], knn["queries"], knn["k"])) == sizes
    assert ("no class has two images" in caplog.text) == (sizes is None)


def test_unlabelled_training_images_are_no_queries(tmp_path):
    labels = np.array([0, 1, 2, -1, -1] * 6)
    run = a_run(a_data_set(labels), None, tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    assert (labels[monitor.bank.positions] >= 0).all()
    assert (labels[monitor.queries.positions] >= 0).all()


@pytest.mark.parametrize("labels", [None, [-1] * 8, [1] * 8, [-1, 1] * 4])
def test_images_without_labels_of_two_classes_are_not_measured(labels, tmp_path, caplog):
    caplog.set_level("INFO")
    run = a_run(a_data_set(labels), None, tmp_path)
    monitor = a_monitor()
    monitor.on_train_start(run)
    run.epoch = 2
    monitor.on_epoch_end(run)
    monitor.on_train_end(run)
    assert run.results == run.report == {}
    assert "no kNN accuracy" in caplog.text
