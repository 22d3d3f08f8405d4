"""The results of an evaluation, with all that is needed to repeat it: ``results.json``."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ssl_platform.files import replacing

NAME = "results.json"
WEIGHTS = "weights"  # column of what was evaluated

Figures = dict[str, dict[str, float]]  # by what was measured and metric


@dataclass(frozen=True)
class Results:
    """One evaluation of one set of weights.

    Attributes:
        protocol: in words, shown wherever a figure is: ``cached centre-crop protocol, ...``.
        figures: by what was measured and metric: ``{"linear": {"top1": 75.3, "top5": 92.6}}``.
        baselines: the same measure of ``random init``, ``raw pixels`` and ``raw pixels, PCA 256``.
        weights: ``source``, ``format`` and ``sha256`` of what was evaluated, and ``whose`` it is
            of a run with a teacher.
        seed: of the evaluation.
        config: the whole config, as YAML.
        details: what else belongs to the protocol: chosen learning rate, numbers of images.
    """

    protocol: str
    figures: Figures
    baselines: dict[str, Figures]
    weights: dict[str, str]
    seed: int
    config: str
    details: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """The protocol, and each figure with those of the baselines beside it."""
        columns = {WEIGHTS: self.figures, **self.baselines}
        rows = [
            [f"{what} {metric}", *(f"{column[what][metric]:.2f}" for column in columns.values())]
            for what, metrics in self.figures.items()
            for metric in metrics
        ]
        parts = [self.weights[key] for key in ("format", "whose") if key in self.weights]
        source = f"{self.weights['source']} ({', '.join(parts)})"
        return "\n".join([self.protocol, f"weights: {source}", *aligned([["", *columns], *rows])])

    def write(self, folder: Path) -> None:
        """Write ``results.json`` whole or not at all."""
        with replacing(folder / NAME) as partial:
            partial.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, folder: Path) -> "Results":
        """What ``write`` has written.

        Raises:
            ValueError: the file holds something else; it may be somebody else's.
            OSError: it cannot be read.
        """
        try:
            return TypeAdapter(cls).validate_json((folder / NAME).read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            key = ".".join(map(str, first["loc"]))
            raise ValueError(f"{key}: {first['msg']}" if key else first["msg"]) from error


def aligned(rows: list[list[str]]) -> list[str]:
    """Lines of a table: a column of numbers is aligned to the right, any other to the left."""
    columns = [_padded(column) for column in zip(*rows, strict=True)]
    return ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]


def _padded(column: tuple[str, ...]) -> list[str]:
    width = max(map(len, column))
    are_numbers = all(not cell or cell.replace(".", "").isdigit() for cell in column[1:])
    return [cell.rjust(width) if are_numbers else cell.ljust(width) for cell in column]
