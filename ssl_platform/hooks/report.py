"""The page of a run, kept up to date while it trains."""

import logging
import time
from typing import Annotated

from annotated_types import Ge

from ssl_platform import distributed
from ssl_platform.engine.run import Events, Run
from ssl_platform.errors import DivergedError, blame
from ssl_platform.hooks.files import write_or_warn
from ssl_platform.loggers.group import json_values
from ssl_platform.registry import HOOKS
from ssl_platform.reports.crops import CroppedImage, cropped_images
from ssl_platform.reports.facts import machine_facts
from ssl_platform.reports.page import PAGE, SUMMARY, Reported, json_file, report_page
from ssl_platform.reports.pictures import square
from ssl_platform.reports.sample import drawn_positions, look_at
from ssl_platform.reports.sample_values import SampleView
from ssl_platform.reports.sheet import cluster_sheet

logger = logging.getLogger(__name__)

ALWAYS = 20  # epochs whose pages are written, however short they are
SHARE = 0.02  # of the time, which pages of later epochs may take


@HOOKS.register()
class Report(Events):
    """Write ``report.html`` at the first step, at the end of epochs and of the training.

    The page shows the figures of the run and, of a sample of training images, what the model makes
    of them; `config=analysis/report` writes it for any run. The model looks at the sample only a
    few times, since that costs a forward pass of each of its images: after the first epoch and
    evenly spread up to the last one. Loggers get the embeddings and the pictures then. After its
    first `ALWAYS` epochs a process leaves pages out that would take more than `SHARE` of its time.
    An error leaves the page as it was, and the training goes on.

    Args:
        num_images: of the sample.
        looks: how many times the model looks at them.
        seed: of the draw.
    """

    comes_last = True  # the lines of the epoch are written by then, and at the end the verdict

    def __init__(
        self,
        *,
        num_images: Annotated[int, Ge(1)],
        looks: Annotated[int, Ge(1)],
        seed: Annotated[int, Ge(0)],
    ):
        self.num_images, self.looks, self.seed = num_images, looks, seed
        self.view: SampleView | None = None  # of the first rank
        self.cropped: list[CroppedImage] = []
        self.missing: dict[str, str] = {}
        self.is_failing = False  # do not warn of each page that cannot be made
        self.spent = 0.0  # seconds, on pages

    def on_train_start(self, run: Run) -> None:
        self.start_step, self.start_epoch, self.start = run.step, run.epoch, time.monotonic()
        self.missing = {"sample": f"The first pictures are made after epoch {run.epoch + 1}."}
        if distributed.rank() == 0:
            run.results["machine"] = machine_facts(run.device)

    def on_step_end(self, run: Run) -> None:
        if run.step != self.start_step + 1:
            return
        if self.start_step > 0:  # a page of the run has pictures already
            self._look(run)
        if distributed.rank() == 0:
            self._crop(run)
            self._write(run)

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch in self._epochs(run.num_epochs):
            self._look(run)
        if distributed.rank() == 0 and not self.is_failing and self._is_due(run.epoch):
            self._write(run)

    def _is_due(self, epoch: int) -> bool:
        """Whether there is time for the page of an epoch; that of the last comes in any case."""
        time_so_far = time.monotonic() - self.start
        return epoch - self.start_epoch <= ALWAYS or self.spent <= SHARE * time_so_far

    def on_train_end(self, run: Run) -> None:
        has_trained = run.step > self.start_step
        # an older run that had ended is started again: that is what makes its page
        is_missing = distributed.broadcast_text(str((run.output_dir / PAGE).exists())) == "False"
        if not has_trained and is_missing:
            self._look(run)
        if distributed.rank() == 0 and (has_trained or is_missing):
            if not has_trained:
                self._crop(run)
            self._write(run)

    def _epochs(self, num_epochs: int) -> set[int]:
        """After which the model looks at the sample."""
        gaps = self.looks - 1
        spread = {1 + round((num_epochs - 1) * look / gaps) for look in range(gaps)}
        return spread | {num_epochs}

    def _look(self, run: Run) -> None:
        """Collective."""
        positions = drawn_positions(run.train_data, self.num_images, self.seed)
        try:
            sample = look_at(run.evaluated, run.train_data, positions, run.eval_loader)
        except DivergedError as error:  # on all ranks
            self.view, self.missing["sample"] = None, f"No pictures: {error}."
            return
        if sample is None:
            return
        try:
            self.view = SampleView.of(sample, is_last=run.epoch >= run.num_epochs)
            sheet = cluster_sheet(self.view)
            if sheet is not None:
                run.loggers.image("prototypes", sheet, run.step)
            names = [sample.class_name(index) for index in range(len(sample))]
            vectors, images = sample.features.numpy(), square(sample.thumbnails)
            labels = names if sample.is_labelled else []
            run.loggers.embeddings("sample", vectors, images, labels, run.step)
        except Exception as error:  # whatever it is, it is no reason to lose a training
            self._warn(error)

    def _crop(self, run: Run) -> None:
        try:
            transform = run.train_loader.transform
            self.cropped = cropped_images(run.train_data, transform, seed=self.seed)
        except Exception as error:
            self.missing["crops"] = f"No crops: {blame(error)}"

    def _write(self, run: Run) -> None:
        start, results = time.monotonic(), run.results
        if run.step == self.start_step:
            results = json_file(run.output_dir / SUMMARY) | results
        try:
            page = report_page(
                Reported.of(
                    run.output_dir,
                    config=run.loggers.config,
                    results=json_values(results),
                    images=run.train_data.summary(),
                    epoch=run.epoch,
                    num_epochs=run.num_epochs,
                    step=run.step,
                    cropped=self.cropped,
                    view=self.view,
                    missing=self.missing,
                )
            )
        except Exception as error:
            self._warn(error)
            return
        self.is_failing = not write_or_warn(run.output_dir / PAGE, page)
        self.spent += time.monotonic() - start

    def _warn(self, error: Exception) -> None:
        if not self.is_failing:
            logger.warning("%s cannot be made (%s): the run goes on without", PAGE, blame(error))
        self.is_failing = True
