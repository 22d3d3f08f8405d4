"""Files with any number of channels, and what becomes of those that have another."""

import io
from pathlib import Path

import numpy as np
import pytest
from image_files import (
    CMYK,
    GREY,
    HEIGHT,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    PIXELS,
    RGB,
    WIDTH,
    encoded,
    png16,
    tiff,
)
from PIL import Image

from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.decoding.bands import to_grey
from ssl_platform.data.decoding.decode import decode, read_file
from ssl_platform.data.decoding.pixels import AUTO, Notes, PixelOptions
from ssl_platform.data.look import describe, found_normalize, found_range, look
from ssl_platform.data.sets.fashion_mnist import FashionMNIST
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.list_file import ListFile
from ssl_platform.data.sets.shapes import Shapes

RNG = np.random.default_rng(0)
WHITE = 65535


def bands(channels: int, kind: str = "u1", top: int = 256) -> np.ndarray:
    return RNG.integers(0, top, (HEIGHT, WIDTH, channels)).astype(kind)


def npy(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def kept(data: bytes, channels: int, **options) -> np.ndarray:
    pixels = decode(data, PixelOptions(channels=channels, **options))
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]
    return pixels


@pytest.mark.parametrize("photometric", [MIN_IS_BLACK, RGB])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("channels", [2, 4, 5, 10, 13])
def test_all_bands_of_a_tiff_are_kept(channels, planar, photometric):
    values = bands(channels)
    if photometric == RGB and channels < 4:
        return
    extra = {338: (0,) * (channels - 3)} if photometric == RGB else {}
    for order in "<>":
        for stored in (values, values.astype("u2") * 257):
            data = tiff(stored, photometric, planar=planar, order=order, tags=extra)
            assert (kept(data, channels) == values).all()


def test_bands_of_a_tiff_in_whose_pages_they_lie_or_whose_white_is_0():
    values = bands(5, "u2", WHITE)
    pages = io.BytesIO()
    first, *others = [Image.fromarray(values[..., band]) for band in range(5)]
    first.save(pages, "TIFF", save_all=True, append_images=others)
    assert (kept(pages.getvalue(), 5) == values >> 8).all()
    assert (kept(tiff(255 - values.astype("u1"), MIN_IS_WHITE), 5) == values.astype("u1")).all()
    with pytest.raises(
        ValueError, match=r"^1 channel where data\.channels=4; set data\.channels=1,"
    ):
        kept(pages.getvalue(), 4)


@pytest.mark.parametrize("kind", ["u2", "i2", "f4"])
def test_a_range_is_for_all_channels_or_for_each(kind):
    values = bands(5, kind, 1000)
    data, low = tiff(values, MIN_IS_BLACK), np.arange(5) * 50
    common = np.rint((values.astype(float) * (255 / 999)).clip(0, 255))
    assert np.abs(kept(data, 5, range=[0, 999]) - common).max() <= 1
    own = np.rint(((values.astype(float) - low) * (255 / (900 - low))).clip(0, 255))
    assert np.abs(kept(data, 5, range=[[n, 900] for n in low.tolist()]) - own).max() <= 1
    if kind != "u2":
        with pytest.raises(ValueError, match=r"set data\.range=\[low,high\] or data\.range=auto$"):
            kept(data, 5)
    assert np.ptp(kept(data, 5, range=AUTO)) == 255


def test_each_of_three_channels_may_have_its_own_range_also_of_grey():
    values, ranges = bands(3, "u2", 1000), [[0, 500], [0, 1000], [100, 900]]
    one = kept(tiff(values), 3, range=ranges)
    for channel, ends in enumerate(ranges):
        assert (one[..., channel] == kept(tiff(values), 3, range=ends)[..., channel]).all()
        grey = kept(tiff(values[..., 0]), 3, range=ranges)[..., channel]
        assert (grey == kept(tiff(values[..., 0]), 3, range=ends)[..., channel]).all()


@pytest.mark.parametrize("wrong", [[[0, 1]] * 4, [[1, 0]] * 5, [[0, 1, 2]] * 5, [0, 1, 2, 3, 4]])
def test_a_range_that_cannot_be_says_what_can(wrong):
    with pytest.raises(ValueError, match="or such a pair for each of the 5 channels, or auto"):
        PixelOptions(channels=5, range=wrong)


LA, RGBA = bands(2), bands(4)
KEPT = {
    "PNG, grey and alpha": (encoded(Image.fromarray(LA, "LA"), "PNG"), LA),
    "PNG, colours and alpha": (encoded(RGBA, "PNG"), RGBA),
    "WebP, colours and alpha": (encoded(RGBA, "WEBP", lossless=True, exact=True), RGBA),
    "PNG of 16 bits, grey and alpha": (png16(LA.astype("u2") * 257), LA),
    "PNG of 16 bits, colours and alpha": (png16(RGBA.astype("u2") * 257), RGBA),
    "TIFF, colours and alpha": (tiff(RGBA, RGB, tags={338: 1}), RGBA),
    "TIFF, CMYK": (tiff(RGBA, CMYK), RGBA),
    "npy": (npy(LA), LA),
    "npy of 16 bits, in the order of Fortran": (
        npy(np.asfortranarray(RGBA.astype("u2") * 257)),
        RGBA,
    ),
    "npy of 16 bits, big-endian": (npy(RGBA.astype(">u2") * 257), RGBA),
}


@pytest.mark.filterwarnings("ignore:'mode' parameter")
@pytest.mark.parametrize("value_range", [None, [0, WHITE]])
@pytest.mark.parametrize("kind", KEPT)
def test_transparency_is_a_band_like_others_where_bands_are_kept(kind, value_range):
    data, values = KEPT[kind]
    assert (kept(data, values.shape[2], range=value_range) == values).all()


GREY_FILES = {
    "PNG": encoded(GREY, "PNG"),
    "JPEG": encoded(GREY, "JPEG"),
    "PNG of 16 bits": png16(GREY.astype("u2") * 257),
    "TIFF of 16 bits": tiff(GREY.astype("u2") * 257),
    "TIFF, white is 0": tiff(WHITE - GREY.astype("u2") * 257, MIN_IS_WHITE),
    "npy": npy(GREY),
    "npy with its channel": npy(GREY[..., None]),
    "GIF": encoded(GREY, "GIF"),
}


@pytest.mark.parametrize("kind", GREY_FILES)
def test_grey_stays_grey(kind):
    pixels = kept(GREY_FILES[kind], 1)
    assert pixels.shape == (HEIGHT, WIDTH, 1)
    assert (pixels == decode(GREY_FILES[kind])[..., :1]).all()
    assert np.abs(pixels[..., 0].astype(int) - GREY).max() <= 4 * (kind == "JPEG")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF of 16 bits", "npy", "transparent"])
def test_colours_become_grey_by_their_luma(kind):
    alpha = np.full_like(GREY, 255)
    alpha[:4] = 0
    data = {
        "JPEG": encoded(PIXELS, "JPEG", quality=95, subsampling=0),
        "TIFF of 16 bits": tiff(PIXELS.astype("u2") * 257),
        "npy": npy(PIXELS),
        "transparent": encoded(np.dstack([PIXELS, alpha]), "PNG"),
    }.get(kind, encoded(PIXELS, "PNG"))
    luma = np.asarray(Image.fromarray(decode(data)).convert("L"))
    assert np.abs(kept(data, 1)[..., 0].astype(int) - luma).max() <= 1


def test_the_grey_of_a_turned_photograph_is_turned():
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(GREY, "JPEG", exif=exif)
    assert kept(data, 1).shape == (WIDTH, HEIGHT, 1)
    assert (kept(data, 1) == decode(data)[..., :1]).all()


REFUSED = {
    "a JPEG for five": (
        encoded(PIXELS, "JPEG"),
        5,
        "3 channels where data.channels=5; set data.ch",
    ),
    "grey for five": (
        encoded(GREY, "PNG"),
        5,
        "1 channel where data.channels=5; set data.channels=1",
    ),
    "alpha for five": (encoded(RGBA, "PNG"), 5, "4 channels where data.channels=5; set"),
    "four bands for five": (tiff(RGBA, MIN_IS_BLACK), 5, "4 channels where data.channels=5; set"),
    "five bands for colours": (
        tiff(bands(5), MIN_IS_BLACK),
        3,
        "a TIFF of 5 bands of 8-bit unsigned",
    ),
    "five bands for grey": (tiff(bands(5, "u2"), MIN_IS_BLACK), 1, "a TIFF of 5 bands of 16-bit"),
    "an array for colours": (
        npy(bands(5)),
        3,
        "5 channels where data.channels=3; set data.channels=5",
    ),
    "an array in planes": (
        npy(bands(5).transpose(2, 0, 1)),
        5,
        f"an array (5, {HEIGHT}, {WIDTH}), where (H, W, channels) is wanted: save it as array.tra",
    ),
    "an array of a movie": (
        npy(np.zeros((2, 3, 4, 5), "u1")),
        5,
        "an array (2, 3, 4, 5) of uint8: an",
    ),
    "an array of complex": (
        npy(np.zeros((4, 5), "c8")),
        1,
        "an array (4, 5) of complex64: an image",
    ),
    "half an array": (npy(bands(5))[:-7], 5, "a damaged .npy file, or one of no plain numbers"),
    "objects": (npy(np.array([["a", None]], object)), 5, "a damaged .npy file, or one of no plain"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_of_other_channels_says_how_many_it_has_and_what_to_type(kind, tmp_path):
    data, channels, reason = REFUSED[kind]
    path = tmp_path / "a.tif"
    path.write_bytes(data)
    with pytest.raises(Exception) as caught:
        read_file(str(path).encode(), PixelOptions(channels=channels))
    name, said = caught.value.args
    assert name == str(path) and said.startswith(reason) and "\n" not in said
    if kind == "five bands for colours":
        assert said.endswith("or keep all by data.channels=5")


def folder(path: Path, files: dict[str, bytes], **options) -> ImageFolder:
    for name, data in files.items():
        (path / name).write_bytes(data)
    dataset = ImageFolder(path=str(path))
    dataset.pixels = PixelOptions(**options)
    return dataset


def test_the_look_says_how_many_channels_and_finds_a_range_for_each(tmp_path):
    scale = np.array([100, 200, 400, 800, 1600])
    values = [(RNG.random((40, 40, 5)) * scale).astype("u2") for _ in range(4)]
    files = {f"{n}.tif": tiff(v, MIN_IS_BLACK, planar=n % 2 == 0) for n, v in enumerate(values)}
    dataset = folder(tmp_path, files, channels=5, range=AUTO)
    found = found_range(look(dataset, 0))
    assert found is not None and np.abs(np.array(found)[:, 1] / scale - 1).max() < 0.03
    dataset.pixels = PixelOptions(channels=5, range=found)
    first, second = describe("data.train", dataset, look(dataset, 0), crop_sizes=[32])
    assert first == "data.train: 4 images, 5 channels each"
    assert "4 of uint16 values, 0 to 1599, of which data.range=[[0," in second
    normalize = found_normalize(dataset, 0)
    exact = np.stack([dataset.read(n) for n in range(4)]).reshape(-1, 5) / 255
    assert np.allclose(normalize.mean, exact.mean(0), atol=1e-4)
    assert np.allclose(normalize.std, exact.std(0), atol=1e-4)


def test_a_channel_of_one_value_has_no_normalisation(tmp_path):
    values = bands(5)
    values[..., 3] = 7
    dataset = folder(tmp_path, {"a.tif": tiff(values, MIN_IS_BLACK)}, channels=5)
    with pytest.raises(ValueError, match=r"^normalize=auto: channel 3, counted from 0, has nearly"):
        found_normalize(dataset, 0)


def test_a_list_may_name_arrays(tmp_path):
    values = bands(5)
    np.save(tmp_path / "a.npy", values)
    (tmp_path / "list.csv").write_text("path,label\na.npy,cat\n")
    dataset = ListFile(path=str(tmp_path / "list.csv"), root=None, allow_outside=False)
    dataset.pixels = PixelOptions(channels=5)
    assert dataset.channels == 5 and (dataset.read(0) == values).all()


def test_sets_that_make_their_images_make_grey_ones_too():
    shapes = Shapes(num_samples=4, size=16, seed=0)
    coloured = shapes.read(0)
    assert shapes.channels == 3
    shapes.pixels = PixelOptions(channels=1)
    assert shapes.channels == 1 and (shapes.read(0) == to_grey(coloured)).all()
    assert FashionMNIST.channels is not Shapes.channels


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
def test_centre_crops_scale_each_channel_by_itself(channels):
    image, crop = bands(channels), CenterCrop(resize=16, size=14)
    (made,) = crop(image, np.random.default_rng(0))
    for channel in range(channels):
        three = np.repeat(image[..., channel : channel + 1], 3, axis=2)
        (alone,) = crop(three, np.random.default_rng(0))
        assert (made[..., channel] == alone[..., 0]).all()


def test_what_is_noted_of_bands():
    notes = Notes(thorough=True)
    decode(tiff(bands(5, "u2", 900), MIN_IS_BLACK), PixelOptions(channels=5), notes)
    assert (notes.stored, notes.full, notes.has_more_frames) == ("uint16", WHITE, False)
    assert notes.sample is not None and notes.sample.shape == (HEIGHT * WIDTH, 5)
