"""What to try first against a sign of a collapse: by the sign, and by what the config has set.

Each sign has a list of remedies, and the first that the config has not taken yet is told.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

SHARP = 0.03  # epsilon of SwAV's codes
SMALL = 0.25  # part of an image's area: of smaller crops little can be told


class Settings:
    """The config of a run, plain values, and what follows from it."""

    def __init__(self, config: Mapping[str, Any]):
        self.config = config
        self.key_of_prototypes = f"heads.{self.get('loss.head')}.num_prototypes"
        self.has_queue = "queue_length" in self.get("loss", {})  # codes are of batch and queue

    def get(self, path: str, default: Any = None) -> Any:
        """The value of a dotted key; the default where there is none, or null."""
        node: Any = self.config
        for key in path.split("."):
            node = node.get(key) if isinstance(node, Mapping) else None
        return default if node is None else node

    def number(self, path: str) -> float:
        """The value of a dotted key; 0 where it is no number."""
        value = self.get(path)
        return value if isinstance(value, int | float) else 0

    @property
    def prototypes(self) -> int:
        """Of the largest set; 0 where there are none."""
        sets = self.get(self.key_of_prototypes)
        return max(sets) if isinstance(sets, list) and sets else 0

    @property
    def balanced(self) -> int:
        """Samples over which codes are balanced: batch and queue."""
        return int(self.number("data.batch_size") + self.number("loss.queue_length"))


class Remedy(NamedTuple):
    """What to type, where it would change something."""

    applies: Callable[[Settings], bool]
    text: Callable[[Settings], str]


def _fewer(s: Settings) -> str:
    """Half of what there is, and of the samples that SwAV shares out among them."""
    fewer = max(2, min(s.prototypes, s.balanced) // 2)
    values = ",".join([str(fewer)] * len(s.get(s.key_of_prototypes)))
    return f"fewer prototypes, {s.key_of_prototypes}=[{values}]"


def _wider(s: Settings) -> str:
    crops = s.get("data.transform.crops", {})
    scales = {name: crop["scale"] for name, crop in crops.items() if crop["scale"][0] < SMALL}
    typed = [
        f"data.transform.crops.{k}.scale=[{SMALL},{max(2 * SMALL, v[1])}]"
        for k, v in scales.items()
    ]
    return f"crops of a larger part of the image, {' '.join(typed)}"


def _first_crops(s: Settings) -> str:
    groups = s.get("data.transform.crops", {})
    return f"data.transform.crops.{next(iter(groups), 'large')}"


def _has_small_crops(s: Settings) -> bool:
    crops = s.get("data.transform.crops", {})
    return any(crop.get("scale", [1])[0] < SMALL and crop.get("count") for crop in crops.values())


def _rate(s: Settings) -> str:
    rate = s.number("optimizer.lr")
    return f"a lower rate, optimizer.lr={rate / 5:.2g}" if rate else "a lower optimizer.lr"


def _grayscale(s: Settings) -> str:
    op = "data.transform.ops.grayscale"
    is_there = isinstance(s.get(op), Mapping)
    value = f"{op}.probability=0.5" if is_there else f"'{op}={{name: Grayscale, probability: 0.5}}'"
    return f"crops without colour at random, {value}"


def _jitter(s: Settings) -> str:
    return f"a jitter of colours, {_with_jitter(s, saturation=0.4, hue=0.2)}"


def _light(s: Settings) -> str:
    return f"a jitter of brightness, {_with_jitter(s, brightness=0.4, contrast=0.4)}"


def _with_jitter(s: Settings, **strengths: float) -> str:
    op = "data.transform.ops.jitter"
    if isinstance(s.get(op), Mapping):
        return " ".join(f"{op}.{name}={value}" for name, value in strengths.items())
    whole = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.0, "hue": 0.0} | strengths
    options = ", ".join(f"{name}: {value}" for name, value in whole.items())
    return f"'{op}={{name: ColorJitter, probability: 0.8, {options}}}'"


WIDER = Remedy(_has_small_crops, _wider)
SHARPER = Remedy(
    lambda s: s.has_queue and s.number("loss.epsilon") > SHARP,
    lambda s: f"sharper codes, loss.epsilon={SHARP}",
)
LARGER = Remedy(
    lambda s: s.has_queue and 0 < s.balanced < 16,
    lambda s: "a larger batch, data.batch_size=32",
)
TOO_MANY = Remedy(lambda s: s.has_queue and s.prototypes > s.balanced, _fewer)
HALF = Remedy(lambda s: s.prototypes > 20, _fewer)
TWO = Remedy(
    lambda s: 0 < s.prototypes < 4,
    lambda s: f"more prototypes, {s.key_of_prototypes}=[30]: embeddings of two need one line only",
)
WARM_UP = Remedy(
    lambda s: s.get("schedule.warmup_epochs") == 0,
    lambda s: "a warm-up, schedule.warmup_epochs=1",
)
FREEZE = Remedy(
    lambda s: s.get("loss.freeze_prototypes_epochs") == 0 == s.get("loss.freeze_prototypes_steps"),
    lambda s: "prototypes that stay as they are at first, loss.freeze_prototypes_epochs=1",
)
SLOWER = Remedy(lambda s: True, _rate)
GREY = Remedy(lambda s: s.number("data.transform.ops.grayscale.probability") < 0.2, _grayscale)
JITTER = Remedy(lambda s: s.number("data.transform.ops.jitter.hue") < 0.1, _jitter)
LIGHT = Remedy(lambda s: s.number("data.transform.ops.jitter.brightness") < 0.2, _light)
SMALLER = Remedy(
    lambda s: True,
    lambda s: f"crops of a smaller part of the image, {_first_crops(s)}.scale=[0.14,1.0]",
)

REMEDIES = {
    "uniform": [LARGER, SHARPER, WIDER, TOO_MANY, FREEZE, SLOWER],
    "ln K": [WARM_UP, SLOWER],
    "point": [WARM_UP, FREEZE, SLOWER],
    "line": [TWO, LARGER, SHARPER, TOO_MANY, FREEZE, SLOWER],
    "unused": [LARGER, TOO_MANY, FREEZE, SLOWER],
    "colour": [GREY, JITTER, SMALLER],
    "brightness": [LIGHT, SMALLER],
    "random labels": [SLOWER],
    "one cluster": [WARM_UP, SLOWER],
    "empty clusters": [HALF, SLOWER],
}


def remedy_of(sign: str, config: Mapping[str, Any]) -> str:
    """What to try first, with what to type.

    Args:
        sign: its short name, see `ssl_platform.hooks.signs`.
        config: of the run, plain values; may be empty.
    """
    settings = Settings(config)
    first = next(remedy for remedy in REMEDIES[sign] if remedy.applies(settings))
    return first.text(settings)
