"""Every kind of file that turns up in a folder of images."""

import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
from image_files import encoded
from PIL import Image

from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.decoding.decode import decode, printable, read_file
from ssl_platform.data.decoding.pixels import PixelOptions


@pytest.fixture
def image() -> Image.Image:
    ramp = np.linspace(0, 255, 40 * 30).reshape(30, 40)
    return Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1).astype(np.uint8))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF"])
def test_lossless_formats_come_back_unchanged(image, kind):
    assert np.array_equal(decode(encoded(image, kind)), np.asarray(image))


def test_jpeg_is_pillow_s_pixel_for_pixel(image):
    data = encoded(image, "JPEG", quality=80)
    assert np.array_equal(decode(data), np.asarray(Image.open(io.BytesIO(data))))


def test_cmyk_jpeg_is_converted(image):
    data = encoded(image.convert("CMYK"), "JPEG")
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.abs(decode(data).astype(int) - expected).max() <= 1


def test_palette_with_transparency_is_quiet(image):
    data = encoded(image.convert("P"), "PNG", transparency=bytes(range(256)))
    assert decode(data).shape == (30, 40, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_one_pixel(kind):
    assert decode(encoded(Image.new("RGB", (1, 1), (9, 9, 9)), kind)).shape == (1, 1, 3)


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty file"), (b"hello, I am no image", "text, not an image: fetch it again")],
)
def test_what_is_no_image_says_so(data, reason):
    with pytest.raises(ValueError, match=f"^{reason}$"):
        decode(data)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_truncated_files_are_refused(image, kind, part):
    data = encoded(image, kind)
    with pytest.raises(ValueError) as caught:
        decode(data[: int(len(data) * part)])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_header_that_promises_too_many_pixels_is_refused_undecoded(kind):
    """A bomb: few bytes, 150 MB of pixels."""
    bomb = encoded(Image.new("L", (7072, 7072)), kind)
    assert len(bomb) < 10**6
    tracemalloc.start()
    with pytest.raises(
        ValueError, match=r"7072 x 7072 pixels, more than data\.max_pixels=50000000"
    ):
        decode(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10**7


def test_an_animation_gives_its_first_frame(image):
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    pixels = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert (pixels == (254, 0, 0)).all() or (pixels == (255, 0, 0)).all()


def test_formats_that_nobody_asked_for_are_refused(image):
    with pytest.raises(ValueError, match=r"^a PCX image: convert it to PNG or JPEG$"):
        decode(encoded(image, "PCX"))


def test_a_pipe_or_a_device_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zeros.jpg").symlink_to("/dev/zero")
    (tmp_path / "long.jpg").write_bytes(bytes(11))
    for name, reason in (
        ("pipe", "not a file"),
        ("zeros", "not a file"),
        ("long", "11 bytes, more than data.max_bytes=10"),
    ):
        with pytest.raises(UnreadableImage) as caught:
            read_file(os.fsencode(tmp_path / f"{name}.jpg"), PixelOptions(max_bytes=10))
        assert caught.value.reason == reason


def test_a_missing_file_is_an_unreadable_image(tmp_path):
    path = os.fsencode(tmp_path / "gone.jpg")
    with pytest.raises(UnreadableImage) as caught:
        read_file(path)
    assert (caught.value.name, caught.value.reason) == (path.decode(), "No such file or directory")


def test_names_become_one_printable_line():
    assert printable(b"a b/\xff\n\xc3\xa9.jpg") == "a b/\\xff\\né.jpg"


def test_what_pillow_says_of_damaged_tags_is_not_shown_for_it_names_no_file(image, recwarn, caplog):
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03\0\0\xff\xff\0\x06\0\0\x01"
    assert decode(encoded(image, "JPEG", exif=exif)).shape == (30, 40, 3)
    data = encoded(image.convert("YCbCr"), "TIFF")
    samples = struct.pack("<HHI", 277, 3, 1)
    at = data.index(samples)
    with pytest.raises(ValueError):
        decode(data[: at + 8] + struct.pack("<H", 2048) + data[at + 10 :])
    assert (list(recwarn), caplog.messages) == ([], [])
