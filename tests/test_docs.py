"""The pages: commands, snippets, links, and every file, test and module that they name.

A fenced block of commands is marked with what it needs (``<!-- needs: ImageNet -->`` above it), or
is tried: those of README run on small settings, those of other pages are composed and checked.
"""

import ast
import json
import re
import shlex
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

import numpy as np
import pytest
from conftest import TINY
from forked import tool
from omegaconf import OmegaConf

from ssl_platform.config.source import Source, sweep_jobs
from ssl_platform.job.check import check
from ssl_platform.registry import PLUGIN_ENTRY_POINTS
from ssl_platform.zoo.cli import main as zoo

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob(".github/**/*.md")])
FENCE = re.compile(r"(?:^<!-- (\w+): ([^\n]+) -->\n)?^```(\S*)\n(.*?)^```$", re.M | re.S)
KINDS = {"bash", "python", "yaml", "text", "{toctree}", "{eval-rst}"}
TOOL = ("tools/run_distributed.py", "ssl_platform", "ssl-platform")
QUICKSTART = ["config=pretrain/swav/quickstart"]
IMAGES = ["data.train.num_samples=128", "data.val.num_samples=64", "data.num_workers=0"]
SHORT = [*TINY[1:], "num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn", "~hooks.crops"]
SMALL = {  # by the beginning of the config's name
    "pretrain/swav": SHORT,
    "pretrain": [o for o in SHORT if not o.startswith("loss.")],
    "benchmark/knn": [*IMAGES, "baselines=false"],
    "benchmark/linear/cached": [*IMAGES, "baselines=false", "task.lbfgs.max_iters=5"],
    "analysis/features": ["data.train.num_samples=64", "data.num_workers=0"],
    "analysis": ["data.num_workers=0"],
}


class Block(NamedTuple):
    page: str
    mark: tuple[str, str]  # ("needs", "ImageNet"), ("file", "simclr.py") or two empty texts
    kind: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    name = page.relative_to(ROOT).as_posix()
    return [Block(name, (a, b), kind, text) for a, b, kind, text in FENCE.findall(page.read_text())]


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


def lines_of(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def commands(*, is_marked: bool) -> dict[str, str]:
    """Each command, and the first page that it is on."""
    found = [
        (part.strip(), block.page)
        for block in BLOCKS
        if block.kind == "bash" and (block.mark[0] == "needs") == is_marked
        for line in lines_of(block.text)
        for part in line.split("&&")
    ]
    return dict(reversed(found))


def arguments_of(command: str) -> list[str] | None:
    """What a command hands to the platform's tool; None for other programs."""
    words = shlex.split(command, comments=True)
    places = [i for i, word in enumerate(words) if word in TOOL]
    return words[places[0] + 1 :] if places else None


def jobs_of(arguments: list[str]) -> list[list[str]]:
    overrides = [word for word in arguments if "=" in word or word[0] == "~"]
    return list(sweep_jobs(overrides)) if "-m" in arguments else [overrides]


PLAIN, MARKED = commands(is_marked=False), commands(is_marked=True)
README = [c for c, page in PLAIN.items() if page == "README.md" and not c.startswith("make ")]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory where the quick start has run."""
    folder = tmp_path_factory.mktemp("here")
    assert tool(*QUICKSTART, *SHORT, cwd=folder).returncode == 0
    return folder


@pytest.mark.parametrize("command", README)
def test_a_command_of_the_readme_runs(command, here, monkeypatch):
    monkeypatch.chdir(here)
    arguments = arguments_of(command)
    if arguments is None:
        program, *rest = command.split()[1:]
        assert program.startswith("tools/") and (ROOT / program).is_file()
        assert program != "tools/zoo.py" or zoo(rest) == 0
        return
    (config,) = [a.removeprefix("config=") for a in arguments if a.startswith("config=")] or [""]
    small = next((SMALL[start] for start in SMALL if config.startswith(start)), [])
    done = tool(*arguments, *(small if config else []), cwd=here)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", [c for c in PLAIN if PLAIN[c] != "README.md"])
def test_a_command_of_a_page_passes_the_check(command, here, monkeypatch):
    monkeypatch.chdir(here)
    arguments = arguments_of(command)
    if arguments is None:
        program = command.split()[1]
        assert re.search(f"^{program}:", (ROOT / "Makefile").read_text(), re.M) or (
            command.startswith("python ") and (ROOT / program).is_file()
        )
        return
    for job in jobs_of(arguments):
        cfg, problems = Source.of(job).read()
        assert problems + check(cfg) == []


@pytest.mark.parametrize("command", MARKED)
def test_a_marked_command_composes(command, guide):
    for job in jobs_of(arguments_of(command) or QUICKSTART):
        assert Source.of(job, [guide / "configs"]).read()[1] == []


def test_every_block_says_what_it_is_and_commands_lie_in_blocks():
    assert [block for block in BLOCKS if block.kind not in KINDS] == []
    for page in PAGES:
        assert re.search(r"^ {4,}(python |config=|-m )", FENCE.sub("", page.read_text()), re.M) is None


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.kind in ("yaml", "python")])
def test_a_snippet_is_whole_and_imports_what_is_there(block):
    if block.kind == "yaml":
        assert OmegaConf.create(block.text)
        return
    imports = [
        node for node in ast.walk(ast.parse(block.text)) if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    exec(compile(ast.Module(imports, []), block.page, "exec"), {})


@cache
def anchors(page: Path) -> set[str]:
    """Those that GitHub and the site give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_what_a_page_links_to_and_names_is_there(page):
    text = FENCE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = link.partition("#")
        if not link.startswith("http"):
            target = (page.parent / path if path else page).resolve()
            assert target.exists() and (not anchor or anchor in anchors(target)), link
    places = (ROOT, ROOT / "ssl_platform", ROOT / "tests")
    for name in re.findall(r"`(?:python )?([\w./-]*[\w-]/[\w.-]+\.(?:py|cpp|md))\b", text):
        assert any((place / name).exists() for place in places) or name.startswith("my_"), name
    for name in re.findall(r"`(ssl_platform(?:\.\w+)+)[`(]", text):
        assert name == PLUGIN_ENTRY_POINTS or resolve_name(name)
    assert set(re.findall(r"::(test_\w+)`", text)) <= names_of_tests()
    for name in re.findall(r"`(?:\w+/)?(test_\w+\.py)\b", text):
        assert [*ROOT.glob(f"tests/**/{name}")], name


@cache
def names_of_tests() -> set[str]:
    texts = [path.read_text() for path in ROOT.glob("tests/**/test_*.py")]
    return {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.M)}


@pytest.fixture(scope="module")
def guide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of docs/extending.md, written as it says; parts of one file follow each other."""
    folder = tmp_path_factory.mktemp("my_project")
    for block in BLOCKS:
        if block.mark[0] == "file":
            path = folder / block.mark[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((path.read_text() if path.exists() else "") + block.text)
    numpy_part = folder / "configs/data/numpy.yaml"  # "copy the nearest of ours"
    shapes = OmegaConf.load(ROOT / "configs/data/shapes.yaml")
    OmegaConf.save({**shapes, **OmegaConf.load(numpy_part)}, numpy_part)
    np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (64, 40, 40, 3), "u1"))
    return folder


def test_a_new_method_is_one_python_file_and_one_yaml_file(guide):
    done = tool(
        *("--config-dir", "configs", "config=pretrain/simclr/quickstart", *IMAGES, "name=simclr"),
        *("data.batch_size=32", "num_epochs=4", "hooks.log.every_steps=1", "hooks.knn.num_labels=40"),
        *("schedule.warmup_epochs=0", "optimizer.lr=0.05", "launch.threads=1"),
        cwd=guide,
    )
    assert done.returncode == 0, done.stderr
    lines = map(json.loads, (guide / "runs/simclr/metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 16
    assert sum(losses[-4:]) < sum(losses[:4])


def test_the_parts_of_the_guide_train_together(guide):
    small = [o for o in SHORT if not o.startswith(("data.train", "data.val", "trunk", "~hooks.knn"))]
    mine = ["config=mine", "data.train.path=images.npy", *small]
    done = tool("--config-dir", "configs", *mine, cwd=guide)
    assert done.returncode == 0, done.stderr
    assert '"gradient_norm"' in (guide / "runs/mine/metrics.jsonl").read_text()
