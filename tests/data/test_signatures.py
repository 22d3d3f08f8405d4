"""What is no image is named by its first bytes, with what to do."""

import pytest
from PIL import Image

from ssl_platform.data.decoding.decode import decode
from ssl_platform.data.decoding.signatures import what_is

ZERO = bytes(200)
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0"
NO_IMAGES = {
    LFS: "a Git LFS pointer, not the image: run git lfs pull",
    b"<!DOCTYPE html><html>404</html>": "a web page, not an image: fetch it again",
    b"\n  <HTML><head>": "a web page, not an image: fetch it again",
    b"\xef\xbb\xbf<html>": "a web page, not an image: fetch it again",
    b"<svg xmlns='http://www.w3.org/2000/svg'/>": "an SVG drawing: render it to PNG",
    b"<?xml version='1.0'?><svg/>": "an SVG drawing: render it to PNG",
    b"<?xml version='1.0'?><Error/>": "an XML document, not an image: fetch it again",
    b'{"error": "not found"}': "text, not an image: fetch it again",
    b"\xff\x0a" + ZERO: "a JPEG XL image: convert it to PNG or JPEG",
    b"\0\0\0\x0cJXL \r\n\x87\n" + ZERO: "a JPEG XL image: convert it to PNG or JPEG",
    b"\0\0\0\x18ftypmp42" + ZERO: "a video: extract its frames",
    b"\0\0\0\x18ftypcrx " + ZERO: "a raw photograph: develop it to JPEG or TIFF",
    b"PK\x03\x04" + ZERO: "a ZIP archive: unpack it",
    b"some file".ljust(257, b"\0") + b"ustar\0": "a tar archive: unpack it",
    b"%PDF-1.7" + ZERO: "a PDF file: render its pages to PNG",
    b"8BPS" + ZERO: "a Photoshop file: convert it to PNG or JPEG",
    b"\x1f\x8b\x08" + ZERO: "gzip-compressed data: decompress it with gunzip",
    b"\x89HDF\r\n\x1a\n" + ZERO: "an HDF5 file: save its images as PNG or TIFF",
    bytes(128) + b"DICM" + ZERO: "a DICOM file: save it as PNG or TIFF, with pydicom",
    b"\0\x05\x16\x07" + ZERO: "a companion file of macOS, not the image: delete it",
    b"RIFF\0\0\0\0AVI LIST" + ZERO: "a video or sound: extract its frames",
    b"II*\0\x10\0\0\0CR\x02\0" + ZERO: "a damaged TIFF: fetch it again",
    b"\0" * 1000: "1000 bytes, all of them zero: fetch it again",
    b"\0\0\xff\xd8\xff\xe0" + ZERO: "a JPEG behind 2 other bytes: cut them off",
    b"\xff\xd8\xff\xc3\0\x0b\x08" + ZERO: "a lossless JPEG: convert it to PNG or JPEG",
    b"\xff\xd8\xff\xc1\0\x11\x0c" + ZERO: "a JPEG of 12 bits: convert it to 16-bit PNG",
    b"\xff\xd8\xff\xf7\0\x0b\x08" + ZERO: "a JPEG-LS JPEG: convert it to PNG or JPEG",
    b"\x89PNG\r\r\n\x1a\n" + ZERO: "a damaged PNG: fetch it again",
    b"GIF89a" + ZERO: "a damaged GIF: fetch it again",
    b"BM" + bytes(10): "a damaged BMP: fetch it again",
    b"P5 -3 4 255\n" + ZERO: "a damaged PNM: fetch it again",
    b"P7\nWIDTH 2\n" + ZERO: "a PAM image: convert it to PNG or JPEG",
    b"\xfe\xed\xfa\xce" + ZERO: "not an image: it begins with fe ed fa ce 00 00 00 00",
}


@pytest.mark.parametrize("data", NO_IMAGES, ids=NO_IMAGES.values())
def test_what_is_no_image_is_named_by_its_first_bytes(data):
    with pytest.raises(ValueError) as caught:
        decode(data)
    assert str(caught.value) == NO_IMAGES[data]


def test_heic_says_what_to_install(monkeypatch):
    monkeypatch.setattr("ssl_platform.data.decoding.decode._register_heif", lambda: None)
    for brand in (b"heic", b"mif1"):
        with pytest.raises(ValueError, match=r"^a HEIC image: pip install pillow-heif"):
            decode(b"\0\0\0\x18ftyp" + brand + ZERO)


def test_a_damaged_image_whose_reader_is_there_is_not_told_to_install_it(monkeypatch):
    heic = b"\0\0\0\x18ftypheic" + ZERO
    monkeypatch.delitem(Image.OPEN, "HEIF", raising=False)
    assert what_is(heic) == "a HEIC image: pip install pillow-heif, or convert it to PNG or JPEG"
    monkeypatch.setitem(Image.OPEN, "HEIF", None)
    assert what_is(heic) == "a damaged HEIF image: fetch it again"
