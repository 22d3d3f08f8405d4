"""The command line of the zoo. Only the commands that need torch import it."""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from ssl_platform.cli import answered, check_working_directory
from ssl_platform.console import one_line, show
from ssl_platform.errors import ConfigError
from ssl_platform.files import sha256_of
from ssl_platform.zoo import catalogue
from ssl_platform.zoo.fetch import cached

Command = Callable[[argparse.Namespace], Iterable[str]]  # gives the lines to print

WHOSE = ("student", "teacher")  # as config.options has it, whose import takes half a second


def main(argv: list[str] | None = None) -> int:
    """Run a command line; returns the exit code (0, or that of the `PlatformError`)."""
    with answered() as answer:
        answer.exit_code = _main(argv)
    return answer.exit_code


def _main(argv: list[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    check_working_directory()
    for line in arguments.command(arguments):
        show(line)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="zoo.py", description="Published models, and weights of any format."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, function: Command, text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(command=function)
        return sub

    command("list", _list, "the published models")
    command("show", _show, "all that is known of one").add_argument("name")
    fetching = command("fetch", _fetch, "download one into the cache, or find it there")
    fetching.add_argument("name")
    source = "a run, a file, a URL, or zoo:NAME"
    whose = "of a run with a teacher; those that the run itself evaluates if it is left out"
    verify = command("verify", _verify, "what weights are, and whether they are whole")
    verify.add_argument("source", help=source)
    verify.add_argument("--weights", choices=WHOSE, help=whose)
    verify.add_argument("--keys", action="store_true", help="list where every key goes")
    export = command("export", _export, "write weights in another format")
    export.add_argument("source", help=source)
    export.add_argument("--weights", choices=WHOSE, help=whose)
    export.add_argument("--format", required=True, help="name of a writer; a wrong one lists them")
    text = "a module of yours with writers or trunks, imported before; several times for several"
    export.add_argument("--plugin", action="append", default=[], metavar="MODULE", help=text)
    export.add_argument("-o", "--output", type=Path, required=True)
    return parser


def _list(arguments: argparse.Namespace) -> list[str]:
    rows = [("name", "trunk", "top-1", "in the cache")]
    for model in catalogue.models().values():
        here = "yes" if cached(model.url).is_file() else "no"
        rows.append((model.name, model.trunk, f"{model.top1:.1f}", here))
    return _table(rows)


def _show(arguments: argparse.Namespace) -> list[str]:
    model = catalogue.model(arguments.name)
    known = asdict(model)
    del known["others"]  # among the figures
    path = cached(model.url)
    known["cache"] = path if path.is_file() else f"{path} (not there yet)"
    rows = [(key, _plain(value)) for key, value in known.items() if value is not None]
    rows += [(f"config={name}", _plain(figures)) for name, figures in model.figures.items()]
    return _table(rows)


def _fetch(arguments: argparse.Namespace) -> list[str]:
    path = catalogue.model(arguments.name).fetch()
    return _table([("path", str(path)), ("sha256", sha256_of(path))])


def _verify(arguments: argparse.Namespace) -> Iterator[str]:
    from ssl_platform.zoo.verify import describe, destinations, require_whole
    from ssl_platform.zoo.weights import read_weights

    weights = read_weights(arguments.source, arguments.weights)
    yield from _table(describe(weights))
    if arguments.keys:
        yield from _table(destinations(weights))
    require_whole(weights)


def _export(arguments: argparse.Namespace) -> list[str]:
    from ssl_platform.zoo.weights import read_weights
    from ssl_platform.zoo.writers import export

    _import(arguments.plugin)
    weights = read_weights(arguments.source, arguments.weights)
    written = export(weights, arguments.format, arguments.output)
    return [f"wrote {one_line(str(path))}" for path in written]


def _import(plugins: Sequence[str]) -> None:
    """Import plug-ins that the command names."""
    from ssl_platform.registry import is_module_name, load_components

    for name in plugins:
        if not is_module_name(name):
            raise ConfigError([f"--plugin {name}: the name of a module, as in import my_writer"])
    try:
        load_components(plugins)
    except (ImportError, ValueError) as error:
        raise ConfigError([f"--plugin {' --plugin '.join(plugins)}: {error}"]) from error


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return str(value)


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([f"{cell:<{width}}" for cell, width in zip(r, widths, strict=True)] for r in rows)
    return ["  ".join(cells).rstrip() for cells in padded]
