"""Command lines in processes that are forked from one that has imported torch already.

Importing it is most of the work of a short run, and of each rank that a launcher starts. The parent
does nothing but fork, so that no thread and no GPU of a test is carried over.
"""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from shipped_once import parse_once
from torch.distributed.elastic import multiprocessing as elastic

from ssl_platform.cli import main
from ssl_platform.config.source import Source

TOOL = Path(__file__).parents[1] / "tools" / "run_distributed.py"
NOBODY = 65534
IMPORTED = (  # by runs, where they need it
    "jinja2", "numpy.ma", "pydantic.dataclasses", "sklearn.metrics", "ssl_platform.job.check",
    "ssl_platform.job.running", "torch._dynamo", "torch.nn.parallel.distributed",
)  # fmt: skip
start_processes = elastic.start_processes


@dataclass(frozen=True)
class Command:
    arguments: tuple[str, ...]
    cwd: Path
    env: dict[str, str]
    umask: int | None
    is_nobody: bool  # whoever runs the tests may be root, who may read everything

    def __call__(self, output: Path, errors: Path) -> None:
        for number, path in ((1, output), (2, errors)):
            os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), number)
        os.chdir(self.cwd)
        os.environ.clear()
        os.environ.update(self.env)
        if self.umask is not None:
            os.umask(self.umask)
        if self.is_nobody:
            _give_up_root(self.arguments)
        sys.argv = [str(TOOL), *self.arguments]
        sys.path[:0] = filter(None, self.env.get("PYTHONPATH", "").split(os.pathsep))
        sys.exit(main(list(self.arguments)))


def tool(
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    umask: int | None = None,
    is_nobody: bool = False,
) -> "subprocess.CompletedProcess[str]":
    """What ``python tools/run_distributed.py`` with these arguments does and says."""
    command = Command(arguments, cwd or Path.cwd(), env or dict(os.environ), umask, is_nobody)
    with tempfile.TemporaryDirectory() as folder:
        output, errors = Path(folder, "output"), Path(folder, "errors")
        code = _parent().submit(_run, command, output, errors).result()
        texts = output.read_text(), errors.read_text()
    return subprocess.CompletedProcess([str(TOOL), *arguments], code, *texts)


def fork_ranks() -> None:
    """Have the launcher of this process fork its ranks; a plain one starts Python anew for each."""

    def start(
        name: str, rank_main: Callable[..., None], args: dict[int, tuple], *rest: Any, **_: Any
    ) -> Any:
        args = {rank: (rank_main, *values) for rank, values in args.items()}
        gc.disable()  # a fork that frees what a thread of its parent works on is killed
        try:
            return start_processes(name, _as_started_anew, args, *rest, start_method="fork")
        finally:
            gc.enable()

    elastic.start_processes = start


def _as_started_anew(rank_main: Callable[..., None], *args: Any) -> None:
    gc.freeze()
    gc.enable()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    rank_main(*args)


@cache
def _parent() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=import_all)


def import_all() -> None:
    """Import what runs do, and fork from now on."""
    from PIL import Image

    from ssl_platform.registry import load_components

    for module in IMPORTED:
        import_module(module)
    Image.init()  # imports what reads each kind of file
    torch.set_num_threads(1)
    load_components()
    parse_once()
    Source.of(["config=pretrain/swav/quickstart"]).read()  # which most of them read
    fork_ranks()


def _run(command: Command, output: Path, errors: Path) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=command, args=(output, errors))
    process.start()
    process.join()
    return process.exitcode


def _give_up_root(arguments: tuple[str, ...]) -> None:
    composed = Source.of(list(arguments)).read()  # the checkout may be root's alone
    Source.read = lambda self: composed  # type: ignore[method-assign]
    if os.getuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
