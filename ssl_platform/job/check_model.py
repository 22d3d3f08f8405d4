"""Try the trunk and the heads of a config: with images of every size that the run has.

They are constructed on torch's meta device (`without_values`), where tensors have a shape and no
memory.
"""

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter
from torch.overrides import TorchFunctionMode

from ssl_platform.config.options import ImageJobOptions, TrainOptions
from ssl_platform.engine.build import head_layers, resolve_device
from ssl_platform.job.parts import Parts
from ssl_platform.models.layers import POOLED, layer_shapes
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.trial import Trial, problem_of_head, problem_of_trunk

OF_A_GPU = re.compile("cuda|gpu|triton", re.IGNORECASE)  # what fails for want of one says so
DRAWN_BY = (Tensor.normal_, Tensor.uniform_, nn.init.normal_, nn.init.uniform_)
ENOUGH = 4096  # random numbers that a module is tried with, repeated


@contextmanager
def without_values() -> Iterator[None]:
    """Construct modules here: on the meta device, and without waiting for random numbers."""
    with torch.device("meta"), _FewRandomNumbers():
        yield


def model_of(parts: Parts, options: TrainOptions) -> SSLModel | None:
    """The model, on the meta device, if its trunk and heads do what they have to."""
    trunk, transform = trunk_of(parts, options), parts.built.get("data.transform")
    if trunk is None or transform is None:
        return None
    layers, shapes = head_layers(options.heads), {}
    for name, layer in layers.items():
        shapes[name] = parts.attempt(
            f"heads.{name}", lambda layer=layer: _shape_of(parts, trunk, layer)
        )
    built = {
        name: _head_of(parts, f"heads.{name}", shape, options)
        for name, shape in shapes.items()
        if shape is not None
    }
    heads = {name: head for name, head in built.items() if head is not None}
    if len(heads) < len(layers):
        return None
    return SSLModel(trunk, heads, layers=layers, freeze_trunk=options.freeze_trunk)


def trunk_of(parts: Parts, options: ImageJobOptions) -> nn.Module | None:
    """The trunk, on the meta device, if it gives features of images of every size."""
    trunk = parts.build("trunk")
    trained = _crop_sizes(parts, "data.transform") if isinstance(options, TrainOptions) else []
    evaluated = _crop_sizes(parts, "data.eval_transform")
    if isinstance(options, TrainOptions) and options.freeze_trunk:  # it stays in eval mode
        trained, evaluated = [], [*trained, *evaluated]
    works = _works(
        parts,
        "trunk",
        trunk,
        options,
        lambda trial: problem_of_trunk(trunk, trial, trained, evaluated),
    )
    return trunk if works else None


def _head_of(
    parts: Parts, where: str, shape: int | tuple[int, ...], options: TrainOptions
) -> nn.Module | None:
    """A head, on the meta device, if it takes what its layer gives."""
    head = parts.build(where, shape)
    works = _works(
        parts, where, head, options, lambda trial: problem_of_head(head, trial, shape), shape
    )
    return head if works else None


def _works(
    parts: Parts,
    where: str,
    module: Any,
    options: ImageJobOptions,
    problem_of: Callable[[Trial], str | None],
    *runtime: Any,
) -> bool:
    """Whether a trunk or head does what it has to."""
    if module is None:
        return False
    registry, node = parts.nodes[where]
    if not isinstance(module, nn.Module):
        parts.problems.append(f"{where}: {type(module).__name__} has to be a torch.nn.Module")
        return False
    if any(isinstance(weights, UninitializedParameter) for weights in module.parameters()):
        parts.problems.append(
            f"{where}: {type(module).__name__} has weights whose shape is not known yet (a Lazy "
            "module of torch); say the width of its input"
        )
        return False
    is_elsewhere = options.launch.slurm is not None
    device = torch.device("cpu") if is_elsewhere else _available_device(options.device)
    problem = problem_of(Trial(module, lambda: registry.build(node, *runtime), device))
    if problem and is_elsewhere and OF_A_GPU.search(problem):
        warnings.warn(f"{where}: could not be tried on this machine: {problem}", stacklevel=2)
    elif problem:
        parts.problems.append(f"{where}: {problem}")
        return False
    return True


def _shape_of(parts: Parts, trunk: nn.Module, layer: str) -> int | tuple[int, ...]:
    """What a head on a layer gets, which has to be the same in training and evaluation."""
    trained = _crop_sizes(parts, "data.transform")
    sizes = dict.fromkeys([*trained, *_crop_sizes(parts, "data.eval_transform")])
    shapes = {size: layer_shapes(trunk, [layer], size)[layer] for size in sizes}
    shape = shapes[trained[0]]
    for size, other in shapes.items():
        if other != shape:
            of = "data.transform" if size in trained else "data.eval_transform"
            raise ValueError(
                f"layer={layer}: its map is {_by(shape)} on the crops of data.transform and "
                f"{_by(other)} on those of {of}, of {size} pixels; give all of them the same size"
            )
    return shape


def _crop_sizes(parts: Parts, where: str) -> list[int]:
    transform = parts.built.get(where)
    return [] if transform is None else list(transform.crop_sizes)


def problems_of_compiling(options: TrainOptions) -> list[str]:
    """What ``compile`` cannot do."""
    problems = [
        f"compile=true: heads.{name}.layer={layer} lies within the trunk that is compiled as a "
        f"whole; compile=false, or layer={POOLED}"
        for name, layer in head_layers(options.heads).items()
        if layer != POOLED
    ]
    if resolve_device(options.device).type != "cpu":
        return problems
    chosen = os.environ.get("CXX")
    compilers = [chosen] if chosen else ["c++", "g++", "clang++"]
    if not any(map(_answers, compilers)):
        problems.append(
            "compile=true: on a CPU torch needs a C++ compiler, and there is none "
            f"({' or '.join(compilers)}): install g++"
        )
    return problems


def _available_device(name: str) -> torch.device:
    """The device of a run; the CPU where it is not here, which is told elsewhere."""
    return resolve_device(name if name != "cuda" or torch.cuda.is_available() else "cpu")


def _answers(compiler: str) -> bool:
    command = shutil.which(compiler)
    if command is None:
        return False
    return subprocess.run([command, "--version"], capture_output=True).returncode == 0


def _by(shape: Any) -> str:
    return " x ".join(map(str, shape))


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
