"""One process at a time works in a run directory.

The lock is the kernel's, so it ends with the process that holds it, however that ends. The file
says who holds it. Some network file systems lock within one machine only: there, what the file
says about another machine is all that is known, and is believed.
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

from ssl_platform.config.saved import differences, without_secrets
from ssl_platform.config.yaml_file import read_yaml
from ssl_platform.engine import checkpoint
from ssl_platform.errors import ConfigError
from ssl_platform.files import replacing
from ssl_platform.job.settled import go_on_as_begun

LOCK_FILE = ".lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Make ``directory`` and hold its lock.

    Raises:
        ConfigError: another process has it, or the directory cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # without O_TRUNC: whoever fails to get the lock must leave the owner's name
        descriptor = os.open(directory / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        problem = f"output_dir={directory}: cannot be written ({error.strerror})"
        raise ConfigError([problem]) from error
    try:
        _take(descriptor, directory)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(descriptor: int, directory: Path) -> None:
    # lockf and not flock: a data worker that outlives this process does not inherit it
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
        "boot": BOOT_ID.read_text().strip(),
        "job": os.environ.get("SLURM_JOB_ID", ""),
    }


def _owner(descriptor: int) -> dict[str, str]:
    """Who wrote the file; empty when nobody did."""
    try:
        return dict(json.loads(os.pread(descriptor, 4096, 0)))
    except ValueError:  # it was killed while it wrote its name
        return {}


def _is_stale(owner: dict[str, str]) -> bool:
    """Whether ``owner``, whose lock we have got, is certainly gone.

    It was on this machine, or it was this very job before SLURM started it again elsewhere.
    """
    me = _me()
    return owner.get("host") == me["host"] or (bool(me["job"]) and owner.get("job") == me["job"])


def _in_use(directory: Path, owner: dict[str, str]) -> str:
    who = f"process {owner['pid']} on {owner['host']}" if owner else "another process"
    return f"output_dir={directory}: {who} works in it"


@contextmanager
def claimed(cfg: DictConfig, output_dir: Path) -> Iterator[None]:
    """Make the run directory and keep the config in it; nobody else works there meanwhile.

    References to the environment stay references, so that no secret of it is written.

    Raises:
        ConfigError: another process works there, it holds a run with other settings or one that is
            not to go on, or it cannot be written.
    """
    problems = reasons_not_to_go_on(cfg, output_dir)
    if problems:
        raise ConfigError(problems)
    with locked(output_dir):
        try:
            with replacing(output_dir / "config.yaml") as partial:
                partial.write_text(OmegaConf.to_yaml(without_secrets(cfg)))
        except OSError as error:
            problem = f"output_dir={output_dir}: cannot be written ({error.strerror})"
            raise ConfigError([problem]) from error
        yield


def reasons_not_to_go_on(cfg: DictConfig, output_dir: Path) -> list[str]:
    resume = cfg.get("resume") or {}
    allowed, mode = resume.get("allow_changes", []), resume.get("mode", "auto")
    path, source = output_dir / "config.yaml", output_dir
    if path.exists() and _has_begun(output_dir):
        if mode == "never" and not _is_started_again():
            return [
                f"output_dir={output_dir}: holds a run, and resume.mode=never leaves it alone; "
                "give this one its own name=..., or go on with resume=auto"
            ]
        changes = differences(path, cfg, allowed)
        where = f"output_dir={output_dir}: holds a run with other settings; give this one its own "
        where += "name=..., remove the directory"
    elif mode in ("auto", "never"):
        return []
    else:
        source = Path(mode)
        saved = (source.parents[1] if source.parent.name == "checkpoints" else source) / path.name
        if not saved.is_file():
            return [f"resume.mode={mode}: auto, never, or the directory of a run; no {saved}"]
        changes = differences(saved, cfg, allowed)
        where = f"resume.mode={mode}: that run has other settings; give this one the same"
    if not changes:
        return _too_few_epochs(cfg, source)
    if not resume:  # of a job that has nothing to go on from
        return [where.replace(", remove", ", or remove"), *changes]
    keys = ", ".join(change.partition(":")[0] for change in changes)
    return [f"{where}, or allow it with resume.allow_changes=[{keys}]", *changes]


def _too_few_epochs(cfg: DictConfig, source: Path) -> list[str]:
    """A run does not go back: of what an epoch has done to the weights nothing is undone."""
    wanted, begun = cfg.get("num_epochs"), checkpoint.num_epochs_begun(source)
    if wanted is None or wanted >= begun:
        return []
    return [
        f"num_epochs={wanted}: {source} has begun epoch {begun} already; num_epochs={begun} or "
        "more goes on, a new run needs its own name=..."
    ]


def take_over_what_was_settled(cfg: DictConfig) -> list[str]:
    """See `go_on_as_begun`; what is wrong with the run that is there is said elsewhere."""
    resume = cfg.get("resume") or {}
    output_dir, mode = Path(cfg.output_dir), resume.get("mode", "auto")
    path = output_dir / "config.yaml"
    if not (path.exists() and _has_begun(output_dir)):
        source = Path(mode)
        path = (source.parents[1] if source.parent.name == "checkpoints" else source) / path.name
    try:
        begun = OmegaConf.to_container(read_yaml(path))
    except (OSError, ValueError, OmegaConfBaseException):
        return []
    return go_on_as_begun(cfg, begun, resume.get("allow_changes", []))


def _has_begun(output_dir: Path) -> bool:
    """Whether a run has left more than its config, which a corrected one may replace."""
    return {path.name for path in output_dir.iterdir()} != {LOCK_FILE, "config.yaml"}


def _is_started_again() -> bool:
    """Whether torchrun or SLURM has started this job before: what is there is its own."""
    return any(
        os.environ.get(name, "0") != "0"
        for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    )
