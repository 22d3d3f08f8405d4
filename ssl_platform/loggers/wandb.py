"""The figures of a training at Weights & Biases, or kept here to be sent later."""

import logging
import os
import re
import shutil
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ssl_platform.loggers.base import Logger, RunInfo
from ssl_platform.registry import LOGGERS

logger = logging.getLogger(__name__)

FLUSH_INTERVAL = "x_transaction_log_flush_interval"  # what is heard later is lost with the process
FLUSH_SECONDS = 0.1  # by default 15
MOST_SECONDS_TO_CONNECT = 60
NAME_OF_PROJECT = re.compile(r"[^/\\#?%:]{1,128}")
MOST_SECONDS = 600  # to wait at the end for what is not sent yet; ``wandb sync`` sends it later


@LOGGERS.register()
class WandB(Logger):
    """Figures, config, pictures and results as a run of Weights & Biases (``pip install wandb``).

    The id of the run is kept in ``wandb/run_id`` of the run's directory, so that a run that is
    resumed goes on there. Figures are drawn by the step of the training (``step``).

    Args:
        enabled: log to it.
        project: name of the project.
        entity: user or team; None for that of the key.
        group: of runs that belong together, as those of a sweep.
        tags: of the run.
        mode: ``offline`` keeps everything in ``wandb/`` of the run's directory. ``auto`` is
            ``WANDB_MODE`` where that is set, ``online`` where there is a key and W&B answers, else
            ``offline``.
    """

    def __init__(
        self,
        *,
        enabled: bool,
        project: str,
        entity: str | None,
        group: str | None,
        tags: list[str],
        mode: Literal["auto", "online", "offline"],
    ):
        if enabled and find_spec("wandb") is None:
            raise ValueError(
                "enabled=true: wandb is not installed; pip install 'ssl_platform[wandb]'"
            )
        if not NAME_OF_PROJECT.fullmatch(project):
            raise ValueError(f"project={project}: 1 to 128 characters, none of / \\ # ? % :")
        if enabled and mode == "online" and not _has_key():
            raise ValueError(
                "mode=online: there is no key; run 'wandb login', set WANDB_API_KEY, or take "
                "mode=offline"
            )
        self.enabled, self.mode = enabled, mode
        self.place = {"project": project, "entity": entity, "group": group, "tags": tags}
        self.run: Any = None

    def start(self, run: RunInfo) -> None:
        folder = run.output_dir / "wandb"
        run_id = _kept_id(folder / "run_id")
        mode: str = self.mode
        if mode == "auto":
            mode = os.environ.get("WANDB_MODE") or ("online" if _has_key() else "offline")
        try:
            self.run = self._init(run, run_id, mode)
        except Exception as error:
            if self.mode != "auto" or mode != "online":
                raise
            why = " ".join(str(error).split())
            logger.warning("loggers.wandb: goes on offline, for want of a connection: %s", why)
            _wandb().teardown()  # else the id is in use
            self.run = self._init(run, run_id, "offline")
        self.run.define_metric("step")
        self.run.define_metric("*", step_metric="step")
        place = self.run.url or f"offline, 'wandb sync {folder}/offline-run-*-{run_id}' sends it"
        logger.info("loggers.wandb: run %s (%s)", run_id, place)

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        self.run.log({"step": step, "epoch": epoch, **figures})

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        from wandb import Image

        self.run.log({"step": step, name: Image(image)})

    def embeddings(
        self, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str], step: int
    ) -> None:
        """A table, of which the page of a run draws a 2D projection."""
        from wandb import Image, Table

        columns: list[str | int] = [
            "image",
            "label",
            *(f"d{number}" for number in range(vectors.shape[1])),
        ]
        names = labels or [""] * len(images)
        rows = [
            [Image(image), label, *vector.tolist()]
            for image, label, vector in zip(images, names, vectors, strict=True)
        ]
        self.run.log({"step": step, f"{name}_embeddings": Table(columns=columns, data=rows)})

    def file(self, path: Path) -> None:
        shutil.copy(path, self.run.dir)
        self.run.save(str(Path(self.run.dir) / path.name), base_path=self.run.dir, policy="now")

    def sync(self) -> None:
        time.sleep(2 * FLUSH_SECONDS)  # there is no other way to have it written

    def close(self, results: Mapping[str, Any] | None) -> None:
        self.run.summary.update(dict(results or {}))
        self.run.finish(exit_code=int(results is None))

    def _init(self, run: RunInfo, run_id: str, mode: str) -> Any:
        wandb, arguments = _wandb(), sys.argv
        settings = {"console": "off", "silent": True, "init_timeout": MOST_SECONDS_TO_CONNECT}
        settings |= {"finish_timeout": MOST_SECONDS}
        if FLUSH_INTERVAL in wandb.Settings.model_fields:
            settings[FLUSH_INTERVAL] = FLUSH_SECONDS
        sys.argv = arguments[:1]  # it keeps the command line, where secrets may stand
        try:
            return wandb.init(
                **self.place,
                id=run_id,
                name=run.name,
                config=run.config,
                dir=run.output_dir,
                mode=mode,
                resume="allow",
                settings=wandb.Settings(**settings),
            )
        finally:
            sys.argv = arguments


def _wandb() -> Any:
    """The package, which prints nothing and reports no errors of its own to its makers."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    import wandb

    wandb.setup(settings=wandb.Settings(silent=True, quiet=True))
    return wandb


def _has_key() -> bool:
    return bool(_wandb().login(prompt=False, verify=False))


def _kept_id(path: Path) -> str:
    """The id in a file, which is written where there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex[:12])
    return path.read_text()
