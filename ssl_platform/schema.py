"""Check values from YAML against the types of a constructor or dataclass, and say what is wrong.

The types are the Python annotations; pydantic compares and converts. A range stands in the
annotation too, with a text that the message ends with: ``Annotated[float, Gt(0), "e.g. 0.05"]``.
"""

import inspect
import types
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from ssl_platform.errors import nearest

OUT_OF_RANGE = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")
RANGES = {  # by the bounds of `annotated_types`
    ("ge",): "at least {ge}",
    ("gt",): "above {gt}",
    ("le",): "at most {le}",
    ("lt",): "below {lt}",
    ("ge", "le"): "from {ge} to {le}",
    ("ge", "lt"): "from {ge} to below {lt}",
    ("gt", "le"): "above {gt}, up to {le}",
    ("gt", "lt"): "above {gt}, below {lt}",
}
UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")


class Schema:
    """The options of ``owner``, a name for messages: each parameter's annotation and default."""

    def __init__(self, owner: str, parameters: Collection[inspect.Parameter]):
        from pydantic import ConfigDict, create_model  # not above: 0.3 s, which --help is without

        self.owner = owner
        self.takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)  # **options
        parameters = [p for p in parameters if p.kind != p.VAR_KEYWORD]
        self.annotations = {
            p.name: Any if p.annotation is p.empty else p.annotation for p in parameters
        }
        self.defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
        fields: dict[str, Any] = {
            name: (annotation, self.defaults.get(name, ...))
            for name, annotation in self.annotations.items()
        }
        # aliases, so that an option may have any name, also one that pydantic uses itself
        self._names = {name: f"option_{number}" for number, name in enumerate(fields)}
        self._originals = {alias: name for name, alias in self._names.items()}
        self._model: Any = create_model(
            owner,
            __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True),
            **{self._names[name]: field for name, field in fields.items()},
        )

    def convert(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The values in their annotated types; ``ValueError`` has one line per problem."""
        problems = self.problems(values, where="")
        if problems:
            raise ValueError("\n".join(problems))
        others = {key: value for key, value in values.items() if key not in self._names}
        values = {key: value for key, value in values.items() if key in self._names}
        parsed = self._model(**{self._names[name]: value for name, value in values.items()})
        return others | {name: getattr(parsed, alias) for name, alias in self._names.items()}

    def problems(self, values: Mapping[str, Any], *, where: str) -> list[str]:
        """One line for each value that is unknown, missing, of another type or out of its range.

        Args:
            where: place of the values in the config, e.g. ``loss``; heads each line.
        """
        from pydantic import ValidationError

        unset = [key for key, value in values.items() if value == MISSING]
        if unset:
            rest = {key: value for key, value in values.items() if key not in unset}
            lines = [self._needs(f"{where}.{key}" if where else key, key) for key in unset]
            others = self.problems(rest, where=where)
            return lines + [line for line in others if line not in lines]
        if self.takes_any:
            values = {key: value for key, value in values.items() if key in self._names}
        try:
            self._model(**{self._names.get(k, str(k)): value for k, value in values.items()})
        except ValidationError as error:
            errors = error.errors(include_url=False)
            missing = self._missing(errors)
            return list(dict.fromkeys(self._line(e, where, missing) for e in errors))
        return []

    def _line(self, error: Any, where: str, missing: dict[tuple, list[str]]) -> str:
        path = self._path(error["loc"])
        place = ".".join([where, *path] if where else path)
        if error["type"] in UNKNOWN_KEY:
            known = list(self.annotations) if len(path) == 1 else missing.get(tuple(path[:-1]), [])
            hint = nearest(path[-1], known)
            line = f"{place}={error['input']}: {self.owner} has no such option; {hint}"
            return f"{line} (~{place} leaves it out)" if where else line
        if error["type"] == "missing" or error["input"] is None:
            return self._needs(place, path[0] if len(path) == 1 else None)
        # pydantic's own words, or those of a validator of ours
        wanted = error["msg"].removeprefix("Input ").removeprefix("Value error, ")
        if error["type"] in OUT_OF_RANGE:
            annotation = self.annotations[path[0]]
            wanted = _range_in_words(_metadata(annotation, path[1:])) or wanted
            if len(path) == 1 and type(None) in get_args(annotation) and "null" not in wanted:
                wanted += ", or null"
        elif error["type"] == "too_short":
            wanted = f"needs {error['ctx']['min_length']} or more"
        elif error["type"] == "list_type" and not isinstance(error["input"], Mapping):
            wanted = f"{wanted}; write {place}=[{error['input']}]"
        elif error["type"] == "string_type":
            words = _metadata(self.annotations[path[0]], path[1:])
            wanted = "; ".join([wanted, *(word for word in words if isinstance(word, str))])
        return f"{place}={error['input']}: {wanted}"

    def _needs(self, place: str, key: str | None) -> str:
        kind = f" ({_type_name(self.annotations[key])})" if key in self.annotations else ""
        return f"{place}: {self.owner} needs a value{kind}; set {place}=..."

    def _missing(self, errors: list[Any]) -> dict[tuple, list[str]]:
        """Names missing in each nested mapping: what a misspelt key there may have meant."""
        missing: dict[tuple, list[str]] = {}
        for error in errors:
            if error["type"] == "missing":
                *parent, key = self._path(error["loc"])
                missing.setdefault(tuple(parent), []).append(key)
        return missing

    def _path(self, loc: tuple) -> list[str]:
        first, *rest = (str(part) for part in loc)
        return [self._originals.get(first, first), *rest]


def _type_name(annotation: Any) -> str:
    """An annotation as it is written, without the ranges."""
    plain = get_type_hints(types.SimpleNamespace(__annotations__={"option": annotation}))
    return inspect.formatannotation(plain["option"])


def _metadata(annotation: Any, path: list[str]) -> Iterator[Any]:
    """What ``Annotated`` adds to the type of a value; ``path`` leads to it inside an option."""
    if is_dataclass(annotation) and path:
        hints = get_type_hints(annotation, include_extras=True)
        yield from _metadata(hints.get(path[0]), path[1:])
    elif get_origin(annotation) is Annotated:
        if not path:
            yield from annotation.__metadata__
        yield from _metadata(get_args(annotation)[0], path)
    elif get_origin(annotation) in (Union, types.UnionType):
        for choice in get_args(annotation):
            yield from _metadata(choice, path)
    elif path:  # of a list, a tuple or a dict
        for inner in get_args(annotation):
            yield from _metadata(inner, path[1:])


def _range_in_words(metadata: Iterable[Any]) -> str:
    """The range that metadata of ``Annotated`` describe, as in ``from 0 to below 1, e.g. 0.9``.

    Returns:
        Nothing where they are bounds of several types, or of none.
    """
    parts = [inner for part in metadata for inner in getattr(part, "metadata", [part])]  # a Field's
    bounds = {
        kind: bound
        for part in parts
        for kind in ("ge", "gt", "le", "lt")
        if (bound := getattr(part, kind, None)) is not None
    }
    words = RANGES.get(tuple(sorted(bounds)), "").format(**bounds)
    if not words:
        return ""
    words = "0 or more" if bounds == {"ge": 0} else words
    return ", ".join([words, *(part for part in parts if isinstance(part, str))])


@cache
def dataclass_schema(cls: type) -> Schema:
    """The schema of a dataclass, named in messages as "the config"."""
    return Schema("the config", inspect.signature(cls).parameters.values())


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested mappings by dotted path."""
    flattened: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flattened |= {f"{key}.{inner}": v for inner, v in flat(value).items()}
        else:
            flattened[str(key)] = value
    return flattened
