"""The templates of pages, and what all of them share: colours, and how a page becomes bytes."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_platform.console import escaped
from ssl_platform.errors import counted
from ssl_platform.files import replacing

if TYPE_CHECKING:
    from jinja2 import Environment

FOLDER = Path(__file__).parent
PACKAGE = FOLDER.parent  # for pages that include those of several rooms


@cache
def templates(folder: Path = FOLDER) -> "Environment":
    """Templates of a folder, which may include those of this one, e.g. ``colours.css``.

    What they show is escaped, also letters that do not print. ``raw("file")`` is a file of this
    folder as it is; ``number | count`` writes thousands apart, and ``counted(number, noun)`` with
    its noun.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader([folder, FOLDER]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: escaped(value) if type(value) is str else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["raw"] = lambda name: Markup((FOLDER / name).read_text("utf-8"))
    environment.globals["counted"] = counted
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment


def write_page(path: Path, template: str, values: dict[str, Any]) -> None:
    """Write a page piece by piece, whole or not at all.

    Args:
        template: below the package, ``clusters/page.html``.
        values: that it shows.

    Raises:
        OSError: it cannot be written.
    """
    page = templates(PACKAGE).get_template(template).stream(values)
    with replacing(path) as partial:
        page.dump(str(partial), encoding="utf-8")


def page_bytes(template: str, values: dict[str, Any]) -> bytes:
    """A page of this folder; letters that are none, as bytes of a file's name, are escapes."""
    text = templates().get_template(template).render(values)
    return text.encode("utf-8", "backslashreplace")
