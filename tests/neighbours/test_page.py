"""The page of neighbours holds text that is text, and pictures that are there."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from cluster_samples import Colours

from ssl_platform.neighbours.findings import Findings, LookAlikes, find
from ssl_platform.neighbours.output import NeighbourOutput
from ssl_platform.ops.neighbours import Neighbours, self_neighbours

EVIL = '<script>alert("x")</script>'
OUTPUT = NeighbourOutput(listed=5, shown=3, thumbnail_side=16)


class Evil(Colours):
    classes = ("<b>apple", "pear")

    def describe(self, index: int) -> str:
        return f"/images/{EVIL}_{index}.jpg"


@pytest.fixture
def dataset() -> Evil:
    """Of two colours and classes; two images are equal, one cannot be read, one label is wrong."""
    colours = [10 + i for i in range(12)] + [200 + i for i in range(12)] + [200, None]
    return Evil(colours, labels=[0] * 12 + [1] * 11 + [0, 1, 1])


def found_in(dataset: Evil, images: np.ndarray, found: Neighbours, least: float | None) -> Findings:
    flat = torch.zeros(len(images), 64)
    limits = {"duplicate_cosine": least, "duplicate_pixel_cosine": None}
    return find(dataset, images, found, flat, temperature=0.07, **limits)


def findings_of(dataset: Evil) -> Findings:
    images = np.array([i for i, colour in enumerate(dataset.colours) if colour is not None])
    angles = torch.tensor([float(dataset.colours[i]) for i in images]) / 150
    rows = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = self_neighbours(rows, k=6, device=torch.device("cpu"))
    return found_in(dataset, images, found, 0.9999999)


def test_names_are_escaped_and_every_picture_is_there(dataset, tmp_path):
    findings = findings_of(dataset)
    asked = LookAlikes(dataset, np.ones((26, 2), np.float32), np.tile([0, 24], (26, 1)))
    summary = OUTPUT.write(tmp_path, dataset, findings, asked, title="<i>title", run=None)
    assert (summary["images"], summary["unreadable"]) == (25, 1)
    assert summary["duplicates"]["same_pixels"] == 1
    text = (tmp_path / "index.html").read_text()
    assert "<script" not in text and "<i>title" not in text and "<b>apple" not in text
    assert "&lt;script&gt;" in text and "&lt;b&gt;apple" in text
    pictures = re.findall(r'src="([^"]+)"', text)
    assert pictures and all((tmp_path / picture).is_file() for picture in pictures)
    assert all((tmp_path / name).exists() for name in re.findall(r'href="([^#"]+)"', text))


def test_pictures_of_an_earlier_page_are_gone(dataset, tmp_path):
    findings = findings_of(dataset)
    (tmp_path / "thumbnails").mkdir()
    (tmp_path / "thumbnails" / "999.jpg").touch()
    OUTPUT.write(tmp_path, dataset, findings, None, title="", run=None)
    assert not list(tmp_path.glob("look_alikes*"))
    text = (tmp_path / "index.html").read_text()
    assert "Look-alikes" not in text
    drawn = {f"thumbnails/{path.name}" for path in Path(tmp_path / "thumbnails").iterdir()}
    assert drawn == set(re.findall(r'src="([^"]+)"', text))


def test_features_that_hardly_tell_images_apart_are_called_out(dataset, tmp_path):
    images = np.arange(25)
    rows = torch.ones(25, 3) + 1e-6 * torch.arange(75).reshape(25, 3)
    found = self_neighbours(rows, k=6, device=torch.device("cpu"))
    findings = found_in(dataset, images, found, 0.99)
    verdict = {"kind": "collapsed", "text": "it <has>"}
    (tmp_path / "summary.json").write_text(json.dumps({"verdict": verdict}))
    (tmp_path / "page").mkdir()
    summary = OUTPUT.write(tmp_path / "page", dataset, findings, None, title="", run=tmp_path)
    assert summary["signs"][0].startswith("100% of the images are near duplicates")
    assert summary["signs"][1].startswith("25 images are few")
    text = (tmp_path / "page" / "index.html").read_text()
    assert "hardly tells images apart" in text
    assert "<strong>Training: collapsed:</strong> it &lt;has&gt;" in text


@pytest.mark.parametrize("num_copies", [2, 3])
def test_a_set_of_copies_alone_is_found(num_copies):
    rows = torch.randn(10, 8, generator=torch.Generator().manual_seed(0))
    found = self_neighbours(rows.repeat(num_copies, 1), k=6, device=torch.device("cpu"))
    dataset = Evil([*list(range(10)) * (num_copies - 1), *range(9), None])  # the last is gone now
    findings = found_in(dataset, np.arange(10 * num_copies), found, None)
    assert findings.duplicates.groups.tolist() == list(range(10)) * num_copies
    of_last = (findings.duplicates.pairs == 10 * num_copies - 1).any(axis=1)
    assert findings.same_pixels.tolist() == (~of_last).tolist()
