"""Every key that a config may have at its top, and which of them name components."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from omegaconf import OmegaConf

from ssl_platform.data.crops.normalize import Normalize
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.launch import LaunchOptions
from ssl_platform.launch.job import FREE
from ssl_platform.registry import (
    DATASETS,
    HEADS,
    HOOKS,
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
    normalize: Normalize
    batch_size: int  # over all processes
    num_workers: Annotated[int, Ge(0)] = field(metadata=FREE)  # of each process
    max_bad_fraction: Annotated[float, Interval(ge=0, le=1), "e.g. 0.001"]
    # those that are younger than some configs: without them, what was done before there were any
    range: Any = None  # this and the next five: see PixelOptions, which checks them
    orientation: Literal["apply", "ignore"] = "ignore"
    background: Any = None
    corrupt: Literal["use", "refuse"] = "use"
    max_pixels: int = 50_000_000
    max_bytes: int = 256 * 2**20
    path: str | None = None  # for other keys to refer to: ${data.path}/train

    @property
    def pixels(self) -> PixelOptions:
        """Raises ``ValueError`` with a line for each key that is wrong."""
        return PixelOptions(**{f.name: getattr(self, f.name) for f in fields(PixelOptions)})


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are optimised in their own way."""

    match: str  # shell pattern of their names in the model: heads.*, *.batch_norm.*
    lr_scale: Annotated[float, Ge(0)]  # times the schedule's learning rate; 0 freezes them
    weight_decay: Annotated[float, Ge(0)] | None  # null: the optimizer's


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
    profile: bool = field(default=False, metadata=FREE)  # it changes no number
    compile: bool = False  # the trunk, by torch.compile
    teacher: Node | None = None  # part of the model, beside trunk and heads
    # which of the two is evaluated
    evaluate: Whose = field(default="student", metadata=FREE)
    weights: Whose | None = None  # of the checkpoint: as there, see `ssl_platform.zoo.weights`


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
    places: list[tuple[str, Registry, Any]] = [
        ("task", TASKS, cfg.get("task")),
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
        *_named("metrics", METRICS, cfg),
        *_named("hooks", HOOKS, cfg),
    ]
    for where, registry, node in places:
        if isinstance(node, Mapping):
            yield where, registry, dict(node)


def _named(
    section: str, registry: Registry, cfg: Mapping[str, Any]
) -> list[tuple[str, Registry, Any]]:
    nodes = cfg.get(section)
    nodes = nodes if isinstance(nodes, Mapping) else {}
    return [(f"{section}.{key}", registry, node) for key, node in nodes.items()]
