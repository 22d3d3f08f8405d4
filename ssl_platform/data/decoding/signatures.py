"""What a file is that is no image of a known format, by its first bytes, and what to do."""

from collections.abc import Iterator

from PIL import Image

CONVERT = "convert it to PNG or JPEG"
FETCH = "fetch it again"
DEVELOP = "develop it to JPEG or TIFF"
VIDEO = ("a video", "extract its frames")


# what a file is and what to do, by the bytes that it begins with
SIGNATURES = {
    ("a Git LFS pointer, not the image", "run git lfs pull"): (b"version https://git-lfs",),
    ("a JPEG XL image", CONVERT): (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n"),
    ("a Photoshop file", CONVERT): (b"8BPS",),
    ("a PDF file", "render its pages to PNG"): (b"%PDF",),
    ("a PostScript file", "render it to PNG"): (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    ("a ZIP archive", "unpack it"): (b"PK\x03\x04",),
    ("an empty ZIP archive", FETCH): (b"PK\x05\x06",),
    ("gzip-compressed data", "decompress it with gunzip"): (b"\x1f\x8b",),
    ("bzip2-compressed data", "decompress it with bunzip2"): (b"BZh",),
    ("xz-compressed data", "decompress it with unxz"): (b"\xfd7zXZ\0",),
    ("zstd-compressed data", "decompress it with unzstd"): (b"\x28\xb5\x2f\xfd",),
    ("a 7z archive", "unpack it"): (b"7z\xbc\xaf\x27\x1c",),
    ("a RAR archive", "unpack it"): (b"Rar!",),
    ("an HDF5 file", "save its images as PNG or TIFF"): (b"\x89HDF\r\n",),
    ("a netCDF file", "save its images as PNG or TIFF"): (b"CDF\x01",),
    ("a Parquet file", "save its images as PNG or JPEG"): (b"PAR1",),
    ("an SQLite database", "save its images as PNG or JPEG"): (b"SQLite format 3",),
    ("a FITS file", "save it as TIFF"): (b"SIMPLE  =",),
    ("a raw photograph", DEVELOP): (
        b"FUJIFILMCCD-RAW", b"IIRO", b"IIU\0", b"FOVb", b"\0MRM",
    ),
    ("an OpenEXR image", "save it as TIFF"): (b"\x76\x2f\x31\x01",),
    ("a Radiance HDR image", "save it as TIFF"): (b"#?RADIANCE", b"#?RGBE"),
    ("a companion file of macOS, not the image", "delete it"): (
        b"\0\x05\x16\x07", b"\0\x05\x16\0",
    ),
    ("a video or sound", "extract its frames"): (b"RIFF",),
    VIDEO: (b"\x1a\x45\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3", b"FLV\x01"),
    ("an icon", CONVERT): (b"\0\0\x01\0", b"icns"),
    ("a cursor", CONVERT): (b"\0\0\x02\0",),
    ("a PAM image", CONVERT): (b"P7\n",),
    ("a QOI image", CONVERT): (b"qoif",),
    ("a DDS texture", CONVERT): (b"DDS ",),
    ("a GIMP file", CONVERT): (b"gimp xcf",),
    ("a PCX image", CONVERT): (b"\x0a\x05\x01",),
    ("an SGI image", CONVERT): (b"\x01\xda",),
    ("an Office document", "export its images"): (b"\xd0\xcf\x11\xe0",),
    ("a program", "delete it"): (b"\x7fELF", b"MZ"),
    ("a Python pickle", "save its images as PNG or JPEG"): (b"\x80\x02", b"\x80\x04", b"\x80\x05"),
}  # fmt: skip
# those whose mark stands further on
OFFSET_SIGNATURES = {
    257: (b"ustar", "a tar archive", "unpack it"),
    128: (b"DICM", "a DICOM file", "save it as PNG or TIFF, with pydicom"),
    344: (b"n+1\0", "a NIfTI volume", "save its slices as PNG or TIFF"),
}
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
    **dict.fromkeys(
        (b"avif", b"avis"),
        ("an AVIF image", f"install a Pillow that reads AVIF (11.3 or later), or {CONVERT}"),
    ),
    **dict.fromkeys(
        (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"),
        ("a HEIC image", f"pip install pillow-heif, or {CONVERT}"),
    ),
    b"crx ": ("a raw photograph", DEVELOP),
}
# by what brands begin with: the format of Pillow's reader, where it has one
_READERS = {b"avi": "AVIF", b"hei": "HEIF", b"hev": "HEIF", b"mif": "HEIF", b"msf": "HEIF"}
MARKUP = {
    b"<svg": "an SVG drawing: render it to PNG",
    b"<html": f"a web page, not an image: {FETCH}",
    b"<!doctype html": f"a web page, not an image: {FETCH}",
    b"<?xml": f"an XML document, not an image: {FETCH}",
}
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
        return ": ".join(BRANDS.get(data[8:12], VIDEO))
    for kind, starts in SIGNATURES.items():
        if data.startswith(starts):
            return ": ".join(kind)
    for offset, (mark, what, cure) in OFFSET_SIGNATURES.items():
        if data.startswith(mark, offset):
            return f"{what}: {cure}"
    head = data[:LOOKED_AT].lstrip(b"\xef\xbb\xbf").lstrip()
    for start, reason in MARKUP.items():
        if head[: len(start)].lower() == start:
            # a drawing may begin with an XML declaration
            return MARKUP[b"<svg"] if b"<svg" in head else reason
    if not head.translate(None, TEXT_BYTES):
        return f"text, not an image: {FETCH}"
    if JPEG in data[:LOOKED_AT]:
        return f"a JPEG behind {data.index(JPEG)} other bytes: cut them off"
    for start, name in DAMAGED.items():
        if data.startswith(start):
            return f"a damaged {name}: {FETCH}"
    return f"not an image: it begins with {data[:8].hex(' ')}"


def _kind_of_jpeg(data: bytes) -> str:
    """A JPEG that no decoder here knows, or one that is damaged too badly."""
    for marker, segment in jpeg_segments(data):
        if marker in FRAMES:
            return f"a {FRAMES[marker]} JPEG: {CONVERT}"
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and segment[:1] != b"\x08":
            return f"a JPEG of {segment[0] if segment else 0} bits: convert it to 16-bit PNG"
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
