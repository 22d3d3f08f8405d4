"""The pages: their commands, snippets and links, and each file, test and module that they name.

Commands of README run on small settings. Those of other pages are composed and checked, as are
those that another test runs (``<!-- run: tests/x.py -->`` above a block). Below ``<!-- needs:
ImageNet -->`` they are only composed. A block below ``<!-- file: x.py -->`` is written to that
file, and a training uses it.
"""

import ast
import json
import os
import re
import shlex
import sys
from functools import cache
from pathlib import Path
from pkgutil import resolve_name
from runpy import run_path
from typing import NamedTuple

import numpy as np
import pytest
from conftest import TINY
from forked import tool
from launched import eventually
from omegaconf import OmegaConf

import ssl_platform
from ssl_platform.config.source import Source, sweep_jobs
from ssl_platform.job.check import check
from ssl_platform.registry import PLUGIN_ENTRY_POINTS
from ssl_platform.zoo.cli import main as zoo_main

ROOT = Path(__file__).parents[1]
FILES = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
PAGES = {path.relative_to(ROOT).as_posix(): path for path in FILES}
FENCE = re.compile(r"(?:^<!-- (\w+): ([^\n]+) -->\n)?^```(\S*)\n(.*?)^```$", re.M | re.S)
KINDS = {"bash", "python", "yaml", "text", "{toctree}", "{eval-rst}"}
SHORT = [*TINY[1:], "num_epochs=1", "schedule.warmup_epochs=0", "~hooks.knn", "~hooks.crops"]
IMAGES = ["data.train.num_samples=128", "data.val.num_samples=64", "data.num_workers=0"]
SMALL = {  # by the beginning of the config's name
    "pretrain/swav": SHORT,
    "benchmark/knn": [*IMAGES, "baselines=false"],
    "benchmark/linear/cached": [*IMAGES, "baselines=false", "task.lbfgs.max_iters=5"],
    "analysis/features": ["data.train.num_samples=64", "data.num_workers=0"],
    "analysis": ["data.num_workers=0"],
}


class Block(NamedTuple):
    page: str
    mark: str  # needs, run, file or nothing
    what: str
    kind: str
    text: str


BLOCKS = [Block(n, *found) for n, p in PAGES.items() for found in FENCE.findall(p.read_text())]


def commands() -> dict[str, Block]:
    """Each command, with a block that it is in: README's, if it has it."""
    return {
        command.strip(): block
        for block in sorted(BLOCKS, key=lambda b: b.page == "README.md")
        if block.kind == "bash"
        for line in block.text.replace("\\\n", " ").splitlines()
        for command in re.sub(r"(^|  )# .*", "", line).split("&&")
        if command.strip()
    }


COMMANDS = commands()
RUN = [c for c, b in COMMANDS.items() if (b.page, b.mark) == ("README.md", "") and c[:4] != "make"]


def arguments_of(command: str) -> list[str] | None:
    """What a command hands to the platform's tool; None for other programs."""
    _, is_ours, arguments = command.partition("tools/run_distributed.py")
    return shlex.split(arguments) if is_ours else None


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory where the quick start has run, with the files of docs/extending.md."""
    folder = tmp_path_factory.mktemp("here")
    for block in BLOCKS:
        if block.mark == "file":
            path = folder / block.what
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text((path.read_text() if path.exists() else "") + block.text)
    numpy_part = folder / "configs/data/numpy.yaml"  # copied from the nearest of ours
    shapes = OmegaConf.load(ROOT / "configs/data/shapes.yaml")
    OmegaConf.save({**shapes, **OmegaConf.load(numpy_part)}, numpy_part)
    np.save(folder / "images.npy", np.zeros((64, 40, 40, 3), "u1"))
    assert tool("config=pretrain/swav/quickstart", *SHORT, cwd=folder).returncode == 0
    return folder


def test_the_commands_of_the_readme_run_one_after_another(here, monkeypatch):
    monkeypatch.chdir(here)
    for command in RUN:
        arguments = arguments_of(command)
        if arguments is None:
            monkeypatch.setattr(sys, "argv", command.split()[1:])
            with pytest.raises(SystemExit) as ended:
                run_path(str(ROOT / sys.argv[0]), run_name="__main__")
            assert ended.value.code == 0, command
            continue
        config = " ".join(arguments).partition("config=")[2]
        small = next((SMALL[start] for start in SMALL if config.startswith(start)), [])
        done = tool(*arguments, *small, cwd=here)
        assert done.returncode == 0, f"{command}\n{done.stderr}"


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in RUN])
def test_a_command_is_whole(command, here, monkeypatch):
    monkeypatch.chdir(here)
    arguments = arguments_of(command)
    if arguments is None:
        program, target = command.split()[:2]
        is_target = re.search(f"^{target}:", (ROOT / "Makefile").read_text(), re.M)
        assert is_target if program == "make" else (ROOT / target).is_file()
        return
    overrides = [word for word in arguments if "=" in word or word[0] == "~"]
    job = next(sweep_jobs(overrides)) if "-m" in arguments else overrides
    cfg, problems = Source.of(job, ["configs"]).read()
    assert problems + ([] if COMMANDS[command].mark == "needs" else check(cfg)) == []


def test_a_method_and_parts_of_the_guide_train(here):
    simclr = ["config=pretrain/simclr/quickstart", "name=simclr", *IMAGES, "launch.threads=1"]
    steps = ["data.batch_size=32", "num_epochs=4", "hooks.log.every_steps=1", "~hooks.knn"]
    rate = ["schedule.warmup_epochs=0", "optimizer.lr=0.05"]
    others = ("data.train", "data.val", "trunk", "~hooks.knn")
    mine = ["config=mine", *(o for o in SHORT if not o.startswith(others))]
    for command in ([*simclr, *steps, *rate], [*mine, "data.train.path=images.npy"]):
        done = tool("--config-dir", "configs", *command, cwd=here)
        assert done.returncode == 0, done.stderr
    lines = map(json.loads, (here / "runs/simclr/metrics.jsonl").read_text().splitlines())
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 16 and sum(losses[-4:]) < sum(losses[:4])
    assert '"gradient_norm"' in (here / "runs/mine/metrics.jsonl").read_text()


def test_the_launcher_of_the_guide_hands_a_run_over(here):
    launcher = "launch.launcher={name: OverSsh, via: [sh, -c]}"
    command = ["config=pretrain/swav/quickstart", "name=over", "plugins=[my_launcher]", launcher]
    done = tool(*command, *SHORT, cwd=here, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"submitted job \d+, log in {here}/over.log\n", done.stdout)
    summary, log = here / "runs/over/summary.json", here / "over.log"
    assert eventually(lambda: summary.exists() or "Error" in log.read_text())
    assert summary.exists(), log.read_text()


def test_the_writer_of_the_guide_writes_weights(here, monkeypatch):
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    command = next(command for command in COMMANDS if "--plugin my_writer" in command)
    assert zoo_main(shlex.split(command)[2:]) == 0
    assert "conv1.weight" in np.load(here / "trunk.npz")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.page)
def test_a_block_says_what_it_is_and_is_whole(block):
    assert block.kind in KINDS
    assert block.mark != "run" or all((ROOT / path).is_file() for path in block.what.split(", "))
    if block.kind == "yaml":
        assert OmegaConf.create(block.text)
    if block.kind == "python":
        nodes = ast.walk(ast.parse(block.text))
        imports = [node for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), block.page, "exec"), {})


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", page.read_text()), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_and_names_is_there(page):
    text = FENCE.sub("", PAGES[page].read_text())
    assert not re.search(r"^ {4,}(python|config=)", text, re.M), "commands are in blocks"
    for path, anchor in re.findall(r"\]\((?!http)([^)#\s]*)#?([^)\s]*)\)", text):
        target = (PAGES[page].parent / path if path else PAGES[page]).resolve()
        assert target.exists() and (not anchor or anchor in anchors(target)), (path, anchor)
    places = (ROOT, ROOT / "ssl_platform", ROOT / "tests")
    for name in re.findall(r"`(?:python )?([\w./-]*\w/\w+\.(?:py|cpp|md))\b", text):
        assert any((place / name).exists() for place in places), name
    for name in re.findall(r"`(ssl_platform(?:\.\w+)+)[`(]", text):
        assert name == PLUGIN_ENTRY_POINTS or resolve_name(name)
    tests = "".join(f"{path.name}\n{path.read_text()}" for path in ROOT.glob("tests/**/test_*.py"))
    for name in re.findall(r"`[\w/]*(test_\w+\.py)|::(test_\w+)`", text):
        assert name[0] in tests and f"\ndef {name[1]}" in tests, name


def test_the_version_is_the_same_everywhere():
    citation = OmegaConf.load(ROOT / "CITATION.cff")
    released = re.findall(r"^## \[(\d.*)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    setup = re.findall(r'version="(.+)"', (ROOT / "setup.py").read_text())
    assert {citation.version, released[0], *setup} == {ssl_platform.__version__}
