"""The table of rules: what images and a machine ask for, why, and who says so.

A rule gives the value of one key. It may look at what the rules before it have decided, and at
what the user has. Where a published rule and our own measurement differ, the measurement counts.
"""

from collections.abc import Callable, Iterable
from math import ceil
from typing import Any, NamedTuple

from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.start.facts import Case
from ssl_platform.start.sizes import SMALL_IMAGES, look_of, small_crop

RESULTS = "measured: docs/results.md"
SETS = "measured: docs/start.md"
SETTINGS = "docs/settings.md"
LIGHTLY_TRAIN = "lightly-train's rules for DINO"
HERE = "measured here"
ASKED = "command line"
FOUND = "found in the images"

FLOOR_IMAGES = 60_000  # seen in all: what our recipes of small images were measured at
EPOCHS = 200  # with more images: the least that lightly-train advises below 100,000
# of optimizers, at a batch
RATES = {"adamw": (0.002, 32), "larc": (0.12, 32), "sgd": (0.2, 128), "adam": (0.002, 32)}
MEMORY_SHARE = 0.5  # of the device's memory, for the activations of a batch
OVERHEAD = 1.15  # of evaluations, hooks and checkpoints
EVALUATIONS = 10  # of the training: how often it is measured
MANY_IMAGES = 50_000
SHARP_BELOW = 100_000  # 0.03 was better at 60,000 images; 0.05 is SwAV's on ImageNet
PER_CLASS = 10  # prototypes: 20 cost 5 points on Fashion-MNIST
MOST_PROTOTYPES = 3000  # of SwAV on ImageNet
SHARE_OF_SAMPLES = 0.75  # of batch and queue, that there are prototypes
CROPS = "data.transform.crops"
OPS = "data.transform.ops"
TINT = "else crops are matched by their tint alone"
PART = "part of the image: a small part of a small image shows nothing"


class Rule(NamedTuple):
    """The value of a key.

    Attributes:
        key: of the config; of a group (``trunk``) the part.
        value: what it is, or a function of the case; None leaves the key as the parent has it.
        why: the reason in a few words, or a function of the case.
        source: who says so.
    """

    key: str
    value: Any | Callable[[Case], Any]
    why: str | Callable[[Case], str]
    source: str | Callable[[Case], str]


def whose_look(case: Case) -> str:
    """Who says how crops are cut."""
    return look_of(case.size).source


def batch_size(case: Case) -> int:
    """As small as is measured to be good; at most half of the images, and what memory takes."""
    wanted = 32 if case.size.crop <= SMALL_IMAGES or case.machine.device == "cpu" else 128
    if case.facts.number >= MANY_IMAGES and case.machine.device == "cuda":
        wanted = 256
    least = max(2, min(wanted, case.facts.number // 2))
    if case.measured is None:
        return least
    room = case.machine.device_memory * MEMORY_SHARE / max(1, case.measured.image_bytes)
    while least > 8 and least > room:
        least //= 2
    return least


def wanted_prototypes(case: Case) -> int:
    """Some times the classes; without classes by the number of images."""
    facts = case.facts
    wanted = PER_CLASS * facts.num_classes if facts.is_labelled else facts.number // 50
    return min(max(wanted, 30), MOST_PROTOTYPES)


def queue_length(case: Case) -> int:
    """Rows beside the batch, over which the codes are balanced: at most half of the images."""
    batch = case.values["data.batch_size"]
    wanted = max(256, round(wanted_prototypes(case) / SHARE_OF_SAMPLES) - batch)
    wanted = min(wanted, 3840, case.facts.number // 2 - batch)
    return max(0, wanted - wanted % batch)


def queue_start(case: Case) -> int:
    """Epoch, counted from 0, from which the queue is used; that after the last of a single one."""
    return max(1, case.values["num_epochs"] // 2)


def num_prototypes(case: Case) -> list[int]:
    """As many as are wanted, but fewer than the samples over which they are balanced."""
    batch, queue = case.values["data.batch_size"], case.values["loss.queue_length"]
    return [max(2, min(wanted_prototypes(case), int(SHARE_OF_SAMPLES * (batch + queue))))]


def images_seen(case: Case) -> int:
    """How many images the training sees in all: what is of use, or what the time allows."""
    wanted = max(FLOOR_IMAGES, EPOCHS * case.facts.number)
    if case.measured is None:
        return wanted
    return min(wanted, int(3600 * case.hours / seconds_per_image(case)))


def seconds_per_image(case: Case) -> float:
    """Of the whole training, its evaluations among it."""
    measured = case.measured
    assert measured is not None
    workers = case.values.get("data.num_workers", 0)
    reading = measured.read_seconds / max(1, workers)
    if workers and case.machine.device == "cuda":
        return max(measured.step_seconds, reading) * OVERHEAD
    if workers:
        return max(measured.step_seconds + measured.read_seconds / case.machine.cores, reading)
    return (measured.step_seconds + measured.read_seconds) * OVERHEAD


def steps_per_epoch(case: Case) -> int:
    """Full batches of an epoch."""
    return max(1, case.facts.number // case.values["data.batch_size"])


def num_epochs(case: Case) -> int:
    """Epochs that make the steps."""
    steps = images_seen(case) / case.values["data.batch_size"]
    return max(1, ceil(steps / steps_per_epoch(case)))


def steps(case: Case) -> int:
    """Of the whole training."""
    return case.values["num_epochs"] * steps_per_epoch(case)


def frozen_steps(case: Case) -> int:
    """Steps with fixed prototypes."""
    return min(1250, steps(case) // 20)


def rate(case: Case) -> float:
    """The learning rate, scaled by the root of the batch."""
    base, batch = RATES[case.values["optimizer"]]
    return round(base * (case.values["data.batch_size"] / batch) ** 0.5, 6)


def num_workers(case: Case) -> int:
    """Data processes that keep up with the steps."""
    if case.measured is None or case.machine.cores == 1:
        return 0
    needed = case.measured.read_seconds / case.measured.step_seconds
    if case.machine.device == "cpu":
        return 1 if needed > 0.25 else 0
    return max(1, min(case.machine.cores - 1, ceil(1.5 * needed)))


def epochs_between(case: Case) -> int:
    """Epochs between two measurements."""
    return max(1, case.values["num_epochs"] // EVALUATIONS)


def bad_fraction(case: Case) -> float:
    """Twice the share of unreadable images of the sample, and one in a hundred."""
    found = len(case.facts.unreadable) / case.facts.tried
    return round(min(1.0, 0.01 + 2 * found), 3)


def in_colour(case: Case, value: float) -> float:
    """A strength of what changes colours: none where there are none."""
    return value if case.facts.channels == COLOURS else 0.0


def evaluated_side(case: Case) -> int:
    """Short side that images are brought to before the centre is cut."""
    return round(case.size.crop * look_of(case.size).margin)


RULES = (
    Rule("trunk", lambda c: c.size.trunk, lambda c: c.size.why, HERE),
    Rule("optimizer", "adamw", "many steps at a batch this small; needs no rate by layer", SETS),
    Rule("data", lambda c: "list" if c.facts.is_list else "folder", "what you named", FOUND),
    Rule("data.train.path", lambda c: c.facts.path, "your images", FOUND),
    Rule("data.channels", lambda c: c.facts.channels, lambda c: _channels_in_words(c), FOUND),
    Rule("data.range", lambda c: "auto" if c.facts.stored else None,
         lambda c: f"{' and '.join(c.facts.stored)} values: black and white are measured", FOUND),
    Rule("data.normalize", "auto", "mean and deviation of a sample of them", FOUND),
    Rule("data.max_bad_fraction", bad_fraction,
         lambda c: f"{len(c.facts.unreadable)} of {c.facts.tried} tried are unreadable", FOUND),
    Rule(f"{CROPS}.large.size", lambda c: c.size.crop,
         lambda c: f"pixels; short side of the images: {c.facts.side}", FOUND),
    Rule(f"{CROPS}.large.scale", lambda c: look_of(c.size).large, PART, whose_look),
    Rule(f"{CROPS}.small.size", lambda c: small_crop(c.size), "the small crops cost little", SETS),
    Rule(f"{CROPS}.small.count", lambda c: c.size.small_count, "the same", SETS),
    Rule(f"{CROPS}.small.scale", lambda c: look_of(c.size).small, PART, whose_look),
    Rule(f"{OPS}.jitter.probability", lambda c: look_of(c.size).jitter, TINT, whose_look),
    Rule(f"{OPS}.jitter.brightness", lambda c: look_of(c.size).strength, TINT, whose_look),
    Rule(f"{OPS}.jitter.contrast", lambda c: look_of(c.size).strength, TINT, whose_look),
    Rule(f"{OPS}.jitter.saturation", lambda c: in_colour(c, look_of(c.size).strength),
         TINT, whose_look),
    Rule(f"{OPS}.jitter.hue", lambda c: in_colour(c, look_of(c.size).hue), TINT, whose_look),
    Rule(f"{OPS}.grayscale.probability", lambda c: in_colour(c, look_of(c.size).grayscale),
         TINT, whose_look),
    Rule(f"{OPS}.blur.probability", lambda c: look_of(c.size).blur,
         "small images have no detail to lose", whose_look),
    Rule("data.eval_transform.resize", evaluated_side, "as the crops are", SETTINGS),
    Rule("data.eval_transform.size", lambda c: c.size.crop, "the same", SETTINGS),
    Rule("data.batch_size", batch_size, "many small steps beat few large ones", RESULTS),
    Rule("data.num_workers", num_workers, "so that a step does not wait for images", HERE),
    Rule("num_epochs", num_epochs, lambda c: _length_in_words(c), SETS),
    Rule("loss.queue_length", queue_length, "a small batch has too few images to balance", RESULTS),
    Rule("loss.queue_start_epoch", queue_start, lambda c: _queue_start_in_words(c), SETS),
    Rule("loss.epsilon", lambda c: 0.03 if c.facts.number < SHARP_BELOW else 0.05,
         "sharper codes for few images", RESULTS),
    Rule("heads.prototypes.hidden_dim", 0, "one linear layer: the features have to tell", RESULTS),
    Rule("heads.prototypes.out_dim", lambda c: c.size.out_dim, "as the trunk is wide", RESULTS),
    Rule("heads.prototypes.num_prototypes", num_prototypes,
         "a few times the classes, fewer than samples to balance", RESULTS),
    Rule("loss.freeze_prototypes_epochs", 0, "in steps, see the next", LIGHTLY_TRAIN),
    Rule("loss.freeze_prototypes_steps", frozen_steps,
         "the trunk adapts to random prototypes first", LIGHTLY_TRAIN),
    Rule("optimizer.lr", rate, "by the root of the batch", RESULTS),
    Rule("optimizer.trust_coefficient", lambda c: 0.02 if c.values["optimizer"] == "larc" else None,
         "few steps, so large ones", RESULTS),
    Rule("optimizer.weight_decay", 0.0001, "few steps", RESULTS),
    Rule("schedule.warmup_epochs", lambda c: round(c.values["num_epochs"] / 10, 3),
         "a tenth of the steps", LIGHTLY_TRAIN),
    Rule("hooks.knn.every_epochs", epochs_between, "ten times in all", SETTINGS),
    Rule("hooks.knn.num_labels", lambda c: min(1000, c.facts.number // 2),
         "the other half asks", SETTINGS),
    Rule("hooks.views.every_epochs", epochs_between, "the same", SETTINGS),
    Rule("save.every_epochs", epochs_between, "ten checkpoints in all", SETTINGS),
    Rule("hooks.log.every_steps", lambda c: max(1, min(50, steps(c) // 20)),
         "twenty lines or more", SETTINGS),
    Rule("launch.threads", lambda c: c.measured.threads if c.measured else None,
         "the fastest of those tried", HERE),
    Rule("precision", "auto", "16 bits on a GPU, float32 on a CPU", SETTINGS),
    Rule("seed", 0, "another seed is another draw: compare three", RESULTS),
)  # fmt: skip


def _channels_in_words(case: Case) -> str:
    facts = case.facts
    return "all are grey" if facts.is_grey else "colours" if facts.channels == COLOURS else "bands"


def _length_in_words(case: Case) -> str:
    number, batch = steps(case), case.values["data.batch_size"]
    return f"{number:,} steps of {batch}: {number * batch:,} images seen"


def _queue_start_in_words(case: Case) -> str:
    start = "half way" if case.values["num_epochs"] > 1 else "never in one epoch"
    return f"{start}: a queue that ages fast costs 7 points at first"


class Choice(NamedTuple):
    """A key with its value, why it has it, and who says so."""

    key: str
    value: Any
    why: str
    source: str


def choose(case: Case) -> list[Choice]:
    """What the table comes to; a value that the user gave stays.

    Args:
        case: its ``values`` are those given, and are filled in.
    """
    choices, given = [], dict(case.values)
    for rule in RULES:
        value = rule.value(case) if callable(rule.value) else rule.value
        case.values.setdefault(rule.key, value)  # the rules after it see what the user wants
        if value is not None and not _is_settled(rule.key, given):
            why, source = (one(case) if callable(one) else one for one in rule[2:])
            choices.append(Choice(rule.key, value, why, source))
    return choices + [Choice(k, v, "you asked for it", ASKED) for k, v in given.items()]


def _is_settled(key: str, given: Iterable[str]) -> bool:
    """Whether the user has given a key, one above it or one below it; parts are not above keys."""
    if "." not in key:
        return key in given
    keys = [other for other in given if "." in other]
    return any(f"{k}.".startswith(f"{key}.") or f"{key}.".startswith(f"{k}.") for k in keys)
