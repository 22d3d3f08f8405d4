"""Values of more than 8 bits become the picture that a viewer shows, or that a range says."""

import io
import struct

import numpy as np
import pytest
import tifffile
from image_files import (
    CMYK,
    GREY,
    HEIGHT,
    MIN_IS_BLACK,
    MIN_IS_WHITE,
    PIXELS,
    RGB,
    SHOWN_GREY,
    WIDTH,
    chunk,
    encoded,
    png16,
    tiff,
)  # fmt: skip
from PIL import Image

from ssl_platform.data.decoding.decode import decode
from ssl_platform.data.decoding.pixels import AUTO, PixelOptions


def with_range(low: float, high: float) -> PixelOptions:
    return PixelOptions(range=[low, high])


FULL_RANGE = {
    "grey TIFF": tiff(GREY.astype(np.uint16) * 257),
    "grey TIFF, big-endian": tiff(GREY.astype(np.uint16) * 257, order=">"),
    "grey TIFF, white is 0": tiff(65535 - GREY.astype(np.uint16) * 257, MIN_IS_WHITE),
    "grey PNG": png16(GREY.astype(np.uint16) * 257),
    "grey and alpha PNG": png16(
        np.stack([GREY.astype(np.uint16) * 257, np.full_like(GREY, 65535, np.uint16)], axis=-1)
    ),
    "PGM": b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + (GREY.astype(">u2") * 257).tobytes(),
    "PGM of 12 bits that says so": b"P5\n# 12 bits\n%d %d\n4095\n" % (WIDTH, HEIGHT)
    + np.rint(GREY * (4095 / 255)).astype(">u2").tobytes(),
    "RGB TIFF": tiff(PIXELS.astype(np.uint16) * 257),
    "RGB TIFF in planes": tiff(PIXELS.astype(np.uint16) * 257, planar=True),
    "RGB TIFF in planes, big-endian": tiff(PIXELS.astype(np.uint16) * 257, planar=True, order=">"),
    "RGB TIFF that does not say so": tiff(PIXELS.astype(np.uint16) * 257, MIN_IS_BLACK),
    "RGB TIFF and near infrared": tiff(
        np.dstack([PIXELS, GREY]).astype(np.uint16) * 257, tags={338: 0}
    ),
    "RGBA TIFF": tiff(
        np.dstack([PIXELS, np.full_like(GREY, 255)]).astype(np.uint16) * 257, tags={338: 2}
    ),
    "RGB PNG": png16(PIXELS.astype(np.uint16) * 257),
    "PPM": b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + (PIXELS.astype(">u2") * 257).tobytes(),
    "8-bit RGB TIFF that does not say so": tiff(PIXELS, MIN_IS_BLACK),
    "8-bit RGB TIFF in planes": tiff(PIXELS, planar=True),
}


@pytest.mark.parametrize("kind", FULL_RANGE)
def test_values_that_fill_their_format_are_the_picture_that_a_viewer_shows(kind):
    pixels = decode(FULL_RANGE[kind])
    shown = PIXELS if ("RGB" in kind or kind == "PPM") else SHOWN_GREY
    assert pixels.dtype == np.uint8 and pixels.flags["C_CONTIGUOUS"]
    assert np.abs(pixels.astype(int) - shown).max() <= ("12 bits" in kind)


WITHOUT_WHITE = ("i1", "i2", "i4", "u4", "f2", "f4", "f8")


@pytest.mark.parametrize("values", [GREY, PIXELS], ids=["grey", "RGB"])
@pytest.mark.parametrize("kind", WITHOUT_WHITE)
def test_signed_32_bit_and_float_values_take_a_range_and_never_wrap(kind, values):
    low, high = {"i1": (-100, 100), "f2": (-1, 3), "u4": (0, 2**32 - 1)}.get(kind, (-1000, 3000))
    exact = low + values.astype(np.float64) * ((high - low) / 255)
    stored = (exact if kind[0] == "f" else np.rint(exact)).astype(kind)
    data = tiff(stored)
    with pytest.raises(ValueError, match=r"set data\.range=\[low,high\] or data\.range=auto$"):
        decode(data)
    pixels = decode(data, with_range(low, high))
    shown = SHOWN_GREY if values.ndim == 2 else PIXELS
    assert np.abs(pixels.astype(int) - shown).max() <= 1  # rounding of what is stored
    assert decode(data, PixelOptions(range=AUTO)).max() == 255  # to look at


def test_what_lies_outside_a_range_is_black_or_white():
    values = np.array([[-1000, -500, -1, 0], [40, 300, 1000, 2000]], np.int16)
    pixels = decode(tiff(values), with_range(0, 1000))[..., 0]
    assert pixels.tolist() == [[0, 0, 0, 0], [10, 76, 255, 255]]


def test_a_float_that_is_no_number_is_black_and_an_infinite_one_white_or_black():
    values = np.array([[np.nan, -np.inf, np.inf, 0.5]], np.float32)
    assert decode(tiff(values), with_range(0, 1))[0, :, 0].tolist() == [0, 0, 255, 128]
    with pytest.raises(ValueError, match="none of its values is a number"):
        decode(tiff(np.full((4, 4), np.nan, np.float32)), with_range(0, 1))


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_16_bit_files_fill_the_range_that_is_told(bits):
    top = 2**bits - 1
    grey = np.rint(GREY * (top / 255)).astype(np.uint16)
    colours = np.rint(PIXELS * (top / 255)).astype(np.uint16)
    alpha = np.full_like(grey, 65535)
    pgm = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + grey.astype(">u2").tobytes()
    ppm = b"P6 %d %d 65535\n" % (WIDTH, HEIGHT) + colours.astype(">u2").tobytes()
    for data in (tiff(grey), png16(grey), pgm):
        assert np.abs(decode(data, with_range(0, top)).astype(int) - SHOWN_GREY).max() <= 1
    files = (tiff(colours), tiff(colours, planar=True), png16(colours), ppm)
    for data in (*files, png16(np.dstack([colours, alpha]))):
        assert decode(data, with_range(0, top)).flags["C_CONTIGUOUS"]
        assert np.abs(decode(data, with_range(0, top)).astype(int) - PIXELS).max() <= 1


def test_a_range_counts_in_stored_values_where_the_header_tells_white():
    stored = np.rint(GREY * (1023 / 255)).astype(">u2")
    data = b"P5 %d %d 1023\n" % (WIDTH, HEIGHT) + stored.tobytes()
    assert np.abs(decode(data, with_range(0, 1023)).astype(int) - SHOWN_GREY).max() <= 1
    jpeg2000 = encoded(Image.fromarray(stored.astype(np.uint16)), "JPEG2000", irreversible=False)
    pixels = decode(jpeg2000, with_range(0, 1023))
    assert np.abs(pixels.astype(int) - SHOWN_GREY).max() <= 1


def test_a_range_leaves_8_bits_as_they_are():
    for data in (encoded(PIXELS, "PNG"), encoded(PIXELS, "TIFF"), tiff(PIXELS, MIN_IS_BLACK)):
        assert np.array_equal(decode(data, with_range(10, 20)), PIXELS)


def test_16_bit_transparency_is_seen_through():
    colours, alpha = PIXELS.astype(np.uint16) * 257, np.full(GREY.shape, 65535, np.uint16)
    alpha[:, :4], alpha[:, 4:8] = 0, 32768
    shown = PIXELS.copy()
    shown[:, :4] = 255
    shown[:, 4:8] = np.rint((PIXELS[:, 4:8].astype(float) + 255) / 2)
    times_alpha = np.rint(colours * (alpha[..., None] / 65535)).astype(np.uint16)
    for data in (
        png16(np.dstack([colours, alpha])),
        tiff(np.dstack([colours, alpha]), tags={338: 2}),
        tiff(np.dstack([colours, alpha]), tags={338: 2}, planar=True),
        tiff(np.dstack([times_alpha, alpha]), tags={338: 1}),
    ):
        assert np.abs(decode(data).astype(int) - shown).max() <= 1
    grey = GREY.astype(np.uint16) * 257
    keyed = png16(grey, chunk(b"tRNS", struct.pack(">H", int(grey[0, 0]))))
    assert (decode(keyed)[grey == grey[0, 0]] == 255).all()


@pytest.mark.parametrize(
    ("values", "photometric", "reason"),
    [
        (np.dstack([PIXELS, GREY]), MIN_IS_BLACK, "a TIFF of 4 bands of 8-bit unsigned values"),
        (
            np.dstack([PIXELS, PIXELS]).astype(np.uint16),
            MIN_IS_BLACK,
            "a TIFF of 6 bands of 16-bit",
        ),
        (np.dstack([GREY, GREY]).astype(np.float32), MIN_IS_BLACK, "a TIFF of 2 bands of 32-bit"),
        (PIXELS.astype(np.uint16)[..., :2], RGB, "a TIFF of 2 bands of 16-bit"),
        (PIXELS, RGB, "a TIFF whose bands are of different types"),
    ],
)
def test_bands_of_which_none_is_said_to_be_a_colour_are_refused(values, photometric, reason):
    tags = {258: (8, 8, 16)} if "different" in reason else {}
    with pytest.raises(ValueError, match=f"^{reason}.*RGB") as caught:
        decode(tiff(values, photometric, tags=tags), with_range(0, 1))
    assert "\n" not in str(caught.value)


def test_deep_ink_is_seen_as_pillow_does_and_takes_no_range():
    cmyk = np.asarray(Image.fromarray(PIXELS).convert("CMYK"))
    data = tiff(cmyk.astype(np.uint16) * 257, CMYK)
    expected = Image.fromarray(PIXELS).convert("CMYK").convert("RGB")
    assert np.array_equal(decode(data), np.asarray(expected))
    with pytest.raises(
        ValueError, match=r"to which data\.range cannot be applied: save it as RGB$"
    ):
        decode(data, with_range(0, 4095))


def test_a_tiff_that_is_damaged_says_so():
    data = tiff(GREY.astype(np.uint16))
    for damaged in (
        data[:200],
        data[:12],
        data[: len(data) // 2],
        b"II*\0" + bytes(100),
    ):
        with pytest.raises(ValueError, match=r"damaged|truncated|fetch"):
            decode(damaged)


def compressed(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **options)
    return file.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("compression", "predictor"),
    [("lzw", True), ("deflate", True), ("packbits", None), ("zstd", None)],
)
def test_compressed_values_are_those_that_were_stored(compression, predictor, order):
    options = {"compression": compression, "predictor": predictor, "byteorder": order}
    data = compressed(PIXELS.astype(np.uint16) * 257, rowsperstrip=8, photometric="rgb", **options)
    assert np.array_equal(decode(data), PIXELS)


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_bits_that_are_packed_fill_the_range_that_the_header_tells(bits):
    top = 2**bits - 1
    grey = np.rint(GREY * (top / 255)).astype(np.uint16)
    data = compressed(grey, bitspersample=bits, photometric="minisblack")
    assert np.abs(decode(data).astype(int) - SHOWN_GREY).max() <= 1


def test_a_damaged_strip_is_refused():
    values = np.random.default_rng(0).integers(0, 2**16, (64, 64), np.uint16)
    data = compressed(values, compression="deflate", rowsperstrip=16)
    middle = len(data) // 2
    with pytest.raises(ValueError, match=r"^a TIFF of 1 band of 16-bit unsigned values, damaged"):
        decode(data[:middle] + bytes(20) + data[middle + 20 :])


def test_the_first_page_of_a_raw_photograph_is_a_preview_and_not_taken():
    preview = {254: 1, 330: 8}
    for data in (tiff(PIXELS, tags={50706: 1}), tiff(PIXELS, tags=preview)):
        with pytest.raises(ValueError, match=r"^a raw photograph: develop it to JPEG or TIFF$"):
            decode(data)
