"""From a checked config to a run. Config ends here: nothing behind it sees a section of YAML."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from ssl_platform import distributed
from ssl_platform.config.options import (
    DataOptions,
    ImageJobOptions,
    Node,
    ParameterGroup,
    TrainOptions,
)
from ssl_platform.data import contract
from ssl_platform.data.batch import DataInfo
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader, Sampler
from ssl_platform.data.loading.sampler import SequentialSampler, ShuffledSampler
from ssl_platform.data.sets.subset import StratifiedSubset
from ssl_platform.engine.run import Run
from ssl_platform.models.layers import POOLED, layer_shapes
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.sync_batch_norm import synchronize_batch_norm
from ssl_platform.registry import (
    DATASETS,
    HEADS,
    HOOKS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    TRANSFORMS,
    TRUNKS,
)

WORKER_SHARE_OF_TIMEOUT = 0.8  # of launch.timeout_minutes, that a data worker may be silent
EVAL_BATCH_SIZE = 256  # of each process: it decides the speed and no result


class Builder:
    """Assembles what a task works with."""

    def __init__(self, options: TrainOptions):
        self.options = options
        self.device = resolve_device(options.device)

    def run(self) -> Run:
        """A training run, from scratch; collective when there are several ranks."""
        options = self.options
        torch.manual_seed(options.seed)
        train_data = labelled_part(open_dataset(options.data.train, options.data), options)
        val_data = open_dataset(options.data.val, options.data) if options.data.val else None
        sampler = self.sampler(train_data)
        train_loader = self.train_loader(train_data, sampler)
        info = data_info(
            options,
            num_samples=len(train_data),
            num_classes=train_data.num_classes,
            num_crops=train_loader.transform.num_crops,
            world_size=distributed.world_size(),
        )
        model = self.model(image_size=train_loader.transform.crop_sizes[0])
        loss = LOSSES.build(options.loss, model, info).to(self.device)
        freeze(model, options.param_groups)
        optimizer = OPTIMIZERS.build(
            options.optimizer, parameter_groups(model, options.param_groups)
        )
        base_lr = optimizer.defaults["lr"]
        hooks = {name: HOOKS.build(node) for name, node in options.hooks.items() if node}
        order = sorted(hooks, key=lambda name: hooks[name].comes_last - hooks[name].comes_first)
        output_dir = Path(options.output_dir)
        return Run(
            name=options.name,
            model=model,
            loss=loss,
            train_loader=train_loader,
            train_sampler=sampler,
            train_data=train_data,
            val_data=val_data,
            eval_loader=self.eval_loader,
            optimizer=optimizer,
            schedule=SCHEDULES.build(
                options.schedule, base_lr, options.num_epochs, info.steps_per_epoch
            ),
            hooks={name: hooks[name] for name in order},
            metrics={name: METRICS.build(node) for name, node in options.metrics.items()},
            output_dir=output_dir,
            num_epochs=options.num_epochs,
            device=self.device,
            autocast_dtype=autocast_dtype(options.precision, self.device),
        )

    def model(self, image_size: int) -> SSLModel:
        """Trunk and heads on the device, their batch norms synchronised where asked for."""
        model: nn.Module = build_model(self.options, image_size)
        # the crops arrive channels_last, which is also the faster layout
        model = model.to(memory_format=torch.channels_last)
        model = model.to(self.device)
        sync = self.options.sync_batch_norm
        if sync.enabled:
            model = synchronize_batch_norm(model, group_size=sync.group_size, device=self.device)
        assert isinstance(model, SSLModel)
        if self.options.compile:
            # in place: names and hooks stay. Each size for itself: code for any size, which torch
            # makes when a second one comes, is slower than none
            model.trunk.compile(dynamic=False)
        return model

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
        data = self.options.data
        return _loader(
            dataset,
            data.transform,
            sampler,
            self.options,
            device=self.device,
            normalize_on=data.normalize_on,
            batch_size=data.batch_size // distributed.world_size(),
            drop_last=self.options.drop_last,
        )

    def eval_loader(self, dataset: ImageDataset, positions: Sequence[int] | np.ndarray) -> Loader:
        return eval_loader(dataset, positions, self.options, device=self.device)


def open_dataset(node: Node, data: DataOptions) -> ImageDataset:
    """A data set of a config, its pixels as the config wants them."""
    dataset: ImageDataset = DATASETS.build(node)
    dataset.pixels = data.pixels
    contract.settle_labels(dataset)
    return dataset


def eval_loader(
    dataset: ImageDataset,
    positions: Sequence[int] | np.ndarray,
    options: ImageJobOptions,
    *,
    device: torch.device,
) -> Loader:
    """This rank's share of some centre crops, in order: rank r has positions[r::ranks].

    Nothing stands in for an image that cannot be read: its row is to be left out.
    """
    sampler = SequentialSampler(positions, distributed.rank(), distributed.world_size())
    return _loader(
        dataset,
        options.data.eval_transform,
        sampler,
        options,
        device=device,
        normalize_on="device",
        batch_size=EVAL_BATCH_SIZE,
        drop_last=False,
        replace_bad=False,
    )


def _loader(
    dataset: ImageDataset,
    transform: Node,
    sampler: Sampler,
    options: ImageJobOptions,
    *,
    device: torch.device,
    normalize_on: Literal["device", "workers"],
    batch_size: int,
    drop_last: bool,
    replace_bad: bool = True,
) -> Loader:
    contract.prepare(dataset)
    data, launch = options.data, options.launch
    return Loader(
        dataset,
        TRANSFORMS.build(transform),
        sampler,
        batch_size=batch_size,
        num_workers=data.num_workers,
        start_method=launch.worker_start,
        # first of all time-outs: those who wait for this rank do not know what it waits for
        timeout_seconds=WORKER_SHARE_OF_TIMEOUT * 60 * launch.timeout_minutes,
        seed=options.seed,
        normalize=data.normalize,
        normalize_on=normalize_on,
        device=device,
        max_bad_fraction=data.max_bad_fraction,
        drop_last=drop_last,
        replace_bad=replace_bad,
    )


def build_model(options: TrainOptions, image_size: int) -> SSLModel:
    """Trunk and heads; ``image_size`` in pixels decides the shapes of the layers' maps."""
    trunk = TRUNKS.build(options.trunk)
    layers = head_layers(options.heads)
    shapes = layer_shapes(trunk, layers.values(), image_size)
    heads = {name: HEADS.build(node, shapes[layers[name]]) for name, node in options.heads.items()}
    return SSLModel(trunk, heads, layers=layers, freeze_trunk=options.freeze_trunk)


def labelled_part(dataset: ImageDataset, options: TrainOptions) -> ImageDataset:
    """The training images that are used."""
    if options.train_fraction is None:
        return dataset
    return StratifiedSubset(dataset, fraction=options.train_fraction, seed=options.seed)


def head_layers(heads: Mapping[str, Node]) -> dict[str, str]:
    """Layer of the trunk that each head reads: its option ``layer``, if it has one."""
    return {name: node.get("layer", POOLED) for name, node in heads.items()}


def parameter_groups(model: nn.Module, rules: Sequence[ParameterGroup]) -> list[dict[str, Any]]:
    """All parameters, as groups for an optimizer: those of no rule first.

    Raises:
        ValueError: a rule matches no parameter that is left to it.
    """
    rest: list[nn.Parameter] = []
    groups: list[dict[str, Any]] = [{"params": [], "lr_scale": rule.lr_scale} for rule in rules]
    for name, parameter in model.named_parameters():
        matching = (n for n, rule in enumerate(rules) if fnmatchcase(name, rule.match))
        number = next(matching, None)
        (rest if number is None else groups[number]["params"]).append(parameter)
    for group, rule in zip(groups, rules, strict=True):
        if not group["params"]:
            raise ValueError(
                f"match={rule.match}: no parameter is named so; names begin with trunk. or heads."
            )
        if rule.weight_decay is not None:
            group["weight_decay"] = rule.weight_decay
    return [{"params": rest}, *groups] if rest else groups


def freeze(model: SSLModel, rules: Sequence[ParameterGroup]) -> None:
    """Freeze the parameters whose ``lr_scale`` is 0; the first rule that matches counts.

    Raises:
        ValueError: nothing is left to train.
    """
    frozen = []
    for name, parameter in model.named_parameters():
        scale = next((rule.lr_scale for rule in rules if fnmatchcase(name, rule.match)), None)
        if scale == 0:
            frozen.append(parameter)
    model.freeze(frozen)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("lr_scale=0 of all that freeze_trunk leaves: nothing is left to train")


def data_info(
    options: TrainOptions,
    *,
    num_samples: int,
    num_classes: int | None,
    num_crops: int,
    world_size: int,
) -> DataInfo:
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
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of the model's forward pass under autocast; None for float32.

    ``auto`` is bfloat16 on a GPU that has it, float16 on an older one, and float32 on a CPU.
    """
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
