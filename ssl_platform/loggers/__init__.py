"""Who hears the figures of a training: the console, files, and services that draw curves."""

from ssl_platform.loggers.base import Logger, RunInfo

__all__ = ["Logger", "RunInfo"]
