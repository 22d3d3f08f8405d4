"""Who may import whom. The table is the architecture; changing it is a design decision."""

import ast
from pathlib import Path

import pytest

from ssl_platform import registry

PACKAGE = Path(registry.__file__).parent
MAY_IMPORT = {
    "errors": set(),
    "events": set(),
    "schema": {"errors"},
    "distributed": set(),
    "registry": {"errors", "schema"},
    "launch": {"errors"},
    "ops": {"distributed"},
    "optim": {"registry"},
    "metrics": {"registry"},
    "models": {"registry", "distributed"},
    "data": {"registry", "distributed", "errors"},
    "features": {"data", "distributed"},
    "feature_files": {"data", "distributed", "errors"},
    "baselines": {"ops"},
    "cluster_files": {"data", "ops"},
    "cluster_page": {"cluster_files", "data", "ops"},
    "losses": {"registry", "distributed", "events", "ops", "models", "data"},
    "hooks": {
        "registry", "distributed", "events", "ops", "models", "data", "errors", "features",
        "metrics", "baselines",
    },
    "checkpoint": {"distributed", "errors"},
    "engine": {
        "checkpoint", "data", "distributed", "events", "losses", "metrics", "models"
    },
    "results": set(),
    "trained_run": {"build", "checkpoint", "models", "registry"},
    "zoo": {"checkpoint", "config", "errors", "models", "registry", "schema", "trained_run"},
    "tasks": {
        "registry", "distributed", "engine", "build", "checkpoint", "ops", "models", "metrics",
        "data", "errors", "features", "cluster_files", "cluster_page", "trained_run", "results",
        "zoo", "baselines", "feature_files",
    },
    "build": {
        "registry", "schema", "data", "engine", "checkpoint", "models", "launch", "distributed"
    },
    "check": {"registry", "schema", "build", "launch", "models"},
    "config": {"errors", "check"},
    "running": {"build", "errors", "launch", "registry"},
    "cli": {"errors", "config"},
}  # fmt: skip
ENTRY = {"__init__", "__main__"}
CORE = ("engine", "checkpoint", "build", "check", "config", "launch", "running", "cli", "registry")


def layer(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Layers that a module imports at run time; imports for type checkers do not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ssl_platform"):
            parts = (node.module or "").split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {
                a.name.split(".")[1] for a in node.names if a.name.startswith("ssl_platform.")
            }
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.name)
def test_imports_follow_the_table(path):
    here = layer(path)
    if here not in ENTRY:
        assert imports(path) - {here} <= MAY_IMPORT[here]


@pytest.mark.parametrize("module", CORE)
def test_the_core_knows_no_component_by_name(module):
    registry.load_components()
    registries = [r for r in vars(registry).values() if isinstance(r, registry.Registry)]
    components = {name for r in registries for name in r.names()}
    assert len(components) > 20
    used = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        used |= {getattr(node, key, None) for key in ("id", "attr", "value", "name")}
    assert not components & {word for word in used if isinstance(word, str)}
