from pathlib import Path

import pytest
from zoo_server import server, url

import ssl_platform
from ssl_platform.config import compose

__all__ = ["server", "url"]  # fixtures
SHORT = ["num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn"]


@pytest.fixture
def run(tiny, tmp_path) -> Path:
    """A run of this platform: one epoch of SwAV with a trunk of 8 channels."""
    folder = tmp_path / "run"
    ssl_platform.run(compose([*tiny, *SHORT, f"output_dir={folder}"]))
    return folder
