"""The figures of a training as a run of MLflow, in a folder or on a server."""

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
from annotated_types import Len

from ssl_platform.loggers.base import Logger, RunInfo
from ssl_platform.loggers.projector import write_projector
from ssl_platform.registry import LOGGERS
from ssl_platform.schema import flat

logger = logging.getLogger(__name__)

FOLDER = "mlruns"  # where MLflow itself looks for one
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
LONGEST_VALUE = 6000  # letters of a parameter
MOST_PARAMETERS = 100  # of one call


@LOGGERS.register()
class MLflow(Logger):
    """Figures, config, pictures and results as a run of MLflow (``pip install mlflow-skinny``).

    The id of the run is kept in ``mlflow/run_id`` of the run's directory, so that a run that is
    resumed goes on there. Parameters cannot be changed at MLflow: those of a config that has been
    changed stay as they were, and the artifact ``config.yaml`` has the new ones.

    Args:
        enabled: log to it.
        tracking_uri: a folder, or the address of a server or a data base; None for
            ``MLFLOW_TRACKING_URI`` where that is set, else ``mlruns`` in the working directory.
        experiment: its name.
    """

    def __init__(
        self, *, enabled: bool, tracking_uri: str | None, experiment: Annotated[str, Len(1)]
    ):
        if enabled and find_spec("mlflow") is None:
            raise ValueError(
                "enabled=true: mlflow is not installed; pip install 'ssl_platform[mlflow]'"
            )
        if tracking_uri and re.fullmatch(r"[\w.-]+:\d+", tracking_uri):
            raise ValueError(f"tracking_uri={tracking_uri}: write http://{tracking_uri}")
        if enabled and _is_database(tracking_uri) and find_spec("sqlalchemy") is None:
            raise ValueError(
                f"tracking_uri={tracking_uri}: a data base needs the whole package; pip install "
                "mlflow"
            )
        self.enabled, self.experiment = enabled, experiment
        self.tracking_uri = tracking_uri
        self.client: Any = None

    def start(self, run: RunInfo) -> None:
        uri = _address(self.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or FOLDER)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        if uri.startswith("file:"):  # which MLflow refuses by default since 3.7
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        from mlflow.tracking import MlflowClient

        self.client = MlflowClient(tracking_uri=uri)
        file = run.output_dir / "mlflow" / "run_id"
        kept = file.read_text() if file.exists() else None
        self.run_id = self._found(kept) or self._created(run.name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(self.run_id)
        self._log_config(run.config)
        logger.info("loggers.mlflow: run %s (%s)", self.run_id, uri)

    def figures(self, step: int, epoch: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        values = {"epoch": epoch, **figures}
        metrics = [Metric(_key(name), value, now, step) for name, value in values.items()]
        self.client.log_batch(self.run_id, metrics=metrics)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        self.client.log_image(self.run_id, image, f"{_key(name)}.png")

    def embeddings(
        self, name: str, vectors: np.ndarray, images: np.ndarray, labels: Sequence[str], step: int
    ) -> None:
        """Files that TensorBoard's projector shows, among the artifacts."""
        with TemporaryDirectory() as folder:
            write_projector(Path(folder), name, vectors, images, labels)
            self.client.log_artifacts(self.run_id, folder, "embeddings")

    def file(self, path: Path) -> None:
        self.client.log_artifact(self.run_id, str(path))

    def close(self, results: Mapping[str, Any] | None) -> None:
        if results:
            self.client.log_dict(self.run_id, dict(results), "summary.json")
        self.client.set_terminated(self.run_id, "KILLED" if results is None else "FINISHED")

    def _found(self, run_id: str | None) -> str | None:
        """The run of an earlier process, which goes on; None where there is none."""
        from mlflow.exceptions import MlflowException

        if run_id is None:
            return None
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None  # it was deleted, or is kept elsewhere
        return run_id

    def _created(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        if self.client.get_experiment_by_name(self.experiment) is None:
            with suppress(MlflowException):  # another run has been faster
                self.client.create_experiment(self.experiment)
        experiment = self.client.get_experiment_by_name(self.experiment)
        return self.client.create_run(experiment.experiment_id, run_name=name).info.run_id

    def _log_config(self, config: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        known = self.client.get_run(self.run_id).data.params
        values = {_key(key): str(value)[:LONGEST_VALUE] for key, value in flat(config).items()}
        missing = iter([Param(key, value) for key, value in values.items() if key not in known])
        while batch := list(islice(missing, MOST_PARAMETERS)):
            self.client.log_batch(self.run_id, params=batch)
        self.client.log_dict(self.run_id, config, "config.yaml")


def _is_database(address: str | None) -> bool:
    return bool(address) and re.split(r"[+:]", f"{address}")[0] in DATABASES


def _address(place: str) -> str:
    """A folder as an address; addresses, and the names of services, stay."""
    is_folder = "://" not in place and not place.startswith(("file:", "databricks", "uc"))
    return Path(place).absolute().as_uri() if is_folder else place


def _key(name: str) -> str:
    """A name with only those characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)
