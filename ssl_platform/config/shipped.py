"""The configs that come with the platform: what can be chosen by name."""

from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
# in a checkout the configs lie beside the package, in a wheel inside it
CONFIG_DIR = next(d for d in (PACKAGE / "configs", PACKAGE.parent / "configs") if d.is_dir())


def runnable(config_dirs: Iterable[Path] = ()) -> list[str]:
    """Every name that ``config=`` takes."""
    return sorted({n for d in (CONFIG_DIR, *config_dirs) for n in files_in(d / "config")})


def groups() -> dict[str, list[str]]:
    """Parts that can be exchanged on the command line, by group."""
    folders = (d for d in sorted(CONFIG_DIR.iterdir()) if d.is_dir() and d.name != "config")
    return {folder.name: files_in(folder) for folder in folders}


def files_in(directory: Path) -> list[str]:
    """The YAML files below a directory, by their path without ``.yaml``."""
    paths = directory.rglob("*.yaml")
    return sorted(path.relative_to(directory).with_suffix("").as_posix() for path in paths)
