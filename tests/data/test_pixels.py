"""What the network sees of every kind of file: the picture that a viewer shows."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from tiff_files import CMYK, MIN_IS_BLACK, MIN_IS_WHITE, RGB, tiff

from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.decoding.decode import decode, pixels_of, read_image
from ssl_platform.data.decoding.pixels import AUTO, Notes, PixelOptions
from ssl_platform.data.sets.torchvision_dataset import TorchvisionDataset

HEIGHT, WIDTH = 24, 36


def picture() -> np.ndarray:
    """(H, W, 3) uint8: smooth, its corners of other colours, so that turns and inversions show."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    pixels = np.stack([60 + 3 * x, 50 + 5 * y, 200 - 2 * x - y], axis=-1).astype(np.uint8)
    pixels[:8, :8], pixels[:8, -8:], pixels[-8:, :8] = (230, 30, 30), (30, 200, 40), (30, 40, 220)
    return pixels


PIXELS = picture()
GREY = np.asarray(Image.fromarray(PIXELS).convert("L"))
SHOWN_GREY = np.repeat(GREY[..., None], 3, axis=2)


def encoded(image: Image.Image | np.ndarray, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png16(values: np.ndarray, extra: bytes = b"") -> bytes:
    """(H, W) grey, or (H, W, C) colours, of 16 bits."""
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[1 if values.ndim == 2 else values.shape[2]]
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra
    return head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def with_range(low: float, high: float) -> PixelOptions:
    return PixelOptions(range=[low, high])


# ---- values of more than 8 bits


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


def test_the_first_page_of_a_raw_photograph_is_a_preview_and_not_taken():
    preview = {254: 1, 330: 8}
    for data in (tiff(PIXELS, tags={50706: 1}), tiff(PIXELS, tags=preview)):
        with pytest.raises(ValueError, match=r"^a raw photograph: develop it to JPEG or TIFF$"):
            decode(data)


# ---- 8 bits


def test_every_mode_of_8_bits_or_less_is_what_pillow_shows():
    image = Image.fromarray(PIXELS)
    palette = image.quantize(64)
    for stored, kind in (
        (image.convert("1"), "PNG"),
        (image.convert("1"), "TIFF"),
        (image.convert("L"), "BMP"),
        (palette, "PNG"),
        (palette, "GIF"),
        (image.convert("CMYK"), "TIFF"),
        (image.convert("YCbCr"), "TIFF"),
        (image, "JPEG2000"),
        (image, "WEBP"),
    ):
        data = encoded(stored, kind, **({"lossless": True} if kind == "WEBP" else {}))
        with Image.open(io.BytesIO(data)) as opened:
            assert np.array_equal(decode(data), np.asarray(opened.convert("RGB"))), (stored, kind)


def test_lab_becomes_rgb():
    lab = Image.merge("LAB", [Image.new("L", (4, 3), value) for value in (137, 128, 128)])
    pixels = decode(encoded(lab, "TIFF"))
    assert np.abs(pixels.astype(int) - 128).max() <= 2  # L* = 53.6 of 100, no colour


def test_avif_is_read_where_pillow_reads_it():
    pytest.importorskip("PIL._avif")
    assert np.abs(decode(encoded(PIXELS, "AVIF", quality=100)).astype(int) - PIXELS).mean() < 4


# ---- orientation


def turned_by_pillow(orientation: int) -> Image.Image:
    """An image that, turned as EXIF's number says, is ``PIXELS``."""
    inverse = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # of Image.Transpose
    image = Image.fromarray(PIXELS)
    return image.transpose(Image.Transpose(inverse[orientation])) if orientation > 1 else image


def oriented(kind: str, orientation: int) -> bytes:
    image = turned_by_pillow(orientation)
    if kind == "16-bit TIFF":
        return tiff(np.asarray(image).astype(np.uint16) * 257, tags={274: orientation})
    exif = Image.Exif()
    exif[274] = orientation
    options = {"JPEG": {"quality": 100, "subsampling": 0}, "WEBP": {"lossless": True}}
    if kind == "CMYK JPEG":
        return encoded(image.convert("CMYK"), "JPEG", exif=exif, **options["JPEG"])
    return encoded(image, kind, exif=exif, **options.get(kind, {}))


@pytest.mark.parametrize("kind", ["JPEG", "CMYK JPEG", "PNG", "WEBP", "TIFF", "16-bit TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_or_ignored_in_all_formats_alike(kind, orientation):
    data, notes = oriented(kind, orientation), Notes()
    near = 16 if "JPEG" in kind else 0
    shown = decode(data, PixelOptions(), notes)
    assert shown.shape == PIXELS.shape and shown.flags["C_CONTIGUOUS"]
    assert np.abs(shown.astype(int) - PIXELS).max() <= near
    assert notes.orientation == orientation
    stored = decode(data, PixelOptions(orientation="ignore"))
    as_stored = np.asarray(turned_by_pillow(orientation))
    assert stored.shape == as_stored.shape
    assert np.abs(stored.astype(int) - as_stored).max() <= near


@pytest.mark.parametrize(
    "broken", [b"", b"\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\0\x05ab"]
)
def test_a_broken_orientation_is_none(broken):
    plain = encoded(PIXELS, "JPEG")
    segment = b"Exif\0\0" + broken
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", 2 + len(segment)) + segment + plain[2:]
    assert np.array_equal(decode(data), decode(plain))
    for value in (0, 9, 65535):
        exif = Image.Exif()
        exif[274] = value
        assert decode(encoded(PIXELS, "JPEG", exif=exif)).shape == PIXELS.shape
        assert decode(encoded(PIXELS, "PNG", exif=exif)).shape == PIXELS.shape
    assert np.array_equal(decode(tiff(PIXELS, tags={274: 77})), PIXELS)


# ---- transparency


def drawing() -> tuple[np.ndarray, np.ndarray]:
    """A black disc on a ground that is transparent and black, and what a viewer shows of it."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    disc = (y - 12) ** 2 + (x - 18) ** 2 < 80
    stored = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    stored[disc, 3] = 255
    return stored, np.where(disc[..., None], 0, 255).repeat(3, axis=2).astype(np.uint8)


def test_a_black_drawing_on_transparent_ground_is_seen_on_white():
    stored, shown = drawing()
    image = Image.fromarray(stored)
    grey, palette = image.convert("LA"), Image.fromarray(shown).convert("P")
    ground = int(np.asarray(palette)[0, 0])
    black = Image.fromarray(np.zeros_like(shown)).convert("P")
    black.putdata((np.asarray(palette) == ground).ravel().astype(int).tolist())
    black.putpalette([0, 0, 0] * 2)
    for data in (
        encoded(image, "PNG"),
        encoded(image, "WEBP", lossless=True),
        encoded(image, "TIFF"),
        encoded(grey, "PNG"),
        encoded(grey, "TIFF"),
        encoded(black, "PNG", transparency=1),
        encoded(black, "GIF", transparency=1),
    ):
        notes = Notes()
        assert np.array_equal(decode(data, PixelOptions(), notes), shown)
        assert notes.is_transparent
        assert not decode(data, PixelOptions(background=None)).any()


@pytest.mark.parametrize(
    ("background", "ground"),
    [("black", (0, 0, 0)), ([10, 20, 30], (10, 20, 30)), ("#ff8000", (255, 128, 0))],
)
def test_any_ground_can_be_asked_for(background, ground):
    stored, _ = drawing()
    pixels = decode(encoded(Image.fromarray(stored), "PNG"), PixelOptions(background=background))
    assert pixels[0, 0].tolist() == list(ground)


def test_half_transparent_colours_are_mixed_with_the_ground():
    stored = np.dstack([PIXELS, np.full_like(GREY, 128)])
    shown = PIXELS + (255 - PIXELS.astype(float)) * (127 / 255)
    times_alpha = np.rint(stored[..., :3] * (128 / 255)).astype(np.uint8)
    for data in (
        encoded(Image.fromarray(stored), "PNG"),
        tiff(np.dstack([times_alpha, stored[..., 3]]), tags={338: 1}),
    ):
        assert np.abs(decode(data).astype(float) - shown).max() <= 2


def test_opaque_images_are_the_same_on_any_ground():
    rgba = Image.fromarray(np.dstack([PIXELS, np.full_like(GREY, 255)]))
    for data in (encoded(rgba, "PNG"), encoded(rgba.quantize(64), "PNG")):
        dropped = decode(data, PixelOptions(background=None))
        notes = Notes()
        assert np.array_equal(decode(data, PixelOptions(background="red"), notes), dropped)
        assert not notes.is_transparent
    assert np.array_equal(decode(encoded(rgba, "PNG")), PIXELS)


# ---- damage


JPEG = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), "JPEG", quality=90)
RESTARTED = encoded(PIXELS, "JPEG", quality=90, restart_marker_blocks=1)
HALF = (JPEG.index(b"\xff\xda") + len(JPEG)) // 2
DAMAGED = {
    "premature end of data segment": JPEG[:HALF] + b"\xff\xd9",
    "extraneous bytes": JPEG[:HALF] + bytes(len(JPEG) - HALF - 2) + JPEG[-2:],
    "found marker 0xd5 instead of RST0": RESTARTED.replace(b"\xff\xd0", b"\xff\xd5", 1),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_jpeg_whose_decoder_warns_is_refused_or_used_and_noted(kind):
    data, notes = DAMAGED[kind], Notes()
    with pytest.raises(ValueError, match=kind + r".*; data\.corrupt=use "):
        decode(data)
    pixels = decode(data, PixelOptions(corrupt="use"), notes)
    assert notes.damage and kind in notes.damage
    with Image.open(io.BytesIO(data)) as opened:  # as published runs saw it
        assert np.array_equal(pixels, np.asarray(opened))


def test_a_few_bytes_too_many_before_the_end_are_no_damage():
    data, notes = JPEG[:-2] + b"abc" + JPEG[-2:], Notes()
    assert np.array_equal(decode(data, PixelOptions(), notes), decode(JPEG))
    assert notes.damage is None


@pytest.mark.parametrize("corrupt", ["use", "refuse"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF", "WEBP", "BMP", "PPM", "JPEG2000"])
def test_a_file_that_ends_early_is_refused_in_all_formats_alike(kind, corrupt):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8), kind)
    with pytest.raises(ValueError):
        decode(data[: 2 * len(data) // 3], PixelOptions(corrupt=corrupt))


def test_texts_and_profiles_of_a_png_do_not_matter():
    data = encoded(PIXELS, "PNG")
    end = data.index(b"IDAT") - 4
    text = chunk(b"zTXt", b"workflow\0\0" + zlib.compress(b"x" * 3_000_000))
    profile = chunk(b"iCCP", b"p\0\0" + zlib.compress(bytes(3_000_000)))
    for extra in (text, profile, text + profile):
        assert np.array_equal(decode(data[:end] + extra + data[end:]), PIXELS)


# ---- limits and options


def test_limits_are_options_that_the_message_names(tmp_path):
    data = encoded(Image.new("L", (200, 100)), "PNG")
    with pytest.raises(ValueError, match=r"^200 x 100 pixels, more than data\.max_pixels=19999$"):
        decode(data, PixelOptions(max_pixels=19_999))
    assert decode(data, PixelOptions(max_pixels=20_000)).shape == (100, 200, 3)
    path = tmp_path / "long.png"
    path.write_bytes(data)
    with pytest.raises(UnreadableImage, match=r"more than data\.max_bytes=10"):
        read_image(os.fsencode(path), PixelOptions(max_bytes=10))


def test_pillows_own_limit_does_not_stand_in_the_way(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert np.array_equal(decode(encoded(PIXELS, "PNG")), PIXELS)
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.parametrize(
    ("option", "value", "line"),
    [
        ("range", [3, 1], "range=[3,1]: two numbers, the lower first"),
        ("range", [0, 1, 2], "range=[0,1,2]: two numbers"),
        ("range", "full", "range=full: two numbers"),
        ("range", 5, "range=5: two numbers"),
        ("range", [True, "a"], "range=[True,'a']: two numbers"),
        ("background", "blau", "background=blau: a colour such as white"),
        ("background", [0, 0, 256], "background=[0,0,256]: a colour"),
        ("background", 3, "background=3: a colour"),
        ("max_pixels", 0, "max_pixels=0: at least 1"),
        ("max_bytes", -1, "max_bytes=-1: at least 1"),
    ],
)
def test_options_that_cannot_be_say_so_in_one_line(option, value, line):
    with pytest.raises(ValueError) as caught:
        PixelOptions(**{option: value})
    assert str(caught.value).startswith(line) and "\n" not in str(caught.value)


def test_further_pages_frames_and_bands_are_noted():
    frames = [Image.fromarray(PIXELS).quantize(16), Image.fromarray(255 - PIXELS).quantize(16)]
    for data, pages, bands in (
        (tiff(PIXELS, pages=2), True, 0),
        (tiff(PIXELS.astype(np.uint16), pages=3), True, 0),
        (encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]), True, 0),
        (encoded(PIXELS, "TIFF"), False, 0),
        (tiff(np.dstack([PIXELS, GREY]), tags={338: 0}), False, 1),
        (tiff(np.dstack([PIXELS, GREY]).astype(np.uint16), tags={338: 0}), False, 1),
        (tiff(np.dstack([PIXELS, GREY, GREY]), tags={338: (0, 0)}), False, 2),
    ):
        notes = Notes(thorough=True)
        decode(data, PixelOptions(), notes)
        assert (notes.has_more_frames, notes.dropped_bands) == (pages, bands)


# ---- torchvision's sets


def test_sets_of_torchvision_that_are_files_obey_the_options(tmp_path):
    images = tmp_path / "eurosat" / "2750" / "Forest"
    images.mkdir(parents=True)
    (images / "turned.png").write_bytes(oriented("PNG", 6))
    stored, shown = drawing()
    (images / "icon.png").write_bytes(encoded(Image.fromarray(stored), "PNG"))
    (images / "web.jpg").write_bytes(b"<html>")
    options = {"dataset": "EuroSAT", "path": str(tmp_path), "split": "all", "download": False}
    dataset = TorchvisionDataset(**options)
    assert np.array_equal(dataset.read(0), shown)
    assert np.array_equal(dataset.read(1), PIXELS)
    with pytest.raises(UnreadableImage, match=r"web\.jpg.*a web page"):
        dataset.read(2)
    dataset.pixels = PixelOptions(orientation="ignore", background=None)
    assert not dataset.read(0).any()
    assert dataset.read(1).shape == (WIDTH, HEIGHT, 3)


def test_an_image_that_torchvision_has_opened_is_seen_as_the_options_say():
    with Image.open(io.BytesIO(oriented("PNG", 3))) as opened:
        opened.load()
        assert np.array_equal(pixels_of(opened, PixelOptions(), Notes()), PIXELS)
    stored, shown = drawing()
    assert np.array_equal(pixels_of(Image.fromarray(stored), PixelOptions(), Notes()), shown)
    with pytest.raises(ValueError, match=r"set data\.range"):
        pixels_of(Image.fromarray(np.ones((4, 4), np.float32)), PixelOptions(), Notes())
