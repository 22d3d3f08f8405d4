"""Check a whole config before anything is started.

First every value is held against its type; then every component is tried: constructed with what the
run would give it, on torch's meta device, where tensors have a shape and no memory. So a
component's own constructor is the one place that knows what it can work with.
"""

import gc
from collections.abc import Callable, Mapping
from dataclasses import fields
from math import isfinite
from types import SimpleNamespace
from typing import Any

import torch
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)
from torch import nn

from ssl_platform.config.calls import calls
from ssl_platform.config.moved import move_keys
from ssl_platform.config.options import (
    ImageJobOptions,
    JobOptions,
    TrainOptions,
    options_of,
    scheduled_options,
)
from ssl_platform.config.saved import drop_retired
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.engine.build import Builder
from ssl_platform.engine.run import Events
from ssl_platform.errors import ConfigError, first_line, nearest
from ssl_platform.job import rules
from ssl_platform.job.channels import fit_channels
from ssl_platform.job.compiling import problems_of_compiling
from ssl_platform.job.tried_parts import TriedParts, pixels_to_try, without_values
from ssl_platform.launch import launcher_of
from ssl_platform.metrics.fitness import problems_of_metrics
from ssl_platform.registry import TASKS, is_module_name, load_components
from ssl_platform.schema import dataclass_schema, flat

A_SCHEDULE = "PART.OPTION: {name: ...}, as in optimizer.weight_decay: {name: Cosine, end: 0.4}"
DATASETS = ("data.train", "data.val")
UNKNOWN_SIZE = 10**12  # an unreadable data set must not hide what else is wrong


def check(cfg: DictConfig) -> list[str]:
    """Everything that is wrong with a config, one line each: where, what was given, what is right.

    What the config leaves open to the weights and images that it names is filled in: the trunk of a
    checkpoint, the number of classes. What is allowed but has a consequence is warned of through
    `warnings`.
    """
    move_keys(cfg)
    problems = drop_retired(cfg) or _problems_of_reading(cfg)
    if problems:
        return problems
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    parts = TriedParts()
    parts.add({key: plain.get(key) for key in ("task", "data")})
    task = parts.tried(parts.build, "task")
    if task is None:  # what the other keys ought to be depends on it
        return parts.problems or [f"task: which job? {nearest('', TASKS.names())}"]
    problems = _lines(lambda: _update(cfg, task.complete(plain)))
    parts.is_training = issubclass(task.options, TrainOptions)
    given, plain = plain, OmegaConf.to_container(cfg, resolve=True)
    parts.pixels = pixels_to_try(plain.get("data"))
    for where in ("data.train", "data.val", "data.transform", "data.eval_transform"):
        parts.tried(parts.build, where)
    datasets = {where: parts.built[where] for where in DATASETS if where in parts.built}
    misfits = fit_channels(cfg, given, datasets)
    _count_classes(cfg, parts.built.get("data.train"))
    plain = OmegaConf.to_container(cfg, resolve=True)
    parts.pixels = pixels_to_try(plain.get("data"))
    parts.add(plain)
    problems = problems or [
        *misfits,
        *(
            _of_a_training(line, task.options)
            for line in dataclass_schema(task.options).problems(plain, where="")
        ),
    ]
    parts.tried(parts.build, "launch.launcher")  # which there need not be
    if problems or parts.is_wrong("launch.launcher"):  # which number of processes?
        return _without_echoes(problems + parts.problems, cfg)
    options = options_of(plain)
    problems = _problems_of_job(options, parts) + parts.problems
    return _without_echoes(problems, cfg) or _lines(lambda: task.probe(options))


def _without_echoes(problems: list[str], cfg: DictConfig) -> list[str]:
    """Leave out keys that only refer to another one that is wrong: ``seed: ${seed}``."""
    plain: Any = OmegaConf.to_container(cfg)
    written = flat(plain)
    keys = {line.partition("=")[0] for line in problems}
    return [
        line
        for line in problems
        if str(written.get(line.partition("=")[0])) not in {f"${{{key}}}" for key in keys}
    ]


def _problems_of_reading(cfg: DictConfig) -> list[str]:
    """Why the values cannot be looked at yet: one is missing, refers to nothing, is not finite, or
    a plug-in cannot be imported."""
    try:
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
    except InterpolationToMissingValueError:
        values: Any = OmegaConf.to_container(cfg)
        missing = [key for key, value in flat(values).items() if value == MISSING]
        return [f"{key}: needs a value; set {key}=..." for key in missing]
    except InterpolationKeyError as error:
        return [_dangling(cfg, error)]
    except OmegaConfBaseException as error:
        return [str(error).splitlines()[0]]
    plugins = plain.get("plugins") or []
    if isinstance(plugins, str):
        return [f"plugins={plugins}: a list of modules; write plugins=[{plugins}]"]
    if not isinstance(plugins, list) or not all(map(is_module_name, plugins)):
        return [f"plugins={plugins}: a list of names of modules; write plugins=[my_module]"]
    try:
        load_components(plugins)
    except (ImportError, ValueError) as error:
        return [f"plugins={plugins}: {error}"]
    return [
        f"{key}={value}: should be a finite number"
        for key, value in flat(plain).items()
        if isinstance(value, float) and not isfinite(value)
    ]


def _problems_of_job(options: JobOptions, parts: TriedParts) -> list[str]:
    """What is wrong with the job as a whole; ``parts`` notes what is wrong with one of them."""
    problems = rules.problems_of_job(options)
    if isinstance(options, ImageJobOptions):
        parts.options = options
        problems += _lines(lambda: options.data.pixels, "data.")
        for where in parts.nodes:
            if where.startswith("metrics."):
                parts.tried(parts.build, where)
    if isinstance(options, TrainOptions):
        problems += _problems_of_training(options, parts)
    elif isinstance(options, ImageJobOptions) and "trunk" in parts.nodes:
        with without_values():
            parts.tried(parts.build, "trunk")
    return problems


def _problems_of_training(options: TrainOptions, parts: TriedParts) -> list[str]:
    """Build a training as the run will, on the meta device, part by part.

    Returns:
        What is wrong with no part by itself; ``parts`` notes the rest.
    """
    world_size = rules.world_size(options)
    builder = Builder(options, parts=parts, device=torch.device("meta"), world_size=world_size)
    builder.base_lr = 1.0  # a schedule is tried whatever becomes of the optimizer
    if parts.is_wrong("data.transform"):  # what cannot be read must not hide what else is wrong
        builder.transform = SimpleNamespace(num_crops=2, crop_sizes=[])
    if parts.tried(lambda: builder.train_data) is None:
        builder.train_data = UnknownImages()
    for where in parts.nodes:
        if where.startswith(("hooks.", "loggers.")):
            parts.tried(parts.build, where)
    hooks = {where: hook for where, hook in parts.built.items() if where.startswith("hooks.")}
    if not isinstance(builder.train_data, UnknownImages) and not parts.is_wrong("data.val"):
        for where, hook in hooks.items():
            parts.tried(_probe_images, parts, where, hook, builder)
    problems = rules.problems_of_training(options, len(builder.train_data))
    if not any(parts.is_wrong(f"metrics.{name}") for name in options.metrics):
        is_known = not isinstance(builder.train_data, UnknownImages)
        num_classes = builder.train_data.num_classes if is_known else None
        problems += problems_of_metrics(builder.metrics, num_classes)
    has_steps = rules.has_steps(options) and builder.info.steps_per_epoch > 0
    with without_values():
        model, loss = _model_and_loss(builder, parts, has_steps)
        if options.compile:
            problems += problems_of_compiling(options)
        if model is not None and not launcher_of(options.launch).is_elsewhere:
            sizes = builder.transform.crop_sizes
            problems += rules.problems_of_memory(options, model, loss, sizes)
        if loss is not None:
            for where, hook in hooks.items():
                parts.tried(_probe_model, parts, where, hook, builder)
        if model is None or parts.tried(lambda: builder.optimizer) is None:
            parts.tried(parts.build, "optimizer", [nn.Parameter(torch.empty(1))])
        for key, node in scheduled_options(options.schedules):
            if not isinstance(node, Mapping):
                problems.append(f"schedules.{key}={node}: {A_SCHEDULE}")
            elif model is not None and has_steps:
                parts.tried(builder.scheduled, key)
    return problems


def _model_and_loss(
    builder: Builder, parts: TriedParts, has_steps: bool
) -> tuple[nn.Module | None, nn.Module | None]:
    """What can be built of the schedule, the model and its loss."""
    if has_steps:
        parts.tried(lambda: builder.schedule)
    if parts.is_wrong("data.transform"):
        return None, None
    for name in builder.options.heads:
        parts.tried(builder.head, name)
    model = parts.tried(lambda: builder.model)
    return model, parts.tried(lambda: builder.loss) if has_steps else None


class UnknownImages(ImageDataset):
    """Stands for a training set that cannot be read."""

    def __len__(self) -> int:
        return UNKNOWN_SIZE

    def read(self, index: int) -> Any:
        raise NotImplementedError

    def describe(self, index: int) -> str:
        raise NotImplementedError

    @property
    def num_classes(self) -> int:
        return 2


def _probe_images(parts: TriedParts, where: str, hook: Events, builder: Builder) -> None:
    """Ask a hook what it cannot do with the images; its messages begin with the key."""
    with parts.step(where):
        try:
            hook.probe(builder.train_data, builder.val_data)
        except ValueError as error:
            parts.problems += str(error).splitlines()


def _probe_model(parts: TriedParts, where: str, hook: Events, builder: Builder) -> None:
    """Ask a hook whether it is of use to the model and the loss."""
    with parts.step(where):
        hook.probe_model(builder.model, builder.loss)


def _count_classes(cfg: DictConfig, dataset: ImageDataset | None) -> None:
    """Say what ``num_classes: null`` of a head is: as many as the training images have."""
    num_classes = dataset.num_classes if dataset is not None else None
    for head in (cfg.get("heads") or {}).values():
        if isinstance(head, DictConfig) and head.get("num_classes", 0) is None:
            head.num_classes = max(2, num_classes or 0)  # without labels the loss refuses


def _of_a_training(line: str, kind: type[JobOptions]) -> str:
    """A line about a key that is there for trainings alone says so."""
    key = line.partition("=")[0]
    known = {field.name for field in fields(kind)}
    if key in known or key not in {field.name for field in fields(TrainOptions)}:
        return line
    return f"{key}: a training has this key, this job has not; leave it out with ~{key}"


def _dangling(cfg: DictConfig, error: InterpolationKeyError) -> str:
    """A reference to a key that is not there: hooks=clustering refer to ``loss.head``."""
    key = str(error.full_key)
    values: Any = OmegaConf.to_container(cfg)
    value = flat(values).get(key)
    section = key.rpartition(".")[0]
    line = f"{key}={value}: there is no such key in this config; set {key}=..."
    if section.startswith("hooks."):
        return f"{line}, leave the hook out (~{section}), or choose others (hooks=default)"
    return line


def _lines(action: Callable[[], Any], prefix: str = "") -> list[str]:
    """What a ValueError of ``action`` says."""
    try:
        action()
    except ValueError as error:
        return [f"{prefix}{line}" for line in str(error).splitlines()]
    return []


def _update(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)


def checked(cfg: Any) -> DictConfig:
    """A config from Python, checked as one from the command line is.

    Args:
        cfg: from `compose`, changed since or not, or a mapping like it; it is left as it is.

    Raises:
        ConfigError: everything that is wrong, one line per problem.
    """
    if not isinstance(cfg, Mapping | DictConfig):
        raise ConfigError(
            [
                f"run() takes a config of ssl_platform.config.compose, or a mapping like it, not a "
                f"{type(cfg).__name__}; of a file: compose(['config=PATH'])"
            ]
        )
    try:
        plain: Any = OmegaConf.to_container(cfg) if OmegaConf.is_config(cfg) else cfg
        copy: Any = OmegaConf.create(plain)
        text = OmegaConf.to_yaml(copy)
    except Exception as error:  # of values that YAML does not have
        key = getattr(error, "full_key", None) or "the config"
        raise ConfigError([f"{key}: {first_line(error)}"]) from error
    return copy if text in _well_checked else all_checked(copy, [])


_well_checked: set[str] = set()  # the configs of this process that nothing was wrong with


def all_checked(cfg: DictConfig, problems: list[str]) -> DictConfig:
    """A composed config that nothing is wrong with.

    Raises:
        ConfigError: what was wrong with its overrides, and all that is wrong with it.
    """
    called = calls(cfg)
    if called:
        raise ConfigError(problems + called)
    gc.freeze()  # torch's objects stay: no collection has to look at them, here or in data workers
    problems = problems + check(cfg)
    if problems:
        raise ConfigError(problems)
    _well_checked.add(OmegaConf.to_yaml(cfg))
    return cfg
