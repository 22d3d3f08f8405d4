"""The look at some images before a run: what it says, and the range that it finds."""

from pathlib import Path

import numpy as np
import pytest
from image_files import tiff
from PIL import Image

from ssl_platform.data import look as looking
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.data.look import describe, found_range, look
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.shapes import Shapes


def noise(seed: int, *, top: int = 256, shape: tuple[int, ...] = (40, 50, 3)) -> np.ndarray:
    kind = np.uint8 if top == 256 else np.uint16
    return np.random.default_rng(seed).integers(0, top, shape).astype(kind)


def folder(
    path: Path, files: dict[str, bytes | np.ndarray | Image.Image], **options
) -> ImageFolder:
    for name, content in files.items():
        file = path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            image = content if isinstance(content, Image.Image) else Image.fromarray(content)
            image.save(file)
    dataset = ImageFolder(path=str(path / "images"))
    dataset.pixels = PixelOptions(**options)
    return dataset


def said(dataset: ImageDataset, crop_size: int = 32) -> list[str]:
    return describe("data.train", dataset, look(dataset, 0), crop_sizes=[16, crop_size])


def test_ordinary_images_are_one_line(tmp_path):
    dataset = folder(tmp_path, {f"{c}/{n}.png": noise(n) for c in "ab" for n in range(3)})
    assert said(dataset) == [f"data.train: {dataset.summary()}"]
    assert "6 images in 2 classes (a, b)" in dataset.summary()


def test_what_is_done_with_files_that_are_not_plain_is_one_line(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    files = {f"{n}.png": noise(n) for n in range(3)}
    files["page.tif"] = tiff(noise(4), pages=2)
    files["bands.tif"] = tiff(np.dstack([noise(5), noise(6)[..., 0]]), tags={338: 0})
    files["web.jpg"] = b"<html>"
    files["clear.png"] = Image.fromarray(np.dstack([noise(7), noise(8)[..., 0]]))
    dataset = folder(tmp_path, files)
    Image.fromarray(noise(9)).save(tmp_path / "images" / "turned.jpg", exif=exif)
    dataset = folder(tmp_path, {})
    about = (
        f"  of 8 images tried: 1 unreadable, first {tmp_path}/images/web.jpg: a web page, not an "
        "image: fetch it again; 1 turned as EXIF says; 1 transparent, over data.background=white; "
        "1 with further pages or frames, of which the first is taken; 1 with bands beside red, "
        "green and blue, which are left out"
    )
    assert said(dataset)[1:] == [about]
    dataset.pixels = PixelOptions(orientation="ignore", background=None)
    assert "not turned as EXIF says (data.orientation=ignore)" in said(dataset)[1]
    assert "without its transparency (data.background=null)" in said(dataset)[1]


@pytest.mark.parametrize(
    ("top", "proposed"), [(256, 255), (1024, 1023), (4096, 4095), (16384, 16383)]
)
def test_fewer_bits_in_16_bit_files_are_told_with_the_range_to_set(tmp_path, top, proposed):
    deep = {f"{n}.tif": tiff(noise(n, top=top, shape=(40, 50)).astype(np.uint16)) for n in range(9)}
    dataset = folder(tmp_path, deep)
    values = np.concatenate([noise(n, top=top, shape=(40, 50)).ravel() for n in range(9)])
    assert said(dataset)[2] == (
        f"warning: data.train: the images tried use {values.min()}..{values.max()} of 65535, and "
        f"are dark: set data.range=[0,{proposed}], or data.range=auto"
    )
    dataset.pixels = PixelOptions(range=[0, proposed])
    assert not any("warning" in line for line in said(dataset))
    assert f"9 of uint16 values, {values.min()} to {values.max()}, of which" in said(dataset)[1]
    dataset.pixels = PixelOptions(range=[0, proposed / 2])
    (warning,) = said(dataset)[2:]
    assert "50% of the values" in warning and "become black or white" in warning


def test_full_16_bits_are_no_reason_to_warn(tmp_path):
    dataset = folder(tmp_path, {"a.tif": tiff(noise(0, top=65536, shape=(40, 50)))})
    assert [line for line in said(dataset) if "warning" in line] == []


def test_images_of_one_colour_of_a_hundredth_of_the_range_and_small_ones_are_warned_of(tmp_path):
    files = {f"{n}.png": noise(n) for n in range(4)}
    files["flat.png"] = np.full((40, 50, 3), (9, 8, 7), np.uint8)
    files["faint.png"] = 100 + noise(0) // 100
    files["small.png"] = noise(0, shape=(20, 60, 3))
    dataset = folder(tmp_path, files)
    where = tmp_path / "images"
    assert said(dataset)[1:] == [
        f"warning: data.train: 1 of the 7 images tried are of one colour, first {where}/flat.png",
        "warning: data.train: 1 of the 7 images tried use a hundredth of the range of values or "
        f"less, first {where}/faint.png",
    ]
    assert any("7 of the 7 images tried are smaller than" in line for line in said(dataset, 64))
    assert any(line.endswith(" x 40)") for line in said(dataset, 41))


def test_a_sample_is_the_same_for_a_seed_and_bounded(tmp_path, monkeypatch):
    dataset = folder(tmp_path, {f"{n:03}.png": noise(n, shape=(4, 4, 3)) for n in range(90)})
    assert look(dataset, 1).number == looking.NUM_LOOKED_AT == 64
    names = [seen.name for seen in look(dataset, 1).seen]
    assert names == [seen.name for seen in look(dataset, 1).seen]
    assert names != [seen.name for seen in look(dataset, 2).seen]
    assert looking.NUM_LOOKED_AT * 12_000_000 <= looking.MAX_PIXELS  # those of a telephone
    monkeypatch.setattr(looking, "MAX_PIXELS", 100)
    assert look(dataset, 1).number == 7


def test_images_that_are_made_are_not_looked_at():
    dataset = Shapes(num_samples=100, size=32, seed=0)
    assert look(dataset, 0).number == 0
    assert said(dataset) == [f"data.train: {dataset.summary()}"]


def test_auto_is_percentiles_of_the_stored_values(tmp_path):
    values = {n: noise(n, top=4096, shape=(100, 100)) for n in range(5)}
    values[0][:2, :2] = 65535  # a few hot pixels
    dataset = folder(tmp_path, {f"{n}.tif": tiff(v) for n, v in values.items()}, range="auto")
    low, high = found_range(look(dataset, 0)) or (0, 0)
    exact = np.percentile(np.concatenate([v.ravel() for v in values.values()]), (0.1, 99.9))
    assert [low, high] == [np.floor(exact[0]), np.ceil(exact[1])]


def test_auto_of_floats_leaves_out_what_is_no_number(tmp_path):
    values = np.random.default_rng(0).normal(size=(100, 100)).astype(np.float32)
    values[:50, :50] = np.nan
    dataset = folder(tmp_path, {"a.tif": tiff(values)}, range="auto")
    low, high = found_range(look(dataset, 0)) or (0, 0)
    assert [low, high] == pytest.approx(np.nanpercentile(values, (0.1, 99.9)), rel=1e-5)


def test_auto_says_when_there_is_no_one_range(tmp_path):
    mixed = {"a.tif": tiff(noise(0, top=4096)), "b.tif": tiff(np.ones((9, 9), np.float32))}
    with pytest.raises(ValueError, match=r"^range=auto: .* float32 and uint16 values"):
        found_range(look(folder(tmp_path / "mixed", mixed, range="auto"), 0))
    flat = {"a.tif": tiff(np.full((9, 9), 7, np.uint16))}
    with pytest.raises(ValueError, match=r"^range=auto: nearly all values .* are 7;"):
        found_range(look(folder(tmp_path / "flat", flat, range="auto"), 0))
    assert found_range(look(folder(tmp_path / "8", {"a.png": noise(0)}, range="auto"), 0)) is None
