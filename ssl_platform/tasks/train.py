"""Train a model: pretraining and every evaluation that trains."""

import json
from pathlib import Path
from typing import Any

from ssl_platform import checkpoint, distributed
from ssl_platform.build import Builder, TrainOptions
from ssl_platform.engine import Run, train
from ssl_platform.registry import TASKS, TRUNKS
from ssl_platform.results import Results
from ssl_platform.tasks import Task
from ssl_platform.tasks.trunk import as_problem, trunk_of
from ssl_platform.zoo.weights import Weights, load_trunk, read_weights

STARTED_FROM = "weights.json"  # in the run's directory: whose weights it started from


@TASKS.register()
class Train(Task):
    options = TrainOptions

    def complete(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """``trunk: null`` is the trunk of the checkpoint."""
        if cfg.get("trunk") is not None:
            return {}
        if cfg.get("checkpoint") is None:
            raise ValueError(
                "checkpoint=null: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>, or "
                "trunk=... to start from random ones"
            )
        return {"trunk": trunk_of(cfg["checkpoint"])}

    def probe(self, options: TrainOptions) -> None:
        if options.checkpoint is not None:
            with as_problem():
                _start_from(TRUNKS.build(options.trunk), options)

    def __call__(self, options: TrainOptions) -> dict[str, Any]:
        """Run the training; returns what the hooks measured (``run.results``)."""
        run = Builder(options).run()
        if options.checkpoint is not None and checkpoint.latest(run.output_dir) is None:
            weights = _start_from(run.model.trunk, options)
            if distributed.rank() == 0:
                origin = {key: getattr(weights, key) for key in ("source", "format", "sha256")}
                (run.output_dir / STARTED_FROM).write_text(json.dumps(origin, indent=2) + "\n")
        results = train(run)
        if "evaluation" in results and distributed.rank() == 0:
            _write_results(run, options)
        return results


def _start_from(trunk: Any, options: TrainOptions) -> Weights:
    assert options.checkpoint is not None
    weights = read_weights(options.checkpoint)
    load_trunk(trunk, weights, allow_partial=options.allow_partial)
    return weights


def _write_results(run: Run, options: TrainOptions) -> None:
    evaluation, origin = run.results["evaluation"], run.output_dir / STARTED_FROM
    figures = {
        f"{head} ({which} epoch)": scores
        for which in ("best", "last")
        for head, scores in evaluation[which].items()
    }
    Results(
        protocol=evaluation["protocol"],
        figures=figures,
        baselines=run.results.get("baselines", {}),
        weights=json.loads(origin.read_text()) if origin.exists() else {},
        seed=options.seed,
        config=(Path(options.output_dir) / "config.yaml").read_text(),
    ).write(run.output_dir)
