"""Who may import whom. The table is the architecture; changing it is a design decision."""

import ast
from functools import cache
from pathlib import Path

import pytest

from ssl_platform import registry

PACKAGE = Path(registry.__file__).parent
BASE = {"errors", "schema", "registry", "distributed", "files", "console"}
PARTS = {"data", "models", "ops", "metrics", "optim"}
MAY_IMPORT = {
    # the root: what everything may use, each knowing those before it
    "errors": set(),
    "schema": {"errors"},
    "registry": {"errors", "schema"},
    "distributed": {"errors"},
    "files": set(),
    "console": {"errors"},
    "events": {"engine"},
    # what a run is made of
    "ops": BASE,
    "metrics": BASE | {"ops"},
    "loggers": BASE,
    "optim": BASE,
    "models": BASE | {"ops"},
    "data": BASE | {"ops"},
    "launch": BASE,
    # what a run is
    "config": BASE | {"data", "launch"},
    "engine": BASE | PARTS | {"config", "launch", "loggers"},
    # what listens to it, and what is done with what it has learned
    "losses": BASE | PARTS | {"engine"},
    "evaluation": BASE | PARTS | {"config", "engine", "zoo"},
    "reports": BASE | PARTS | {"__init__", "config", "evaluation"},
    "clusters": BASE | PARTS | {"evaluation", "reports"},
    "neighbours": BASE | PARTS | {"clusters", "evaluation", "reports"},
    "hooks": BASE | PARTS | {"engine", "evaluation", "loggers", "losses", "reports"},
    "zoo": BASE | {"cli", "config", "engine", "models"},
    "tasks": BASE
    | PARTS
    | {"clusters", "config", "engine", "evaluation", "hooks", "neighbours", "reports", "zoo"},
    # what starts it
    "job": BASE | PARTS | {"config", "engine", "launch"},
    "start": BASE | {"config", "data", "engine", "evaluation", "launch", "ops", "reports"},
    "cli": BASE | {"__init__", "config", "evaluation", "job", "launch", "start"},
    # what a program of one's own uses
    "api": BASE | {"config", "data", "job", "losses", "models", "zoo"},
}
ENTRY = {"__init__", "__main__", "config/__init__"}  # where users find what lies further up
CORE = {"config", "engine", "job", "launch", "cli", "registry"}
MOST_AT_THE_ROOT = 10


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix()


def room(name: str) -> str:
    return name.partition("/")[0]


FILES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


@cache
def imports(name: str) -> set[str]:
    """Modules of the package that a module imports, for type checkers and in functions too."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ssl_platform"):
            module = node.module.removeprefix("ssl_platform").removeprefix(".").replace(".", "/")
            for alias in node.names:
                inner = f"{module}/{alias.name}".removeprefix("/")
                places = (inner, f"{inner}/__init__", module, f"{module}/__init__", "__init__")
                found |= {next((p for p in places if p in FILES), "")} - {""}
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("ssl_platform.") for alias in node.names) or (
                room(name) in ENTRY
            ), "from ssl_platform.x import y tells which module it is"
    return found


@pytest.mark.parametrize("name", FILES)
def test_imports_follow_the_table(name):
    if name not in ENTRY:
        assert {room(other) for other in imports(name)} - {room(name)} <= MAY_IMPORT[room(name)]


def test_no_module_imports_itself_by_way_of_others():
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " -> ".join([*above[above.index(name) :], name])
        if name not in done:
            for other in imports(name):
                visit(other, (*above, name))
            done.add(name)

    for name in FILES:
        visit(name, ())


def test_the_root_stays_small():
    assert len([name for name in FILES if "/" not in name]) <= MOST_AT_THE_ROOT


@pytest.mark.parametrize("part", sorted(CORE))
def test_the_core_knows_no_component_by_name(part):
    registry.load_components()
    registries = [r for r in vars(registry).values() if isinstance(r, registry.Registry)]
    modules = {name: kind.__module__ for r in registries for name, kind in r}
    theirs = [n for n, module in modules.items() if module.startswith(registry.__package__)]
    # launchers are components of the core's own
    components = {n for n in theirs if not modules[n].startswith(f"{registry.__package__}.{part}")}
    assert len(components) > 20
    used = set()
    for name, path in FILES.items():
        if room(name) == part:
            for node in ast.walk(ast.parse(path.read_text())):
                used |= {getattr(node, key, None) for key in ("id", "attr", "value", "name")}
    assert used
    assert not components & {word for word in used if isinstance(word, str)}
