"""The page has the figures and the data of the clusters, and runs no script but its own."""

import json
import os
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from cluster_samples import clusters_of
from PIL import Image

from ssl_platform.clusters.files import write_symlinks
from ssl_platform.clusters.health import TrainingHealth
from ssl_platform.clusters.page import write_page
from ssl_platform.clusters.sheets import write_sheets
from ssl_platform.clusters.summary import summarize
from ssl_platform.data.sets.image_folder import ImageFolder
from ssl_platform.data.sets.shapes import Shapes


class Page(HTMLParser):
    """What a browser would make of it: elements with their attributes, and each one's text."""

    EMPTY = ("meta", "input")

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

    def data(self) -> dict:
        """What the page's script reads."""
        (text,) = (texts for tag, attrs, texts in self.elements if attrs.get("id") == "data")
        return json.loads("".join(text))


def page_of(folder: Path, dataset, clusters, *, title: str = "Clusters", training=None) -> Page:
    summary = summarize(dataset, clusters)
    write_page(folder, dataset, clusters, summary, title=title, sheet_columns=2, training=training)
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


def names_in(folder: Path) -> dict:
    text = (folder / "names.js").read_text()
    return json.loads(text.removeprefix("namesArrived(").removesuffix(");\n"))


def test_clusters_in_use_come_by_size_and_empty_ones_in_a_line(tmp_path):
    # class i % 10: cluster 3 has 0 1 2 and 0, cluster 0 has 3 4, cluster 5 has 5
    ids = [3, 3, 3, 0, 0, 5, -1, -1, -1, -1, 3]
    scores = np.array([[0.1], [0.2], [0.3], [0.5], [0.7], [1], [0], [0], [0], [0], [0.6]])
    page = page_of(tmp_path, shapes(11), clusters_of(ids, [7], scores))
    (data,) = page.data()["sets"]
    assert data == {
        "clusters": 7,
        "digits": 1,
        "links": False,
        "ids": [3, 0, 5],
        "sizes": [4, 2, 1],
        "scores": [0.3, 0.6, 1],
        "sheets": [0, 0, 0],
        "labelled": [4, 2, 1],
        "classes": [[0, 2, 1, 1, 2, 1], [3, 1, 4, 1], [5, 1]],
    }
    assert page.data()["classes"] == {str(label): f"class {label}" for label in range(6)}
    empty = [(attrs, text) for attrs, text in page.all("details") if "empty" in text]
    assert [text for _, text in empty] == ["4 empty clusters 1, 2, 4, 6"]
    assert "open" in empty[0][0]
    assert "4 images could not be read" in page.all("header")[0][1]


def test_many_empty_clusters_are_folded_away(tmp_path):
    page = page_of(tmp_path, shapes(2), clusters_of([0, 0], [42]))
    ((attrs, text),) = [d for d in page.all("details") if "empty" in d[1]]
    assert text.startswith("41 empty clusters")
    assert "open" not in attrs


def test_the_figures_are_those_of_the_summary_beside_chance(tmp_path):
    clusters = clusters_of([[0, 0], [1, 0], [2, 0], [2, 0]], [4, 2])
    page = page_of(tmp_path, shapes(4), clusters)
    (_, first), (_, second) = [d for d in page.all("dl") if d[0].get("class") == "figures"]
    assert "Clusters in use 3 of 4" in first
    assert "Size: min / median / max 1 / 1 / 2" in first
    assert "Purity 75.0% by chance 75.0%" in first  # four classes of one image each
    assert "Hungarian accuracy 75.0% by chance 75.0%" in first
    assert "Purity 25.0% by chance 25.0%" in second
    assert "ARI 0.000 by chance 0.000" in second
    assert [text for _, text in page.all("h2")] == ["Prototypes 0", "Prototypes 1"]


def test_without_labels_nothing_is_said_of_classes(tmp_path):
    dataset = shapes(4)
    dataset.labels = None
    page = page_of(tmp_path, dataset, clusters_of([0, 0, 1, 1], [2]))
    text = " ".join(page.all(tag)[0][1] for tag in ("header", "section"))
    assert not any(word in text for word in ("NMI", "Class", "Purity", "purest", "chance", "nan"))


def test_k_means_is_called_by_its_name(tmp_path):
    page = page_of(tmp_path, shapes(4), clusters_of([0, 0, 1, 1], [2], by="k-means"))
    text = page.all("body")[0][1]
    assert [text for _, text in page.all("h2")] == ["k-means clusters"]
    assert "These are k-means clusters of the model's features, not prototypes" in text
    assert "nearest centroid" in text and "nearest prototype" not in text
    assert page.data()["by"] == "k-means"


def test_a_collapsed_training_and_its_signs_stand_above_the_clusters(tmp_path):
    sign = {"text": "The loss is <ln K>.", "remedy": "loss.epsilon=0.03"}
    training = TrainingHealth("bad", "collapsed", "it has.", [sign], "../report.html")
    page = page_of(tmp_path, shapes(4), clusters_of([0, 1, 2, 3], [4]), training=training)
    ((attrs, text),) = [d for d in page.all("div") if "health" in (d[0].get("class") or "")]
    assert attrs["class"] == "health bad"
    assert text.startswith(
        "Training: collapsed: it has. Sign at its end: The loss is <ln K>.; loss."
    )
    assert "what you see below is no result" in text
    assert ({"href": "../report.html"}, "report of the run") in page.all("a")


def test_clusters_that_are_one_are_called_out_without_a_run(tmp_path):
    page = page_of(tmp_path, shapes(30), clusters_of([0] * 30, [6]))
    warnings = [text for attrs, text in page.all("p") if attrs.get("class") == "health doubtful"]
    assert "One cluster holds 100% of the images." in warnings


def test_the_data_have_the_size_of_each_sheet_that_is_there(tmp_path):
    dataset, clusters = shapes(9), clusters_of([[0, 11]] * 3 + [[2, 4]] * 6, [3, 12])
    draw(tmp_path, dataset, clusters)
    (tmp_path / "sheets" / "1" / "04.jpg").unlink()
    first, second = page_of(tmp_path, dataset, clusters).data()["sets"]
    assert (second["ids"], second["sheets"][0], second["digits"]) == ([4, 11], 0, 2)
    for data, name in ((first, "0/2"), (second, "1/11")):
        with Image.open(tmp_path / f"sheets/{name}.jpg") as sheet:
            assert list(sheet.size) == data["sheets"][data["ids"].index(int(name[2:]))]


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
    assert {"by_cluster", "summary.json"} <= files
    assert "clusters.csv" not in files
    assert all(data["links"] for data in page.data()["sets"])


def test_names_of_images_are_in_a_file_of_their_own(tmp_path):
    dataset = named_classes(tmp_path / "images", "cat", "dog")
    page_of(tmp_path, dataset, clusters_of([[0, 1], [11, 1]], [12, 2]))
    assert names_in(tmp_path) == {
        "folders": [[f"{tmp_path}/images/cat/", 1], [f"{tmp_path}/images/dog/", 1]],
        "names": ["1.png", "1.png"],
        "ids": [[0, 11], [1, 1]],
    }
    page_of(tmp_path, shapes(3), clusters_of([0, -1, 0], [2]))
    assert names_in(tmp_path)["folders"] == [["", 3]]
    assert names_in(tmp_path)["names"] == ["Shapes[0]", "Shapes[1]", "Shapes[2]"]


def test_names_are_text_and_nothing_else(tmp_path):
    evil = "<script>alert(1)<"
    dataset = named_classes(tmp_path / "images", evil, 'a" onload="x&amp;', os.fsdecode(b"\xff"))
    clusters = clusters_of([0, 1, 2], [3])
    plain = page_of(tmp_path, dataset, clusters, title="Clusters")
    page = page_of(tmp_path, dataset, clusters, title="</title><script>alert(2)</script> & more")
    assert [name for name, _, _ in page.elements] == [name for name, _, _ in plain.elements]
    assert [attrs for attrs, _ in page.all("script")] == [
        {"type": "application/json", "id": "data"},
        {},
    ]
    assert "alert" not in page.all("script")[1][1]
    assert all("onload" not in attrs for _, attrs, _ in page.elements)
    assert page.all("h1")[0][1] == "</title><script>alert(2)</script> & more"
    assert {evil, 'a" onload="x&amp;', "\\xff"} == set(page.data()["classes"].values())


def test_the_page_needs_nothing_from_elsewhere(tmp_path):
    dataset, clusters = shapes(12), clusters_of([[i % 3] for i in range(12)], [3])
    draw(tmp_path, dataset, clusters)
    page = page_of(tmp_path, dataset, clusters)
    assert not any(name in ("link", "iframe", "img") for name, _, _ in page.elements)
    elements = [attrs for _, attrs, _ in page.elements]
    assert all(
        "//" not in attrs[key] for attrs in elements for key in ("src", "href") if key in attrs
    )
    assert not {"url(", "http", "fetch("} & set((tmp_path / "index.html").read_text().split())
