"""Evaluations of cached features, as the command line runs them, on a tiny run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import tool
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier
from voc_tree import a_voc_tree

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.sets.shapes import Shapes
from ssl_platform.errors import ConfigError, DataError
from ssl_platform.evaluation.results import Results
from ssl_platform.zoo.trained_run import TrainedRun

CROP = ["data.eval_transform.resize=16", "data.eval_transform.size=16"]  # few raw pixels
IMAGES = [
    "data=shapes",
    "data.train.num_samples=150",
    "data.val.num_samples=60",
    *CROP,
    "pca_components=8",
]
ROUNDING = 1e-3  # of a feature of size 1; those of two images are further apart
KNN = ["config=benchmark/knn/folder", *IMAGES]
LINEAR = [
    "config=benchmark/linear/cached/folder",
    *IMAGES,
    "task.sgd.num_epochs=5",
    "task.sgd.weight_decays=[0.0]",
    "task.lbfgs.max_iters=20",
    "task.lbfgs.l2=[1.0,0.01]",
]
BASELINES = ["random init", "raw pixels", "raw pixels, PCA 8"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory of its own, where runs/ is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def evaluate(checkpoint: Path, *overrides: str) -> Results:
    return ssl_platform.run(compose([*overrides, f"checkpoint={checkpoint}", "launch.threads=1"]))


def assert_refused(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose(overrides)
    assert error.value.problems == [line]


def features_by_hand(run: Path, seed: int, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of the trunk on the centre crops of shapes, without any of our loaders."""
    trunk = TrainedRun.open(str(run)).model().trunk
    dataset, crop = Shapes(num_samples=num, size=32, seed=seed), CenterCrop(resize=16, size=16)
    crops = np.stack([crop(dataset.read(i), np.random.default_rng(0))[0] for i in range(num)])
    images = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        return trunk(images).numpy(), dataset.labels


def test_knn_finds_what_scikit_learn_finds(pretrained):
    results = evaluate(pretrained, *KNN, "cache.dtype=float32", "task.k=[1,7,150]")
    (train, train_labels), (test, test_labels) = (
        features_by_hand(pretrained, seed, num) for seed, num in ((0, 150), (1, 60))
    )
    options = {"metric": "cosine", "algorithm": "brute"}
    for k in (1, 7, 150):
        reference = KNeighborsClassifier(k, weights=lambda d: np.exp((1 - d) / 0.07), **options)
        found = reference.fit(train, train_labels).predict(test)
        expected = 100 * (found == test_labels).mean()
        assert results.figures[f"{k}-NN"]["top1"] == pytest.approx(expected)


def test_every_figure_has_its_baselines_and_is_kept(pretrained, here, capsys):
    results = evaluate(pretrained, *KNN, "name=knn")
    assert list(results.figures) == ["10-NN", "20-NN", "100-NN", "200-NN"]
    assert list(results.baselines) == BASELINES
    for figures in results.baselines.values():
        assert {name: set(scores) for name, scores in figures.items()} == {
            name: {"top1", "top5"} for name in results.figures
        }
    assert Results.read(here / "runs/knn") == results
    assert results.weights["source"] == str(pretrained)
    assert results.config == (here / "runs/knn/config.yaml").read_text()
    assert results.details["weights"] == {"200-NN": "all 150 training images vote"}
    printed = capsys.readouterr().out
    assert results.protocol in printed
    assert "10-NN top1" in printed and "raw pixels, PCA 8" in printed
    assert evaluate(pretrained, *KNN, "baselines=false", "name=alone").baselines == {}


def test_features_are_computed_once_and_other_transforms_leave_them_alone(pretrained, here, caplog):
    caplog.set_level("INFO")
    computing = [f"computing the features of {n} images" for n in (150, 60)]
    there = [f"the features of {n} images are there" for n in (150, 60)]
    other = "data.normalize.std=[0.2,0.2,0.2]"
    figures = []
    for name, options, expected in (
        ("first", KNN, computing),
        ("second", KNN, there),
        ("linear", LINEAR, there),
        ("third", [*KNN, other], computing),
        ("fourth", KNN, there),
        ("fifth", [*KNN, other], there),
    ):
        figures.append(evaluate(pretrained, *options, "baselines=false", f"name={name}").figures)
        lines = [m.partition(": ")[2] for m in caplog.messages if "the features of" in m]
        assert lines == expected, name
        caplog.clear()
    assert figures[0] == figures[1]


def test_features_of_other_weights_are_stale(pretrained, tiny, here, caplog):
    caplog.set_level("INFO")
    training = [*tiny, "~hooks.knn", "output_dir=again"]
    ssl_platform.run(compose([*training, "num_epochs=2"]))
    before = evaluate(Path("again"), *KNN, "baselines=false", "name=before")
    ssl_platform.run(compose([*training, "num_epochs=3", "name=pretrain/swav/quickstart",
                              "output_dir=longer"]))  # fmt: skip
    Path("again").rename("shorter")
    Path("longer").rename("again")
    caplog.clear()
    after = evaluate(Path("again"), *KNN, "baselines=false", "name=after")
    assert "these features are stale, the weights changed" in caplog.text
    assert after.weights["sha256"] != before.weights["sha256"]
    fresh = evaluate(Path("again"), *KNN, "baselines=false", "name=fresh", "cache.folder=fresh")
    assert after.figures == fresh.figures


def test_two_processes_evaluate_as_one(pretrained, here):
    one = evaluate(pretrained, *KNN, "cache.dtype=float32", "name=one", "cache.folder=one")
    two = ["launch.processes=2", "cache.dtype=float32", "name=two", "cache.folder=two"]
    done = tool(*KNN, f"checkpoint={pretrained}", *two)
    assert done.returncode == 0, done.stderr
    two = Results.read(here / "runs/two")
    assert two.figures == one.figures and two.baselines == one.baselines
    for first in Path("one").rglob("*.npy"):
        second = Path("two") / first.relative_to("one")
        np.testing.assert_allclose(np.load(second), np.load(first), atol=ROUNDING)


def test_a_linear_classifier_is_chosen_without_the_test_images(pretrained):
    results = evaluate(pretrained, *LINEAR, "name=linear")
    assert results.protocol.startswith("cached centre-crop protocol")
    assert list(results.figures) == [
        "linear", "linear by SGD", "linear by L-BFGS", "linear by ridge",
    ]  # fmt: skip
    for subject in ("weights", *BASELINES):
        details = results.details[subject]
        scores = {name: details[name]["validation_top1"] for name in ("SGD", "L-BFGS", "ridge")}
        assert scores[details["solver"]] == max(scores.values())
        figures = results.figures if subject == "weights" else results.baselines[subject]
        assert figures["linear"] == figures[f"linear by {details['solver']}"]
    other_test_images = evaluate(pretrained, *LINEAR, "data.val.seed=7", "name=other")
    for subject in ("weights", *BASELINES):
        assert other_test_images.details[subject] == results.details[subject]


def test_a_linear_classifier_tells_easy_classes_apart(pretrained, tmp_path):
    """Two classes of one colour each: raw pixels are enough."""
    rng = np.random.default_rng(0)
    for number in range(60):
        pixels = rng.integers(0, 99, (16, 16, 3), dtype=np.uint8)
        pixels[..., number % 2] += 100
        folder = tmp_path / "colours" / f"class{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    results = evaluate(
        pretrained, *LINEAR[:1], *LINEAR[-2:], "pca_components=4",
        f"data.train.path={tmp_path / 'colours'}", "data.val=null", "test_fraction=0.5", *CROP,
        "task.sgd=null",
    )  # fmt: skip
    assert set(results.baselines["raw pixels"]["linear"]) == {"top1"}
    for solver in ("", " by L-BFGS", " by ridge"):
        assert results.baselines["raw pixels, PCA 4"][f"linear{solver}"] == {"top1": 100}
    assert "linear by SGD" not in results.figures
    assert (results.details["train_images"], results.details["test_images"]) == (30, 30)
    assert results.details["test_images_are"] == "held out of data.train"


def test_svms_rank_the_images_of_each_class(pretrained, tmp_path):
    path = a_voc_tree(tmp_path, num_trainval=36, num_test=24)
    results = evaluate(
        pretrained, "config=benchmark/svm/voc07", f"data.path={path}", "pca_components=4", *CROP,
        "task.costs=[0.1,1.0]",
    )  # fmt: skip
    assert results.baselines["raw pixels"]["SVM"] == {"mAP": 100}  # colour tells the classes
    assert 30 < results.figures["SVM"]["mAP"] <= 100
    details = results.details["weights"]
    assert np.mean(details["AP"]) == pytest.approx(results.figures["SVM"]["mAP"])
    assert len(details["AP"]) == len(details["cost"]) == 2
    assert set(details["cost"]) <= {0.1, 1.0}


def on_photographs(folder: Path) -> list[str]:
    paths = [f"data.train.path={folder}", f"data.val.path={folder}"]
    return ["config=benchmark/knn/folder", *paths, "task.k=[1]", "data.num_workers=0", *CROP]


def test_an_unreadable_image_is_left_out_and_said(pretrained, photographs, caplog):
    caplog.set_level("INFO")
    (photographs / "class1" / "4.jpg").write_bytes(b"no image")
    results = evaluate(pretrained, *on_photographs(photographs), "data.max_bad_fraction=0.2")
    assert "1 images cannot be read and are left out" in caplog.text
    assert results.figures["1-NN"]["top1"] == 100  # each of the others is its own neighbour
    counts = ("train_images", "test_images", "unreadable_images")
    assert [results.details[key] for key in counts] == [11, 11, 2]


def test_too_many_unreadable_images_are_told_with_the_option_that_raises_the_limit(
    pretrained, photographs
):
    for number in (1, 4):
        (photographs / "class1" / f"{number}.jpg").write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        evaluate(pretrained, *on_photographs(photographs))
    assert str(error.value).startswith(
        "data.train: 2 of 12 images tried cannot be read, data.max_bad_fraction=0.001 allows 1 of "
        "12: "
    )
    assert str(error.value).endswith("; to go on without them set data.max_bad_fraction=0.3")


def test_the_trunk_can_be_named_and_is_else_that_of_the_checkpoint(pretrained):
    told = evaluate(pretrained, *KNN, "baselines=false", "name=told")
    named = evaluate(
        pretrained, *KNN, "baselines=false", "name=named", "trunk=resnet10_tiny", "trunk.width=8"
    )
    assert named.figures == told.figures
    with pytest.raises(ConfigError, match=f"^checkpoint={pretrained}: "):
        compose([*KNN, f"checkpoint={pretrained}", "trunk=resnet10_tiny"])


VOC = ["config=benchmark/svm/voc07", "data.path={voc}"]
MISTAKES = [
    (KNN, "trunk=resnet10_tiny trunk.width=4", "trunk.width=4: at least 8, e.g. 64"),
    (KNN, "test_fraction=1", "test_fraction=1: above 0, below 1, e.g. 0.2"),
    (KNN, "task.k=[]", "task.k=[]: needs 1 or more"),
    (KNN, "task.temperature=0", "task.temperature=0: above 0, e.g. 0.07"),
    (
        KNN, "data.train.num_samples=10 data.val=null",
        "data.val=null: no class of data.train has two images, so that none can be held out",
    ),
    (
        LINEAR, "data.train.num_samples=10",
        "data.train: no class has two images, so that none can be kept to choose a setting by",
    ),
    (
        LINEAR, "task.validation_fraction=1",
        "task.validation_fraction=1: above 0, below 1, e.g. 0.1",
    ),
    (LINEAR, "task.sgd.weight_decays=[-1]", "task.sgd.weight_decays.0=-1: 0 or more"),
    (LINEAR, "task.ridge.l2=[1.0,0.0]", "task.ridge.l2.1=0.0: above 0"),
    (LINEAR, "task.ridge.l2=[]", "task.ridge.l2=[]: needs 1 or more"),
    (
        LINEAR, "task.sgd=null task.lbfgs=null task.ridge=null",
        "task.sgd=null: and no other solver either; one is needed",
    ),
    (VOC, "data.val=null", "data.val=null: name the images to test on, a split of VOC2007"),
    (VOC, "task.num_folds=5", "data.train: 4 images of cat, at least 5 are needed"),
    (VOC, "task.num_folds=1", "task.num_folds=1: at least 2"),
    (VOC, "data.path={voc}/../other", "data.val: its classes are not those of data.train"),
    (VOC, "task.costs=[0]", "task.costs.0=0: above 0"),
    (VOC[:1], "data=shapes", "data.train.name=Shapes: has to be VOC2007; use data=voc07"),
]  # fmt: skip


@pytest.fixture(scope="module")
def voc(tmp_path_factory) -> Path:
    path = a_voc_tree(tmp_path_factory.mktemp("voc"), num_trainval=12, num_test=6)
    other = Path(shutil.copytree(path, path.with_name("other"))) / "ImageSets/Main"
    (other / "dog_test.txt").rename(other / "eel_test.txt")
    return path


@pytest.mark.parametrize(("config", "overrides", "line"), MISTAKES)
def test_options_that_cannot_be_are_refused_in_one_line(config, overrides, line, voc, pretrained):
    given = [o.format(voc=voc) for o in (*config, *overrides.split())]
    assert_refused([*given, f"checkpoint={pretrained}"], line)


def test_weights_and_images_that_cannot_be_are_refused_in_one_line(pretrained, photographs, here):
    assert_refused(KNN, "checkpoint: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>")
    assert_refused(
        [*KNN, "checkpoint=runs/no"],
        f"checkpoint=runs/no: no such file or run (working directory: {here}); a model of the "
        "catalogue is zoo:NAME",
    )
    weights = f"checkpoint={pretrained}"
    assert_refused(
        ["config=benchmark/knn/imagenet1k", weights], "data.path: needs a value; set data.path=..."
    )
    (here / "only").mkdir()
    (photographs / "class0").rename(here / "only" / "class0")
    (here / "others" / "class9").mkdir(parents=True)
    Image.new("RGB", (20, 20)).save(here / "others" / "class9" / "0.png")
    for train, val, line in (
        (
            photographs, here / "only" / "class0",
            "data.val: these images have no classes; in a folder, each class has its own folder; "
            "of torchvision's sets, choose a split with labels",
        ),
        (
            here / "only", photographs,
            "data.train: all 4 labelled images are of one class; a figure needs two",
        ),
        (
            photographs, here / "others",
            "data.val: its 1 classes are not the 2 of data.train: only in data.train class1, "
            "class2, only in data.val class9",
        ),
    ):  # fmt: skip
        paths = [f"data.train.path={train}", f"data.val.path={val}"]
        assert_refused(["config=benchmark/knn/folder", weights, *paths], line)


def test_a_set_of_torchvision_without_splits_is_held_out_from(pretrained, tmp_path):
    rng = np.random.default_rng(0)
    for number in range(20):
        folder = tmp_path / "data/downloads/eurosat/2750" / f"land{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
            folder / f"{number}.jpg"
        )
    results = evaluate(
        pretrained, "config=benchmark/knn/folder", "data=eurosat", "baselines=false", *CROP,
    )  # fmt: skip
    assert (results.details["train_images"], results.details["test_images"]) == (16, 4)


def test_an_evaluation_leaves_the_run_that_it_evaluates_alone(pretrained):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in pretrained.rglob("*") if path.is_file()}

    before = contents()
    evaluate(pretrained, *KNN, "baselines=false")
    assert contents() == before
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        evaluate(pretrained, *KNN, f"output_dir={pretrained}")
    assert contents() == before
