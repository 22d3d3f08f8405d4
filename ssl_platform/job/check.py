"""Check a whole config before anything is started.

First every value is held against its type; then every component is tried: constructed with what the
run would give it, on torch's meta device, where tensors have a shape and no memory. So a
component's own constructor is the one place that knows what it can work with.
"""

import gc
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import (
    InterpolationKeyError,
    InterpolationToMissingValueError,
    OmegaConfBaseException,
)
from torch import nn

from ssl_platform.config.calls import calls
from ssl_platform.config.options import (
    DataOptions,
    ImageJobOptions,
    JobOptions,
    TrainOptions,
    options_of,
)
from ssl_platform.data.contract import check_dataset, check_transform
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.pixels import AUTO, PixelOptions
from ssl_platform.data.loading.transport import num_slots
from ssl_platform.engine.build import (
    autocast_dtype,
    data_info,
    freeze,
    labelled_part,
    parameter_groups,
    resolve_device,
)
from ssl_platform.errors import ConfigError, blame, first_line, nearest
from ssl_platform.job.check_model import model_of, problems_of_compiling, trunk_of, without_values
from ssl_platform.job.contract import check_schedule
from ssl_platform.job.parts import Parts
from ssl_platform.launch import joined_world, limits
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import TASKS, is_module_name, load_components
from ssl_platform.schema import dataclass_schema, flat

COPIES_OF_WEIGHTS = 3  # with gradients and the momentum of the optimizer
WORKER_BYTES = 32 * 2**20  # of a data worker, beside what it shares with its process
MAX_NAME = 255  # bytes
MAX_SEED = 2**63 - 1  # all that draw random numbers take it
MEMORY_SHARE = 0.8  # of the machine, that a run may need
OF_A_GPU = re.compile("cuda|gpu|triton", re.IGNORECASE)  # what fails for want of one says so
UNKNOWN_SIZE = 10**12  # an unreadable data set must not hide what else is wrong


def check(cfg: DictConfig) -> list[str]:
    """Everything that is wrong with a config, one line each: where, what was given, what is right.

    What the config leaves open to the weights and images that it names is filled in: the trunk of a
    checkpoint, the number of classes. What is allowed but has a consequence is warned of through
    `warnings`.
    """
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
    infinite = [
        f"{key}={value}: should be a finite number"
        for key, value in flat(plain).items()
        if isinstance(value, float) and not isfinite(value)
    ]
    if infinite:
        return infinite
    trial = _Trial(plain)
    task = trial.build("task")
    if task is None:  # what the other keys ought to be depends on it
        return trial.problems or [f"task: which job? {nearest('', TASKS.names())}"]
    trial.data()
    incomplete = _lines(lambda: _update(cfg, task.complete(plain)))
    trial.count_classes(cfg)
    plain = OmegaConf.to_container(cfg, resolve=True)
    trial.add(plain)
    problems = incomplete or [
        _of_a_training(line, task.options)
        for line in dataclass_schema(task.options).problems(plain, where="")
    ]
    if not problems:
        options = options_of(plain)
        trial.job(options)
        data = getattr(options, "data", None)
        if isinstance(data, DataOptions):
            trial.reading(data)
        if isinstance(options, TrainOptions):
            trial.training(options)
        elif isinstance(options, ImageJobOptions) and "trunk" in trial.nodes:
            trial.looking(options)
        if not trial.problems:
            trial.problems += _lines(lambda: task.probe(options))
    return problems + trial.problems


def _of_a_training(line: str, kind: type[JobOptions]) -> str:
    """A line about a key that is there for trainings alone says so."""
    key = line.partition("=")[0]
    known = {field.name for field in fields(kind)}
    if key in known or key not in {field.name for field in fields(TrainOptions)}:
        return line
    return f"{key}: only a training has this key; leave it out with ~{key}"


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


def _lines(action: Callable[[], Any]) -> list[str]:
    """What a ValueError of ``action`` says."""
    try:
        action()
    except ValueError as error:
        return str(error).splitlines()
    return []


def _pixels(data: Any) -> PixelOptions:
    """How the images are looked at; what is wrong with the options is found by their types."""
    given = data if isinstance(data, Mapping) else {}
    names = [field.name for field in fields(PixelOptions) if field.name in given]
    try:
        return PixelOptions(**{name: given[name] for name in names})
    except (TypeError, ValueError):
        return PixelOptions(range=AUTO)


def _update(cfg: DictConfig, values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, force_add=True)


class _Trial(Parts):
    """The parts of a config, each tried as the run would use it."""

    def __init__(self, plain: Mapping[str, Any]):
        super().__init__()
        self.pixels = _pixels(plain.get("data"))
        self.add({key: plain.get(key) for key in ("task", "data")})

    def data(self) -> None:
        found = [self.dataset(where) for where in ("data.train", "data.val")]
        image = next((image for image in found if image is not None), None)
        for where in ("data.transform", "data.eval_transform"):
            transform = self.build(where)
            if transform is not None and not self.holds(
                where, partial(check_transform, transform, image)
            ):
                self.built[where] = None

    def dataset(self, where: str) -> np.ndarray | None:
        """Try a data set; returns an image of it."""
        dataset = self.build(where)
        if dataset is None:
            return None
        image = None

        def look() -> None:
            nonlocal image
            if isinstance(dataset, ImageDataset):
                dataset.pixels = self.pixels
            image = check_dataset(dataset)
            dataset.probe()

        if not self.holds(where, look):
            self.built[where] = None
        return image

    def count_classes(self, cfg: DictConfig) -> None:
        """Say what ``num_classes: null`` of a head is: as many as the training images have."""
        dataset = self.built.get("data.train")
        num_classes = dataset.num_classes if dataset is not None else None
        for head in (cfg.get("heads") or {}).values():
            if isinstance(head, DictConfig) and head.get("num_classes", 0) is None:
                head.num_classes = max(2, num_classes or 0)  # without labels the loss refuses

    def job(self, options: JobOptions) -> None:
        """Rules of the keys that every config has."""
        self.problems += [f"launch.{line}" for line in options.launch.problems()]
        if not 0 <= options.seed <= MAX_SEED:
            self.problems.append(f"seed={options.seed}: from 0 to {MAX_SEED}")
        if not options.name or ".." in Path(options.name).parts:
            self.problems.append(f"name={options.name}: a name of its own, without '..'")
        if not _can_be_a_path(options.output_dir):
            self.problems.append(
                f"output_dir={options.output_dir}: no directory can have such a name"
            )
        elif Path(os.path.abspath(options.output_dir)) in Path.cwd().parents:
            self.problems.append(
                f"output_dir={options.output_dir}: the working directory lies in it; give the run "
                "a directory of its own"
            )
        if options.launch.slurm is not None:
            if joined_world():
                self.problems.append("launch=slurm: this is a job already; use launch=one_process")
            return  # device and limits are those of another machine
        num_workers = options.data.num_workers if isinstance(options, TrainOptions) else 0
        self.problems += limits.open_files_problems(world_size(options), num_workers)
        if not isinstance(options, TrainOptions):  # see memory()
            self.problems += limits.addresses_problems()
        if options.device == "cuda" and not torch.cuda.is_available():
            self.problems.append(
                "device=cuda: torch finds no GPU here; use device=cpu or device=auto"
            )

    def reading(self, data: DataOptions) -> None:
        """Rules of how images are read."""
        if data.num_workers < 0:
            self.problems.append(f"data.num_workers={data.num_workers}: 0 or more")
        if not 0 <= data.max_bad_fraction <= 1:
            self.problems.append(
                f"data.max_bad_fraction={data.max_bad_fraction}: from 0 to 1, e.g. 0.001"
            )
        self.problems += [f"data.{line}" for line in _lines(lambda: data.pixels)]
        unfinished = getattr(self.built.get("data.transform"), "num_parameters", 0) > 0
        if unfinished and data.normalize_on == "workers":
            self.problems.append(
                "data.normalize_on=workers: data.transform.augment_on=device changes colours after "
                "that; use data.normalize_on=device"
            )

    def looking(self, options: ImageJobOptions) -> None:
        """Try the trunk of a job that trains nothing."""
        with without_values():
            trunk_of(self, options)

    def training(self, options: TrainOptions) -> None:
        for where in self.nodes:
            if where.startswith(("metrics.", "hooks.")):
                self.build(where)
        dataset = self.built.get("data.train")
        if dataset is not None:
            self.built["data.train"] = self.attempt("", lambda: labelled_part(dataset, options))
        self.hooks_on_images()
        self.numbers(options)
        with without_values():
            model = model_of(self, options)
            transform = self.built.get("data.transform")
            if self.has_steps(options):
                dataset = self.built.get("data.train")
                info = data_info(
                    options,
                    num_samples=self.num_samples(),
                    num_classes=2 if dataset is None else dataset.num_classes,
                    num_crops=transform.num_crops if transform else 2,
                    world_size=world_size(options),
                )
                steps = max(1, info.steps_per_epoch)
                self.schedule(options.num_epochs, steps)
                if model is not None and transform is not None and info.steps_per_epoch:
                    self.build("loss", model, info)
            if options.compile:
                self.problems += problems_of_compiling(options)
            if model is not None and options.launch.slurm is None:
                self.memory(options, model, self.built.get("loss"))
            groups = None
            if model is not None:
                groups = self.attempt(
                    "param_groups", lambda: parameter_groups(model, options.param_groups)
                )
                self.attempt("param_groups", lambda: freeze(model, options.param_groups))
                self.hooks(model)
            self.build("optimizer", groups or [nn.Parameter(torch.empty(1))])

    def hooks_on_images(self) -> None:
        """What hooks cannot do with the images, where these could be opened."""
        train, val = (self.built.get(where) for where in ("data.train", "data.val"))
        if train is None or ("data.val" in self.seen and val is None):
            return
        for where, hook in self.built.items():
            if where.startswith("hooks.") and hook is not None:
                try:
                    hook.probe(train, val)
                except ValueError as error:
                    self.problems += str(error).splitlines()
                except Exception as error:  # whatever the code of others does
                    self.problems.append(f"{where}: {blame(error)}")

    def schedule(self, num_epochs: int, steps_per_epoch: int) -> None:
        """Ask the schedule for its rates, which have values."""
        with torch.device("cpu"):
            schedule = self.build("schedule", 1.0, num_epochs, steps_per_epoch)
            if schedule is not None:
                num_steps = num_epochs * steps_per_epoch
                self.attempt("schedule", lambda: check_schedule(schedule, num_steps))

    def hooks(self, model: SSLModel) -> None:
        """Ask the hooks whether they are of use."""
        loss = self.built.get("loss")
        for where in [where for where in self.nodes if where.startswith("hooks.")]:
            hook = self.built.get(where)
            if loss is not None and hook is not None:
                self.attempt(where, lambda hook=hook: hook.probe_model(model, loss))

    def memory(self, options: TrainOptions, model: nn.Module, loss: nn.Module | None) -> None:
        """Refuse what this machine can only fail at: the least that a training holds."""
        copies = COPIES_OF_WEIGHTS if resolve_device(options.device).type == "cpu" else 1
        tensors = [*model.buffers(), *(loss.buffers() if loss is not None else ())]
        per_process = sum(t.nbytes for t in tensors) + copies * sum(
            p.nbytes for p in model.parameters()
        )
        workers = max(0, options.data.num_workers)
        batch_size = options.data.batch_size // max(1, world_size(options))
        images = num_slots(batch_size, workers) * batch_size
        sizes = self.built["data.transform"].crop_sizes
        pixel = 3 * (1 if options.data.normalize_on == "device" else 4)
        per_process += workers * WORKER_BYTES + images * sum(pixel * size**2 for size in sizes)
        needed = options.launch.processes * per_process
        available, whose = limits.memory()
        if needed > MEMORY_SHARE * available:
            self.problems.append(
                f"launch.processes={options.launch.processes}: weights, gradients, optimizer, "
                f"banks, {options.data.num_workers} data workers and batches of each process take "
                f"{ceil(needed / 2**30):,} GiB, {whose} {available / 2**30:,.1f}"
            )
        self.problems += limits.addresses_problems(per_process)

    def numbers(self, options: TrainOptions) -> None:
        """Rules among the values that no component owns."""
        say = self.problems.append
        world, batch_size, num_samples = (
            world_size(options),
            options.data.batch_size,
            self.num_samples(),
        )
        if options.num_epochs < 1:
            say(f"num_epochs={options.num_epochs}: at least 1")
        if options.launch.processes >= 1 and (batch_size < 1 or batch_size % world):
            say(
                f"data.batch_size={batch_size}: the total batch must be a positive multiple of the "
                f"{world} processes, e.g. {max(1, round(batch_size / world)) * world}"
            )
        if options.drop_last and 0 < num_samples < batch_size:
            say(
                f"data.batch_size={batch_size}: the training set has only {num_samples} images, "
                "so an epoch has no full batch"
            )
        size = options.sync_batch_norm.group_size
        if options.sync_batch_norm.enabled and size and world > size and world % size:
            say(f"sync_batch_norm.group_size={size}: {world} processes are not a multiple of it")
        for number, group in enumerate(options.param_groups):
            for name, value in {
                "lr_scale": group.lr_scale,
                "weight_decay": group.weight_decay,
            }.items():
                if value is not None and not 0 <= value < inf:
                    say(f"param_groups.{number}.{name}={value}: from 0 on")
        for name, value in vars(options.save).items():
            if name != "asynchronous" and value is not None and value <= 0:
                say(f"save.{name}={value}: above 0, or null for never where that is allowed")
        self.precision(options)

    def precision(self, options: TrainOptions) -> None:
        if options.launch.slurm is not None:
            return  # the device is one of another machine
        device = resolve_device(options.device)
        dtype = autocast_dtype(options.precision, device)
        if dtype is not None and device.type == "cpu" and not cpu_is_fast_in(dtype):
            self.problems.append(
                f"precision={options.precision}: this CPU has no such arithmetic; it would be many "
                "times slower than in float32; use precision=float32 or precision=auto"
            )

    def has_steps(self, options: TrainOptions) -> bool:
        return options.data.batch_size >= world_size(options) >= 1 and options.num_epochs >= 1

    def num_samples(self) -> int:
        dataset = self.built.get("data.train")
        return UNKNOWN_SIZE if dataset is None else len(dataset)


def world_size(options: JobOptions) -> int:
    joined = joined_world()
    return joined[1] if joined else options.launch.world_size


def cpu_is_fast_in(dtype: torch.dtype) -> bool:
    """Whether the CPU has matrix arithmetic in ``dtype``; elsewhere it is emulated."""
    capabilities = torch.cpu.get_capabilities()
    names = {
        torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
        torch.float16: ("avx512_fp16", "amx_fp16", "fp16"),
    }
    return any(capabilities.get(name, False) for name in names[dtype])


def _can_be_a_path(text: str) -> bool:
    """Whether a file system takes it, as far as its bytes tell."""
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return False
    return all(len(part) <= MAX_NAME and b"\0" not in part for part in parts)


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
