"""Pages of runs as tests read them."""

import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from ssl_platform.registry import DATASETS, TRANSFORMS, load_components
from ssl_platform.reports.crops import cropped_images
from ssl_platform.reports.page import Reported, report_page
from ssl_platform.reports.sample import Sample
from ssl_platform.reports.sample_values import SampleView


class Page(HTMLParser):
    """The text of each part of a page by its id, all attributes, and what its script is given."""

    NO_END = ("meta", "link", "img", "br")

    def __init__(self, path: Path):
        super().__init__()
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open: list[tuple[str, str]] = []
        self.source = path.read_text("utf-8")
        self.feed(self.source)
        self.close()
        assert not self._open
        self.data: dict[str, Any] = json.loads(self.texts["data"])

    def handle_starttag(self, tag, attrs):
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.NO_END:
            self._open.append((tag, dict(attrs).get("id") or ""))

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag
        if tag in ("td", "th", "dt", "dd", "h2", "p"):
            self.handle_data(" ")

    def handle_data(self, data):
        for _, name in self._open:
            self.texts[name] = self.texts.get(name, "") + data

    def part(self, name: str) -> str:
        """The text of a section, its spaces as a browser shows them."""
        return " ".join(self.texts[name].split())

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        """The attributes of the elements of a kind, of those with a word in an attribute."""
        found = [attrs for name, attrs in self.attributes if name == tag]
        return [a for a in found if all(w in (a.get(k) or "").split() for k, w in wanted.items())]

    @property
    def charts(self) -> dict[str, dict[str, list[float | None]]]:
        """Values of each series by the title of its chart."""
        return {
            chart["title"]: {one["name"]: one["values"] for one in chart["series"]}
            for chart in self.data["charts"]
        }


def a_sample(num_images: int = 60, *, num_prototypes: int | None = 6, **others: Any) -> Sample:
    """Random images in three classes, whose features tell the classes apart."""
    random = torch.Generator().manual_seed(0)
    labels = torch.arange(num_images) % 3
    features = torch.randn(num_images, 5, generator=random) / 2 + 3 * F.one_hot(labels, 5)
    unit = F.normalize(features, dim=1)
    pixels = torch.randint(0, 256, (num_images, 16, 16, 3), generator=random)
    sample = Sample(
        names=[f"images/{number}.png" for number in range(num_images)],
        labels=labels.numpy(),
        classes={0: "circle", 1: "square", 2: "star"},
        features=features,
        embeddings=None if num_prototypes is None else unit,
        prototypes=None if num_prototypes is None else unit[:num_prototypes],
        thumbnails=pixels.byte().numpy(),
        is_small=True,
    )
    return replace(sample, **others)


def page_of(path: Path, sample: Sample | None, **others: Any) -> Path:
    """A page of a run that has ended, without a run."""
    load_components()
    lines = [{"step": step, "loss": 3.0 - step / 20, "uniform_loss": 3.0} for step in range(1, 30)]
    reported = Reported(
        run_dir=path.parent,
        config={"name": "a run", "loss": {"name": "SwAVLoss"}, "trunk": {"name": "ResNet"}},
        results={"verdict": {"kind": "learned", "text": "the training taught the trunk something"}},
        lines=[*lines, {"step": 30, "knn/top1": 61.2, "health/prototypes_used": 1.0}],
        baselines={"knn": {"raw pixels": {"top1": 33.3}}},
        images="60 images in 3 classes",
        epoch=3,
        num_epochs=3,
        step=30,
        cropped=[],
        view=None if sample is None else SampleView.of(sample, is_last=True),
    )
    path.write_bytes(report_page(replace(reported, **others)))
    return path


def some_crops() -> list[Any]:
    """Built-in images beside two large crops and a small one."""
    load_components()
    dataset = DATASETS.build({"name": "Shapes", "num_samples": 8, "size": 32, "seed": 0})
    groups = {
        "large": {"size": 24, "count": 2, "scale": [0.5, 1.0]},
        "small": {"size": 10, "count": 1, "scale": [0.2, 0.5]},
    }
    transform = TRANSFORMS.build(
        {"name": "MultiCrop", "crops": groups, "ratio": [0.75, 1.33], "ops": {}}
    )
    return cropped_images(dataset, transform, seed=0)
