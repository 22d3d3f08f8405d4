"""The components of a config, constructed; and why those that cannot be are not."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from ssl_platform.config.options import components
from ssl_platform.errors import blame
from ssl_platform.job.contract import check_component
from ssl_platform.registry import Registry


class Parts:
    """Constructs the components that can be constructed and collects why the others cannot.

    ``nodes`` holds those that are written well, by their place in the config, ``built`` those that
    were constructed: None where one refused.
    """

    def __init__(self) -> None:
        self.problems: list[str] = []
        self.nodes: dict[str, tuple[Registry, dict[str, Any]]] = {}
        self.built: dict[str, Any] = {}
        self.seen: set[str] = set()

    def add(self, plain: Mapping[str, Any]) -> None:
        """Hold the components of a config against their constructors' signatures."""
        for where, registry, node in components(plain):
            if where in self.seen:
                continue
            self.seen.add(where)
            found = registry.problems(node, where=where)
            self.problems += found
            if not found:
                self.nodes[where] = registry, node

    def holds(self, where: str, action: Callable[[], Any]) -> bool:
        """Whether an action finds nothing wrong; what it finds is kept."""
        before = len(self.problems)
        self.attempt(where, action)
        return len(self.problems) == before

    def build(self, where: str, *runtime: Any) -> Any:
        """The component, or None when its node is wrong or it refuses."""
        if where not in self.nodes:
            return None
        registry, node = self.nodes[where]

        def make() -> Any:
            component = self._made(registry, node, *runtime)
            check_component(where, component)
            return component

        self.built[where] = self.attempt(where, make)
        return self.built[where]

    def _made(self, registry: Registry, node: dict[str, Any], *runtime: Any) -> Any:
        """A component; one that needs values, which the meta device has none of, is made for real:
        ``[rate.item() for rate in torch.linspace(0, 0.1, depth)]`` is how many trunks begin."""
        try:
            return registry.build(node, *runtime)
        except Exception as error:
            if torch.get_default_device().type != "meta" or "meta" not in str(error):
                raise
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            component = registry.build(node, *runtime)
        return component.to("meta") if isinstance(component, nn.Module) else component

    def attempt(self, where: str, action: Any) -> Any:
        try:
            return action()
        except (ValueError, RuntimeError, OverflowError) as error:
            options = self.nodes[where][1] if where in self.nodes else {}
            lines = str(error).splitlines()
            # torch, about a size that is impossible: what follows its first line is for developers
            for line in lines if isinstance(error, ValueError) else lines[:1]:
                names_an_option = line.partition("=")[0].partition(".")[0] in options
                prefix = f"{where}{'.' if names_an_option else ': '}" if where else ""
                self.problems.append(f"{prefix}{line}")
        except Exception as error:  # whatever the code of others does
            self.problems.append(f"{where}: {blame(error)}")
        return None
