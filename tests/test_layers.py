"""Who may import whom. The table is the architecture; changing it is a design decision."""

import ast
from pathlib import Path

import pytest

from ssl_platform import registry

PACKAGE = Path(registry.__file__).parent
MAY_IMPORT = {
    "errors": set(),
    "events": set(),
    "disk": set(),
    "output": {"errors"},
    "limits": {"disk", "errors"},
    "legible": set(),
    "schema": {"errors"},
    "distributed": {"errors"},
    "registry": {"errors", "schema"},
    "progress": set(),
    "run_lock": {"errors"},
    "launch": {"errors", "limits", "output", "progress"},
    "ops": {"distributed"},
    "optim": {"errors", "registry"},
    "metrics": {"errors", "registry"},
    "models": {"registry", "distributed", "errors"},
    "data": {"registry", "distributed", "errors", "ops"},
    "features": {"data", "distributed", "errors"},
    "feature_files": {"data", "distributed", "errors"},
    "feature_cache": {"baselines", "build", "data", "distributed", "feature_files"},
    "anatomy": set(),
    "baselines": {"ops"},
    "cluster_files": {"data", "ops"},
    "cluster_page": {"cluster_files", "data", "ops"},
    "losses": {"registry", "distributed", "errors", "events", "ops", "models", "data"},
    "hooks": {
        "registry", "distributed", "events", "ops", "models", "data", "errors", "features",
        "legible", "metrics", "baselines", "anatomy", "checkpoint",
    },
    "checkpoint": {"disk", "errors"},
    "position": set(),
    "run_state": {"checkpoint", "distributed", "errors", "position"},
    "saver": {"checkpoint", "disk", "distributed", "errors", "ops", "run_state"},
    "stopping": {"errors"},
    "engine": {
        "data", "distributed", "errors", "events", "losses", "metrics", "models", "progress",
        "run_state", "saver", "stopping",
    },
    "results": set(),
    "results_table": {"config", "errors", "results", "schema", "yaml_file", "zoo"},
    "trained_run": {"build", "checkpoint", "config", "models", "registry", "yaml_file"},
    "zoo": {
        "checkpoint", "cli", "config", "disk", "errors", "legible", "models", "output", "registry",
        "schema", "trained_run",
    },
    "tasks": {
        "registry", "distributed", "engine", "build", "checkpoint", "ops", "models", "metrics",
        "data", "disk", "errors", "legible", "features", "cluster_files", "cluster_page",
        "trained_run", "results", "zoo", "baselines", "feature_cache", "feature_files", "hooks",
        "schema", "yaml_file",
    },
    "build": {
        "registry", "schema", "data", "engine", "models", "launch", "distributed", "run_state",
        "saver",
    },
    "yaml_file": set(),
    "overrides": {"errors"},
    "config": {"errors", "schema", "check", "overrides", "yaml_file"},
    "contract": {"errors", "events", "losses"},
    "parts": {"build", "contract", "errors", "registry"},
    "check_model": {"build", "models", "parts"},
    "check": {
        "registry", "schema", "build", "check_model", "contract", "data", "errors", "launch",
        "limits", "models", "parts",
    },
    "settled": {"build", "config", "data", "errors", "registry", "run_state"},
    "running": {
        "build", "checkpoint", "config", "distributed", "errors", "launch", "legible", "output",
        "registry", "run_lock", "run_state", "schema", "settled", "yaml_file",
    },
    "cli": {"errors", "config", "legible", "limits", "output", "overrides", "running"},
}  # fmt: skip
ENTRY = {"__init__", "__main__"}
CORE = (
    "engine", "checkpoint", "run_state", "saver", "stopping", "build", "check", "check_model",
    "config", "launch", "parts", "running", "cli", "registry",
)  # fmt: skip


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
    for path in PACKAGE.rglob("*.py"):
        if layer(path) == module:
            for node in ast.walk(ast.parse(path.read_text())):
                used |= {getattr(node, key, None) for key in ("id", "attr", "value", "name")}
    assert used
    assert not components & {word for word in used if isinstance(word, str)}
