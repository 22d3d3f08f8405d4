"""The shipped configs, parsed once for all tests of a process.

Hydra parses some thirty files, in Python, for each command line: a sixth of the time of all tests.
"""

from collections.abc import Callable
from copy import deepcopy
from functools import wraps

from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource

from ssl_platform.config.source import CONFIG_DIR

SHIPPED = (str(CONFIG_DIR), "hydra.conf")


def parse_once() -> None:
    """From now on, in this process and those that it forks."""
    Plugins.instance()  # makes the classes of sources
    for scheme in ("file", "pkg"):
        source = SourcesRegistry.instance().resolve(scheme)
        source.load_config = _parsed_once(source.load_config)  # type: ignore[method-assign]


def _parsed_once(load: Callable[..., ConfigResult]) -> Callable[..., ConfigResult]:
    parsed: dict[tuple[str, str], ConfigResult] = {}

    @wraps(load)
    def loaded(self: ConfigSource, config_path: str) -> ConfigResult:
        if self.path not in SHIPPED:
            return load(self, config_path)
        if (self.path, config_path) not in parsed:
            parsed[self.path, config_path] = load(self, config_path)
        return deepcopy(parsed[self.path, config_path])

    return loaded
