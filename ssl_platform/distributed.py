"""The few collective operations we use; each is a no-op in a single process."""

import copy
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ssl_platform.errors import ConfigError

_is_alone: ContextVar[bool] = ContextVar("_is_alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within it, this process counts as the only one, whatever process group it is in."""
    token = _is_alone.set(True)
    try:
        yield
    finally:
        _is_alone.reset(token)


def is_distributed() -> bool:
    """Whether this process is a rank of a process group."""
    return dist.is_available() and dist.is_initialized() and not _is_alone.get()


def rank() -> int:
    """Of this process; 0 where it is the only one."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """The number of ranks; 1 for a process on its own."""
    return dist.get_world_size() if is_distributed() else 1


def barrier() -> None:
    """Wait until every rank is here."""
    if is_distributed():
        dist.barrier()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum ``tensor`` over ranks, in place; returns it."""
    if is_distributed():
        dist.all_reduce(tensor)
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Elementwise maximum of ``tensor`` over ranks, in place; returns it."""
    if is_distributed():
        dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def broadcast(tensor: Tensor) -> Tensor:
    """Give every rank the first rank's values, in place; returns the tensor."""
    if is_distributed():
        dist.broadcast(tensor, src=0)
    return tensor


def all_gather(tensor: Tensor) -> Tensor:
    """Concatenate ``tensor`` of every rank along dimension 0. All shapes must be equal."""
    if not is_distributed():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


def all_gather_texts(text: str) -> list[str]:
    """The ``text`` of every rank, in their order; one may be a path of any bytes but NUL."""
    if not is_distributed():
        return [text]
    device = torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")
    encoded = os.fsencode(text) + b"\0"
    longest = int(all_reduce_max(torch.tensor(len(encoded), device=device)))
    row = [list(encoded.ljust(longest, b"\0"))]
    rows = all_gather(torch.tensor(row, dtype=torch.uint8, device=device)).tolist()
    return [os.fsdecode(bytes(row).rstrip(b"\0")) for row in rows]


def broadcast_text(text: str) -> str:
    """The first rank's ``text``, which may be a path of any bytes but NUL."""
    return all_gather_texts(text if rank() == 0 else "")[0]


class Agreement:
    """The greatest or the least over the ranks of a few named whole numbers, once per step.

    On a GPU the host does not wait for the device: a call returns the result of the call before,
    the first one zeros.
    """

    def __init__(self, device: torch.device):
        self.device = device
        self._pending: tuple[Tensor, torch.cuda.Event] | None = None

    def __call__(self, *, greatest: dict[str, int], least: dict[str, int]) -> dict[str, int]:
        """The greatest, or the least, of each number over the ranks.

        Args:
            greatest, least: this rank's numbers; every rank has the same names.
        """
        if not is_distributed():
            return greatest | least
        # the least of some numbers is the greatest of their negatives: one reduction does both
        values = [*greatest.values(), *(-value for value in least.values())]
        agreed = dict(zip([*greatest, *least], self._greatest(values), strict=True))
        return agreed | {name: -agreed[name] for name in least}

    def _greatest(self, values: list[int]) -> list[int]:
        agreed = all_reduce_max(torch.tensor(values, device=self.device))
        if self.device.type == "cpu":
            return agreed.tolist()
        on_host = torch.empty(len(values), dtype=agreed.dtype, pin_memory=True)
        on_host.copy_(agreed, non_blocking=True)
        arrival = torch.cuda.Event()
        arrival.record()
        before, self._pending = self._pending, (on_host, arrival)
        if before is None:
            return [0] * len(values)
        before[1].synchronize()
        return before[0].tolist()


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = tensor.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None


def differentiable_sum(tensor: Tensor, group: Any) -> Tensor:
    """Sum over the ranks of ``group`` that gradients flow through; they are summed likewise."""
    return _SumOverRanks.apply(tensor, group) if is_distributed() else tensor


def replicate(module: nn.Module, example: Any) -> nn.Module:
    """Average gradients over ranks; every forward starts from rank 0's buffers.

    After the first backward pass of a process, DDP arranges its buckets by the order in which the
    gradients came. The place of a gradient decides in which order those of three or more ranks are
    added. So an extra pass is done before the first step: then a resumed run adds in the same order
    in every step as an unbroken one. The pass leaves no trace in the module.

    A module on the meta device, which no gradient comes from, is returned as it is.

    Args:
        example: what the module's forward takes.
    """
    if not is_distributed() or any(weight.is_meta for weight in module.parameters()):
        return module
    replica = nn.parallel.DistributedDataParallel(module)
    if world_size() > 2:  # two are added in one order only
        _lay_out_buckets(replica, module, example)
    return replica


def _lay_out_buckets(replica: nn.Module, module: nn.Module, example: Any) -> None:
    before, was_training = copy.deepcopy(module.state_dict()), module.training
    replica.eval()  # draws no random numbers, and keeps batch norms out of it
    outputs = [output for output in tensors_of(replica(example)) if output.requires_grad]
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    # all weights, as some may be used in train mode alone; each still comes with its last gradient
    torch.stack([tensor.float().sum() for tensor in (*outputs, *weights)]).sum().backward()
    module.zero_grad(set_to_none=True)
    module.load_state_dict(before)  # heads may normalise their weights as they go
    replica.train(was_training)


def tensors_of(outputs: Any) -> Iterator[Tensor]:
    """All tensors of what a head or a model gives, named tuples too."""
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, Mapping | list | tuple):
        for output in outputs.values() if isinstance(outputs, Mapping) else outputs:
            yield from tensors_of(output)


def no_sync(replica: nn.Module) -> AbstractContextManager[None]:
    """A context whose passes leave their gradients on their rank, to be averaged with those of the
    next pass outside."""
    if isinstance(replica, nn.parallel.DistributedDataParallel):
        return replica.no_sync()
    return nullcontext()


def outputs_of(replica: nn.Module, crops: list[Tensor], model: nn.Module) -> dict[str, Any]:
    """The outputs of a model's heads, through its replica; see `replicate`.

    Raises:
        ConfigError: a weight got no gradient in the step before, which DDP waits for.
    """
    try:
        return replica(crops)
    except RuntimeError as error:
        if "finished reduction" not in str(error):  # torch's, and it is long
            raise
        names = [name for name, weight in model.named_parameters() if weight.requires_grad]
        places = re.search(r"for rank \d+: ([\d ]+)", str(error))
        idle = ", ".join(names[int(place)] for place in places[1].split()) if places else ""
        raise ConfigError(
            [
                f"launch.processes: the loss gave no gradient to {idle or 'some weights'}, and "
                "several processes need one for each: leave such weights out of the model, or "
                "freeze them: param_groups=[{match: NAME, lr_scale: 0, weight_decay: null}]"
            ]
        ) from error
