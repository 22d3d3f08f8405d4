"""The components that a config names."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ssl_platform.config.options import Node, components
from ssl_platform.data.contract import settle_labels
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.pixels import PixelOptions
from ssl_platform.engine.contract import check_component
from ssl_platform.registry import Registry


class Parts:
    """Constructs the components of a config, each once, when it is first asked for.

    Args:
        cfg: plain values or options by top-level key.
        pixels: how data sets are to read their images.

    Attributes:
        nodes: registry and node by the component's place in the config.
        built: what has been constructed, by place.
    """

    def __init__(self, cfg: Mapping[str, Any], pixels: PixelOptions):
        self.nodes: dict[str, tuple[Registry, Node]] = {
            where: (registry, node) for where, registry, node in components(cfg)
        }
        self.pixels = pixels
        self.built: dict[str, Any] = {}

    def build(self, where: str, *runtime: Any) -> Any:
        """The component at a place of the config; ``runtime`` is what its constructor is handed.

        Raises:
            ValueError: it refuses its options, or does not keep its contract.
        """
        if where not in self.built:
            self.built[where] = self.construct(where, *runtime)
        return self.built[where]

    def construct(self, where: str, *runtime: Any) -> Any:
        """Construct the component at a place anew."""
        registry, node = self.nodes[where]
        component = registry.build(node, *runtime)
        if isinstance(component, ImageDataset):
            component.pixels = self.pixels
            settle_labels(component)
        check_component(where, component)
        return component

    @contextmanager
    def step(self, where: str) -> Iterator[None]:
        """Do here what belongs to a key of the config and constructs no component."""
        yield
