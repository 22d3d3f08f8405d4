"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import fcntl
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

from omegaconf import DictConfig, OmegaConf

from ssl_platform.build import options_of, resolve_device
from ssl_platform.errors import ConfigError
from ssl_platform.launch import joined_world, launch
from ssl_platform.registry import TASKS, load_components
from ssl_platform.run_state import is_below
from ssl_platform.schema import flat

# what may differ when a run is started again in its directory
FREE_TO_CHANGE = (
    "hooks",
    "launch.timeout_minutes",
    "launch.threads",
    "data.num_workers",
    "save",
    "resume",
)
OF_THE_DIRECTORY = ("name", "output_dir")  # of no account where another run is the source


def run(cfg: DictConfig) -> Any:
    """See `ssl_platform.run`."""
    options = options_of(cfg)
    joined = joined_world()
    with ExitStack() as stack:
        if joined is None or joined[0] == 0:
            stack.enter_context(claimed(cfg, Path(options.output_dir)))
        device = resolve_device(options.device)
        return launch(work, (OmegaConf.to_yaml(cfg),), options.launch, device=device.type)


def work(config_yaml: str) -> Any:
    """What every rank does: run the task of the config."""
    cfg = OmegaConf.create(config_yaml)
    load_components(cfg.plugins)
    options = options_of(cfg)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    warnings.simplefilter("ignore")  # the check has shown them
    return TASKS.build(options.task)(options)


@contextmanager
def claimed(cfg: DictConfig, output_dir: Path) -> Iterator[None]:
    """Make the run directory and keep the config in it; nobody else works there meanwhile.

    References to the environment stay references, so that no secret of it is written.

    Raises:
        ConfigError: another process works there, it holds a run with other settings or one that is
            not to go on, or it cannot be written.
    """
    problems = _reasons_not_to_go_on(cfg, output_dir)
    if problems:
        raise ConfigError(problems)
    with ExitStack() as stack:
        try:
            output_dir.mkdir(parents=True, exist_ok=True)
            _lock(stack.enter_context((output_dir / ".lock").open("a+")), output_dir)
            path = output_dir / "config.yaml"
            partial = path.with_suffix(".partial")
            partial.write_text(OmegaConf.to_yaml(cfg))
            partial.replace(path)
        except OSError as error:
            problem = f"output_dir={output_dir}: cannot be written ({error.strerror})"
            raise ConfigError([problem]) from error
        yield


def _lock(lock: IO[str], output_dir: Path) -> None:
    """Lock the directory until the file is closed or this process ends, in whatever way it ends."""
    try:
        # of the process: data workers, which may live a little longer, do not inherit it
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "another process"
        problem = f"output_dir={output_dir}: in use by {owner}; give this run its own name=..."
        raise ConfigError([problem]) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    lock.flush()


def _reasons_not_to_go_on(cfg: DictConfig, output_dir: Path) -> list[str]:
    resume = cfg.get("resume") or {}
    allowed, mode = resume.get("allow_changes", []), resume.get("mode", "auto")
    path = output_dir / "config.yaml"
    if path.exists():
        if mode == "never" and not _is_started_again():
            return [
                f"output_dir={output_dir}: holds a run, and resume.mode=never leaves it alone; "
                "give this one its own name=..., or go on with resume=auto"
            ]
        changes = _differences(OmegaConf.load(path), cfg, allowed)
        where = f"output_dir={output_dir}: holds a run with other settings; give this one its own "
        where += "name=..., remove the directory"
    elif mode in ("auto", "never"):
        return []
    else:
        source = Path(mode)
        saved = (source.parents[1] if source.parent.name == "checkpoints" else source) / path.name
        if not saved.is_file():
            return [f"resume.mode={mode}: auto, never, or the directory of a run; no {saved}"]
        changes = _differences(OmegaConf.load(saved), cfg, [*allowed, *OF_THE_DIRECTORY])
        where = f"resume.mode={mode}: that run has other settings"
    if not changes:
        return []
    keys = ", ".join(change.partition(":")[0] for change in changes)
    return [f"{where}, or allow it with resume.allow_changes=[{keys}]", *changes]


def _is_started_again() -> bool:
    """Whether torchrun or SLURM has started this job before: what is there is its own."""
    return any(
        os.environ.get(name, "0") != "0"
        for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    )


def _differences(saved: Any, new: DictConfig, allowed: Sequence[str]) -> list[str]:
    before, after = _flat(saved), _flat(new)
    return [
        f"{key}: {before.get(key, 'not set')} there, {after.get(key, 'not set')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key) and not is_below(key, [*FREE_TO_CHANGE, *allowed])
    ]


def _flat(cfg: Any) -> dict[str, Any]:
    """Plain values by dotted path."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return flat(plain)
