"""How much memory tensors take, where what is made is bounded by a promise."""

import weakref
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class HeldMemory(TorchDispatchMode):
    """The most bytes of tensors that live at once, of those made while this is active."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}  # by address
        self.most = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        outputs = func(*args, **(kwargs or {}))
        inputs = {leaf.untyped_storage().data_ptr() for leaf in tensors((args, kwargs))}
        for tensor in tensors(outputs):
            storage = tensor.untyped_storage()
            address = storage.data_ptr()
            if address not in inputs | self.sizes.keys():
                self.sizes[address] = storage.nbytes()
                weakref.finalize(tensor, self.sizes.pop, address)
        self.most = max(self.most, sum(self.sizes.values()))
        return outputs


def tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
