"""Teachers: a second trunk with heads, which no gradient trains and which follows the student."""

import copy
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, NoReturn

import torch
from annotated_types import Interval
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ssl_platform.errors import ConfigError
from ssl_platform.models.network import Network
from ssl_platform.registry import TEACHERS

TEACHER = "teacher"  # its name in the model, and among the outputs that a loss is given
STATISTICS = ("running_mean", "running_var")  # of a batch norm
NO_OUTPUTS = (
    "it reads the outputs of a teacher, and none are computed: add teacher=ema "
    "'teacher.crops=[0,1]', or other crops for the teacher to see"
)


class Teacher(Network):
    """Base of all teachers. It begins as a copy of the student and gets no gradients.

    It is a part of the model: checkpoints hold it, its batch norms are synchronised like the
    student's, and every rank has the same. Nothing but batch norms is ever in train mode, so that
    dropout and the like leave its outputs alone.

    Args:
        student: trunk and heads that are trained.
        num_crops: of an image.
        crops: positions of the crops that the teacher sees. None, or an empty list: its outputs
            are not computed.
        batch_norm: how its batch norms normalise the crops of a training. ``train``: by their
            batch, and the running statistics are the teacher's own. ``eval``: by its running
            statistics.

    Raises:
        ValueError: crops that are not there.
    """

    def __init__(
        self,
        student: Network,
        num_crops: int,
        *,
        crops: list[int] | None,
        batch_norm: Literal["train", "eval"],
    ):
        # together, since they may share weights
        trunk, heads = copy.deepcopy((student.trunk, student.heads))
        super().__init__(trunk, dict(heads.items()), layers=student.layers)
        self.requires_grad_(False)
        self.crops = crops or []
        if len(set(self.crops)) < len(self.crops) or not set(self.crops) <= set(range(num_crops)):
            raise ValueError(
                f"crops={crops}: different positions of crops, from 0 to {num_crops - 1} (the data "
                f"has {num_crops} crops)"
            )
        if TEACHER in student.heads:
            raise ValueError(f"a head has this name too: rename heads.{TEACHER}")
        self.has_own_statistics = bool(self.crops) and batch_norm == "train"
        self.train()

    @abstractmethod
    def update(self, student: Network) -> None:
        """Follow the student, whose weights the optimizer has just changed; on every rank."""

    def start(self, student: Network) -> None:
        """Begin with the weights that the student begins with: random ones, or others' weights."""
        for own, other in ((self.trunk, student.trunk), (self.heads, student.heads)):
            own.load_state_dict(other.state_dict())

    def train(self, mode: bool = True) -> "Teacher":
        """Eval mode of everything; batch norms are in train mode where the batch counts."""
        super().train(False)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.training = mode and self.has_own_statistics
        return self

    @torch.no_grad()
    def outputs(self, crops: Sequence[Tensor]) -> dict[str, Any]:
        """The outputs by head name for the crops that the teacher sees, in the order of its
        ``crops``: rows are crop after crop, without gradients."""
        return self([crops[position] for position in self.crops])


@TEACHERS.register()
class EMATeacher(Teacher):
    """An exponential moving average of the student: after every step each weight becomes
    momentum * its own + (1 - momentum) * the student's (Tarvainen & Valpola, arXiv:1703.01780).

    Weights that are not trained by gradients are copied, and so are all buffers but the running
    statistics of batch norms. Those are averaged like weights, unless they are the teacher's own,
    see ``batch_norm``. Prototypes are averaged as they are; every use sets them to unit length.

    Args:
        momentum: 1 keeps the teacher as it is, 0 makes it a copy.
        crops, batch_norm: see `Teacher`.
    """

    def __init__(
        self,
        student: Network,
        num_crops: int,
        *,
        momentum: Annotated[float, Interval(ge=0, le=1), "e.g. 0.996"],
        crops: list[int] | None,
        batch_norm: Literal["train", "eval"],
    ):
        super().__init__(student, num_crops, crops=crops, batch_norm=batch_norm)
        self.momentum = momentum

    @torch.no_grad()
    def update(self, student: Network) -> None:
        averaged: list[tuple[Tensor, Tensor]] = []
        parameters = dict(student.named_parameters())
        for name, own in self.named_parameters():
            if parameters[name].requires_grad:
                averaged.append((own, parameters[name]))
            else:
                own.copy_(parameters[name])
        buffers = dict(student.named_buffers())
        for name, buffer, is_statistic in self._buffers_to_follow():
            if is_statistic:
                averaged.append((buffer, buffers[name]))
            else:
                buffer.copy_(buffers[name])
        ours, theirs = map(list, zip(*averaged, strict=True))
        get_ema_multi_avg_fn(self.momentum)(ours, theirs, None)

    def _buffers_to_follow(self) -> Iterator[tuple[str, Tensor, bool]]:
        """Those that are not the teacher's own, and whether they are statistics of a batch norm."""
        for prefix, module in self.named_modules():
            is_norm = isinstance(module, _BatchNorm)
            if not (is_norm and self.has_own_statistics):
                for name, buffer in module.named_buffers(prefix, recurse=False):
                    yield name, buffer, is_norm and name.endswith(STATISTICS)


def student_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The parameters of a model by name without those of its teacher, which no optimizer sees."""
    for name, parameter in model.named_parameters():
        if not name.startswith(f"{TEACHER}."):
            yield name, parameter


class Outputs(dict[str, Any]):
    """The outputs that a loss is given, by head name; the mapping of a teacher's is ``teacher``.

    Raises:
        ConfigError: when one is read that is not there.
    """

    def __missing__(self, name: str) -> NoReturn:
        if name == TEACHER:
            raise ConfigError([f"loss: {NO_OUTPUTS}"])
        heads = sorted(set(self) - {TEACHER})
        raise ConfigError([f"loss: it reads the output of a head {name}; the heads are {heads}"])
