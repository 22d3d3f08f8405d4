"""What a file is that is no image of a known format, by its first bytes, and what to do."""

from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image

CONVERT = "convert it to PNG or JPEG"
FETCH = "fetch it again"


class Signature(NamedTuple):
    """Bytes at ``offset`` of a file that tell what it is, and what to do."""

    start: bytes
    what: str
    cure: str
    offset: int = 0


SIGNATURES = (
    Signature(b"version https://git-lfs", "a Git LFS pointer, not the image", "run git lfs pull"),
    Signature(b"\xff\x0a", "a JPEG XL image", CONVERT),
    Signature(b"\0\0\0\x0cJXL \r\n", "a JPEG XL image", CONVERT),
    Signature(b"8BPS", "a Photoshop file", CONVERT),
    Signature(b"%PDF", "a PDF file", "render its pages to PNG"),
    Signature(b"%!PS", "a PostScript file", "render it to PNG"),
    Signature(b"PK\x03\x04", "a ZIP archive", "unpack it"),
    Signature(b"PK\x05\x06", "an empty ZIP archive", FETCH),
    Signature(b"\x1f\x8b", "gzip-compressed data", "decompress it with gunzip"),
    Signature(b"BZh", "bzip2-compressed data", "decompress it with bunzip2"),
    Signature(b"\xfd7zXZ\0", "xz-compressed data", "decompress it with unxz"),
    Signature(b"\x28\xb5\x2f\xfd", "zstd-compressed data", "decompress it with unzstd"),
    Signature(b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    Signature(b"Rar!", "a RAR archive", "unpack it"),
    Signature(b"ustar", "a tar archive", "unpack it", 257),
    Signature(b"\x93NUMPY", "a numpy array", "save it as PNG or TIFF"),
    Signature(b"\x89HDF\r\n", "an HDF5 file", "save its images as PNG or TIFF"),
    Signature(b"CDF\x01", "a netCDF file", "save its images as PNG or TIFF"),
    Signature(b"PAR1", "a Parquet file", "save its images as PNG or JPEG"),
    Signature(b"SQLite format 3", "an SQLite database", "save its images as PNG or JPEG"),
    Signature(b"SIMPLE  =", "a FITS file", "save it as TIFF"),
    Signature(b"DICM", "a DICOM file", "save it as PNG or TIFF, with pydicom", 128),
    Signature(b"n+1\0", "a NIfTI volume", "save its slices as PNG or TIFF", 344),
    Signature(b"FUJIFILMCCD-RAW", "a raw photograph", "develop it to JPEG or TIFF"),
    Signature(b"IIRO", "a raw photograph", "develop it to JPEG or TIFF"),
    Signature(b"IIU\0", "a raw photograph", "develop it to JPEG or TIFF"),
    Signature(b"FOVb", "a raw photograph", "develop it to JPEG or TIFF"),
    Signature(b"\0MRM", "a raw photograph", "develop it to JPEG or TIFF"),
    Signature(b"\x76\x2f\x31\x01", "an OpenEXR image", "save it as TIFF"),
    Signature(b"#?RADIANCE", "a Radiance HDR image", "save it as TIFF"),
    Signature(b"#?RGBE", "a Radiance HDR image", "save it as TIFF"),
    Signature(b"\0\x05\x16\x07", "a companion file of macOS, not the image", "delete it"),
    Signature(b"\0\x05\x16\0", "a companion file of macOS, not the image", "delete it"),
    Signature(b"RIFF", "a video or sound", "extract its frames"),
    Signature(b"\x1a\x45\xdf\xa3", "a video", "extract its frames"),
    Signature(b"\0\0\x01\xba", "a video", "extract its frames"),
    Signature(b"\0\0\x01\xb3", "a video", "extract its frames"),
    Signature(b"FLV\x01", "a video", "extract its frames"),
    Signature(b"\0\0\x01\0", "an icon", CONVERT),
    Signature(b"\0\0\x02\0", "a cursor", CONVERT),
    Signature(b"icns", "an icon", CONVERT),
    Signature(b"P7\n", "a PAM image", CONVERT),
    Signature(b"qoif", "a QOI image", CONVERT),
    Signature(b"DDS ", "a DDS texture", CONVERT),
    Signature(b"gimp xcf", "a GIMP file", CONVERT),
    Signature(b"\x0a\x05\x01", "a PCX image", CONVERT),
    Signature(b"\x01\xda", "an SGI image", CONVERT),
    Signature(b"\xc5\xd0\xd3\xc6", "a PostScript file", "render it to PNG"),
    Signature(b"\xd0\xcf\x11\xe0", "an Office document", "export its images"),
    Signature(b"\x7fELF", "a program", "delete it"),
    Signature(b"MZ", "a program", "delete it"),
    Signature(b"\x80\x02", "a Python pickle", "save its images as PNG or JPEG"),
    Signature(b"\x80\x04", "a Python pickle", "save its images as PNG or JPEG"),
    Signature(b"\x80\x05", "a Python pickle", "save its images as PNG or JPEG"),
)
# of images that are read here, unless they are damaged
DAMAGED = {
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"\0\0\0\x0cjP": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    **{f"P{number}".encode(): "PNM" for number in range(1, 7)},
}
# of ISO media files: the brand follows b"ftyp"
BRANDS = {
    b"avif": ("an AVIF image", f"install a Pillow that reads AVIF (11.3 or later), or {CONVERT}"),
    b"avis": (
        "an AVIF sequence",
        f"install a Pillow that reads AVIF (11.3 or later), or {CONVERT}",
    ),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        ("a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    ),
    b"crx ": ("a raw photograph", "develop it to JPEG or TIFF"),
}
# by what brands begin with: the format of Pillow's reader, where it has one
_READERS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"mif": "HEIF", b"msf": "HEIF"}
MARKUP = (
    (b"<svg", "an SVG drawing", "render it to PNG"),
    (b"<html", "a web page, not an image", FETCH),
    (b"<!doctype html", "a web page, not an image", FETCH),
    (b"<?xml", "an XML document, not an image", FETCH),
)
JPEG = b"\xff\xd8\xff"
FRAMES = {  # of a JPEG: the marker that begins its frame, where it is one that few decoders know
    0xC3: "lossless",
    **dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "hierarchical"),
    0xF7: "JPEG-LS",
}
TEXT_BYTES = bytes(range(0x20, 0x7F)) + b"\t\n\r\f"
LOOKED_AT = 4096  # bytes


def what_is(data: bytes) -> str:
    """What bytes are that no decoder knows: a reason in one line, with what to do."""
    if not data.strip(b"\0"):
        return f"{len(data)} bytes, all of them zero: {FETCH}"
    if data.startswith(JPEG):
        return _kind_of_jpeg(data)
    if data[4:8] == b"ftyp":
        if _READERS.get(data[8:11]) in Image.OPEN:
            return f"a damaged {_READERS[data[8:11]]} image: {FETCH}"
        return _told(*BRANDS.get(data[8:12], ("a video", "extract its frames")))
    for start, what, cure, offset in SIGNATURES:
        if data.startswith(start, offset):
            return _told(what, cure)
    head = data[:LOOKED_AT].lstrip(b"\xef\xbb\xbf").lstrip()
    for start, what, cure in MARKUP:
        if head[: len(start)].lower() == start:
            is_drawing = b"<svg" in head  # behind an XML declaration
            return _told(*(MARKUP[0][1:] if is_drawing else (what, cure)))
    if not head.translate(None, TEXT_BYTES):
        return _told("text, not an image", FETCH)
    if JPEG in data[:LOOKED_AT]:
        return _told(f"a JPEG behind {data.index(JPEG)} other bytes", "cut them off")
    for start, name in DAMAGED.items():
        if data.startswith(start):
            return f"a damaged {name}: {FETCH}"
    return f"not an image: it begins with {data[:8].hex(' ')}"


def _told(what: str, cure: str) -> str:
    return f"{what}: {cure}"


def _kind_of_jpeg(data: bytes) -> str:
    """A JPEG that no decoder here knows, or one that is damaged too badly."""
    for marker, segment in jpeg_segments(data):
        if marker in FRAMES:
            return _told(f"a {FRAMES[marker]} JPEG", CONVERT)
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and segment[:1] != b"\x08":
            return _told(
                f"a JPEG of {segment[0] if segment else 0} bits", "convert it to 16-bit PNG"
            )
    return f"a damaged JPEG: {FETCH}"


def jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and contents of each segment of a JPEG, up to its first scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in (0xD9, 0xDA):
            return
        size = int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, data[position + 4 : position + 2 + size]
        position += 2 + max(2, size)
