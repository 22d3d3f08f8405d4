"""Command lines in processes that are forked from one that has imported torch already.

Importing it is most of the work of a short run, and of each rank that a launcher starts. The parent
does nothing but fork, so that no thread and no GPU of a test is carried over.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

from torch.distributed.elastic import multiprocessing as elastic

TOOL = Path(__file__).parents[1] / "tools" / "run_distributed.py"
start_processes = elastic.start_processes


def tool(
    *arguments: str,
    cwd: Path | None = None,
    env: dict[str, str] | None = None,
    umask: int | None = None,
) -> "subprocess.CompletedProcess[str]":
    """What ``python tools/run_distributed.py`` with these arguments does and says."""
    with tempfile.TemporaryDirectory() as folder:
        settings = cwd or Path.cwd(), env or dict(os.environ), umask
        code = _parent().submit(_run, arguments, *settings, Path(folder)).result()
        output, errors = (Path(folder, name).read_text() for name in ("output", "errors"))
    return subprocess.CompletedProcess([str(TOOL), *arguments], code, output, errors)


def fork_ranks() -> None:
    """Have the launcher of this process fork its ranks; a plain one starts Python anew for each."""

    def start(
        name: str, rank_main: Callable[..., None], args: dict[int, tuple], *rest: Any, **_: Any
    ) -> Any:
        args = {rank: (rank_main, *values) for rank, values in args.items()}
        return start_processes(name, _as_started_anew, args, *rest, start_method="fork")

    elastic.start_processes = start


def _as_started_anew(rank_main: Callable[..., None], *args: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    rank_main(*args)


@cache
def _parent() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, mp_context=context, initializer=_import_all)


def _import_all() -> None:
    """What a run imports, but for what only some need."""
    import torch._dynamo  # of which several processes need parts
    import torch.nn.parallel.distributed

    import ssl_platform.check
    import ssl_platform.running  # noqa: F401
    from ssl_platform.registry import load_components

    torch.set_num_threads(1)
    load_components()
    fork_ranks()


def _run(
    arguments: tuple[str, ...], cwd: Path, env: dict[str, str], umask: int | None, folder: Path
) -> int | None:
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_command_line, args=(arguments, cwd, env, umask, folder))
    process.start()
    process.join()
    return process.exitcode


def _command_line(
    arguments: tuple[str, ...], cwd: Path, env: dict[str, str], umask: int | None, folder: Path
) -> None:
    from ssl_platform.cli import main

    for number, name in ((1, "output"), (2, "errors")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    if umask is not None:
        os.umask(umask)
    sys.argv = [str(TOOL), *arguments]
    sys.path[:0] = filter(None, env.get("PYTHONPATH", "").split(os.pathsep))
    sys.exit(main(list(arguments)))
