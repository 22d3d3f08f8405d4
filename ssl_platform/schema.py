"""Hold values from YAML against the types of a constructor or dataclass, and say what is wrong.

The types are those of the Python annotations; pydantic compares and converts.
"""

import inspect
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any, get_args, get_type_hints

from omegaconf import MISSING
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ssl_platform.errors import nearest

OUT_OF_RANGE = {  # what pydantic calls it, and how a message says it
    "greater_than": "must be above {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "must be below {lt:g}",
    "less_than_equal": "at most {le:g}",
    "too_short": "needs {min_length} or more",
}


class Schema:
    """The options of ``owner``, a name for messages: each parameter's annotation and default."""

    def __init__(self, owner: str, parameters: Collection[inspect.Parameter]):
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
        self._model: type[BaseModel] = create_model(
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
        """One line for each value that is unknown, missing or of another type.

        Args:
            where: place of the values in the config, e.g. ``loss``; heads each line.
        """
        absent = [key for key, value in values.items() if value == MISSING]
        if absent:
            rest = {key: value for key, value in values.items() if key not in absent}
            lines = [self._needs(f"{where}.{key}" if where else key, key) for key in absent]
            others = self.problems(rest, where=where)
            return lines + [line for line in others if line not in lines]
        if self.takes_any:
            values = {key: value for key, value in values.items() if key in self._names}
        try:
            self._model(**{self._names.get(k, str(k)): value for k, value in values.items()})
        except ValidationError as error:
            originals = {alias: name for name, alias in self._names.items()}
            found = error.errors(include_url=False)
            lines = [self._line(e, where, originals, self._absent(found, originals)) for e in found]
            return list(dict.fromkeys(lines))
        return []

    def _line(
        self, error: Any, where: str, originals: dict[str, str], absent: dict[tuple, list[str]]
    ) -> str:
        path = _path(error["loc"], originals)
        place = ".".join([where, *path] if where else path)
        if error["type"] == "missing":
            return self._needs(place, path[0] if len(path) == 1 else None)
        if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = list(self.annotations) if len(path) == 1 else absent.get(tuple(path[:-1]), [])
            hint = nearest(path[-1], known)
            known_by = f"{place}={error['input']}: {self.owner} has no such option; {hint}"
            return f"{known_by} (~{place} leaves it out)" if where else known_by
        if error["input"] is None:
            return self._needs(place, path[0] if len(path) == 1 else None)
        message = error["msg"].removeprefix("Input ")
        if error["type"] in OUT_OF_RANGE:
            message = OUT_OF_RANGE[error["type"]].format(**error["ctx"])
            if len(path) == 1 and type(None) in get_args(self.annotations[path[0]]):
                message += ", or null"
        return f"{place}={error['input']}: {message}"

    def _needs(self, place: str, key: str | None) -> str:
        # without the range that an annotation may have
        kind = get_type_hints(self._model).get(self._names.get(key or "", ""))
        wanted = f" ({inspect.formatannotation(kind)})" if kind is not None else ""
        return f"{place}: {self.owner} needs a value{wanted}; set {place}=..."

    @staticmethod
    def _absent(errors: list[Any], originals: dict[str, str]) -> dict[tuple, list[str]]:
        """Names missing in each nested mapping: what a misspelt key there may have meant."""
        absent: dict[tuple, list[str]] = {}
        for error in errors:
            if error["type"] == "missing":
                path = _path(error["loc"], originals)
                absent.setdefault(tuple(path[:-1]), []).append(path[-1])
        return absent


def _path(loc: tuple, originals: dict[str, str]) -> list[str]:
    first, *rest = (str(part) for part in loc)
    return [originals.get(first, first), *rest]


@cache
def dataclass_schema(cls: type) -> Schema:
    """The schema of a dataclass, named in messages as "the config"."""
    return Schema("the config", inspect.signature(cls).parameters.values())


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested mappings by dotted path."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= {f"{key}.{inner}": v for inner, v in flat(value).items()}
        else:
            found[str(key)] = value
    return found
