"""The components of a config, each tried as its run will use it; what is wrong is noted."""

import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from ssl_platform.config.options import ImageJobOptions, Node, TrainOptions, components
from ssl_platform.data.contract import check_dataset, check_transform
from ssl_platform.data.decoding.pixels import AUTO, PixelOptions
from ssl_platform.engine.build import head_layers, resolve_device
from ssl_platform.engine.contract import check_schedule, values_of
from ssl_platform.engine.parts import Parts
from ssl_platform.engine.scheduled import owner_of
from ssl_platform.errors import blame
from ssl_platform.launch import launcher_of
from ssl_platform.models.layers import layer_shapes
from ssl_platform.models.trial import ROWS, Trial, problem_of_head, problem_of_trunk
from ssl_platform.ops.image_size import ImageSize
from ssl_platform.ops.joined import without_rows

OF_A_GPU = re.compile("cuda|gpu|triton", re.IGNORECASE)  # what fails for want of one says so
DRAWN_BY = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_)
ENOUGH = 4096  # random numbers that a module is tried with, repeated


class UnbuiltError(Exception):
    """A part is wrong, which has been noted, or needs one that is wrong."""


class TriedParts(Parts):
    """Parts that note what is wrong with them, for a builder that goes on with the others.

    A part that is asked for and wrong raises `UnbuiltError`, and so does what needs it.

    Attributes:
        problems: one line for everything that is wrong.
        options: of the job, once its keys are known to be right.
        is_training: whether images go through ``data.transform``.
    """

    def __init__(self) -> None:
        super().__init__({}, PixelOptions())
        self.problems: list[str] = []
        self.options: ImageJobOptions | None = None
        self.is_training = True
        self._wrong: set[str] = set()
        self._runtime: dict[str, tuple[Any, ...]] = {}  # what the constructors were given
        self._image: np.ndarray | None = None  # that transforms are tried with

    def add(self, cfg: Mapping[str, Any]) -> None:
        """Hold the components of a config, those that are new, against their signatures."""
        for where, registry, node in components(cfg):
            if where in self.nodes:
                continue
            self.nodes[where] = registry, node
            problems = registry.problems(node, where=where)
            if problems:
                self._wrong.add(where)
            self.problems += problems

    def is_wrong(self, where: str) -> bool:
        """Whether something has been noted about a part."""
        return where in self._wrong

    def tried(self, get: Callable[..., Any], *args: Any) -> Any:
        """What ``get(*args)`` gives; None where it, or a part that it needs, is wrong."""
        try:
            return get(*args)
        except UnbuiltError:
            return None

    def build(self, where: str, *runtime: Any) -> Any:
        """See `Parts.build`.

        Raises:
            UnbuiltError: it is wrong.
        """
        if where in self._wrong or where not in self.nodes:
            raise UnbuiltError(where)
        return super().build(where, *runtime)

    def construct(self, where: str, *runtime: Any) -> Any:
        """Construct and try a component, on the meta device where that is torch's default."""
        with self.step(where):
            self._runtime[where] = runtime
            component = self._constructed(where, *runtime)
            self._try(where, component, *runtime)
            return component

    @contextmanager
    def step(self, where: str) -> Iterator[None]:
        """Note what goes wrong here, once for each place, and raise `UnbuiltError`."""
        if where in self._wrong:
            raise UnbuiltError(where)
        try:
            yield
        except UnbuiltError:
            raise
        except (ValueError, RuntimeError, OverflowError) as error:
            options = self.nodes[where][1] if where in self.nodes else {}
            lines = str(error).splitlines()
            # torch, about a size that is impossible: what follows its first line is for developers
            for line in lines if isinstance(error, ValueError) else lines[:1]:
                names_an_option = line.partition("=")[0].partition(".")[0] in options
                prefix = f"{where}{'.' if names_an_option else ': '}" if where else ""
                if f"{prefix}{line}" not in self.problems:  # several parts may need the wrong one
                    self.problems.append(f"{prefix}{line}")
            self._wrong.add(where)
            raise UnbuiltError(where) from error
        except Exception as error:  # whatever the code of others does
            self.problems.append(f"{where}: {blame(error)}" if where else blame(error))
            self._wrong.add(where)
            raise UnbuiltError(where) from error

    def _constructed(self, where: str, *runtime: Any) -> Any:
        """A component; one that needs values, which the meta device has none of, is made for real:
        ``[rate.item() for rate in torch.linspace(0, 0.1, depth)]`` is how many trunks begin."""
        if where.partition(".")[0] in ("schedule", "schedules"):  # what they give has values
            with torch.device("cpu"):
                return super().construct(where, *runtime)
        try:
            return super().construct(where, *runtime)
        except Exception as error:
            if torch.get_default_device().type != "meta" or "meta" not in str(error):
                raise
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            component = super().construct(where, *runtime)
        return component.to("meta") if isinstance(component, nn.Module) else component

    def _try(self, where: str, component: Any, *runtime: Any) -> None:
        """Use a component once as the run will.

        Raises:
            ValueError: why it cannot be used so.
        """
        section, _, name = where.partition(".")
        if where in ("data.train", "data.val"):
            image = check_dataset(component)
            component.probe()
            self._image = image if self._image is None else self._image
        elif section == "data":
            is_used = self.is_training or where != "data.transform"
            check_transform(component, self._image if is_used else None)
        elif where == "schedule":
            _, num_epochs, steps_per_epoch = runtime
            with torch.device("cpu"):
                check_schedule(component, num_epochs * steps_per_epoch)
        elif section == "schedules":
            _, num_epochs, steps_per_epoch = runtime
            with torch.device("cpu"):
                values = values_of(component, num_epochs, steps_per_epoch)
            self._require_allowed(name, values, steps_per_epoch)
        elif section == "trunk":
            self._try_module(where, component, self._problem_of_trunk)
        elif section == "heads":
            self._require_one_shape(name)
            self._try_module(
                where,
                component,
                lambda head, trial: self._problem_of_head(head, trial, *runtime),
                *runtime,
            )

    def _require_allowed(self, key: str, values: Mapping[int, float], steps: int) -> None:
        """An option takes every value of its schedule: by its annotation, and its constructor.

        Args:
            key: the option's path.
            values: by step, of ``steps`` each epoch.
        """
        place, _, option = key.rpartition(".")
        owner = owner_of(place)
        registry, node = self.nodes[owner]
        ends = {min(values.values()), max(values.values())}
        for step, value in values.items():
            given = {**node, option: value}
            problems = registry.problems(given, where="")
            if not problems and value in ends:
                ends.remove(value)
                problems = self._refusals(owner, given)
            if problems:
                raise ValueError(f"at epoch {step / steps:g} it sets {problems[0]}")

    def _refusals(self, owner: str, node: Node) -> list[str]:
        """Why a constructor refuses options that differ from the config's, in a value of one."""
        registry, _ = self.nodes[owner]
        with suppress(ArithmeticError, RuntimeError), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the config's own values have warned of
            try:
                registry.build(node, *self._runtime.get(owner, ()))
            except ValueError as error:
                return str(error).splitlines()
        return []

    def _try_module(
        self,
        where: str,
        module: Any,
        problem_of: Callable[[nn.Module, Trial], str | None],
        *runtime: Any,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ValueError(f"{type(module).__name__} has to be a torch.nn.Module")
        if any(isinstance(weights, UninitializedParameter) for weights in module.parameters()):
            raise ValueError(
                f"{type(module).__name__} has weights whose shape is not known yet (a Lazy module "
                "of torch); say the width of its input"
            )
        assert self.options is not None
        registry, node = self.nodes[where]
        is_elsewhere = launcher_of(self.options.launch).is_elsewhere
        device = torch.device("cpu") if is_elsewhere else available_device(self.options.device)
        trial = Trial(module, lambda: registry.build(node, *runtime), device)
        problem = problem_of(module, trial)
        if problem and is_elsewhere and OF_A_GPU.search(problem):
            warnings.warn(f"{where}: could not be tried on this machine: {problem}", stacklevel=2)
        elif problem:
            raise ValueError(problem)

    def _problem_of_trunk(self, trunk: nn.Module, trial: Trial) -> str | None:
        is_training = isinstance(self.options, TrainOptions)
        trained = self._crop_sizes("data.transform") if is_training else []
        evaluated = self._crop_sizes("data.eval_transform")
        if isinstance(self.options, TrainOptions) and self.options.freeze_trunk:
            trained, evaluated = [], [*trained, *evaluated]  # it stays in eval mode
        return problem_of_trunk(trunk, trial, trained, evaluated, self.pixels.channels)

    def _problem_of_head(
        self, head: nn.Module, trial: Trial, shape: int | tuple[int, ...]
    ) -> str | None:
        assert self.options is not None
        problem = problem_of_head(head, trial, shape)
        if problem is not None or self.options.data.micro_batch is None:
            return problem
        sides = (shape,) if isinstance(shape, int) else shape
        output = trial(ROWS, *sides, training=True)
        problems = without_rows(f"the output of {type(head).__name__}", output, ROWS)
        return problems[0] if problems else None

    def _require_one_shape(self, head: str) -> None:
        """What a head on a layer gets has to be the same in training and evaluation."""
        assert isinstance(self.options, TrainOptions)
        layer, trunk = head_layers(self.options.heads)[head], self.built["trunk"]
        trained = self._crop_sizes("data.transform")
        sizes = dict.fromkeys([*trained, *self._crop_sizes("data.eval_transform")])
        shapes = {
            size: layer_shapes(trunk, [layer], size, self.pixels.channels)[layer] for size in sizes
        }
        shape = shapes[trained[0]]
        for size, other in shapes.items():
            if other != shape:
                of = "data.transform" if size in trained else "data.eval_transform"
                raise ValueError(
                    f"layer={layer}: its map is {_by(shape)} on the crops of data.transform and "
                    f"{_by(other)} on those of {of}, of {_by(size)} pixels; give all of them the "
                    "same size"
                )

    def _crop_sizes(self, where: str) -> list[ImageSize]:
        transform = self.built.get(where)
        return [] if transform is None else list(transform.crop_sizes)


def pixels_to_try(data: Any) -> PixelOptions:
    """How the images are looked at; what is wrong with the options is found by their types."""
    try:
        return PixelOptions.of(data if isinstance(data, Mapping) else {})
    except (TypeError, ValueError):
        return PixelOptions(range=AUTO)


def _by(shape: Any) -> str:
    return str(shape) if isinstance(shape, int) else " x ".join(map(str, shape))


def available_device(name: str) -> torch.device:
    """The device of a run; the CPU where it is not here, which is told elsewhere."""
    return resolve_device(name if name != "cuda" or torch.cuda.is_available() else "cpu")


@contextmanager
def without_values() -> Iterator[None]:
    """Construct modules here: on the meta device, and without waiting for random numbers."""
    with torch.device("meta"), _FewRandomNumbers():
        yield


class _FewRandomNumbers(TorchFunctionMode):
    """Draw no more numbers than it takes to try a module, where a ResNet-50 draws 50 million.

    On the meta device none at all: torch loads its compiler to draw them, 2 s.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func not in DRAWN_BY:
            return func(*args, **kwargs)
        tensor, *rest = args or (kwargs.pop("tensor"),)
        if tensor.is_meta:
            return tensor
        if tensor.numel() <= ENOUGH:
            return func(tensor, *rest, **kwargs)
        numbers = func(tensor.new_empty(ENOUGH), *rest, **kwargs)
        repeats = -(-tensor.numel() // ENOUGH)
        with torch.no_grad():
            return tensor.copy_(numbers.repeat(repeats)[: tensor.numel()].view(tensor.shape))
