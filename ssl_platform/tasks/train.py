"""Train a model: pretraining and every evaluation that trains."""

import json
from dataclasses import dataclass, fields
from typing import Any

from ssl_platform import distributed
from ssl_platform.config.options import Node, TrainOptions
from ssl_platform.config.saved import shown_config
from ssl_platform.console.working import working
from ssl_platform.engine import checkpoint
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train
from ssl_platform.engine.run import Run
from ssl_platform.engine.saver import Saver
from ssl_platform.errors import CollapseError
from ssl_platform.evaluation.feature_cache import CacheOptions
from ssl_platform.evaluation.results import WEIGHTS, Results
from ssl_platform.hooks.evaluate import Evaluate
from ssl_platform.models.pretrained import Pretrained
from ssl_platform.registry import TASKS, TRUNKS
from ssl_platform.schema import dataclass_schema
from ssl_platform.tasks import Task
from ssl_platform.tasks.evaluation import Evaluation, EvaluationOptions
from ssl_platform.tasks.trunk import TrunkOptions, as_problem, pixels_of_run, trunk_of
from ssl_platform.zoo.weights import Weights, load_trunk, read_weights

STARTED_FROM = "weights.json"  # in the run's directory: whose weights it started from


@TASKS.register()
class Train(Task):
    """Train a model: pretraining, linear evaluations, fine-tuning."""

    options = TrainOptions

    def complete(self, cfg: dict[str, Any]) -> dict[str, Any]:
        """``trunk: null`` is that of the checkpoint."""
        checkpoint = cfg.get("checkpoint")
        if cfg.get("trunk") is not None:
            return pixels_of_run(checkpoint, cfg.get("data"), {}) if checkpoint else {}
        if checkpoint is None:
            raise ValueError(
                "checkpoint=null: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>, or "
                "trunk=... to start from random ones"
            )
        trunk = trunk_of(cfg)
        return pixels_of_run(checkpoint, cfg.get("data"), trunk["trunk"]) | trunk

    def probe(self, options: TrainOptions) -> None:
        if options.profile and not options.hooks.get("profile"):
            raise ValueError(
                "profile=true: hooks.profile does it, and is not in this config; add "
                "'+hooks.profile={name: StepProfile, enabled: true}'"
            )
        kind = TRUNKS.get(options.trunk["name"])
        if options.checkpoint is not None:
            with as_problem():
                _start_from(TRUNKS.build(options.trunk), options)
        elif isinstance(kind, type) and issubclass(kind, Pretrained):
            try:
                trunk = TRUNKS.build(options.trunk)
                if trunk.pretrained:
                    trunk.load_pretrained()
            except ValueError as error:
                raise ValueError(f"trunk.{error}") from error
        if options.baselines:
            evaluation, evaluation_options = _baselines(options)
            evaluation.probe(evaluation_options)

    def __call__(self, options: TrainOptions) -> dict[str, Any]:
        """Run the training; returns what the hooks measured (``run.results``)."""
        with working("building the model and opening the images"):
            run = Builder(options).run()
        if distributed.rank() == 0:
            run.loggers.config = shown_config(run.output_dir / "config.yaml")
        if not checkpoint.any_in(run.output_dir):
            origin = _start(run.model.trunk, options)
            if run.model.teacher is not None:
                run.model.teacher.start(run.model)
            if origin and distributed.rank() == 0:
                (run.output_dir / STARTED_FROM).write_text(json.dumps(origin, indent=2) + "\n")
        results = train(run, Saver(run.output_dir, options.save), options.resume)
        for evaluate in (hook for hook in run.hooks.values() if isinstance(hook, Evaluate)):
            _write_results(run, options, evaluate)
        _fail_where_asked(run, options)
        return results


def _start(trunk: Any, options: TrainOptions) -> dict[str, Any]:
    """Give the trunk the weights that it starts from; returns whose they are, if anybody's."""
    if options.checkpoint is not None:
        weights = _start_from(trunk, options)
        return weights.identity
    if isinstance(trunk, Pretrained) and trunk.pretrained:
        return {"source": trunk.load_pretrained(), "format": "timm", "sha256": ""}
    return {}


def _start_from(trunk: Any, options: TrainOptions) -> Weights:
    assert options.checkpoint is not None
    weights = read_weights(options.checkpoint, options.weights)
    load_trunk(
        trunk,
        weights,
        allow_partial=options.allow_partial,
        adapt_channels=options.adapt_channels,
    )
    return weights


def _fail_where_asked(run: Run, options: TrainOptions) -> None:
    """Raise ``CollapseError`` on all ranks where ``fail_on`` asks for it; collective."""
    verdict = run.results.get("verdict")
    if options.fail_on is None or verdict is None:
        return
    is_collapsed = run.agree(greatest={"collapsed": verdict["kind"] == "collapsed"}, least={})
    if is_collapsed["collapsed"]:
        raise CollapseError("fail_on=collapse: the verdict is collapsed; the run is saved as ever")


def _write_results(run: Run, options: TrainOptions, evaluate: Evaluate) -> None:
    """Write ``results.json`` and, beside it, what the figures are to be compared with; collective.

    A random trunk and pixels are not trained for as long: they are measured by the cached
    centre-crop protocol, and the weights by the same.
    """
    origin = run.output_dir / STARTED_FROM
    config = (run.output_dir / "config.yaml").read_text()
    compared = None
    if options.baselines:
        folder = run.output_dir / "baselines"
        folder.mkdir(exist_ok=True)
        task, task_options = _baselines(options)
        compared = task.evaluate(task_options, folder, config=config)
    if distributed.rank() != 0:
        return
    figures = {
        f"{head} ({which} epoch)": scores
        for which, heads in (("best", evaluate.best), ("last", evaluate.last))
        for head, scores in heads.items()
    }
    details = {}
    if compared is not None:
        details[compared.protocol] = {WEIGHTS: compared.figures, **compared.baselines}
    Results(
        protocol=evaluate.protocol_of(run),
        figures=figures,
        baselines={},
        weights=json.loads(origin.read_text()) if origin.exists() else {},
        seed=options.seed,
        config=config,
        details=details,
    ).write(run.output_dir)


@dataclass(frozen=True)
class BaselineOptions:
    """The key ``baselines`` of a training."""

    task: Node  # the evaluation that measures them
    pca_components: int
    cache: CacheOptions


def _baselines(options: TrainOptions) -> tuple[Evaluation, EvaluationOptions]:
    """The evaluation of the baselines, and its options.

    Raises:
        ValueError: one line for each of them that is wrong; it begins with the key.
    """
    given = options.baselines if isinstance(options.baselines, dict) else {}
    schema = dataclass_schema(BaselineOptions)
    problems = schema.problems(given, where="baselines")
    problems = problems or TASKS.problems(given["task"], where="baselines.task")
    if options.checkpoint is None:
        problems.append("baselines: compare trained weights with others; set checkpoint=...")
    if problems:
        raise ValueError("\n".join(problems))
    own = BaselineOptions(**schema.convert(given))
    inherited = {field.name: getattr(options, field.name) for field in fields(TrunkOptions)}
    return TASKS.build(own.task), EvaluationOptions(
        **inherited,
        baselines=True,
        pca_components=own.pca_components,
        test_fraction=0.5,  # of no account: the validation images are the test
        cache=own.cache,
        metrics=options.metrics,
    )
