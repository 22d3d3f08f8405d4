"""Everything that is written about neighbours.

All of it goes to one folder::

    index.html                     the page, with thumbnails/
    images.csv, .parquet           one row per image that can be read, in the order of the data set
    duplicates.csv, .parquet       one row per pair of near duplicates
    outliers.csv, .parquet         the images that are furthest from their neighbours
    label_errors.csv, .parquet     images whose neighbours are confident of another class
    look_alikes.csv, .parquet      the nearest images of the pictures that were asked for
    summary.json                   the figures
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_platform.clusters.health import training_health
from ssl_platform.clusters.sheets import check_sheet_size
from ssl_platform.console import legible
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.errors import ConfigError, DiskError
from ssl_platform.files import error_of_disk
from ssl_platform.neighbours.findings import Findings, LookAlikes
from ssl_platform.neighbours.page import write_page
from ssl_platform.neighbours.summary import summarize, summary_lines
from ssl_platform.neighbours.tables import write_look_alikes, write_tables


@dataclass(frozen=True)
class NeighbourOutput:
    """What is written of neighbours.

    Args:
        listed: rows of the tables of outliers and of label errors, at most.
        shown: groups, outliers and label errors on the page, at most, each.
        thumbnail_side: of an image on the page, in pixels.

    Raises:
        ValueError: there can be no such thumbnails.
    """

    listed: int
    shown: int
    thumbnail_side: int

    def __post_init__(self) -> None:
        check_sheet_size(1, self.thumbnail_side)

    def write(
        self,
        folder: Path,
        dataset: ImageDataset,
        findings: Findings,
        look_alikes: LookAlikes | None,
        *,
        title: str,
        run: Path | None,
    ) -> dict[str, Any]:
        """Write every file; returns what ``summary.json`` holds.

        Args:
            look_alikes: None where none were asked for.
            title: heading of the page.
            run: directory of the run, or of one of its checkpoints, whose features they are.

        Raises:
            ConfigError: the folder cannot be written.
            DiskError: the disk is full.
        """
        summary = summarize(findings, len(dataset))
        try:
            write_tables(folder, dataset, findings, self.listed)
            if look_alikes is not None:
                write_look_alikes(folder, dataset, findings, look_alikes)
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            write_page(
                folder,
                dataset,
                findings,
                look_alikes,
                summary,
                title=title,
                training=None if run is None else training_health(run, folder),
                shown=self.shown,
                side=self.thumbnail_side,
            )
        except OSError as error:
            problem = f"output_dir={folder}: cannot be written ({error})"
            if error_of_disk(error) is not None:
                raise DiskError(problem) from error
            raise ConfigError([problem]) from error
        lines = ["", *summary_lines(summary), f"look at {folder / 'index.html'}"]
        print(legible("\n".join(lines)), flush=True)
        return summary
