"""The gradients of a step: of the whole batch at once, or the same by micro-batches.

By micro-batches the loss still sees the outputs of the whole batch (gradient caching, Gao et al.,
arXiv:2101.06983): the outputs are computed micro-batch by micro-batch and cut off from the model,
the loss gives its gradient on them, and then each micro-batch goes through the model again, for its
part of that gradient to be pulled back.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_platform import distributed
from ssl_platform.data.batch import Batch
from ssl_platform.engine.run import Loss, Run
from ssl_platform.errors import ConfigError, kind_of
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.teacher import Outputs
from ssl_platform.ops.joined import cut_off, join, pairs, without_rows
from ssl_platform.optim.strides import align

logger = logging.getLogger(__name__)


def compute_gradients(batch: Batch, run: Run) -> None:
    """Set ``run.outputs``, ``run.losses`` and the gradients of the parameters, which have none.

    The gradients are averaged over ranks, and scaled where the precision needs that.

    Raises:
        ConfigError: the loss, or a head, gives what cannot be used.
    """
    if run.micro_batch is not None and run.micro_batch < len(batch.index):
        _by_micro_batches(batch, run, run.micro_batch)
        return
    run.outputs = _with_teacher(_forward(batch.crops, run), batch.crops, run)
    run.losses = check_losses(run.loss, run.loss(run.model, run.outputs, batch))
    run.scaler.scale(run.losses["loss"]).backward()


def clip_gradients(run: Run) -> None:
    """Scale all gradients together so that their norm is at most ``run.clip_grad_norm``."""
    if run.clip_grad_norm is not None:
        align(run.optimizer)  # which refuses sparse ones: torch has no norm of them
        trained = [param for group in run.optimizer.param_groups for param in group["params"]]
        run.grad_norm = nn.utils.clip_grad_norm_(trained, run.clip_grad_norm)


def tell_of_micro_batches(run: Run) -> None:
    """Say in the log what micro-batches change, if anything."""
    size, whole = run.micro_batch, run.train_loader.batch_size
    if size is None or size >= whole or distributed.rank() != 0:
        return
    if any(isinstance(m, _BatchNorm) and m.training for m in run.model.train().modules()):
        logger.info(
            "data.micro_batch=%d: batch norms see %d images of a process at a time, not %d; all "
            "else is as without micro-batches",
            size,
            size,
            whole,
        )


class _Draws(NamedTuple):
    """A state of torch's random numbers."""

    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, run: Run) -> "_Draws":
        on_gpu = run.device.type == "cuda"
        return cls(torch.get_rng_state(), torch.cuda.get_rng_state() if on_gpu else None)

    def put_back(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda)


def _by_micro_batches(batch: Batch, run: Run, size: int) -> None:
    starts = range(0, len(batch.index), size)
    micro_batches = [[crop[start : start + size] for crop in batch.crops] for start in starts]
    buffers: dict[str, Tensor] = {}
    parts, of_teacher, draws = [], [], []
    # within the model's forward, because DDP has sent the buffers of rank 0 by then
    keeping = run.model.register_forward_pre_hook(lambda *_: _keep_buffers(run.model, buffers))
    with keeping, distributed.no_sync(run.replica):
        for crops in micro_batches:
            draws.append(_Draws.now(run))
            parts.append(_outputs_alone(crops, run))
            of_teacher.append(dict(_with_teacher({}, crops, run)))
    sizes = [len(crops[0]) for crops in micro_batches]
    outputs = join(parts, sizes) | join(of_teacher, sizes)
    run.losses = check_losses(run.loss, run.loss(run.model, Outputs(outputs), batch))
    run.scaler.scale(run.losses["loss"]).backward()
    run.outputs = Outputs(cut_off(outputs))  # what they hang on has gradients of the same size
    after = _Draws.now(run)
    own = _take_gradients(run.model)
    for name, buffer in _buffers(run.model):
        buffer.copy_(buffers[name])  # so that the second pass moves them as the first did
    for number, crops in enumerate(micro_batches):
        is_last = number == len(micro_batches) - 1
        draws[number].put_back()
        with nullcontext() if is_last else distributed.no_sync(run.replica):
            _pull_back(crops, parts[number], own if is_last else [], run)
    after.put_back()


def _forward(crops: list[Tensor], run: Run) -> dict[str, Any]:
    with _autocast(run):
        return distributed.outputs_of(run.replica, crops, run.model)


def _with_teacher(outputs: dict[str, Any], crops: list[Tensor], run: Run) -> Outputs:
    with _autocast(run):
        return run.model.with_teacher(outputs, crops)


def _autocast(run: Run) -> torch.autocast:
    is_on = run.autocast_dtype is not None
    return torch.autocast(run.device.type, run.autocast_dtype, enabled=is_on)


def _outputs_alone(crops: list[Tensor], run: Run) -> dict[str, Any]:
    """The outputs of a micro-batch as leaves; what was kept for their gradient is freed here.

    The pass is the second one in all but that: without gradients torch may choose other kernels,
    which draw other random numbers.
    """
    outputs = _forward(crops, run)
    problems = without_rows("heads", outputs, len(crops) * len(crops[0]))
    if problems:
        raise ConfigError([f"data.micro_batch={run.micro_batch}: {problems[0]}"])
    return cut_off(outputs)


def _buffers(model: SSLModel) -> Iterator[tuple[str, Tensor]]:
    """Those that a pass through the model may move, such as the statistics of batch norms."""
    for part, module in (("trunk", model.trunk), ("heads", model.heads)):
        for name, buffer in module.named_buffers(part):
            yield name, buffer.detach()


def _keep_buffers(model: SSLModel, buffers: dict[str, Tensor]) -> None:
    """Copy the buffers of a model, once."""
    if not buffers:
        buffers |= {name: buffer.clone() for name, buffer in _buffers(model)}


def _take_gradients(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """The weights that the loss uses itself with their gradients, which they lose."""
    taken: list[tuple[Tensor, Tensor]] = [
        (weight, weight.grad) for weight in model.parameters() if weight.grad is not None
    ]
    for weight, _ in taken:
        weight.grad = None
    return taken


def _pull_back(
    crops: list[Tensor],
    leaves: dict[str, Any],
    own: list[tuple[Tensor, Tensor]],
    run: Run,
) -> None:
    """Add what a micro-batch contributes to the gradients of the weights.

    Args:
        leaves: its outputs of the first pass, with their gradients.
        own: weights with further gradients; DDP averages them over ranks with the others.
    """
    outputs = _forward(crops, run)
    roots = own + [
        (output, leaf.grad) for output, leaf in pairs(outputs, leaves) if leaf.grad is not None
    ]
    if roots:
        torch.autograd.backward([root for root, _ in roots], [grad for _, grad in roots])


def check_losses(loss: Loss, losses: Any) -> dict[str, Tensor]:
    """The losses of a batch as scalar tensors, after a check of what the loss has returned.

    Raises:
        ConfigError: there is no loss to minimise, or a value is not one number.
    """
    wanted = 'forward() has to give {"loss": a tensor with one number and a gradient, ...}'
    name = type(loss).__name__
    if not isinstance(losses, Mapping):
        raise ConfigError([f"loss: {name} gave {kind_of(losses)}; {wanted}"])
    if "loss" not in losses:
        raise ConfigError([f"loss: {name} gave {sorted(map(str, losses))}; {wanted}"])
    value = losses["loss"]
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        raise ConfigError([f"loss: {name} gave {kind_of(value)} as loss; {wanted}"])
    if not value.requires_grad:
        raise ConfigError(
            [f"loss: {name} gave a loss without a gradient, of no trained weight; {wanted}"]
        )
    for key, other in losses.items():
        is_number = isinstance(other, Real) or (isinstance(other, Tensor) and other.numel() == 1)
        if not is_number:
            raise ConfigError([f"loss: {name} gave {kind_of(other)} as {key}; one number each"])
    return {
        str(key): torch.as_tensor(other, device=value.device).reshape(())
        for key, other in losses.items()
    }
