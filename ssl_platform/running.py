"""From a config to the result of its task: the run directory, the ranks, the work of each."""

import logging
import multiprocessing
import os
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ssl_platform import checkpoint, distributed
from ssl_platform.build import components, options_of, resolve_device
from ssl_platform.config import BEFORE_THERE_WERE_OPTIONS, checked, with_defaults
from ssl_platform.errors import ConfigError
from ssl_platform.launch import Submitted, joined_world, launch, submit
from ssl_platform.legible import LegibleFormatter
from ssl_platform.output import show
from ssl_platform.registry import TASKS, load_components
from ssl_platform.run_lock import LOCK_FILE, locked
from ssl_platform.run_state import is_below
from ssl_platform.schema import flat
from ssl_platform.settled import go_on_as_begun, images_found, settle_range
from ssl_platform.yaml_file import read_yaml

logger = logging.getLogger(__name__)

# what may differ when a run is started again in its directory
FREE_TO_CHANGE = (
    "name",
    "output_dir",
    "hooks",
    "num_epochs",
    "profile",
    "launch.timeout_minutes",
    "launch.stop_seconds",
    "launch.max_restarts",
    "launch.slurm",
    "launch.threads",
    "launch.worker_start",
    "data.num_workers",
    "save",
    "resume",
)
SECRET = re.compile("token|secret|password|api_key", re.IGNORECASE)
STRUCK_OUT = "*****"


def run(cfg: Any) -> Any:
    """See `ssl_platform.run`."""
    _refuse_to_start_within_a_start()
    cfg = checked(cfg)
    if options_of(cfg).launch.slurm is not None:
        return submit_all([cfg])
    return run_here(OmegaConf.to_yaml(cfg))


def _refuse_to_start_within_a_start() -> None:
    """A process that is being started reads the user's script first, and may come by here again."""
    if not getattr(multiprocessing.current_process(), "_inheriting", False):
        return
    told = (
        "launch.processes: every process reads this script again as it starts; put the lines that "
        "run something below if __name__ == '__main__':"
    )
    sys.exit(told if os.environ.get("RANK", "0") == "0" else 1)


def submit_all(cfgs: list[DictConfig]) -> list[Submitted]:
    """Submit a SLURM job for each run; those that ask the same of it become an array.

    Raises:
        ConfigError: a run cannot go on in its directory, or SLURM does not take the job.
    """
    for cfg in cfgs:
        _go_on_as_begun(cfg)
    problems = [
        problem
        for cfg in cfgs
        for problem in _reasons_not_to_go_on(cfg, Path(options_of(cfg).output_dir))
    ]
    if problems:
        raise ConfigError(problems)
    alike: dict[str, list[DictConfig]] = {}
    for cfg in cfgs:
        alike.setdefault(str(options_of(cfg).launch), []).append(cfg)
    submitted = []
    for group in alike.values():
        options = options_of(group[0])
        jobs = [(OmegaConf.to_yaml(cfg),) for cfg in group]
        submitted += submit(run_here, jobs, options.launch, name=options.name)
    for job in submitted:
        print(f"submitted job {job.job_id}, log in {job.log}")
    return submitted


def run_here(config_yaml: str) -> Any:
    """Run a checked config with the ranks of this machine, or as one of those that are there."""
    cfg: Any = OmegaConf.create(config_yaml)
    load_components(cfg.plugins)
    options = options_of(cfg)
    device = resolve_device(options.device)
    joined = joined_world()
    with ExitStack() as stack:
        if joined is None or joined[0] == 0:
            told = [*_go_on_as_begun(cfg), *settle_range(cfg, options_of(cfg))]
            stack.enter_context(claimed(cfg, Path(options.output_dir)))
            told += images_found(options_of(cfg))
            if told:
                show("\n".join(told))
        settled = OmegaConf.to_yaml(cfg)
        return launch(work, (settled,), options.launch, device=device.type)


def work(config_yaml: str) -> Any:
    """What every rank does: run the task of the config, as the first rank has settled it."""
    cfg = OmegaConf.create(distributed.broadcast_text(config_yaml))
    load_components(cfg.plugins)
    options = options_of(cfg)
    handler = logging.StreamHandler()
    handler.setFormatter(LegibleFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
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
    with locked(output_dir):
        path = output_dir / "config.yaml"
        partial = path.with_suffix(".partial")
        try:
            partial.write_text(OmegaConf.to_yaml(without_secrets(cfg)))
            partial.replace(path)
        except OSError as error:
            problem = f"output_dir={output_dir}: cannot be written ({error.strerror})"
            raise ConfigError([problem]) from error
        yield


def without_secrets(cfg: DictConfig) -> DictConfig:
    """A copy whose passwords and tokens are struck out; references to the environment stay."""
    copy: Any = OmegaConf.create(OmegaConf.to_yaml(cfg))
    _strike_out(copy)
    return copy


def _strike_out(node: Any) -> None:
    keys: list[Any] = list(node) if isinstance(node, DictConfig) else list(range(len(node)))
    for key in keys:
        if OmegaConf.is_missing(node, key) or OmegaConf.is_interpolation(node, key):
            continue
        if OmegaConf.is_config(node[key]):
            _strike_out(node[key])
        elif isinstance(node[key], str) and SECRET.search(str(key)):
            node[key] = STRUCK_OUT


def _reasons_not_to_go_on(cfg: DictConfig, output_dir: Path) -> list[str]:
    resume = cfg.get("resume") or {}
    allowed, mode = resume.get("allow_changes", []), resume.get("mode", "auto")
    path, source = output_dir / "config.yaml", output_dir
    if path.exists() and _has_begun(output_dir):
        if mode == "never" and not _is_started_again():
            return [
                f"output_dir={output_dir}: holds a run, and resume.mode=never leaves it alone; "
                "give this one its own name=..., or go on with resume=auto"
            ]
        changes = _differences(path, cfg, allowed)
        where = f"output_dir={output_dir}: holds a run with other settings; give this one its own "
        where += "name=..., remove the directory"
    elif mode in ("auto", "never"):
        return []
    else:
        source = Path(mode)
        saved = (source.parents[1] if source.parent.name == "checkpoints" else source) / path.name
        if not saved.is_file():
            return [f"resume.mode={mode}: auto, never, or the directory of a run; no {saved}"]
        changes = _differences(saved, cfg, allowed)
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


def _go_on_as_begun(cfg: DictConfig) -> list[str]:
    """See `go_on_as_begun`; what is wrong with the run that is there is said elsewhere."""
    resume = cfg.get("resume") or {}
    output_dir, mode = Path(options_of(cfg).output_dir), resume.get("mode", "auto")
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


def _differences(saved: Path, new: DictConfig, allowed: Sequence[str]) -> list[str]:
    has_images = "train" in (new.get("data") or {})
    young = {f"data.{key}": value for key, value in BEFORE_THERE_WERE_OPTIONS.items()}
    after = (young if has_images else {}) | _flat(without_secrets(new))
    before = _defaults(new) | _saved_values(saved)
    return [
        f"{key}: {before.get(key, 'not set')} there, {after.get(key, 'not set')} here"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
        and not is_below(key, [*FREE_TO_CHANGE, *allowed])
        and not _are_one_place(before.get(key), after.get(key))
    ]


def _are_one_place(before: Any, after: Any) -> bool:
    """Whether two values are paths of the same file or folder, as ``images`` and ``./images/``."""
    with suppress(OSError, ValueError):  # one is not there, or no path
        return all(isinstance(v, str) for v in (before, after)) and os.path.samefile(before, after)
    return False


def _defaults(cfg: DictConfig) -> dict[str, Any]:
    """By dotted path, what components do without an option that is given here: what they did before
    they had it."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    return {
        f"{where}.{option}": default
        for where, registry, node in components(plain)
        for option, default in registry.schema(node["name"]).defaults.items()
        if option in node
    }


def _saved_values(path: Path) -> dict[str, Any]:
    """The config of a run by dotted path, a key that is younger than it at its default.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        filled, keys = with_defaults(OmegaConf.to_container(read_yaml(path)))
        values = _flat(OmegaConf.create(filled))
    except (OSError, ValueError, OmegaConfBaseException, YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError([f"{path}: the config of a run, cannot be read ({reason})"]) from error
    if keys:
        told = ", ".join(keys)
        logger.warning("%s is older than some keys, taken at their defaults: %s", path, told)
    return values


def _flat(cfg: Any) -> dict[str, Any]:
    """Plain values by dotted path."""
    plain: Any = OmegaConf.to_container(cfg, resolve=True) if OmegaConf.is_config(cfg) else cfg
    return flat(plain)
