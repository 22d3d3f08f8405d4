"""Everything that is written about clusters.

All of it goes to one folder::

    index.html                        shows the sheets and the figures
    names.js                          names of the images, which the page searches
    clusters.csv, clusters.parquet    one row per image, in the order of the data set
    by_cluster/0/0017/                symbolic links to the images of cluster 17 of set 0
    sheets/0/0017.jpg                 the images of that cluster that are nearest to its prototype
    summary.json                      the figures
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ssl_platform import distributed
from ssl_platform.clusters.files import write_symlinks, write_tables
from ssl_platform.clusters.health import training_health
from ssl_platform.clusters.nearest import Clusters
from ssl_platform.clusters.page import write_page
from ssl_platform.clusters.sheets import check_sheet_size, num_columns_of, write_sheets
from ssl_platform.clusters.summary import summarize, summary_lines
from ssl_platform.console import legible
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.errors import ConfigError, DiskError
from ssl_platform.files import error_of_disk

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClusterOutput:
    """What is written of clusters.

    Args:
        symlinks: make folders of links.
        images_per_sheet: of a contact sheet, at most.
        thumbnail_side: of an image on it, in pixels.

    Raises:
        ValueError: there can be no such sheets.
    """

    symlinks: bool
    images_per_sheet: int
    thumbnail_side: int

    def __post_init__(self) -> None:
        check_sheet_size(self.images_per_sheet, self.thumbnail_side)

    def write(
        self,
        folder: Path,
        dataset: ImageDataset,
        clusters: Clusters,
        *,
        title: str,
        run: Path | None = None,
    ) -> dict[str, Any]:
        """Write every file; returns what ``summary.json`` holds. Collective.

        Args:
            title: heading of the page.
            run: directory of the run, or of one of its checkpoints, whose clusters they are.

        Raises:
            ConfigError: the folder cannot be written, or holds files of others.
            DiskError: the disk is full.
        """
        try:
            return self._write(folder, dataset, clusters, title, run)
        except OSError as error:
            problem = f"output_dir={folder}: cannot be written ({error})"
            if error_of_disk(error) is not None:
                raise DiskError(problem) from error
            raise ConfigError([problem]) from error
        except ValueError as error:
            raise ConfigError([str(error)]) from error

    def _write(
        self,
        folder: Path,
        dataset: ImageDataset,
        clusters: Clusters,
        title: str,
        run: Path | None,
    ) -> dict[str, Any]:
        write_sheets(
            folder,
            dataset,
            clusters,
            images_per_sheet=self.images_per_sheet,
            thumbnail_side=self.thumbnail_side,
        )
        distributed.barrier()
        summary = summarize(dataset, clusters)
        if distributed.rank() == 0:
            write_tables(folder, dataset, clusters)
            if self.symlinks and not write_symlinks(folder, dataset, clusters):
                logger.info("no folders of links: these images are not files of their own")
            (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
            write_page(  # it links the others
                folder,
                dataset,
                clusters,
                summary,
                title=title,
                sheet_columns=num_columns_of(self.images_per_sheet),
                training=None if run is None else training_health(run, folder),
            )
            lines = ["", *summary_lines(summary), f"look at {folder / 'index.html'}"]
            print(legible("\n".join(lines)), flush=True)
        return summary
