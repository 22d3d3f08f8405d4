"""The command line: one line for each mistake, Hydra's own conventions for the rest."""

import argparse
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from ssl_platform.console import (
    keep_streams,
    legible,
    make_logs_legible,
    print_error,
    show,
    why_unwritten,
)
from ssl_platform.console.working import no_silence, working
from ssl_platform.errors import ConfigError, PlatformError, StopRequested
from ssl_platform.launch.limits import check_torch_fits, limit_error
from ssl_platform.launch.threads import spin_variables

HELP = """\
Self-supervised learning by clustering.

usage: python tools/run_distributed.py config=NAME [key=value ...] [-m] [--config-dir DIR]
       python tools/start.py FOLDER            plan a training for your images; see its --help

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
started again. Several processes on this machine: launch.processes=2; under torchrun or SLURM it
joins the ranks that they have started; launch=slurm submits a job.

config=
{configs}

parts, by group
{parts}
"""
# flags of Hydra that have a value, which () leaves open; the first letter is their short name
HYDRA_VALUES: dict[str, tuple[str, ...]] = {
    "cfg": ("job", "hydra", "all"),
    "info": ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath"),
    "package": (),
}
HYDRA_SWITCHES = ("resolve", "hydra_help", "version", "multirun")


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (0, or that of the `PlatformError`)."""
    arguments = sys.argv[1:] if argv is None else list(argv)
    with answered(debug="--debug" in arguments) as answer:
        arguments = [a for a in arguments if a != "--debug"]
        if arguments[:1] == ["start"]:
            from ssl_platform.start.command import start

            check_working_directory()
            answer.exit_code = start(arguments[1:])
            return answer.exit_code
        cfg = _answered_or_composed(arguments, answer)
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
    """Run a command in this context: an error is printed in words, and is its exit code."""
    keep_streams()
    make_logs_legible()
    answer = Answer()
    try:
        with no_silence():
            yield answer
        _warn_of_unwritten()
    except Exception as error:
        known = error if isinstance(error, PlatformError) else limit_error(error)
        if debug or known is None:
            raise
        print_error(known)
        answer.exit_code = known.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        answer.exit_code = 130


def _warn_of_unwritten() -> None:
    """No error: the work is done, and its results are saved."""
    reason = why_unwritten()
    if reason is not None:
        print(f"warning: standard output cannot be written ({reason})", file=sys.stderr)


def _answered_or_composed(arguments: list[str], answer: Answer) -> Any:
    """The checked config of a run on this machine; None where the command needs no run here."""
    from omegaconf import OmegaConf

    from ssl_platform.config.calls import calls, nameless
    from ssl_platform.config.hints import no_command
    from ssl_platform.config.shipped import runnable
    from ssl_platform.config.source import Source

    if not arguments or {"-h", "--help"} & set(arguments):
        show(_help())
        return None
    if problem := no_command(arguments[0], ["start"]):
        raise ConfigError([problem])
    check_working_directory()
    given, overrides = _parsed(arguments)
    flags, config_dirs = _hydra_flags(given), given.config_dir
    if given.multirun:
        answer.exit_code = _sweep(overrides, config_dirs, flags)
        return None
    if given.cfg or given.info or given.hydra_help or given.version:
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
    if flags:
        raise ConfigError([f"{flags[0]}: only with --cfg; see --help"])
    cfg = _composed(overrides, config_dirs)
    from ssl_platform.job.running import hand_over, runs_elsewhere

    if not runs_elsewhere(cfg):
        return cfg
    hand_over([cfg])
    return None


def check_working_directory() -> None:
    """Raise `ConfigError` where the working directory was removed."""
    try:
        Path.cwd()
    except OSError as error:
        problem = f"the working directory is gone ({error.strerror}): cd to one that is there"
        raise ConfigError([problem]) from error


class _Parser(argparse.ArgumentParser):
    """Its errors are `ConfigError`."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError([f"{message}; see --help"])


def _parsed(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The flags, and the overrides. Hydra's own parser would print the usage of another program."""
    parser = _Parser(add_help=False, allow_abbrev=False)
    for name in HYDRA_VALUES:
        parser.add_argument(f"--{name}", f"-{name[0]}", nargs="?", const="")
    parser.add_argument("--config-dir", "-cd", nargs="?", const="", action="append", default=[])
    parser.add_argument("-m", dest="multirun", action="store_true")
    for name in HYDRA_SWITCHES:
        parser.add_argument(f"--{name.replace('_', '-')}", action="store_true")
    given, overrides = parser.parse_known_args(arguments)
    problems = _unknown_flags(overrides)
    if not all(given.config_dir):
        problems.append("--config-dir: needs a value; which directory?")
    for name, choices in HYDRA_VALUES.items():
        value, wanted = getattr(given, name), " or ".join(choices) or "which one?"
        if value == "":
            problems.append(f"--{name}: needs a value; {wanted}")
        elif value is not None and choices and value not in choices:
            problems.append(f"--{name} {value}: {wanted}")
    if given.multirun and (given.cfg or given.info or given.hydra_help or given.version):
        problems.append("-m: --cfg and the like are about one config; leave one of them out")
    if problems:
        raise ConfigError(problems)
    return given, overrides


def _unknown_flags(overrides: list[str]) -> list[str]:
    """A line for each flag that is not there, and what to type instead."""
    flags = [n for n, override in enumerate(overrides) if override.startswith("-")]
    if not flags:
        return []
    from ssl_platform.config.hints import unknown_flag
    from ssl_platform.config.source import Source

    try:
        cfg, _ = Source.of([o for o in overrides if o.startswith("config=")]).read()
    except ConfigError:
        cfg = None
    lines = []
    for n in flags:
        value = next((word for word in overrides[n + 1 : n + 2] if word[:1] != "-"), "")
        value = "" if "=" in value else value
        lines.append(f"{overrides[n]}: no such flag; {unknown_flag(overrides[n], value, cfg)}")
    return lines


def _hydra_flags(given: argparse.Namespace) -> list[str]:
    flags = [(f"--{name}", getattr(given, name)) for name in HYDRA_VALUES if getattr(given, name)]
    switches = [f"--{n.replace('_', '-')}" for n in HYDRA_SWITCHES if getattr(given, n)]
    return [*chain.from_iterable(flags), *switches]


def _composed(overrides: list[str], config_dirs: list[str]) -> Any:
    from ssl_platform.config import compose

    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        os.environ.update(spin_variables())  # before torch is imported
        check_torch_fits()
        with working("checking the config"):
            return compose(overrides, config_dirs)


def _hydra(source: Any, flags: list[str], task: Any = None) -> None:
    """Let Hydra's own main function answer."""
    import hydra

    source.refuse_calls()
    arguments = [] if flags == ["--hydra-help"] else source.arguments()  # it reads no config
    sys.argv = [sys.argv[0], *arguments, *flags]
    decorate = hydra.main(str(source.directory), source.primary, version_base="1.3")
    decorate(task or (lambda cfg: None))()


@dataclass
class _Outcome:
    """What the runs of a sweep have come to."""

    codes: list[int] = field(default_factory=lambda: [0])
    folders: list[Path] = field(default_factory=list)
    to_submit: list[Any] = field(default_factory=list)
    is_stopped: bool = False

    def add(self, error: PlatformError, *, ends: bool) -> None:
        """Print the error of a run, which also ``ends`` the sweep or not."""
        print_error(error)
        self.codes.append(error.exit_code)
        self.is_stopped |= ends


def _sweep(overrides: list[str], config_dirs: list[str], flags: list[str]) -> int:
    """Check every combination, then let Hydra's sweeper and launcher run each as its own run.

    Those that run elsewhere are handed over together: SLURM makes an array job of them.
    """
    from hydra.core.hydra_config import HydraConfig

    from ssl_platform.config import check_sweep
    from ssl_platform.config.overrides import swept_keys
    from ssl_platform.config.search import is_search, prepared_search
    from ssl_platform.config.source import Source
    from ssl_platform.job.running import hand_over

    check_sweep(overrides, config_dirs)
    source = Source.of(overrides, config_dirs)
    keys = swept_keys(source.overrides)
    searches = is_search(source.overrides)
    if searches:
        source = replace(source, overrides=source.overrides + prepared_search(source.overrides))
    so_far = _Outcome()

    def task(_: Any) -> float | None:
        if so_far.is_stopped:
            return None
        job = list(HydraConfig.get().overrides.task)
        label = "_".join(o.replace("/", "-") for o in job if o.partition("=")[0] in keys)
        name = Source.of(job, config_dirs).name()
        try:
            return _run_of_sweep([*job, f"name='{name}/{label}'"], config_dirs, so_far, searches)
        except PlatformError as error:  # the other combinations are still to be run
            is_of_all = searches and isinstance(error, ConfigError)  # the objective is not there
            so_far.add(error, ends=is_of_all or isinstance(error, StopRequested))
        except Exception:
            so_far.codes.append(1)  # Optuna goes on after any error
            raise
        return None

    try:
        _hydra(source, flags, task)
    except ValueError:  # Optuna looks for the best of no run
        if not searches or max(so_far.codes) == 0:
            raise
    if so_far.to_submit:
        hand_over(so_far.to_submit)
    _show_results(so_far.folders)
    return max(so_far.codes)


def _run_of_sweep(
    job: list[str], config_dirs: list[str], so_far: _Outcome, searches: bool
) -> float | None:
    """Do one run of a sweep, or keep it to be handed over; returns what a search wants to know."""
    import ssl_platform
    from ssl_platform.job.objective import objective_of
    from ssl_platform.job.running import runs_elsewhere

    cfg = _composed(job, config_dirs)
    if runs_elsewhere(cfg):
        so_far.to_submit.append(cfg)
        return None
    so_far.folders.append(Path(cfg.output_dir))
    results = ssl_platform.run(cfg)
    return objective_of(results, cfg.objective) if searches else None


def _show_results(folders: list[Path]) -> None:
    """Show side by side what the runs of a sweep have found."""
    from ssl_platform.evaluation.results_table import has_results, results_table

    done = list(filter(has_results, folders))
    if done and os.environ.get("RANK", "0") == "0":
        show(legible("\n".join(["", *results_table(done)])))


def _help() -> str:
    from ssl_platform.config.shipped import groups, runnable

    configs = "\n".join(f"  {name}" for name in runnable())
    parts = "\n".join(f"  {group}: {', '.join(names)}" for group, names in groups().items())
    return HELP.format(configs=configs, parts=parts)


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    if os.environ.get("RANK", "0") == "0":
        print(f"warning: {legible(str(message))}", file=sys.stderr)
