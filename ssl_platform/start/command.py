"""The command ``start``: look at images, plan, write the plan down, and with ``--run`` go on."""

import argparse
import os
import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import OmegaConf

from ssl_platform.config.overrides import parsed
from ssl_platform.config.shipped import groups
from ssl_platform.config.source import Source
from ssl_platform.console import one_line, show
from ssl_platform.console.working import working
from ssl_platform.errors import ConfigError
from ssl_platform.launch.threads import spin_variables
from ssl_platform.start.rules import RATES

WRITTEN_BY = "# written by: "
DEFAULT_HOURS = 1.0
PARENT = "pretrain/swav/folder"  # which the recipe changes
PLANNED = {"config", "name", "output_dir", "data.train.path", "data.train.name", "data.train"}
FREE_GROUPS = ("trunk", "optimizer", "metrics", "teacher")
# keys that rules calculate with, and their least values
WHOLE = {"num_epochs": 1, "data.batch_size": 1, "data.num_workers": 0, "loss.queue_length": 0}
NAMES = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
RESERVED = {"null", "true", "false", "nan", "inf", "none"}  # of Hydra, as values


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        if "required: images" in message:  # argparse names all that may follow, too
            message = "name a folder of images: start /my/images"
        raise ConfigError([f"start: {message}; see start --help"])


def start(arguments: list[str]) -> int:
    """Run the command; returns the exit code of the first stage that fails, else 0.

    Raises:
        ConfigError: what nothing can be learned from, or a mistake in the command.
    """
    options = _parser().parse_intermixed_args(arguments)
    _require_text(options.images)
    given = _given(options.overrides)
    file = _file(options.output, options.images)
    written_by = _written_by(options)
    if file.exists():
        _refuse_another(file, written_by, options.run)
    else:
        os.environ.update(spin_variables())  # before torch is imported
        _plan(options, given, file, written_by)
    return _go_on(file, is_run=options.run)


def _parser() -> _Parser:
    parser = _Parser(
        prog="start",
        description="Look at a folder of images, plan a training for this machine, and write it to "
        "a YAML file of yours. It asks nothing.",
        allow_abbrev=False,
    )
    parser.add_argument("images", help="a folder of images, or a list of them")
    text = f"that the training may take; {DEFAULT_HOURS:g} if it is left out"
    parser.add_argument("--hours", type=_hours, default=DEFAULT_HOURS, help=text)
    text = "go on: pretrain, evaluate if there are labels, find clusters; again after a stop"
    parser.add_argument("--run", action="store_true", help=text)
    text = "the file to write; else it is named as the folder is"
    parser.add_argument("--output", type=Path, help=text)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that are settled")
    return parser


def _require_text(path: str) -> None:
    """Refuse a path that YAML cannot hold."""
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError as error:
        problem = f"{path}: its name is no text (UTF-8), and cannot stand in a file; rename it"
        raise ConfigError([problem]) from error


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = 0.0
    if not 0 < hours < 10_000:
        raise argparse.ArgumentTypeError(f"{text}: a number of hours, such as 2 or 0.5")
    return hours


def _given(overrides: list[str]) -> dict[str, Any]:
    """Values by key, parts by group, as they are in the recipe that the plan is based on.

    Raises:
        ConfigError: an override that cannot be used.
    """
    if not overrides:
        return {}
    source = Source.of([f"config={PARENT}", *overrides])
    cfg, problems = source.read()
    values: dict[str, Any] = {}
    for text in source.overrides[1:] if not problems else ():
        override = parsed(text)
        key = str(override.key_or_group)
        if override.is_add() or override.is_delete():
            problems.append(f"{text}: start takes key=value; edit the file that it writes")
        elif key in PLANNED or (key in groups() and key not in FREE_GROUPS):
            problems.append(f"{text}: start decides it; edit the file that it writes")
        elif key == "optimizer" and override.value() not in RATES:
            problems.append(f"{text}: start knows rates for {', '.join(RATES)}")
        elif key in groups():
            values[key] = override.value()
        else:
            value = OmegaConf.select(cfg, key)
            values[key] = OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
            if key in WHOLE and not (isinstance(value, int) and value >= WHOLE[key]):
                problems.append(f"{text}: a whole number, at least {WHOLE[key]}")
    if problems:
        raise ConfigError(problems)
    return values


def _file(output: Path | None, images: str) -> Path:
    """Where the recipe goes: by default ``my_images.yaml`` for ``/my/images``' last part."""
    if output is None:
        name = Path(images).expanduser().absolute()
        stem = name.stem if name.is_file() else name.name
        plain = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_-")
        if not NAMES.fullmatch(plain) or plain.lower() in RESERVED:
            plain = f"images_{plain}".rstrip("_")
        return Path(f"{plain}.yaml")
    if output.suffix != ".yaml" or not NAMES.fullmatch(output.stem):
        raise ConfigError(
            [f"--output {output}: a name of letters, digits, _ and - that ends in .yaml"]
        )
    if not output.parent.is_dir():
        raise ConfigError([f"--output {output}: there is no folder {output.parent}"])
    return output


def _written_by(options: argparse.Namespace) -> str:
    """The line of the file that says what it was made for."""
    words = [options.images, "--hours", f"{options.hours:g}", *options.overrides]
    return one_line(f"start {shlex.join(words)}")


def _refuse_another(file: Path, written_by: str, is_run: bool) -> None:
    """Go on with a file that this command has written; refuse any other."""
    lines = file.read_text(errors="replace").splitlines() if file.is_file() else []
    others = [li.removeprefix(WRITTEN_BY) for li in lines if li.startswith(WRITTEN_BY)]
    if is_run and others == [written_by]:
        show(f"{file} is there already, by the same command: going on with it")
        return
    if others == [written_by]:
        raise ConfigError([f"{file} is there already, by the same command; --run goes on with it"])
    what = f"is there already, by '{others[0]}'" if others else "is there already"
    raise ConfigError([f"{file} {what}; write another one by --output FILE, or remove it"])


def _plan(options: argparse.Namespace, given: Mapping[str, Any], file: Path, by: str) -> None:
    from ssl_platform.start.limits import refuse
    from ssl_platform.start.machine import this_machine
    from ssl_platform.start.plan import make_plan
    from ssl_platform.start.recipe import recipe
    from ssl_platform.start.report import header, told
    from ssl_platform.start.scan import scan
    from ssl_platform.start.timing import measure

    show(f"looking at {one_line(options.images)} ...")
    with working("looking at the images"):
        facts, machine = scan(options.images), this_machine(str(given.get("device", "auto")))
    refuse(facts, machine)
    show("timing a few steps here, for less than a minute ...")
    with working("timing steps"):
        plan = make_plan(facts, machine, options.hours, given, measure)
    text = recipe(plan.choices, header(plan, file))
    first, rest = text.split("\n", 1)
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(f"{first}\n{WRITTEN_BY}{by}\n{rest}")
    except OSError as error:
        raise ConfigError([f"{file}: cannot be written ({error.strerror})"]) from error
    for line in told(plan):
        show(line)


def _go_on(file: Path, *, is_run: bool) -> int:
    """Print the commands and, where asked to, run them; returns an exit code."""
    from ssl_platform.config import compose
    from ssl_platform.start.report import answer
    from ssl_platform.start.stages import stages

    way = stages(file, compose([f"config={file}"]))
    if not is_run:
        show("\nnext, one after another (or the same command with --run):")
        for stage in way:
            show(f"  {stage.shown}")
        return 0
    for number, stage in enumerate(way, 1):
        show(f"\n[{number} of {len(way)}] {stage.what}\n  {stage.shown}")
        code = stage.run()
        if code:
            show(f"\n{stage.what}: exit code {code}; the same command goes on from here")
            return code
    for line in answer(way):
        show(line)
    return 0
