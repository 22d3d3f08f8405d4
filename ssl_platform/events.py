"""Where plug-ins find `Events`, the base of hooks."""

from ssl_platform.engine.run import Events

__all__ = ["Events"]
