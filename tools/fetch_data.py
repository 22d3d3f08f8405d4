"""Fetch Fashion-MNIST into data/downloads/fashion-mnist: ``make data``.

Tries the Debian package dataset-fashion-mnist (no root needed), then torchvision's downloader.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ssl_platform.data.sets.fashion_mnist import (
    DEBIAN_FOLDER,
    DOWNLOAD_FOLDER,
    download_from_torchvision,
)

PACKAGE = "dataset-fashion-mnist"
NUM_FILES = 4


def main() -> int:
    if len(list(DOWNLOAD_FOLDER.glob("*.gz"))) == NUM_FILES:
        print(f"{DOWNLOAD_FOLDER}: already there")
        return 0
    failures = []
    for source, fetch in (
        (f"Debian package {PACKAGE}", fetch_from_debian),
        ("torchvision's downloader", download_from_torchvision),
    ):
        try:
            fetch(DOWNLOAD_FOLDER)
        except (OSError, RuntimeError, subprocess.CalledProcessError) as error:
            failures.append(f"{source}: {_last_line(error)}")
        else:
            print(f"{DOWNLOAD_FOLDER}: Fashion-MNIST from {source}")
            return 0
    print(f"cannot fetch Fashion-MNIST ({'; '.join(failures)})", file=sys.stderr)
    return 1


def fetch_from_debian(folder: Path) -> None:
    """Download and unpack the package, without installing it.

    Raises:
        OSError, subprocess.CalledProcessError: no apt on this machine, or no such package.
    """
    with tempfile.TemporaryDirectory() as temporary:
        _run(["apt-get", "download", PACKAGE], temporary)
        (package,) = Path(temporary).glob("*.deb")
        _run(["dpkg-deb", "-x", str(package), "."], temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for file in (Path(temporary) / DEBIAN_FOLDER.relative_to("/")).glob("*.gz"):
            shutil.move(file, folder / file.name)


def _run(command: list[str], folder: str) -> None:
    subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)


def _last_line(error: Exception) -> str:
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return (text.strip().splitlines() or [type(error).__name__])[-1]


if __name__ == "__main__":
    sys.exit(main())
