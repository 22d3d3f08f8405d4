"""The page of a run, made again from what lies in its directory."""

import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.config.options import JobOptions
from ssl_platform.config.saved import config_of, shown_config
from ssl_platform.console import legible
from ssl_platform.engine.build import Builder, resolve_device
from ssl_platform.errors import ConfigError, DataError, DivergedError
from ssl_platform.files import reason, replacing
from ssl_platform.registry import TASKS
from ssl_platform.reports.crops import cropped_images
from ssl_platform.reports.page import (
    PAGE,
    SUMMARY,
    Reported,
    json_file,
    report_page,
)
from ssl_platform.reports.sample import drawn_positions, look_at
from ssl_platform.reports.sample_values import SampleView
from ssl_platform.tasks import Task
from ssl_platform.zoo.trained_run import TrainedRun

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReadingOptions:
    """How the images of the run are read."""

    num_workers: Annotated[int, Ge(0)]
    eval_batch_size: Annotated[int, Ge(1), "e.g. 256"]


@dataclass(frozen=True)
class ReportOptions(JobOptions):
    """Top-level keys of this job."""

    checkpoint: str
    data: ReadingOptions


@TASKS.register()
class MakeReport(Task):
    """Write the page of a run, as the hook `Report` does while it trains.

    Where the run's images or components are not there any more, the page says so and shows the
    rest.

    Args:
        page: the file; null for ``report.html`` in the directory of the run.
        num_images: of the sample of training images.
        seed: of its draw.
    """

    options = ReportOptions

    def __init__(
        self,
        *,
        page: str | None,
        num_images: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)],
    ):
        self.page, self.num_images, self.seed = page, num_images, seed

    def probe(self, options: ReportOptions) -> None:
        """See `Task`: opens the run."""
        TrainedRun.open(options.checkpoint)
        path, given = self._path(options), "null" if self.page is None else self.page
        if not path.parent.is_dir():
            raise ValueError(f"task.page={given}: there is no folder {path.parent}")
        if path.is_dir():
            raise ValueError(f"task.page={given}: {path} is a folder; name a file")
        if not os.access(path.parent, os.W_OK):
            raise ValueError(
                f"task.page={given}: {path.parent} cannot be written; name a file elsewhere, "
                "task.page=report.html, and output_dir=... if that lies there too"
            )

    def __call__(self, options: ReportOptions) -> Path:
        """Write the page; returns its path. Collective."""
        run = TrainedRun.open(options.checkpoint)
        missing: dict[str, str] = {}
        pictures = self._pictures(run, options, missing)
        path = self._path(options)
        if distributed.rank() != 0:
            return path
        config = shown_config(config_of(Path(options.checkpoint)))
        folder = config_of(Path(options.checkpoint)).parent
        page = report_page(
            Reported.of(
                folder,
                config=config,
                results=json_file(folder / SUMMARY),
                epoch=int(run.state["epoch"]),
                num_epochs=run.options.num_epochs,
                step=int(run.state["step"]),
                missing=missing,
                **pictures,
            )
        )
        try:
            with replacing(path) as partial:
                partial.write_bytes(page)
        except OSError as error:
            line = f"task.page={path}: cannot be written ({reason(error)}); name another file"
            raise ConfigError([line]) from error
        for what, why in missing.items():
            logger.warning("the page has no %s: %s", what, why)
        print(legible(f"look at {path}"), flush=True)
        return path

    def _path(self, options: ReportOptions) -> Path:
        if self.page is not None:
            return Path(self.page)
        return config_of(Path(options.checkpoint)).parent / PAGE

    def _pictures(
        self, run: TrainedRun, options: ReportOptions, missing: dict[str, str]
    ) -> dict[str, Any]:
        """The parts of the page that need the run's images; collective."""
        pictures: dict[str, Any] = {"images": "", "cropped": [], "view": None}
        data = replace(
            run.options.data,
            num_workers=options.data.num_workers,
            eval_batch_size=options.data.eval_batch_size,
            max_bad_fraction=1.0,  # a page of the images that can be read
        )
        job = replace(run.options, data=data, launch=options.launch, teacher=None)
        builder = Builder(job, device=resolve_device(options.device))
        try:
            run.require("data")
            dataset = builder.train_data
        except ValueError as error:
            why = f"The images of the run cannot be opened ({error})."
            missing |= {"crops": why, "sample": why}
            return pictures
        pictures["images"] = dataset.summary()
        try:
            cropped = cropped_images(dataset, builder.transform, seed=self.seed)
            pictures["cropped"] = cropped
        except DataError as error:
            missing["crops"] = f"No crops: {error}"
        try:
            model = run.model().to(builder.device)
            positions = drawn_positions(dataset, self.num_images, self.seed)
            sample = look_at(model, dataset, positions, builder.eval_loader)
            pictures["view"] = sample and SampleView.of(sample, is_last=True)
        except (ValueError, DataError, DivergedError) as error:
            missing["sample"] = f"No pictures: {error}"
        return pictures
