"""The directory of a run: one process at a time works in it, and whether a run may go on in it.

The lock is the kernel's, so it ends with the process that holds it. The lock file names that
process. Some network file systems lock within one machine only; there, a process of another machine
that the file names is believed to be running.
"""

import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ssl_platform.config.saved import config_of, differences, without_secrets
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.engine import checkpoint
from ssl_platform.errors import ConfigError
from ssl_platform.files import replacing
from ssl_platform.job.settled import go_on_as_begun

LOCK_FILE, CONFIG_FILE = ".lock", "config.yaml"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make ``directory`` and hold its lock.

    Raises:
        ConfigError: another process has it, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # without O_TRUNC: a process that does not get the lock has to leave the owner's name
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritable(directory, error) from error
    try:
        _take(descriptor, directory)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _unwritable(directory: Path, error: OSError) -> ConfigError:
    return ConfigError([f"output_dir={directory}: cannot be written ({error.strerror})"])


def _take(descriptor: int, directory: Path) -> None:
    # not filelock, which uses flock: a data worker that outlives this process would keep that
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise ConfigError([_in_use(directory, _owner(descriptor))]) from None
    except OSError as error:
        warnings.warn(
            f"{directory}: this file system cannot lock ({error.strerror}); start no second run "
            "in this directory",
            stacklevel=2,
        )
    owner = _owner(descriptor)
    if owner and not _is_stale(owner):
        raise ConfigError(
            [f"{_in_use(directory, owner)}; if it no longer runs, remove {directory / LOCK_FILE}"]
        )
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(_me()).encode(), 0)


def _me() -> dict[str, str]:
    return {
        "pid": str(os.getpid()),
        "host": socket.gethostname(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }


def _owner(descriptor: int) -> dict[str, str]:
    """Who wrote the lock file; empty if nobody did."""
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except ValueError:  # it was killed while it wrote its name
        return {}


def _is_stale(owner: dict[str, str]) -> bool:
    """Whether ``owner``, whose lock this process has got, has certainly ended.

    It was on this machine, or it was this job before SLURM started it again elsewhere.
    """
    me = _me()
    return owner.get("host") == me["host"] or (bool(me["job"]) and owner.get("job") == me["job"])


def _in_use(directory: Path, owner: dict[str, str]) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return f"output_dir={directory}: {who} works in it"


@contextmanager
def claimed(cfg: DictConfig, output_dir: Path) -> Iterator[None]:
    """Make the run directory, lock it and save the config in it.

    References to the environment are saved as references, so that no secret is written.

    Raises:
        ConfigError: another process works there, the run in it may not go on with this config, or
            the directory cannot be written.
    """
    problems = reasons_not_to_go_on(cfg, output_dir)
    if problems:
        raise ConfigError(problems)
    with locked(output_dir):
        try:
            with replacing(output_dir / CONFIG_FILE) as partial:
                partial.write_text(OmegaConf.to_yaml(without_secrets(cfg)))
        except OSError as error:
            raise _unwritable(output_dir, error) from error
        yield


def _earlier_run(output_dir: Path, mode: str) -> Path | None:
    """The directory that a run goes on from: its own, or that of ``resume.mode``."""
    if (output_dir / CONFIG_FILE).exists() and _has_begun(output_dir):
        return output_dir
    return None if mode in ("auto", "never") else Path(mode)


def reasons_not_to_go_on(cfg: DictConfig, output_dir: Path) -> list[str]:
    """Why a run may not go on in its directory or from another run: one line each, or none."""
    resume = cfg.get("resume") or {}
    mode = resume.get("mode", "auto")
    source = _earlier_run(output_dir, mode)
    if source is None:
        return []
    saved = config_of(source)
    if source == output_dir:
        if mode == "never" and not _is_started_again():
            return [
                f"output_dir={output_dir}: holds a run, and resume.mode=never leaves it alone; "
                "give this one its own name=..., or go on with resume=auto"
            ]
        refusal = f"output_dir={output_dir}: holds a run with other settings; give this one its own"
        refusal += f" name=...,{'' if resume else ' or'} remove the directory"
    elif saved.is_file():
        refusal = f"resume.mode={mode}: that run has other settings; give this one the same"
    else:
        return [f"resume.mode={mode}: auto, never, or the directory of a run; no {saved}"]
    changes = differences(saved, cfg, resume.get("allow_changes", []))
    if not changes:
        return _too_few_epochs(cfg, source)
    if resume:  # else the job has nothing to go on from
        keys = ", ".join(change.partition(":")[0] for change in changes)
        refusal += f", or allow it with resume.allow_changes=[{keys}]"
    return [refusal, *changes]


def _too_few_epochs(cfg: DictConfig, source: Path) -> list[str]:
    """A run cannot go back to fewer epochs than it has begun."""
    wanted, begun = cfg.get("num_epochs"), checkpoint.num_epochs_begun(source)
    if wanted is None or wanted >= begun:
        return []
    return [
        f"num_epochs={wanted}: {source} has begun epoch {begun} already; num_epochs={begun} or "
        "more goes on, a new run needs its own name=..."
    ]


def take_over_what_was_settled(cfg: DictConfig) -> list[str]:
    """See `go_on_as_begun`; `reasons_not_to_go_on` reports a config that cannot be read."""
    resume = cfg.get("resume") or {}
    source = _earlier_run(Path(cfg.output_dir), resume.get("mode", "auto"))
    if source is None:
        return []
    try:
        begun = OmegaConf.to_container(read_yaml(config_of(source)))
    except (OSError, ValueError, OmegaConfBaseException):
        return []
    return go_on_as_begun(cfg, begun, resume.get("allow_changes", []))


def _has_begun(output_dir: Path) -> bool:
    """Whether a directory holds more than the config of a command that did not start."""
    return {path.name for path in output_dir.iterdir()} != {LOCK_FILE, CONFIG_FILE}


def _is_started_again() -> bool:
    """Whether torchrun or SLURM has restarted this job, so that the run there is its own."""
    return any(
        os.environ.get(name, "0") != "0"
        for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    )
