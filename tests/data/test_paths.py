"""Names of any bytes, as text that leads back to the file."""

import csv
import os
import tempfile
from pathlib import Path
from urllib.parse import unquote_to_bytes
from urllib.request import urlopen

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from ssl_platform.clusters.files import Clusters, write_symlinks, write_tables
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.paths import path_of, uri_of
from ssl_platform.evaluation.feature_files import _write_index

ODD = [
    b"a,b", b'quo"te', b"new\nline", b"tab\there", b"latin\xe9\xff", "日本語".encode(), b" lead",
    b"trail ", b"=1+1", b"<b>&amp;", b"-rf", b"%41#?", b"x" * 250, b"\xe2\x80\xae", b"'",
    b"\x1b[31m", b"back\\slash", b"back\\xff", b"\r", b"cr\r\nlf", b"~", b"*", b"$HOME",
]  # fmt: skip
NAMES = st.binary(min_size=1, max_size=200).map(
    lambda name: name.replace(b"/", b"_").replace(b"\0", b"0").lstrip(b".") or b"a"
)


@given(st.lists(NAMES, min_size=1, max_size=5).map(b"/".join))
def test_a_path_comes_back_from_its_uri(path):
    uri = uri_of(path, b"/some\xff/folder")
    assert uri.isascii() and uri.isprintable() and not {*" \\,\"'"} & {*uri}
    assert path_of(uri) == unquote_to_bytes(uri.removeprefix("file://"))
    assert path_of(uri) == os.path.join(b"/some\xff/folder", path)


def test_what_is_no_uri_of_a_file_is_refused():
    for text in ("/a.png", "http://a/b.png", "file:a.png"):
        with pytest.raises(ValueError, match="no URI of a file"):
            path_of(text)


def test_a_relative_path_begins_where_the_program_runs(tmp_path, monkeypatch):
    (tmp_path / "a b").write_text("found")
    monkeypatch.chdir(tmp_path)
    assert uri_of(b"a b") == f"file://{tmp_path}/a%20b"
    with urlopen(uri_of(b"a b")) as file:
        assert file.read() == b"found"


def images_of(folder: Path, names: list[bytes]) -> ImageFolder:
    for number, name in enumerate(dict.fromkeys(names)):
        with open(os.path.join(os.fsencode(folder), name + b".png"), "wb") as file:
            file.write(b"%d" % number)
    return ImageFolder(path=str(folder))


def held(path: bytes) -> bytes:
    with open(path, "rb") as file:
        return file.read()


@settings(max_examples=10, deadline=None)
@given(names=st.lists(NAMES, min_size=1, max_size=30))
def test_every_image_of_every_table_and_link_can_be_opened_again(names):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (folder / "images").mkdir()
        dataset = images_of(folder / "images", [*ODD, *names])
        count = len(dataset)
        expected = [held(dataset.files[i]) for i in range(count)]
        ids, scores = np.zeros((count, 1), np.int32), np.ones((count, 1), np.float32)
        clusters = Clusters(ids, scores, scores, [1], None, None)
        write_tables(folder, dataset, clusters)
        write_symlinks(folder, dataset, clusters)
        _write_index(folder / "index.parquet", dataset, np.arange(count), [])
        with open(folder / "clusters.csv", newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        for uris in (
            [row["uri"] for row in rows],
            parquet.read_table(folder / "clusters.parquet")["uri"].to_pylist(),
            parquet.read_table(folder / "index.parquet")["uri"].to_pylist(),
        ):
            assert [held(path_of(uri)) for uri in uris] == expected
        cluster = os.fsencode(folder / "by_cluster" / "0" / "0")
        links = sorted(os.listdir(cluster))
        assert [held(os.path.join(cluster, link)) for link in links] == expected
        assert all(row["image"].isprintable() for row in rows)
