from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.subset import NamedSubset, StratifiedSubset

COUNTS = {"n01": 40, "n02": 3, "n03": 20}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for number, (name, count) in enumerate(COUNTS.items()):
        (root / name).mkdir()
        for image in range(count):
            pixels = np.full((2, 2, 3), 50 * number + image, np.uint8)
            Image.fromarray(pixels).save(root / name / f"{name}_{image}.png")
    return root


def names(dataset) -> list[str]:
    return [Path(dataset.describe(index)).name for index in range(len(dataset))]


def test_every_class_has_its_part_and_its_label(folder):
    subset = StratifiedSubset(ImageFolder(path=str(folder)), fraction=0.1, seed=0)
    assert np.bincount(subset.labels).tolist() == [4, 1, 2]
    for index, name in enumerate(names(subset)):
        assert list(COUNTS).index(name.partition("_")[0]) == subset.labels[index]
        assert subset.read(index).max() == 50 * subset.labels[index] + int(name[4:-4])


def test_the_draw_is_the_seeds(folder):
    def draw(seed: int) -> list[str]:
        return names(StratifiedSubset(ImageFolder(path=str(folder)), fraction=0.3, seed=seed))

    assert draw(0) == draw(0)
    assert draw(0) != draw(1)
    everything = StratifiedSubset(ImageFolder(path=str(folder)), fraction=1.0, seed=0)
    assert names(everything) == names(ImageFolder(path=str(folder)))


def test_another_draw_has_another_fingerprint(folder):
    whole = ImageFolder(path=str(folder))
    prints = {StratifiedSubset(whole, fraction=0.3, seed=s).fingerprint() for s in (0, 0, 1)}
    assert len(prints) == 2


def test_a_list_names_its_images_and_labels_count_all_classes(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("n03_7.png\nn01_2.png\nn03_0.png\n")
    subset = NamedSubset(path=str(folder), list_file=str(listed))
    assert names(subset) == ["n01_2.png", "n03_0.png", "n03_7.png"]
    assert subset.labels.tolist() == [0, 2, 2]


def test_mistakes(folder, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("n01_2.png\nn01_99.png\n")
    with pytest.raises(ValueError) as caught:
        NamedSubset(path=str(folder), list_file=str(listed))
    assert str(caught.value) == (
        f"list_file={listed}: 1 of 2 images are not in {folder}, e.g. {folder}/n01/n01_99.png"
    )
    listed.write_text("\n")
    with pytest.raises(ValueError, match=r"^list_file=.*: lists no image$"):
        NamedSubset(path=str(folder), list_file=str(listed))
    with pytest.raises(ValueError, match=r"^train_fraction=0: above 0, up to 1"):
        StratifiedSubset(ImageFolder(path=str(folder)), fraction=0, seed=0)
    with pytest.raises(ValueError, match="but the training images have no labels"):
        StratifiedSubset(ImageFolder(path=str(folder / "n02")), fraction=0.5, seed=0)
