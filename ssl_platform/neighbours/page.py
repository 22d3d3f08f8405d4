"""A page of the findings, with thumbnails."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_platform.clusters.health import TrainingHealth
from ssl_platform.clusters.sheets import thumbnail
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.neighbours.findings import Findings, LookAlikes
from ssl_platform.reports import templates

MOST_OF_A_GROUP = 8  # images shown


def write_page(
    folder: Path,
    dataset: ImageDataset,
    findings: Findings,
    look_alikes: LookAlikes | None,
    summary: dict[str, Any],
    *,
    title: str,
    training: TrainingHealth | None,
    shown: int,
    side: int,
) -> None:
    """Write ``index.html`` and, in ``thumbnails``, the images that it shows.

    Args:
        summary: from ``summarize``.
        title: plain text.
        training: of the run whose features they are; None for weights without a run.
        shown: groups, outliers and label errors at most, each.
        side: of a thumbnail, in pixels.
    """
    thumbnails = folder / "thumbnails"
    thumbnails.mkdir(exist_ok=True)
    for old in thumbnails.glob("*.jpg"):
        old.unlink()
    shown_of = Shown(dataset, findings, shown)
    parts: dict[str, Any] = {
        "groups": shown_of.groups(),
        "outliers": shown_of.outliers(),
        "errors": shown_of.errors(),
        "queries": [] if look_alikes is None else shown_of.look_alikes(look_alikes),
    }
    rows = sorted({row for part in parts.values() for entry in part for row in entry["rows"]})
    for row in rows:
        drawn = thumbnail(dataset, int(findings.images[row]), side)
        drawn.save(thumbnails / f"{row}.jpg", "JPEG", quality=90)
    for index in range(len(parts["queries"])):
        drawn = thumbnail(look_alikes.pictures, index, side)  # type: ignore[union-attr]
        drawn.save(thumbnails / f"query_{index}.jpg", "JPEG", quality=90)
    paths = {row: dataset.describe(int(findings.images[row])) for row in rows}
    values = {
        "title": title,
        "training": training,
        "summary": summary,
        "side": side,
        "paths": paths,
        "names": {row: path.rpartition("/")[2] for row, path in paths.items()},
        "classes": {row: shown_of.class_of(row) for row in rows},
        **parts,
    }
    templates.write_page(folder / "index.html", "neighbours/page.html", values)


@dataclass(frozen=True)
class Shown:
    """What the page shows: entries, each with the ``rows`` of the findings that it has pictures of.

    Args:
        most: entries of each kind.
    """

    dataset: ImageDataset
    findings: Findings
    most: int

    def groups(self) -> list[dict[str, Any]]:
        """Near duplicates, the group with the nearest pair first."""
        pairs, cosines, _, groups = self.findings.duplicates
        of_pair = groups[pairs[:, 0]]
        sizes = np.bincount(groups[groups >= 0])
        highest = np.full(len(sizes), -np.inf)
        np.maximum.at(highest, of_pair, cosines)
        chosen = np.argsort(-highest, kind="stable")[: self.most]
        return [
            {
                "number": number,
                "size": int(sizes[number]),
                "rows": np.flatnonzero(groups == number)[:MOST_OF_A_GROUP].tolist(),
                "least": float(cosines[of_pair == number].min()),
                "same": int(self.findings.same_pixels[of_pair == number].sum()),
            }
            for number in chosen.tolist()
        ]

    def outliers(self) -> list[dict[str, Any]]:
        """The images that are furthest from their neighbours."""
        return [
            {
                "rows": [row],
                "distance": float(self.findings.distances[row]),
                "deviations": float(self.findings.deviations[row]),
            }
            for row in self.findings.order_of_outliers[: self.most].tolist()
        ]

    def errors(self) -> list[dict[str, Any]]:
        """Probable label errors, the most suspicious first."""
        votes, errors = self.findings.votes, []
        for row in self.findings.order_of_errors[: self.most].tolist():
            assert votes is not None
            own = float(votes.own[row])
            other = own - float(votes.margin[row])
            suggested = self._name(int(votes.suggested[row]))
            text = f"{self.class_of(row)} {own:.0%}, rather {suggested} {other:.0%}"
            errors.append({"rows": [row], "text": text})
        return errors

    def look_alikes(self, look_alikes: LookAlikes) -> list[dict[str, Any]]:
        """An entry for each picture that was asked for."""
        pictures, cosines, rows = look_alikes
        return [
            {
                "name": pictures.describe(index),
                "rows": rows[index].tolist(),
                "cosines": cosines[index].tolist(),
            }
            for index in range(len(pictures))
        ]

    def class_of(self, row: int) -> str:
        """The name of an image's class; nothing without a label."""
        labels = self.dataset.labels
        return "" if labels is None else self._name(int(labels[self.findings.images[row]]))

    def _name(self, label: int) -> str:
        if label < 0:
            return ""
        names = self.dataset.classes
        return f"class {label}" if names is None else names[label]
