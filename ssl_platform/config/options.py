"""Every key that a config may have at its top, and which of them name components."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from omegaconf import OmegaConf

from ssl_platform.data.crops.normalize import NormalizeOrAuto
from ssl_platform.data.decoding.pixels import COLOURS, PixelOptions
from ssl_platform.launch import LaunchOptions
from ssl_platform.launch.job import FREE
from ssl_platform.registry import (
    DATASETS,
    HEADS,
    HOOKS,
    LAUNCHERS,
    LOGGERS,
    LOSSES,
    METRICS,
    OPTIMIZERS,
    SCHEDULES,
    TASKS,
    TEACHERS,
    TRANSFORMS,
    TRUNKS,
    Registry,
)
from ssl_platform.schema import dataclass_schema

MAX_SEED = 2**63 - 1  # all that draw random numbers take it
Whose = Literal["student", "teacher"]  # weights of a run that has both
Node = dict[str, Any]  # {name: <registered class>, <option>: <value>, ...}


@dataclass(frozen=True)
class ResumeOptions:
    """Where a run goes on from."""

    mode: Annotated[str, "auto (the default), never, or the path of a run or a checkpoint"]
    allow_changes: list[str]  # keys that may differ from the run that is resumed
    exact: bool  # refuse where the result could differ from an unbroken run's

    @property
    def source(self) -> Path | None:
        """The other run to start from."""
        return None if self.mode in ("auto", "never") else Path(self.mode)

    def allows(self, key: str) -> bool:
        """Whether a key may differ from the run that is resumed."""
        return is_below(key, self.allow_changes)


def is_below(key: str, prefixes: Sequence[str]) -> bool:
    """Whether a dotted key is one of ``prefixes`` or lies below it."""
    return any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes)


@dataclass(frozen=True)
class SaveOptions:
    """When a run is saved, and which checkpoints stay."""

    every_epochs: Annotated[int, Gt(0), "or null for never"] | None
    every_steps: Annotated[int, Gt(0), "or null for never"] | None
    every_minutes: Annotated[float, Gt(0), "or null for never"] | None
    keep: Annotated[int, Gt(0)]  # latest checkpoints that stay
    # of those at an epoch's end, which stay for good
    keep_every_epochs: Annotated[int, Gt(0), "or null for never"] | None
    asynchronous: bool
    max_failures: Annotated[int, Gt(0)]  # in a row


@dataclass(frozen=True)
class SyncBatchNormOptions:
    """Batch norms over several ranks."""

    enabled: bool
    group_size: int  # consecutive ranks that share statistics; 0 for all


@dataclass(frozen=True)
class DataOptions:
    """The images of a job and how they are read."""

    train: Node
    val: Node | None
    transform: Node
    eval_transform: Node
    normalize: NormalizeOrAuto
    batch_size: int  # over all processes
    num_workers: Annotated[int, Ge(0)] = field(metadata=FREE)  # of each process
    max_bad_fraction: Annotated[float, Interval(ge=0, le=1), "e.g. 0.001"]
    # those that are younger than some configs: without them, what was done before there were any
    channels: int | None = COLOURS  # of an image; null: those that the training images have
    range: Any = None  # this and the next five: see PixelOptions, which checks them
    orientation: Literal["apply", "ignore"] = "ignore"
    background: Any = None
    corrupt: Literal["use", "refuse"] = "use"
    max_pixels: int = 50_000_000
    max_bytes: int = 256 * 2**20
    path: str | None = None  # for other keys to refer to: ${data.path}/train
    # images of a process that go through the model at once in training
    micro_batch: Annotated[int, Ge(1), "or null for all images of the process"] | None = None
    eval_batch_size: Annotated[int, Ge(1), "e.g. 256"] = field(default=256, metadata=FREE)

    @property
    def pixels(self) -> PixelOptions:
        """Raises ``ValueError`` with a line for each key that is wrong."""
        return PixelOptions.of(vars(self))


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised in their own way."""

    match: str  # shell pattern of their names in the model: heads.*, *.batch_norm.*
    lr_scale: Annotated[float, Ge(0)]  # times the schedule's learning rate; 0 freezes them
    weight_decay: Annotated[float, Ge(0)] | None  # null: the optimizer's
    name: str | None = None  # by which ``schedules`` call the group


@dataclass(frozen=True)
class CudnnOptions:
    """cuDNN, which computes convolutions on GPUs; see `ops.arithmetic`."""

    tf32: bool = True
    benchmark: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class JobOptions:
    """The top-level keys that a config has whatever its task."""

    name: str = field(metadata=FREE)
    output_dir: str = field(metadata=FREE)
    seed: Annotated[int, Interval(ge=0, le=MAX_SEED)]
    device: Literal["auto", "cpu", "cuda"]
    plugins: list[str]
    task: Node
    launch: LaunchOptions
    # younger than some configs, as the next
    matmul_precision: Literal["highest", "high", "medium"] = field(default="highest", kw_only=True)
    cudnn: CudnnOptions = field(default=CudnnOptions(), kw_only=True)


@dataclass(frozen=True)
class ImageJobOptions(JobOptions):
    """Those of a job that reads images."""

    data: DataOptions


@dataclass(frozen=True)
class TrainOptions(ImageJobOptions):
    """Every top-level key of a training. Component nodes are held against their constructors."""

    precision: Literal["auto", "float32", "bfloat16", "float16"]
    sync_batch_norm: SyncBatchNormOptions
    num_epochs: Annotated[int, Ge(1)] = field(metadata=FREE)
    train_fraction: float | None  # of every class's training images
    drop_last: bool  # leave out the last batch of an epoch when it is not full
    checkpoint: str | None  # weights that the trunk starts from
    allow_partial: bool  # start although some of the trunk's weights are not in it
    freeze_trunk: bool
    trunk: Node
    heads: dict[str, Node]
    loss: Node
    optimizer: Node
    param_groups: list[ParameterGroup]  # the first that matches counts
    schedule: Node
    baselines: dict[str, Any] | bool  # how to measure them, the task Train says; false: not
    metrics: dict[str, Node]
    hooks: dict[str, Node | None] = field(metadata=FREE)
    save: SaveOptions = field(metadata=FREE)
    resume: ResumeOptions = field(metadata=FREE)
    # the largest norm of all gradients together; younger than some configs, as the next
    clip_grad_norm: Annotated[float, Gt(0), "or null for none"] | None = None
    profile: bool = field(default=False, metadata=FREE)  # it changes no number
    compile: bool = False  # the trunk, by torch.compile
    schedules: dict[str, Any] | None = None  # of options beside the learning rate, by their path
    adapt_channels: bool = False  # of the checkpoint's first layer to the images'
    loggers: dict[str, Node | None] | None = field(default=None, metadata=FREE)
    teacher: Node | None = None  # part of the model, beside trunk and heads
    # which of the two is evaluated
    evaluate: Whose = field(default="student", metadata=FREE)
    # a verdict of the pretraining with which the run ends as failed, once all is saved
    fail_on: Literal["collapse"] | None = field(default=None, metadata=FREE)
    weights: Whose | None = None  # of the checkpoint: as there, see `ssl_platform.zoo.weights`
    # the shipped config that it is made of
    recipe: str | None = field(default=None, metadata=FREE)
    # the number of its results that a search compares it by: views.trained.found
    objective: str | None = field(default=None, metadata=FREE)


def options_of(cfg: Any) -> JobOptions:
    """The options of a checked config, as its task wants them; components have been loaded."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    kind = TASKS.get(plain["task"]["name"]).options
    return kind(**dataclass_schema(kind).convert(plain))


def components(cfg: Mapping[str, Any]) -> Iterator[tuple[str, Registry, Node]]:
    """Every place of a config that names a component, in the order in which they are built."""
    data = cfg.get("data")
    data = vars(data) if isinstance(data, DataOptions) else data
    data = data if isinstance(data, Mapping) else {}
    launch = cfg.get("launch")
    launch = vars(launch) if isinstance(launch, LaunchOptions) else launch
    launch = launch if isinstance(launch, Mapping) else {}
    places: list[tuple[str, Registry, Any]] = [
        ("task", TASKS, cfg.get("task")),
        ("launch.launcher", LAUNCHERS, launch.get("launcher")),
        ("data.train", DATASETS, data.get("train")),
        ("data.val", DATASETS, data.get("val")),
        ("data.transform", TRANSFORMS, data.get("transform")),
        ("data.eval_transform", TRANSFORMS, data.get("eval_transform")),
        ("trunk", TRUNKS, cfg.get("trunk")),
        *_named("heads", HEADS, cfg),
        ("teacher", TEACHERS, cfg.get("teacher")),
        ("loss", LOSSES, cfg.get("loss")),
        ("optimizer", OPTIMIZERS, cfg.get("optimizer")),
        ("schedule", SCHEDULES, cfg.get("schedule")),
        *_scheduled(cfg.get("schedules")),
        *_named("metrics", METRICS, cfg),
        *_named("hooks", HOOKS, cfg),
        *_named("loggers", LOGGERS, cfg),
    ]
    for where, registry, node in places:
        if isinstance(node, Mapping):
            yield where, registry, dict(node)


def scheduled_options(schedules: Any) -> Iterator[tuple[str, Any]]:
    """The entries of ``schedules`` by the path of the option that they set, without null ones.

    A path has a part and an option; in ``param_groups`` it also has the name of a group.
    """
    for part, options in schedules.items() if isinstance(schedules, Mapping) else ():
        sections = {part: options}
        if part == "param_groups" and isinstance(options, Mapping):
            sections = {f"{part}.{name}": inner for name, inner in options.items()}
        for place, inner in sections.items():
            entries = inner if isinstance(inner, Mapping) else {"": inner}
            for option, node in entries.items():
                if node is not None:
                    yield f"{place}.{option}".rstrip("."), node


def _scheduled(schedules: Any) -> list[tuple[str, Registry, Any]]:
    return [(f"schedules.{key}", SCHEDULES, node) for key, node in scheduled_options(schedules)]


def _named(
    section: str, registry: Registry, cfg: Mapping[str, Any]
) -> list[tuple[str, Registry, Any]]:
    nodes = cfg.get(section)
    nodes = nodes if isinstance(nodes, Mapping) else {}
    return [(f"{section}.{key}", registry, node) for key, node in nodes.items()]
