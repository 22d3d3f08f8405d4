"""Lists of images, in the forms in which people and programs write them."""

import codecs
import csv
import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ssl_platform.data.sets.image_list import read_image_list
from ssl_platform.data.sets.list_file import MAX_NUMBER, ListFile
from ssl_platform.registry import DATASETS, load_components

NAMES = ["ant/a b.png", "bee/c 3.png", "cat/d,e.png"]
BY_NUMBER = (NAMES, [2, 0, 1], None)
BY_NAME = (NAMES, [0, 1, 2], ["ant", "bee", "golden cat"])
UNLABELLED = (NAMES, None, None)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the images of ``NAMES`` are, the first pixel of each its place in the list."""
    for number, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir()
        Image.new("RGB", (2, 3), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def opened(folder: Path, text: str | bytes, **options) -> ListFile:
    listing = folder / "list.csv"
    listing.write_bytes(text if isinstance(text, bytes) else text.encode())
    return ListFile(path=str(listing), **options)


def mistake(folder: Path, text: str | bytes, **options) -> str:
    with pytest.raises(ValueError) as caught:
        opened(folder, text, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"path={folder}/list.csv: ")


FORMS = {
    "lines": ("ant/a b.png 2\nbee/c 3.png 0\ncat/d,e.png 1\n", BY_NUMBER),
    "lines without labels": ("ant/a b.png\nbee/c 3.png\ncat/d,e.png", UNLABELLED),
    "lines, blank ones, CRLF": ("\nant/a b.png 2\r\n\r\nbee/c 3.png 0\r\ncat/d,e.png 1", BY_NUMBER),
    "lines, old Mac": ("ant/a b.png 2\rbee/c 3.png 0\rcat/d,e.png 1", BY_NUMBER),
    "lines, comments": ("# mine\nant/a b.png 2\n#\nbee/c 3.png 0\ncat/d,e.png 1", BY_NUMBER),
    "lines in quotes": ('"ant/a b.png" 2\n"bee/c 3.png" 0\n"cat/d,e.png" 1', BY_NUMBER),
    "lines, a header": ("path label\nant/a b.png 2\nbee/c 3.png 0\ncat/d,e.png 1", BY_NUMBER),
    "lines, a header alone": ("path\nant/a b.png\nbee/c 3.png\ncat/d,e.png", UNLABELLED),
    "lines, names": ("ant/a b.png ant\nbee/c 3.png bee\ncat/d,e.png golden cat", BY_NAME),
    "comma": ('ant/a b.png,2\nbee/c 3.png,0\n"cat/d,e.png",1\n', BY_NUMBER),
    "comma, names": ('ant/a b.png,ant\nbee/c 3.png, bee\n"cat/d,e.png","golden cat"', BY_NAME),
    "semicolon": ("ant/a b.png;2\nbee/c 3.png;0\ncat/d,e.png;1\n", BY_NUMBER),
    "tab": ("ant/a b.png\t2\nbee/c 3.png\t0\ncat/d,e.png\t1\n", BY_NUMBER),
    "header": ('path,label\nant/a b.png,2\nbee/c 3.png,0\n"cat/d,e.png",1\n', BY_NUMBER),
    "header, turned": ('Label, Path\n2,ant/a b.png\n0,bee/c 3.png\n1,"cat/d,e.png"\n', BY_NUMBER),
    "header, more columns": (
        ',filename,width,class\n0,ant/a b.png,3,ant\n1,bee/c 3.png,3,bee\n2,"cat/d,e.png",3,golden cat',  # noqa: E501
        BY_NAME,
    ),
    "header, no label": ('path,width\nant/a b.png,3\nbee/c 3.png,3\n"cat/d,e.png",3', UNLABELLED),
    "header, floats of pandas": (
        'path,label\nant/a b.png,2.0\nbee/c 3.png,0.0\n"cat/d,e.png",1.0',
        BY_NUMBER,
    ),
    "UTF-8 mark": ("\ufeffant/a b.png 2\nbee/c 3.png 0\ncat/d,e.png 1\n", BY_NUMBER),
    "UTF-8 mark, header": (
        '\ufeffpath,label\nant/a b.png,2\nbee/c 3.png,0\n"cat/d,e.png",1',
        BY_NUMBER,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_list_is_read_as_it_is_written(form, root):
    text, (names, labels, classes) = FORMS[form]
    dataset = opened(root, text)
    assert [dataset.describe(i) for i in range(3)] == [f"{root}/{name}" for name in names]
    assert [dataset.read(i)[0, 0, 0] for i in range(3)] == [0, 1, 2]
    assert (None if dataset.labels is None else dataset.labels.tolist()) == labels
    assert dataset.classes == classes
    assert dataset.labels is None or dataset.labels.dtype == np.int64


def test_a_list_of_windows_is_read(root):
    dataset = opened(
        root, codecs.BOM_UTF16_LE + "ant/a b.png,ä\r\nbee/c 3.png,b".encode("utf-16-le")
    )
    assert (dataset.labels.tolist(), dataset.classes) == ([1, 0], ["b", "ä"])


def test_columns_that_are_not_used_are_told(root):
    text = ",filename,split,class\n0,ant/a b.png,train,ant\n1,bee/c 3.png,val,bee\n"
    assert opened(root, text).summary() == (
        "2 images in 2 classes (ant, bee); columns that are not used: one of no name, split"
    )


@pytest.mark.parametrize("none", ["-1", "", "-1.0"])
def test_an_image_without_a_label_is_trained_on_and_has_minus_one(none, root):
    dataset = opened(root, f'path,label\nant/a b.png,{none}\nbee/c 3.png,0\n"cat/d,e.png",1')
    assert dataset.labels.tolist() == [-1, 0, 1]
    assert dataset.summary() == "3 images in 2 classes; 1 without a label"
    assert opened(root, f"path,label\nant/a b.png,{none}").labels is None


def test_names_may_have_images_without_one_too(root):
    dataset = opened(root, "ant/a b.png,b\nbee/c 3.png,\nant/a b.png,a\nbee/c 3.png,-1\n")
    assert (dataset.labels.tolist(), dataset.classes) == ([1, -1, 0, -1], ["a", "b"])
    assert dataset.summary() == (
        "4 images in 2 classes (a, b); 2 without a label; 2 named more than once"
    )


@pytest.mark.parametrize("offset", [MAX_NUMBER, 15_075_141, 2_000_000_000, 10**30])
def test_huge_numbers_are_names_and_no_count_of_classes(offset, root):
    dataset = opened(root, f"ant/a b.png {offset + 9}\nbee/c 3.png {offset + 1}\n")
    assert (dataset.labels.tolist(), dataset.num_classes) == ([1, 0], 2)
    assert dataset.classes == [str(offset + 1), str(offset + 9)]


def test_small_numbers_are_what_they_were(root):
    dataset = opened(root, f"ant/a b.png 4\nbee/c 3.png {MAX_NUMBER}\n")
    assert (dataset.labels.tolist(), dataset.classes) == ([4, MAX_NUMBER], None)


def test_the_fingerprint_of_an_ordinary_list_is_what_it_was(tmp_path):
    dataset = opened(tmp_path, "x/a b.png 4\n\nc 3.png 0\r\nd.png 2\n")
    assert dataset.fingerprint() == (
        "38d81162c88ce09c44719fff4bf90abd0f967219c540cba2ad306ada934af7ce"
    )


def test_paths_begin_at_the_list_or_at_root_or_at_home(root, monkeypatch):
    text = "a b.png\n"
    with pytest.raises(ValueError) as caught:
        opened(root, text).probe()
    assert str(caught.value) == (
        f"path={root}/list.csv: none of the 1 images tried can be read, first {root}/a b.png: "
        f"No such file or directory (paths begin at root={root})"
    )
    assert opened(root, text, root=str(root / "ant")).read(0).shape == (3, 2, 3)
    monkeypatch.setenv("HOME", str(root))
    assert opened(root, "~/ant/a b.png", root="~").describe(0) == f"{root}/ant/a b.png"
    monkeypatch.chdir(root)
    assert ListFile(path="list.csv").read(0).shape == (3, 2, 3)


def test_a_path_from_the_root_of_the_disk_may_lie_below_root(root):
    assert opened(root, f"{root}/ant/a b.png").read(0).shape == (3, 2, 3)


def test_a_list_may_lead_out_where_that_is_permitted(root):
    (root / "inner").mkdir()
    text = "../ant/a b.png\n"
    inner = str(root / "inner")
    assert mistake(root, text, root=inner) == (
        f"line 1: '../ant/a b.png' leads out of root={inner}; to permit it set allow_outside=true"
    )
    assert opened(root, text, root=inner, allow_outside=True).read(0).shape == (3, 2, 3)


def test_what_is_a_file_is_a_path_whatever_it_looks_like(tmp_path):
    odd = ["#1.png", "a,b.png", "=1+1.png", "'.png", "%41?.png", "path", "d;0"]
    for name in odd:
        Image.new("RGB", (2, 3)).save(tmp_path / name, "PNG")
    for name in odd:
        dataset = opened(tmp_path, f"{name}\n")
        assert (dataset.describe(0), dataset.labels) == (f"{tmp_path}/{name}", None)
    assert opened(tmp_path, '"c.png 3"\n').describe(0) == f"{tmp_path}/c.png 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("\n# nothing\n\n", "lists no image"),
        ("path,label\n", "lists no image"),
        ("a.png 1\n\nb.png", "line 3: 'b.png' has no label, but line 1 has one; -1 stands for no "),
        ("a.png\nb.png 1", "line 2: 'b.png 1' has a label, but line 1 has none; -1 stands for no "),
        ("a.png -2", "line 1: 'a.png -2' has label -2; labels count the classes from 0, and -1 is"),
        ("a.png 0 2", "line 1: 'a.png 0 2' has several labels; an image has one"),
        ('a.png,"0;2"', "line 1: 'a.png,0;2' has several labels; an image has one"),
        ("a.png,0,2", "line 1: 'a.png,0,2' has 3 columns; a first line has to name them, such as "),
        ("a.png,0\nb.png", "line 2: 'b.png' has 1 columns, line 1 has 2; a name with ','"),
        ("a.png,1\nb.png,cat", "line 2: 'b.png,cat' has the label 'cat', but line 1 has '1'; l"),
        ("a.png cat\nb.png 1", "line 2: 'b.png 1' has the label '1', but line 1 has 'cat'; l"),
        ("id,kind\na.png,1", "line 1: 'id,kind' is no image; to name columns: path,label"),
        ("label path\n1 a.png", "line 1: 'label path' names columns: put commas between them"),
        ("path name label\na.png x 1", "line 2: 'a.png x 1' has a label, but line 1 has none"),
        (",1\na.png,1", "line 1: ',1' names no image"),
        ('a.png,1\n"b.png,1\nc.png,1\n', "line 2: is no line of a table (unexpected end of data)"),
        ("0,ant/a b.png", "line 1: '0,ant/a b.png' has the path last: it comes first, or a "),
        ("ant\\a b.png 1", "line 1: 'ant\\\\a b.png 1' is there as 'ant/a b.png': write "),
        ("a.png\n" + "b" * 70_000, "line 2: 'bbb"),
        ("," * 200_000, "line 1: ',,,"),
        ("a.png" + " " * 200_000 + "x\n", "line 1: 'a.png   "),
        ("id,kind\nant,1", "line 1: 'id,kind' is no image; to name columns: path,label"),
        ("a.png\nb/../../c.png", "line 2: 'b/../../c.png' leads out of root"),
        ("/etc/passwd", "line 1: '/etc/passwd' leads out of root"),
        ("~/a.png", "line 1: '~/a.png' leads out of root"),
        ("..", "line 1: '..' leads out of root"),
        (gzip.compress(b"a.png", mtime=0), "is packed by gzip; unpack it first"),
        (b"\0PNG", "is no text: a list is lines of path,label"),
        (codecs.BOM_UTF16_BE + b"\0", "is no text (truncated data)"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_one_line_with_the_line_and_what_is_right(text, message, root):
    assert mistake(root, text).startswith(message)


def test_a_list_that_is_not_there_is_one_line(tmp_path):
    with pytest.raises(ValueError, match=r"^path=/gone: no such file"):
        ListFile(path="/gone", root=str(tmp_path))
    with pytest.raises(ValueError, match=r": a folder is read by data=folder data\.train\.path="):
        ListFile(path=str(tmp_path))


@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1).map(
            lambda text: f"{text}.png"
        ),
        min_size=1,
    ),
    delimiter=st.sampled_from(",;\t"),
)
def test_what_the_csv_module_writes_is_read_for_any_names(names, delimiter):
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerow(["label", "path"])
    for number, name in enumerate(names):
        writer.writerow([number, name])
    rows, unused = read_image_list(file.getvalue().encode(), root="/nowhere")
    read = [(row.path, row.label) for row in rows]
    assert read == [(name.strip(), str(number)) for number, name in enumerate(names)]
    assert unused == []


@given(data=st.binary(max_size=200) | st.text("a.png,;\t\n\"'#\r 01\\/-~ü\ufeff").map(str.encode))
def test_any_bytes_are_a_list_or_one_line(data):
    try:
        rows, _ = read_image_list(data, root="/nowhere")
        for row in rows:
            os.fsencode(row.path)
    except ValueError as error:
        assert "\n" not in str(error)


def test_a_list_of_a_run_from_before_is_still_one(root):
    load_components()
    (root / "list.csv").write_text("ant/a b.png 1\n")
    node = {"name": "ListFile", "path": str(root / "list.csv"), "root": str(root)}
    assert DATASETS.build({**node, "allow_outside": False}).labels.tolist() == [1]
    assert DATASETS.build(node).labels.tolist() == [1]
