"""What an evaluation found, in one file with all that is needed to believe it: ``results.json``."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

NAME = "results.json"


@dataclass(frozen=True)
class Results:
    """One evaluation of one set of weights.

    Attributes:
        protocol: in words, shown wherever a figure is: ``cached centre-crop protocol, ...``.
        figures: by what was measured and metric: ``{"linear": {"top1": 75.3, "top5": 92.6}}``.
        baselines: the same measure of ``random init``, ``raw pixels`` and ``PCA of raw pixels``.
        weights: ``source``, ``format`` and ``sha256`` of what was evaluated.
        seed: of the evaluation.
        config: the whole config, as YAML.
        details: what else belongs to the protocol: chosen learning rate, numbers of images.
    """

    protocol: str
    figures: dict[str, dict[str, float]]
    baselines: dict[str, dict[str, dict[str, float]]]
    weights: dict[str, str]
    seed: int
    config: str
    details: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``results.json`` whole or not at all."""
        partial = folder / f"{NAME}.partial"
        partial.write_text(json.dumps(asdict(self), indent=2) + "\n")
        partial.replace(folder / NAME)

    @classmethod
    def read(cls, folder: Path) -> "Results":
        return cls(**json.loads((folder / NAME).read_text()))
