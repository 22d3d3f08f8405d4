"""Every file that folders of images hold, through the index, the loader and a training."""

import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encoded
from loaders import OPTIONS, on_folder
from PIL import Image
from tiny_runs import losses, train

from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import SequentialSampler
from ssl_platform.data.sets.image_folder import ImageFolder


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def flipped_size(data: bytes, size: int) -> bytes:
    """A PNG whose header promises ``size`` x ``size`` pixels."""
    return data[:16] + 2 * size.to_bytes(4, "big") + data[24:]


def exif_rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), "JPEG", exif=exif)


JPEG, PNG = encoded(picture(), "JPEG"), encoded(picture(), "PNG")
READABLE = {
    b"cmyk.jpg": encoded(picture("CMYK"), "JPEG"),
    b"16bit.png": encoded(Image.fromarray(np.full((30, 40), 40_000, np.uint16)), "PNG"),
    b"alpha.png": encoded(picture("RGBA"), "PNG"),
    b"palette.png": encoded(picture("P"), "PNG", transparency=bytes(range(256))),
    b"animated.gif": encoded(picture(), "GIF", save_all=True, append_images=[picture("L")]),
    b"rotated.jpg": exif_rotated(),
    b"1x1.png": encoded(picture(size=(1, 1)), "PNG"),
    b"1x900.png": encoded(picture(size=(1, 900)), "PNG"),
    b"png called.jpg": PNG,
    b"new\nline.jpg": JPEG,
    b"\xff\xfe no utf-8.jpg": JPEG,
    b"quote' \" ;$(x).jpg": JPEG,
}
BAD = {
    b"truncated.jpg": JPEG[: len(JPEG) // 2],
    b"truncated.png": PNG[: len(PNG) // 2],
    b"zero bytes.jpg": b"",
    b"zeros.jpg": bytes(1000),
    b"text.jpg": b"<html>404 not found</html>",
    b"bomb.png": flipped_size(PNG, 30_000),
}


def write(folder: Path, name: bytes, data: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with open(os.path.join(os.fsencode(folder), name), "wb") as file:
        file.write(data)


def load(dataset: ImageFolder) -> Loader:
    return Loader(
        dataset,
        CenterCrop(resize=16, size=16),
        SequentialSampler(range(len(dataset)), 0, 1),
        replace(OPTIONS, seed=0, max_bad_fraction=0.5),
        torch.device("cpu"),
    )


def positions(data: Loader) -> list[int]:
    return torch.cat([batch.index for batch in data]).tolist()


@pytest.mark.parametrize("name", READABLE)
def test_unusual_images_are_read(tmp_path, name):
    write(tmp_path, name, READABLE[name])
    data = load(ImageFolder(path=str(tmp_path)))
    assert (positions(data), data.unreadable) == ([0], [])


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_counted_and_replaced(tmp_path, name, caplog):
    write(tmp_path, b"a.jpg", JPEG)
    write(tmp_path, b"zz.jpg", JPEG)
    write(tmp_path, name, BAD[name])
    data = load(ImageFolder(path=str(tmp_path)))
    with caplog.at_level(logging.ERROR):
        first, replaced, last = positions(data)
        assert positions(data) == [first, replaced, last]
    assert (first, last) == (0, 2) and replaced != 1
    assert data.unreadable == [1]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith(f"unreadable image {tmp_path}/{name.decode()}: ")


def test_damaged_jpegs_are_refused_or_used_and_either_way_counted_and_named(tmp_path, caplog):
    for name in (b"a.jpg", b"c.jpg"):
        write(tmp_path, name, JPEG)
    half = (JPEG.index(b"\xff\xda") + len(JPEG)) // 2
    write(tmp_path, b"b.jpg", JPEG[:half] + b"\xff\xd9")
    for corrupt, said, read in (
        ("refuse", "unreadable image {}: {}; data.corrupt=use takes it as it is", [0, 0, 2]),
        ("use", "damaged image {}: {} (no. 1 that is used all the same)", [0, 1, 2]),
    ):
        dataset = ImageFolder(path=str(tmp_path))
        dataset.pixels = PixelOptions(corrupt=corrupt)
        data = load(dataset)
        caplog.clear()
        assert positions(data) == positions(data) == read
        assert caplog.messages == [said.format(tmp_path / "b.jpg", "premature end of data segment")]


@pytest.mark.parametrize("what", ["file", "folder", "link", "loop", "pipe"])
def test_what_is_gone_when_it_is_read_is_replaced(tmp_path, what):
    for letter in b"abc":
        write(tmp_path / chr(letter), b"1.jpg", JPEG)
    dataset = ImageFolder(path=str(tmp_path))
    path = tmp_path / "b" / "1.jpg"
    shutil.rmtree(path.parent) if what == "folder" else path.unlink()
    if what in ("link", "loop"):
        path.symlink_to(path if what == "loop" else tmp_path / "nowhere")
    elif what == "pipe":
        os.mkfifo(path)
    data = load(dataset)
    first, replaced, last = positions(data)
    assert (first, last) == (0, 2) and replaced != 1
    assert data.unreadable == [1]


def test_a_training_goes_through_all_of_them_and_resumes(tmp_path, tiny):
    """One in four images is bad; those that take their place are the same after a resume."""
    photographs = tmp_path / "photographs"
    for name, data in (READABLE | BAD).items():
        write(photographs, name, data)
    for number in range(9):
        write(photographs, b"%d.jpg" % number, encoded(picture(), "JPEG"))
    (photographs / "dangling.jpg").symlink_to(tmp_path / "nowhere")
    (photographs / "round").symlink_to(photographs)

    options = [
        *on_folder(tiny, photographs, batch_size=8),
        *("~hooks.knn", "data.max_bad_fraction=0.3", "heads.prototypes.num_prototypes=[8]"),
        *("num_epochs=2", "resume.allow_changes=[output_dir]"),
    ]
    train(options, tmp_path / "unbroken")
    unbroken = losses(tmp_path / "unbroken")
    assert len(unbroken) == 6
    shutil.copytree(tmp_path / "unbroken", tmp_path / "cut")
    shutil.rmtree(tmp_path / "cut" / "checkpoints" / "step_00000006")
    train(options, tmp_path / "cut")
    assert losses(tmp_path / "cut") == unbroken
