"""The command line: one line for each mistake, Hydra's own conventions for the rest."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ssl_platform.console import (
    MOST_LINES,
    keep_streams,
    legible,
    make_logs_legible,
    one_line,
    show,
    why_unwritten,
)
from ssl_platform.errors import CheckpointError, ConfigError, PlatformError, StopRequested
from ssl_platform.launch.limits import check_torch_fits, in_words

HELP = """\
Self-supervised learning by clustering.

usage: python tools/run_distributed.py config=NAME [key=value ...] [-m] [--config-dir DIR]

  config=NAME        what to run, see below; or the path of a YAML file, e.g. a run's config.yaml
  key=value          override any value by its path: optimizer.lr=0.3 data.train.path=/my/images
  group=part         exchange a part: trunk=resnet18
  +key=value ~key    add, remove, as in Hydra
  -m                 run every combination: -m optimizer.lr=0.1,0.3 seed=0,1,2
  --cfg job          print the composed config and do nothing
  --config-dir DIR   look for configs in DIR too (DIR/config/NAME.yaml, DIR/trunk/PART.yaml, ...)
  --debug            show the Python traceback of an error
  --hydra-help       Hydra's own flags

A run is kept in runs/<config name>, or runs/<name> with name=..., and goes on from there when it is
started again. Several processes on this machine: launch.processes=2; under torchrun or SLURM the
ranks that are there are joined; launch=slurm submits a job.

config=
{configs}

parts, by group
{parts}
"""
# those that print something and end, and those that say what of it
HYDRA_FLAGS = (
    "--cfg",
    "-c",
    "--info",
    "-i",
    "--hydra-help",
    "--version",
)
HYDRA_OPTIONS = ("--package", "-p", "--resolve")
CHOICES: dict[str, tuple[str, ...]] = {  # of the flags that have a value; () is any
    "--cfg": ("job", "hydra", "all"),
    "--info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "--package": (),
}
SHORT = {"-c": "--cfg", "-i": "--info", "-p": "--package"}
SWEEP_FLAGS = ("-m", "--multirun")
FLAGS_WITH_VALUE = ("--config-dir", "-cd")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (0, or that of the `PlatformError`)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    with answered(debug="--debug" in arguments) as answer:
        cfg = _answered_or_composed([a for a in arguments if a != "--debug"], answer)
        if cfg is not None:
            from ssl_platform.job.running import run_here

            run_here(cfg)
    return answer.exit_code


@dataclass
class Answer:
    """The exit code of a command."""

    exit_code: int = 0


@contextmanager
def answered(*, debug: bool = False) -> Iterator[Answer]:
    """Run a command here; its errors are told in words, and are its exit code."""
    keep_streams()
    make_logs_legible()
    answer = Answer()
    try:
        yield answer
        _tell_of_unwritten()
    except Exception as error:
        known = error if isinstance(error, PlatformError) else in_words(error)
        if debug or known is None:
            raise
        _say(known)
        answer.exit_code = known.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        answer.exit_code = 130


def _tell_of_unwritten() -> None:
    """All is done, and saved where it was to be saved."""
    reason = why_unwritten()
    if reason is not None:
        print(f"warning: standard output cannot be written ({reason})", file=sys.stderr)


def _answered_or_composed(arguments: list[str], answer: Answer) -> Any:
    """The checked config of a run on this machine; None where the command is done with already."""
    from omegaconf import OmegaConf

    from ssl_platform.config.calls import calls, nameless
    from ssl_platform.config.shipped import runnable
    from ssl_platform.config.source import Source

    if not arguments or {"-h", "--help"} & set(arguments):
        show(_help())
        return None
    check_working_directory()
    overrides, config_dirs, flags = _split(arguments)
    _check_flags(flags)
    if any(flag.split("=")[0] in HYDRA_FLAGS for flag in flags):
        if not overrides and flags in (["--hydra-help"], ["--version"]):
            overrides = [f"config={runnable()[0]}"]  # Hydra wants one, whichever
        if overrides:
            cfg, problems = Source.of(overrides, config_dirs).read()
            problems += calls(cfg) + nameless(cfg)
            if problems:
                raise ConfigError(problems)
            if flags == ["--cfg", "job"]:  # without composing a second time
                show(OmegaConf.to_yaml(cfg))
                return None
        _hydra(Source.of(overrides, config_dirs), flags)
        return None
    if set(flags) & set(SWEEP_FLAGS):
        answer.exit_code = _sweep(overrides, config_dirs, flags)
        return None
    if flags:
        raise ConfigError([f"{flags[0]}: only with --cfg; see --help"])
    cfg = _composed(overrides, config_dirs)
    if cfg.launch.slurm is None:
        return cfg
    from ssl_platform.job.running import submit_all

    submit_all([cfg])
    return None


def check_working_directory() -> None:
    """Raise `ConfigError` where it was removed."""
    try:
        Path.cwd()
    except OSError as error:
        problem = f"the working directory is gone ({error.strerror}): cd to one that is there"
        raise ConfigError([problem]) from error


def _check_flags(flags: list[str]) -> None:
    """Hydra's own parser would answer with the usage of another program."""
    problems = []
    for flag, value in pairwise([*flags, ""]):
        name, has_value, given = flag.partition("=")
        if not flag.startswith("-"):
            continue
        name = SHORT.get(name, name)
        if name in CHOICES:
            given, wanted = given if has_value else value, CHOICES[name]
            if not given or given.startswith("-"):
                problems.append(f"{flag}: needs a value; {' or '.join(wanted) or 'which one?'}")
            elif wanted and given not in wanted:
                problems.append(f"{name} {given}: {' or '.join(wanted)}")
        elif name not in (*HYDRA_FLAGS, *HYDRA_OPTIONS, *SWEEP_FLAGS):
            problems.append(f"{flag}: no such flag; see --help")
    if set(flags) & set(SWEEP_FLAGS) and {flag.partition("=")[0] for flag in flags} & {
        *HYDRA_FLAGS
    }:
        problems.append("-m: --cfg and the like are about one config; leave one of them out")
    if problems:
        raise ConfigError(problems)


def _composed(overrides: list[str], config_dirs: list[str]) -> Any:
    from ssl_platform.config import compose

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        check_torch_fits()
        return compose(overrides, config_dirs)


def _hydra(source: Any, flags: list[str], task: Any = None) -> None:
    """Let Hydra's own main function answer."""
    import hydra

    source.refuse_calls()
    arguments = [] if flags == ["--hydra-help"] else source.arguments()  # it reads no config
    sys.argv = [sys.argv[0], *arguments, *flags]
    decorate = hydra.main(str(source.directory), source.primary, version_base="1.3")
    decorate(task or (lambda cfg: None))()


def _sweep(overrides: list[str], config_dirs: list[str], flags: list[str]) -> int:
    """Check every combination, then let Hydra's sweeper and launcher run each as its own run.

    Those that go to SLURM are submitted together, as an array job.
    """
    from hydra.core.hydra_config import HydraConfig

    import ssl_platform
    from ssl_platform.config import check_sweep
    from ssl_platform.config.overrides import swept_keys
    from ssl_platform.config.source import Source

    check_sweep(overrides, config_dirs)
    source = Source.of(overrides, config_dirs)
    keys = swept_keys(source.overrides)
    codes = [0]
    to_submit = []
    stops: list[StopRequested] = []

    def task(_: Any) -> None:
        if stops:
            return
        job = list(HydraConfig.get().overrides.task)
        label = "_".join(o.replace("/", "-") for o in job if o.partition("=")[0] in keys)
        name = Source.of(job, config_dirs).name()
        try:
            cfg = _composed([*job, f"name='{name}/{label}'"], config_dirs)
            if cfg.launch.slurm is None:
                ssl_platform.run(cfg)
            else:
                to_submit.append(cfg)
        except PlatformError as error:  # the other combinations are still to be run
            _say(error)
            if isinstance(error, StopRequested):  # that means all of them
                stops.append(error)
            codes.append(error.exit_code)

    _hydra(source, flags, task)
    if to_submit:
        from ssl_platform.job.running import submit_all

        submit_all(to_submit)
    return max(codes)


def _split(arguments: list[str]) -> tuple[list[str], list[str], list[str]]:
    """Overrides, the values of --config-dir, and all other flags with their values."""
    overrides: list[str] = []
    config_dirs: list[str] = []
    flags: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        flag, has_value, value = argument.partition("=")
        if flag in FLAGS_WITH_VALUE:
            directory = value if has_value else next(rest, "")
            if not directory:
                raise ConfigError([f"{flag}: needs a value; which directory?"])
            config_dirs.append(directory)
        elif argument.startswith("-"):
            flags.append(argument)
            if argument in ("--cfg", "-c", "--info", "-i", "--package", "-p"):
                flags += [value for value in [next(rest, None)] if value is not None]
        else:
            overrides.append(argument)
    return overrides, config_dirs, flags


def _help() -> str:
    from ssl_platform.config.shipped import groups, runnable

    configs = "\n".join(f"  {name}" for name in runnable())
    parts = "\n".join(f"  {group}: {', '.join(names)}" for group, names in groups().items())
    return HELP.format(configs=configs, parts=parts)


def _say(error: PlatformError) -> None:
    if isinstance(error, ConfigError):
        lines = [one_line(problem) for problem in error.problems[:MOST_LINES]]
        more = len(error.problems) - len(lines)
        lines += [f"... ({more} more)"] if more else []
        if len(lines) > 1:
            lines = [f"{len(error.problems)} problems:", *(f"  {line}" for line in lines)]
    elif isinstance(error, CheckpointError):  # with names from a file, or what a server answered
        lines = [one_line(str(error))]
    else:
        lines = legible(str(error)).splitlines()
    lines = lines or [type(error).__name__]
    print("\n".join([f"error: {lines[0]}", *lines[1:]]), file=sys.stderr)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {legible(str(message))}", file=sys.stderr)
