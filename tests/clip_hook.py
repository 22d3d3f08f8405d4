"""A plug-in of the tests: it clips gradients where a hook may, with torch's own function."""

import torch

from ssl_platform.engine.run import Events, Run
from ssl_platform.registry import HOOKS


@HOOKS.register()
class ClipByHand(Events):
    """``norm`` is the largest that is left."""

    def __init__(self, *, norm: float):
        self.norm = norm

    def on_backward_end(self, run: Run) -> None:
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), self.norm)
