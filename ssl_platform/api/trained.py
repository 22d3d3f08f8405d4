"""What a training has left, or released weights, opened for use from Python."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform.api.parts import DataPart
from ssl_platform.data.for_torch import EvalTransform
from ssl_platform.errors import CheckpointError, ConfigError, kind_of
from ssl_platform.registry import TRANSFORMS, is_module_name, load_components
from ssl_platform.zoo.trained_run import TrainedRun
from ssl_platform.zoo.weights import build_trunk, load_trunk, read_weights


@dataclass(frozen=True)
class Trained:
    """A trained model, on the CPU and in eval mode.

    Attributes:
        source: as it was named.
        trunk: images (N, C, H, W) to features (N, D).
        heads: features to outputs, by name; empty for a trunk alone.
        transform: an image to the tensor that an evaluation shows to the trunk.
        config: of the run; of released weights what is known of their trunk and data.
        results: what the run measured at its end.
        output_dir: the run's directory; None for released weights.
    """

    source: str
    trunk: nn.Module = field(repr=False)
    heads: nn.ModuleDict = field(repr=False)
    transform: EvalTransform
    config: dict[str, Any] = field(repr=False)
    results: dict[str, Any] = field(default_factory=dict)
    output_dir: Path | None = None

    @torch.no_grad()
    def features(self, images: Iterable[Any], *, batch_size: int = 64) -> Tensor:
        """(N, D) features of images on the trunk's device, returned on the CPU.

        Args:
            images: what `transform` takes: paths, images of Pillow, arrays; items of a torch data
                set that begin with one of these do too.
            batch_size: images of one pass.

        Raises:
            ValueError: there are no images.
            TypeError, UnreadableImage: see `transform`.
        """
        device = next(self.trunk.parameters()).device
        rows = [
            self.trunk(torch.stack(batch).to(device)).float().cpu()
            for batch in _batches(map(self._tensor_of, images), batch_size)
        ]
        if not rows:
            raise ValueError("images: there are none")
        return torch.cat(rows)

    def _tensor_of(self, item: Any) -> Tensor:
        return self.transform(item[0] if isinstance(item, tuple | list) else item)


def _batches(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    items = iter(items)
    while batch := list(islice(items, size)):
        yield batch


def load(source: Any, plugins: Iterable[str] = ()) -> Trained:
    """See `ssl_platform.load`."""
    if not isinstance(source, str | Path) or not str(source):
        raise ConfigError(
            [
                f"load() takes the directory of a run, a file or zoo:NAME, not "
                f"{kind_of(source) if source != '' else 'an empty name'}"
            ]
        )
    import_plugins(plugins)
    if Path(source).is_dir():
        return _of_run(str(source))
    return _of_weights(str(source))


def import_plugins(plugins: Iterable[str]) -> None:
    """Import the modules that the caller trusts.

    Raises:
        ConfigError: one cannot be imported.
    """
    names = [plugins] if isinstance(plugins, str) else list(plugins)
    if not all(map(is_module_name, names)):
        raise ConfigError([f"plugins={names}: a list of names of modules, such as ['my_module']"])
    try:
        load_components(names)
    except (ImportError, ValueError) as error:
        raise ConfigError([f"plugins={names}: {error}"]) from error


def _of_run(source: str) -> Trained:
    try:
        run = TrainedRun.open(source)
        run.require("trunk", "heads", "data.transform", "data.eval_transform")
        model, data = run.model(), run.options.data
        transform = TRANSFORMS.build(data.eval_transform)
    except ValueError as error:
        raise CheckpointError(str(error).removeprefix("checkpoint=")) from error
    folder = run.checkpoint.parents[1]
    return Trained(
        source=source,
        trunk=model.trunk,
        heads=model.heads,
        transform=EvalTransform(transform, data.normalize, data.pixels),
        config=asdict(run.options),
        results=_results(folder),
        output_dir=folder,
    )


def _results(folder: Path) -> dict[str, Any]:
    """What the run wrote at its end; nothing while it has not ended."""
    try:
        found = json.loads((folder / "summary.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_weights(source: str) -> Trained:
    weights = read_weights(source)
    if weights.trunk_node is None:
        raise CheckpointError(
            f"{source}: does not tell its whole architecture; build the trunk, then "
            "ssl_platform.zoo.weights.load_trunk(trunk, read_weights(...), allow_partial=False)"
        )
    trunk = build_trunk(weights)
    load_trunk(trunk, weights, allow_partial=False)
    part = DataPart.of("imagenet")
    heads = {"prototypes": weights.prototype_head()} if weights.head else {}
    return Trained(
        source=source,
        trunk=trunk.to(memory_format=torch.channels_last).eval(),
        heads=nn.ModuleDict(heads),
        transform=part.centre(),
        config={"trunk": weights.trunk_node, "data": part.options},
    )
