from ssl_platform.models.ssl_model import SSLModel

__all__ = ["SSLModel"]
