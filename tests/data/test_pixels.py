"""What the network sees of every kind of file of 8 bits: the picture that a viewer shows."""

import io
import struct
import zlib

import numpy as np
import pytest
from image_files import GREY, HEIGHT, PIXELS, WIDTH, chunk, encoded, tiff
from PIL import Image

from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.data.decoding.decode import decode, pixels_of
from ssl_platform.data.decoding.pixels import Notes, PixelOptions
from ssl_platform.data.sets.torchvision_dataset import TorchvisionDataset

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
