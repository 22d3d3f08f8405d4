"""Trunks, heads, and the model that they are."""

from ssl_platform.models.ssl_model import SSLModel

__all__ = ["SSLModel"]
