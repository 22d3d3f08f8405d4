"""The look at a folder: what it finds in odd ones, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from image_files import png16, tiff
from PIL import Image

from ssl_platform.errors import ConfigError
from ssl_platform.start.facts import Machine
from ssl_platform.start.limits import expectations, refuse
from ssl_platform.start.scan import scan

MACHINE = Machine("cpu", "CPU", cores=2, memory=2**34, device_memory=2**34)


def noise(seed: int, *shape: int, top: int = 256) -> np.ndarray:
    kind = np.uint8 if top == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, top, shape).astype(kind)


def folder(path: Path, number: int, *, classes: int = 0, shape: tuple = (24, 30, 3)) -> Path:
    for index in range(number):
        file = path / (f"class{index % classes}" if classes else "") / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(index, *shape)).save(file)
    return path


def test_sizes_classes_and_copies_are_found(tmp_path):
    images = folder(tmp_path / "images", 9, classes=2)
    (images / "class0" / "again.png").write_bytes((images / "class1" / "1.png").read_bytes())
    (images / "class0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    facts = scan(str(images))
    assert (facts.number, facts.class_sizes, facts.is_labelled) == (11, (7, 4), True)
    assert (facts.side, facts.channels, facts.is_grey) == (24, 3, False)
    assert (facts.copies, facts.different, facts.compared) == (1, 10, 11)
    assert {Path(name).name for name in facts.first_copy} == {"again.png", "1.png"}
    assert len(facts.unreadable) == 1 and "broken.png" in facts.unreadable[0]


def test_images_of_the_same_size_in_bytes_are_no_copies(tmp_path):
    for index in range(3):
        Image.fromarray(noise(index, 20, 20, 3)).save(tmp_path / f"{index}.bmp")
    assert scan(str(tmp_path)).copies == 0


def test_grey_pictures_in_colour_files_are_grey(tmp_path):
    for index in range(4):
        grey = np.repeat(noise(index, 40, 40, 1), 3, axis=2)
        Image.fromarray(grey).save(tmp_path / f"{index}.jpg", quality=80)
    facts = scan(str(tmp_path))
    assert (facts.is_grey, facts.channels, facts.num_classes) == (True, 1, 0)


def test_values_of_16_bits_are_named(tmp_path):
    for index in range(4):
        values = noise(index, 20, 24, top=4096)
        (tmp_path / f"{index}.png").write_bytes(png16(values))
    facts = scan(str(tmp_path))
    assert (facts.stored, facts.channels) == (("uint16",), 1)


def test_bands_of_tiffs_are_all_kept(tmp_path):
    for index in range(4):
        values = noise(index, 20, 24, 6, top=4096)
        (tmp_path / f"{index}.tif").write_bytes(tiff(values, tags={338: (0, 0, 0, 0, 0)}))
    assert scan(str(tmp_path)).channels == 6


def test_a_list_is_read_too(tmp_path):
    folder(tmp_path / "images", 4)
    lines = [f"images/{index}.png,{'ab'[index % 2]}\n" for index in range(4)]
    (tmp_path / "list.csv").write_text("path,label\n" + "".join(lines))
    facts = scan(str(tmp_path / "list.csv"))
    assert (facts.is_list, facts.number, facts.class_sizes) == (True, 4, (2, 2))


@pytest.mark.parametrize("kind", ["none", "empty", "splits", "broken"])
def test_a_folder_that_cannot_be_used_is_one_line(kind, tmp_path):
    images = tmp_path / "images"
    if kind != "none":
        images.mkdir()
    if kind == "splits":
        folder(images / "train", 4, classes=2)
        folder(images / "val", 4, classes=2)
    if kind == "broken":
        (images / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    with pytest.raises(ConfigError) as error:
        scan(str(images))
    (line,) = error.value.problems
    assert str(images) in line
    if kind == "splits":
        assert f"type start {images / 'train'} 'data.val=" in line


def test_what_nothing_can_be_learned_from_is_refused(tmp_path):
    few = scan(str(folder(tmp_path / "few", 6)))
    same = folder(tmp_path / "same", 1)
    for index in range(1, 40):
        (same / f"{index}.png").write_bytes((same / "0.png").read_bytes())
    flat = tmp_path / "flat"
    flat.mkdir()
    for index in range(40):
        Image.new("RGB", (24, 24), (index, 0, 0)).save(flat / f"{index}.png")
    enough = scan(str(folder(tmp_path / "enough", 40, classes=1)))
    small = Machine("cpu", "CPU", cores=2, memory=2**30, device_memory=2**30)
    cases = [
        (few, MACHINE, "6 images: too few"),
        (scan(str(same)), MACHINE, "40 images, 1 without copies"),
        (scan(str(flat)), MACHINE, "of one colour"),
        (enough, small, "1.0 GiB of memory"),
    ]
    for facts, machine, told in cases:
        with pytest.raises(ConfigError, match=told):
            refuse(facts, machine)
    refuse(enough, MACHINE)
    said = "\n".join(expectations(enough))
    assert "40 images are few" in said and "one class folder" in said
