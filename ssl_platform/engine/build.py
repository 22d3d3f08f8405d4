"""From a checked config to a run. The config ends here: the parts of a run do not see it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ssl_platform import distributed
from ssl_platform.config.options import (
    DataOptions,
    ImageJobOptions,
    Node,
    TrainOptions,
    scheduled_options,
)
from ssl_platform.data import contract
from ssl_platform.data.batch import DataInfo
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.batch_reader import Transform
from ssl_platform.data.loading.loader import Loader, LoaderOptions
from ssl_platform.data.loading.sampler import SequentialSampler, ShuffledSampler
from ssl_platform.data.sets.subset import StratifiedSubset
from ssl_platform.engine.param_groups import freeze, parameter_groups
from ssl_platform.engine.parts import Parts
from ssl_platform.engine.run import Events, Loss, Run
from ssl_platform.engine.scheduled import Scheduled, slot_of
from ssl_platform.loggers.group import LoggerGroup
from ssl_platform.metrics import Metric
from ssl_platform.models.layers import POOLED, layer_shapes
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.sync_batch_norm import synchronize_batch_norm
from ssl_platform.ops.arithmetic import autocast_dtype
from ssl_platform.ops.image_size import height_and_width
from ssl_platform.registry import DATASETS, TRANSFORMS

Positions = Sequence[int] | np.ndarray  # in a data set
WORKER_SHARE_OF_TIMEOUT = 0.8  # of launch.timeout_minutes: the time-out of a data worker


class Builder:
    """Assembles a training, each part at its first use.

    The check of a config uses the same builder for the same parts, on torch's meta device.

    Args:
        options: of the config.
        parts: constructs the components; by default those of ``options``.
        device: where the parts are put; by default the device of the run.
        world_size: number of processes; by default of those that are there.
    """

    def __init__(
        self,
        options: TrainOptions,
        *,
        parts: Parts | None = None,
        device: torch.device | None = None,
        world_size: int | None = None,
    ):
        self.options = options
        self.parts = parts or Parts(vars(options), options.data.pixels)
        self.device = device or resolve_device(options.device)
        self.world_size = world_size or distributed.world_size()

    def run(self) -> Run:
        """A training run, from scratch; collective when there are several processes."""
        options = self.options
        torch.manual_seed(options.seed)
        sampler = self.sampler(self.train_data)
        if options.compile:
            # in place: names and hooks stay. Each size for itself: code for any size, which torch
            # makes when a second one comes, is slower than none
            for network in filter(None, (self.model, self.model.teacher)):
                network.trunk.compile(dynamic=False)
        loss = self.loss  # before the replica: it may freeze weights, which ranks do not average
        return Run(
            name=options.name,
            model=self.model,
            replica=self.replica,
            loss=loss,
            train_loader=self.train_loader(self.train_data, sampler),
            train_sampler=sampler,
            train_data=self.train_data,
            val_data=self.val_data,
            eval_loader=self.eval_loader,
            optimizer=self.optimizer,
            schedule=self.schedule,
            schedules=self.schedules,
            hooks=self.hooks,
            metrics=self.metrics,
            output_dir=Path(options.output_dir),
            num_epochs=options.num_epochs,
            micro_batch=options.data.micro_batch,
            clip_grad_norm=options.clip_grad_norm,
            device=self.device,
            autocast_dtype=autocast_dtype(options.precision, self.device),
            loggers=self.loggers,
            evaluate=options.evaluate,
        )

    @cached_property
    def train_data(self) -> ImageDataset:
        """The training images that are used."""
        dataset, options = self.parts.build("data.train"), self.options
        if options.train_fraction is None:
            return dataset
        with self.parts.step(""):
            return StratifiedSubset(dataset, fraction=options.train_fraction, seed=options.seed)

    @cached_property
    def val_data(self) -> ImageDataset | None:
        """Labelled images to evaluate on."""
        return self.parts.build("data.val") if self.options.data.val else None

    @cached_property
    def transform(self) -> Any:
        """The transform of a training image into crops."""
        return self.parts.build("data.transform")

    @cached_property
    def info(self) -> DataInfo:
        """The facts of the data that a loss is given."""
        return data_info(
            self.options,
            num_samples=len(self.train_data),
            num_classes=self.train_data.num_classes,
            num_crops=self.transform.num_crops,
            world_size=self.world_size,
        )

    @cached_property
    def trunk(self) -> nn.Module:
        """The trunk, as it is constructed."""
        return self.parts.build("trunk")

    def head(self, name: str) -> nn.Module:
        """A head, as it is constructed for the layer that it reads."""
        layer, size = head_layers(self.options.heads)[name], self.transform.crop_sizes[0]
        channels = self.parts.pixels.channels
        with self.parts.step(f"heads.{name}"):
            shape = layer_shapes(self.trunk, [layer], size, channels)[layer]
        return self.parts.build(f"heads.{name}", shape)

    @cached_property
    def model(self) -> SSLModel:
        """Trunk, heads and teacher on the device, batch norms synchronised where asked for."""
        options, sync = self.options, self.options.sync_batch_norm
        trunk = self.trunk
        heads = {name: self.head(name) for name in options.heads}
        layers = head_layers(options.heads)
        student = SSLModel(trunk, heads, layers=layers, freeze_trunk=options.freeze_trunk)
        if options.teacher is not None:
            student.teacher = self.parts.build("teacher", student, self.transform.num_crops)
        model: nn.Module = student
        # the crops arrive channels_last, which is also the faster layout
        model = model.to(memory_format=torch.channels_last).to(self.device)
        if sync.enabled:
            model = synchronize_batch_norm(
                model, group_size=sync.group_size, world_size=self.world_size, device=self.device
            )
        assert isinstance(model, SSLModel)
        return model

    @cached_property
    def loss(self) -> Loss:
        """The loss, with the state of its method."""
        return self.parts.build("loss", self.model, self.info).to(self.device)

    @cached_property
    def replica(self) -> nn.Module:
        """The model, wrapped for the ranks; weights that are not trained are frozen first."""
        with self.parts.step("param_groups"):
            freeze(self.model, self.options.param_groups)
        shape = (self.train_data.channels, *height_and_width(self.transform.crop_sizes[0]))
        return distributed.replicate(self.model, [torch.zeros(1, *shape, device=self.device)])

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of the weights that are trained, as they are once the model is wrapped."""
        _ = self.replica  # it may put others in place of the model's parameters
        with self.parts.step("param_groups"):
            groups = parameter_groups(self.model, self.options.param_groups)
        return self.parts.build("optimizer", groups)

    @cached_property
    def base_lr(self) -> float:
        """The learning rate that the schedule scales."""
        return self.optimizer.defaults["lr"]

    @cached_property
    def schedule(self) -> Callable[[int], float]:
        """The learning rate at a position."""
        epochs, steps = self.options.num_epochs, self.info.steps_per_epoch
        return self.parts.build("schedule", self.base_lr, epochs, steps)

    @cached_property
    def schedules(self) -> dict[str, Scheduled]:
        """Those of options beside the learning rate, by the option's path."""
        return {key: self.scheduled(key) for key, _ in scheduled_options(self.options.schedules)}

    def scheduled(self, key: str) -> Scheduled:
        """An option of a part, with the schedule that sets it."""
        where, section = f"schedules.{key}", key.partition(".")[0]
        with self.parts.step(where):
            if section == "loss":
                part: Any = self.loss
            elif section == "teacher":
                part = self.model.teacher
            else:
                part = self.optimizer
            slot = slot_of(key, part, self.parts.nodes, self.options)
        epochs, steps = self.options.num_epochs, self.info.steps_per_epoch
        return Scheduled(self.parts.build(where, slot.value, epochs, steps), slot.put)

    @cached_property
    def hooks(self) -> dict[str, Events]:
        """The enabled hooks by name, in the order in which they are called."""
        names = [name for name, node in self.options.hooks.items() if node]
        hooks = {name: self.parts.build(f"hooks.{name}") for name in names}
        enabled = [name for name in names if hooks[name].enabled]
        order = sorted(enabled, key=lambda name: hooks[name].comes_last - hooks[name].comes_first)
        return {name: hooks[name] for name in order}

    @cached_property
    def metrics(self) -> dict[str, Metric]:
        """By name, the scores that evaluations report."""
        return {name: self.parts.build(f"metrics.{name}") for name in self.options.metrics}

    @cached_property
    def loggers(self) -> LoggerGroup:
        """The enabled loggers by name; none on ranks other than the first."""
        nodes = (self.options.loggers or {}) if distributed.rank() == 0 else {}
        names = [name for name, node in nodes.items() if node]
        loggers = {name: self.parts.build(f"loggers.{name}") for name in names}
        enabled = {name: one for name, one in loggers.items() if one.enabled}
        return LoggerGroup(enabled)

    def sampler(self, dataset: ImageDataset) -> ShuffledSampler:
        """The shuffled order of the training images, and this rank's part of it."""
        return ShuffledSampler(
            len(dataset),
            batch_size=self.options.data.batch_size,
            rank=distributed.rank(),
            world_size=distributed.world_size(),
            seed=self.options.seed,
            drop_last=self.options.drop_last,
        )

    def train_loader(self, dataset: ImageDataset, sampler: ShuffledSampler) -> Loader:
        """Augmented batches of this rank."""
        contract.prepare(dataset)
        data = self.options.data
        options = replace(
            loader_options(self.options),
            batch_size=data.batch_size // distributed.world_size(),
            drop_last=self.options.drop_last,
            replace_bad=True,
        )
        return Loader(dataset, self.transform, sampler, options, self.device)

    def eval_loader(
        self, dataset: ImageDataset, positions: Positions, transform: Transform | None = None
    ) -> Loader:
        """See the function `eval_loader`."""
        device = self.device
        return eval_loader(dataset, positions, self.options, device=device, transform=transform)


def open_dataset(node: Node, data: DataOptions) -> ImageDataset:
    """A data set of a config, with the config's options of pixels."""
    dataset: ImageDataset = DATASETS.build(node)
    dataset.pixels = data.pixels
    contract.settle_labels(dataset)
    return dataset


def eval_loader(
    dataset: ImageDataset,
    positions: Positions,
    options: ImageJobOptions,
    *,
    device: torch.device,
    transform: Transform | None = None,
) -> Loader:
    """This rank's share of some centre crops, or other crops, in order: it has positions[r::ranks].

    An image that cannot be read is not replaced by another: leave its row out. Crops by another
    transform are the same in each pass.
    """
    contract.prepare(dataset)
    transform = transform or TRANSFORMS.build(options.data.eval_transform)
    sampler = SequentialSampler(positions, distributed.rank(), distributed.world_size())
    return Loader(dataset, transform, sampler, loader_options(options), device)


def loader_options(options: ImageJobOptions) -> LoaderOptions:
    """How an evaluation reads its images; a training changes some of these options."""
    data, launch = options.data, options.launch
    return LoaderOptions(
        batch_size=data.eval_batch_size,
        drop_last=False,
        num_workers=data.num_workers,
        start_method=launch.worker_start,
        # shorter than the time-out of ranks, so that the message names the data worker
        timeout_seconds=WORKER_SHARE_OF_TIMEOUT * 60 * launch.timeout_minutes,
        seed=options.seed,
        normalize=data.normalize,
        max_bad_fraction=data.max_bad_fraction,
        replace_bad=False,
    )


def head_layers(heads: Mapping[str, Node]) -> dict[str, str]:
    """Layer of the trunk that each head reads: its option ``layer``, if it has one."""
    return {name: node.get("layer", POOLED) for name, node in heads.items()}


def data_info(
    options: TrainOptions,
    *,
    num_samples: int,
    num_classes: int | None,
    num_crops: int,
    world_size: int,
) -> DataInfo:
    """What a loss is told of the data; ``num_samples`` are those of an epoch, over all ranks."""
    batch_size = options.data.batch_size
    full, rest = divmod(num_samples, batch_size)
    return DataInfo(
        num_samples=num_samples,
        num_crops=num_crops,
        batch_size=batch_size // world_size,
        world_size=world_size,
        steps_per_epoch=full + (rest > 0 and not options.drop_last),
        seed=options.seed,
        num_classes=num_classes,
        drop_last=options.drop_last,
    )


def resolve_device(name: str) -> torch.device:
    """The device that ``auto``, ``cpu`` or ``cuda`` stands for on this machine."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
