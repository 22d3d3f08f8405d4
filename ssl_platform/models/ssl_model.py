"""The model that is trained, and its teacher."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from ssl_platform.models.network import Network
from ssl_platform.models.teacher import TEACHER, Outputs, Teacher


class SSLModel(Network):
    """The student: trunk and heads that are trained; and a teacher where the config names one.

    Args:
        trunk, heads, layers: see `Network`.
        freeze_trunk: train the heads alone: the trunk gets no gradient and stays in eval mode, its
            batch norms included.

    Attributes:
        teacher: made from this model, so it is set afterwards, before the model is moved to its
            device and its batch norms are synchronised.
    """

    def __init__(
        self,
        trunk: nn.Module,
        heads: Mapping[str, nn.Module],
        *,
        layers: Mapping[str, str] | None = None,
        freeze_trunk: bool = False,
    ):
        super().__init__(trunk, heads, layers=layers, freeze_trunk=freeze_trunk)
        self.teacher: Teacher | None = None
        self.frozen: list[nn.Module] = []
        if freeze_trunk:
            trunk.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "SSLModel":
        """Train mode, or eval mode, of all but what is frozen: that stays in eval mode."""
        super().train(mode)
        if self.freeze_trunk:
            self.trunk.eval()
            if self.teacher is not None:
                self.teacher.trunk.eval()
        for module in self.frozen:
            module.eval()
        return self

    def freeze(self, parameters: Iterable[nn.Parameter]) -> None:
        """Exclude parameters from the training: they get no gradient, and modules that have no
        other parameters stay in eval mode, so that statistics of batch norms do not move."""
        chosen = {parameter.requires_grad_(False) for parameter in parameters}
        for name, module in self.named_modules():
            of_module = set(module.parameters())
            if of_module and of_module <= chosen:
                self.frozen.append(module.eval())
                if self.teacher is not None:
                    self.frozen.append(self.teacher.get_submodule(name).eval())

    def with_teacher(self, outputs: Mapping[str, Any], crops: Sequence[Tensor]) -> Outputs:
        """What a loss is given for a batch.

        Args:
            outputs: of this model, by head name.
            crops: those of the whole batch on this rank, see `Network.forward`.

        Returns:
            The outputs; those of a teacher that sees crops are a mapping under ``teacher``.
        """
        if self.teacher is None or not self.teacher.crops:
            return Outputs(outputs)
        return Outputs(outputs, **{TEACHER: self.teacher.outputs(crops)})

    def fitted(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """A state of this model for one that has got a teacher since, or has none any more.

        The teacher begins as a copy of the student.

        Args:
            state: as of ``state_dict``.
        """
        own = {name: v for name, v in state.items() if not name.startswith(f"{TEACHER}.")}
        if self.teacher is None:
            return own
        return {f"{TEACHER}.{name}": value for name, value in own.items()} | dict(state)
