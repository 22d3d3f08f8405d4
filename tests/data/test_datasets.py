"""Generated and downloaded sets."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from ssl_platform.data.sets import fashion_mnist
from ssl_platform.data.sets.fashion_mnist import Canvas, FashionMNIST
from ssl_platform.data.sets.shapes import BLOCK, Shapes
from ssl_platform.data.sets.torchvision_dataset import TorchvisionDataset
from ssl_platform.registry import DATASETS, load_components

NUM_TEST_IMAGES = 20


def test_shapes_are_balanced_and_follow_seed_and_index():
    few, many = (Shapes(num_samples=n, size=16, seed=0) for n in (30, BLOCK + 30))
    other = Shapes(num_samples=30, size=16, seed=1)
    assert np.bincount(few.labels).tolist() == [3] * 10
    for index in range(30):
        assert few.read(index).shape == (16, 16, 3)
        assert np.array_equal(few.read(index), many.read(index))
        assert not np.array_equal(few.read(index), other.read(index))
    assert not np.array_equal(many.read(0), many.read(BLOCK))
    whole = Shapes(num_samples=BLOCK + 30, size=16, seed=0)
    whole.prepare()
    assert np.array_equal(many.read(BLOCK), whole.read(BLOCK))  # rendered alone, and with others
    assert many.describe(12) == "Shapes[12]"
    many.probe()


def test_shapes_of_one_class_look_alike_when_laid_over_each_other():
    shapes = Shapes(num_samples=2000, size=16, seed=0)
    images = np.stack([shapes.read(i) for i in range(2000)]).astype(float).mean(-1)
    ring, disc = (images[shapes.labels == label].mean(0) for label in (5, 0))
    assert disc[8, 8] > ring[8, 8] + 30  # a ring has a hole


def test_options_out_of_range_are_named():
    load_components()
    with pytest.raises(ValueError) as caught:
        DATASETS.build({"name": "Shapes", "num_samples": 0, "size": 4, "seed": 0})
    assert str(caught.value) == ("num_samples=0: at least 1\nsize=4: at least 8")
    canvas = {"size": 0, "scale": [0.9, 0.5], "noise": 0.1, "seed": 0}
    options = {"path": None, "split": "test", "num_samples": None, "download": False}
    with pytest.raises(ValueError) as caught:
        DATASETS.build({"name": "FashionMNIST", "canvas": canvas, **options})
    assert str(caught.value) == (
        "canvas.size=0: at least 1\ncanvas.scale=[0.9, 0.5]: must be two rising numbers in [0, 1]"
    )


@pytest.fixture
def idx_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as Debian lays them out, in a working directory where there are no others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "usr")
    images = np.random.default_rng(0).integers(0, 256, (NUM_TEST_IMAGES, 28, 28), np.uint8)
    labels = np.arange(NUM_TEST_IMAGES, dtype=np.uint8) % 10
    folder = tmp_path / "files"
    folder.mkdir()
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
        (folder / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(header + array.tobytes()))
    return folder


def fashion_mnist_of(folder: Path | None, **changes) -> FashionMNIST:
    options = {"split": "test", "num_samples": None, "canvas": None, "download": False}
    return FashionMNIST(path=folder and str(folder), **options | changes)


@pytest.mark.parametrize("place", ["files", "usr", "data/downloads/fashion-mnist"])
def test_fashion_mnist_is_found_in_each_place(idx_folder, place):
    target = idx_folder.parent / place
    target.parent.mkdir(parents=True, exist_ok=True)
    idx_folder.rename(target)
    dataset = fashion_mnist_of(target if place == "files" else None)
    assert dataset.labels.tolist() == [i % 10 for i in range(NUM_TEST_IMAGES)]
    expected = np.random.default_rng(0).integers(0, 256, (NUM_TEST_IMAGES, 28, 28), np.uint8)
    assert all(
        np.array_equal(dataset.read(i), np.repeat(expected[i][..., None], 3, -1))
        for i in range(NUM_TEST_IMAGES)
    )


def test_a_canvas_is_the_same_in_every_epoch(idx_folder):
    def dataset(seed: int) -> FashionMNIST:
        canvas = Canvas(size=40, scale=(0.5, 1.0), noise=0.1, seed=seed)
        return fashion_mnist_of(idx_folder, canvas=canvas)

    first, again, other = dataset(0), dataset(0), dataset(1)
    assert first.read(3).shape == (40, 40, 3)
    assert np.array_equal(first.read(3), first.read(3))
    assert np.array_equal(first.read(3), again.read(3))
    assert not np.array_equal(first.read(3), other.read(3))


def test_missing_and_damaged_fashion_mnist_files_are_named(idx_folder):
    with pytest.raises(ValueError, match=r"^path=null: no Fashion-MNIST files .* `make data`"):
        fashion_mnist_of(None)
    labels = idx_folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes()[:-9])
    with pytest.raises(ValueError, match=f"^path={labels}: damaged: "):
        fashion_mnist_of(idx_folder)


def test_the_first_images_of_a_set_can_stand_for_it(idx_folder):
    few, whole = fashion_mnist_of(idx_folder, num_samples=3), fashion_mnist_of(idx_folder)
    assert len(few) == 3 and few.labels.tolist() == whole.labels[:3].tolist()
    assert all((few.read(i) == whole.read(i)).all() for i in range(3))
    for wrong in (0, NUM_TEST_IMAGES + 1):
        with pytest.raises(ValueError, match=f"^num_samples={wrong}: from 1 to {NUM_TEST_IMAGES}"):
            fashion_mnist_of(idx_folder, num_samples=wrong)


@pytest.mark.parametrize(
    ("dataset", "split", "message"),
    [
        (
            "CIFAR",
            "train",
            "dataset=CIFAR: torchvision has no such set of labelled images, did you ",
        ),
        ("CIFAR10", "val", "split=val: CIFAR10 has the splits train and test"),
        ("EuroSAT", "train", "split=train: EuroSAT has no splits, set split: all"),
        ("STL10", "val", "split=val: Unknown value 'val' for argument split"),
        ("CIFAR10", "train", "path=nowhere: Dataset not found or corrupted"),
        ("STL10", "unlabeled", "path=nowhere: Dataset not found or corrupted"),
    ],
)
def test_torchvision_sets_that_are_not_there(tmp_path, monkeypatch, dataset, split, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError) as caught:
        TorchvisionDataset(dataset=dataset, path="nowhere", split=split, download=False)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_torchvision_set_reads_labels_and_images(idx_folder):
    raw = idx_folder.parent / "root" / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for file in list(idx_folder.iterdir()):
        for prefix in ("t10k", "train"):
            target = raw / file.name.replace("t10k", prefix).removesuffix(".gz")
            target.write_bytes(gzip.decompress(file.read_bytes()))
    theirs = TorchvisionDataset(
        dataset="FashionMNIST", path=str(raw.parent.parent), split="test", download=False
    )
    ours = fashion_mnist_of(raw.parent.parent)
    assert theirs.labels.tolist() == ours.labels.tolist()
    assert np.array_equal(theirs.read(5), ours.read(5))
    assert theirs.describe(5) == "FashionMNIST/test[5]"
