"""The engine: a run, its loop, its state on disk."""

from ssl_platform.engine.run import Events, Run

__all__ = ["Events", "Run"]
