"""The page shows the figures and the sheets, and runs no script but its own."""

import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from cluster_samples import clusters_of
from PIL import Image

from ssl_platform.clusters.files import write_symlinks
from ssl_platform.clusters.page import write_page
from ssl_platform.clusters.sheets import write_sheets
from ssl_platform.clusters.summary import summarize
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.shapes import Shapes


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and each one's text."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, path: Path):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._open: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag, attrs):
        element = (tag, dict(attrs), [])
        self.elements.append(element)
        if tag not in self.EMPTY:
            self._open.append(element)

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        for _, _, texts in self._open:
            texts.append(data)

    def all(self, tag: str) -> list[tuple[dict[str, str | None], str]]:
        elements = [(attrs, texts) for name, attrs, texts in self.elements if name == tag]
        return [(attrs, " ".join(" ".join(texts).split())) for attrs, texts in elements]


def page_of(folder: Path, dataset, clusters, *, title: str = "Clusters") -> Page:
    write_page(folder, dataset, clusters, summarize(dataset, clusters), title=title)
    return Page(folder / "index.html")


def draw(folder: Path, dataset, clusters) -> None:
    write_sheets(folder, dataset, clusters, images_per_sheet=4, thumbnail_side=8)


def shapes(num_samples: int) -> Shapes:
    return Shapes(num_samples=num_samples, size=8, seed=0)


def named_classes(root: Path, *classes: str) -> ImageFolder:
    """A folder of one image in each of some classes."""
    for name in classes:
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(root / name / "1.png")
    return ImageFolder(path=str(root))


def test_clusters_in_use_stand_by_size_and_empty_ones_in_a_line(tmp_path):
    # class i % 10: cluster 3 has 0 1 2 and 0, cluster 0 has 3 4, cluster 5 has 5
    ids = [3, 3, 3, 0, 0, 5, -1, -1, -1, -1, 3]
    scores = np.array([[0.1], [0.2], [0.3], [0.5], [0.7], [1], [0], [0], [0], [0], [0.6]])
    page = page_of(tmp_path, shapes(11), clusters_of(ids, [7], scores))
    texts = [text for _, text in page.all("article")]
    assert [text.split(" \u00b7 ")[0] for text in texts] == [
        "Cluster 3 4 images",
        "Cluster 0 2 images",
        "Cluster 5 1 image",
    ]
    assert [text.split(" \u00b7 ")[1] for text in texts] == [
        "mean cosine 0.300 50% class 0",
        "mean cosine 0.600 50% class 3",
        "mean cosine 1.000 100% class 5",
    ]
    empty = [(attrs, text) for attrs, text in page.all("details") if "empty" in text]
    assert [text for _, text in empty] == ["4 empty clusters 1, 2, 4, 6"]
    assert "open" in empty[0][0]
    assert "4 images could not be read" in page.all("header")[0][1]


def test_many_empty_clusters_are_folded_away(tmp_path):
    page = page_of(tmp_path, shapes(2), clusters_of([0, 0], [42]))
    ((attrs, text),) = [d for d in page.all("details") if "empty" in d[1]]
    assert text.startswith("41 empty clusters")
    assert "open" not in attrs


def test_the_figures_are_those_of_the_summary(tmp_path):
    clusters = clusters_of([[0, 0], [1, 0], [2, 0], [2, 0]], [4, 2])
    page = page_of(tmp_path, shapes(4), clusters)
    (_, first), (_, second) = [d for d in page.all("dl") if d[0].get("class") == "figures"]
    assert "Clusters in use 3 of 4" in first
    assert "Size: min / median / max 1 / 1 / 2" in first
    assert "Purity 75.0%" in first
    assert "Hungarian accuracy 75.0%" in first
    assert "Purity 25.0%" in second
    assert "ARI 0.000" in second
    assert [text for _, text in page.all("h2")] == ["Prototypes 0", "Prototypes 1"]


def test_without_labels_nothing_is_said_of_classes(tmp_path):
    dataset = shapes(4)
    dataset.labels = None
    text = page_of(tmp_path, dataset, clusters_of([0, 0, 1, 1], [2])).all("body")[0][1]
    assert not any(word in text for word in ("NMI", "class", "Purity", "purest", "nan"))


def test_pictures_are_lazy_relative_and_of_their_size(tmp_path):
    dataset, clusters = shapes(9), clusters_of([[0, 11]] * 3 + [[2, 4]] * 6, [3, 12])
    draw(tmp_path, dataset, clusters)
    (tmp_path / "sheets" / "1" / "04.jpg").unlink()
    page = page_of(tmp_path, dataset, clusters)
    pictures = [attrs for attrs, _ in page.all("img")]
    assert [attrs["src"] for attrs in pictures] == [
        "sheets/0/2.jpg",
        "sheets/0/0.jpg",
        "sheets/1/11.jpg",
    ]
    for attrs in pictures:
        assert attrs["loading"] == "lazy"
        with Image.open(tmp_path / attrs["src"]) as sheet:
            assert (int(attrs["width"]), int(attrs["height"])) == sheet.size


def test_links_lead_to_what_is_there(tmp_path):
    dataset = named_classes(tmp_path / "images", "cat", "dog")
    clusters = clusters_of([[0, 1], [11, 1]], [12, 2])
    write_symlinks(tmp_path, dataset, clusters)
    (tmp_path / "summary.json").write_text("{}")
    draw(tmp_path, dataset, clusters)
    page = page_of(tmp_path, dataset, clusters)
    targets = [attrs["href"] for attrs, _ in page.all("a")]
    anchors = {f"#{attrs['id']}" for _, attrs, _ in page.elements if "id" in attrs}
    files = {target for target in targets if not target.startswith("#")}
    assert {target for target in targets if target.startswith("#")} == {"#set-0", "#set-1"}
    assert {"#set-0", "#set-1"} <= anchors
    assert all((tmp_path / target).exists() for target in files)
    assert {"by_cluster/0/11/", "summary.json", "sheets/1/1.jpg"} <= files
    assert "clusters.csv" not in files


def test_classes_that_are_folders_have_their_names(tmp_path):
    dataset = named_classes(tmp_path / "images", "cat", "dog")
    page = page_of(tmp_path, dataset, clusters_of([1, 0], [2]))
    texts = [text for _, text in page.all("article")]
    assert [text.split()[-2:] for text in texts] == [["100%", "dog"], ["100%", "cat"]]


def test_names_are_text_and_nothing_else(tmp_path):
    evil = "<script>alert(1)<"
    dataset = named_classes(tmp_path / "images", evil, 'a" onload="x&amp;', os.fsdecode(b"\xff"))
    clusters = clusters_of([0, 1, 2], [3])
    plain = page_of(tmp_path, dataset, clusters, title="Clusters")
    page = page_of(tmp_path, dataset, clusters, title="</title><script>alert(2)</script> & more")
    assert [name for name, _, _ in page.elements] == [name for name, _, _ in plain.elements]
    assert len(page.all("script")) == 1
    assert all("alert" not in text for _, text in page.all("script"))
    assert all("onload" not in attrs for _, attrs, _ in page.elements)
    assert page.all("h1")[0][1] == "</title><script>alert(2)</script> & more"
    texts = [text for _, text in page.all("article")]
    assert any(evil in text for text in texts)
    assert any('a" onload="x&amp;' in text for text in texts)
    assert any("\\xff" in text for text in texts)


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    dataset, clusters = shapes(12), clusters_of([[i % 3] for i in range(12)], [3])
    draw(tmp_path, dataset, clusters)
    page = page_of(tmp_path, dataset, clusters)
    assert not any(name in ("link", "iframe") for name, _, _ in page.elements)
    elements = [attrs for _, attrs, _ in page.elements]
    sources = [attrs[key] for attrs in elements for key in ("src", "href") if key in attrs]
    assert sources
    assert all("//" not in source for source in sources)
    assert "url(" not in (tmp_path / "index.html").read_text()
