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
    """Constructs the components of a config, each at its first use.

    Args:
        cfg: plain values or options by top-level key.
        pixels: how data sets read their images.

    Attributes:
        nodes: registry and node by the component's place in the config.
        built: components by place.
    """

    def __init__(self, cfg: Mapping[str, Any], pixels: PixelOptions):
        self.nodes: dict[str, tuple[Registry, Node]] = {
            where: (registry, node) for where, registry, node in components(cfg)
        }
        self.pixels = pixels
        self.built: dict[str, Any] = {}

    def build(self, where: str, *runtime: Any) -> Any:
        """The component at a place of the config; ``runtime`` are arguments of its constructor.

        Raises:
            ValueError: it refuses its options, or lacks something that the platform needs.
        """
        if where not in self.built:
            self.built[where] = self.construct(where, *runtime)
        return self.built[where]

    def construct(self, where: str, *runtime: Any) -> Any:
        """Construct the component at a place, also if there is one already."""
        registry, node = self.nodes[where]
        component = registry.build(node, *runtime)
        if isinstance(component, ImageDataset):
            component.pixels = self.pixels
            settle_labels(component)
        check_component(where, component)
        return component

    @contextmanager
    def step(self, where: str) -> Iterator[None]:
        """Context for work that belongs to a key of the config and constructs no component."""
        yield
