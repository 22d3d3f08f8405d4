"""What some images can teach a network: where to refuse, and what to expect."""

from ssl_platform.errors import ConfigError, counted
from ssl_platform.start.facts import Facts, Machine

LEAST = 32  # different images
FEW = 300
LEAST_MEMORY = 2 * 2**30  # bytes: torch, one data worker and the smallest trunk
BAD_SHARE = 0.5
FLAT_SHARE = 0.9


def refuse(facts: Facts, machine: Machine) -> None:
    """Refuse what nothing can be learned from, or not here.

    Raises:
        ConfigError: one line with the reason, and what would help.
    """
    problem = _problem(facts, machine)
    if problem is not None:
        raise ConfigError([f"{facts.path}: {problem}"])


def _problem(facts: Facts, machine: Machine) -> str | None:
    unreadable = len(facts.unreadable)
    if unreadable > BAD_SHARE * facts.tried:
        return (
            f"{unreadable} of {facts.tried} images tried cannot be read, first "
            f"{facts.unreadable[0]}"
        )
    if facts.flat >= FLAT_SHARE * len(facts.short_sides):
        return (
            f"{facts.flat} of {len(facts.short_sides)} images read are of one colour each: there "
            "is nothing in them to learn from"
        )
    if facts.different < LEAST:
        what = counted(facts.number, "image")
        if facts.copies:
            what += f", {facts.different} without copies (first {' = '.join(facts.first_copy)})"
        return (
            f"{what}: too few to learn from, at least {LEAST}; the features of released weights "
            "need no training: config=analysis/features checkpoint=zoo:swav_800ep"
        )
    if machine.memory < LEAST_MEMORY:
        return (
            f"this machine has {machine.memory / 2**30:.1f} GiB of memory, and a training needs "
            f"{LEAST_MEMORY / 2**30:.0f}"
        )
    return None


def expectations(facts: Facts) -> list[str]:
    """What to expect, a line each."""
    lines = []
    if facts.number < FEW:
        lines.append(
            f"{facts.number} images are few: expect features that know colours, textures and rough "
            "shapes, hardly classes; a figure of so few has an error of several points"
        )
    if facts.num_classes == 1:
        lines.append(
            "one class folder: no accuracy can be measured; the verdict asks instead whether crops "
            "of an image find each other"
        )
    elif not facts.is_labelled:
        lines.append(
            "no classes: the verdict asks whether crops of an image find each other; with a folder "
            "for each class, an accuracy is measured too"
        )
    elif min(facts.class_sizes) * 10 < max(facts.class_sizes):
        lines.append(
            f"classes of {min(facts.class_sizes):,} to {max(facts.class_sizes):,} images: look at "
            "the accuracy of each class too"
        )
    if facts.copies:
        lines.append(
            f"{facts.copies:,} of {facts.compared:,} images are copies of others, byte for byte "
            f"(first {' = '.join(facts.first_copy)}): an accuracy with copies on both sides is too "
            "high"
        )
    if facts.flat:
        lines.append(f"{facts.flat} of {facts.tried} images tried are of one colour")
    if facts.unreadable:
        lines.append(
            f"{len(facts.unreadable)} of {facts.tried} images tried cannot be read and are left "
            f"out, first {facts.unreadable[0]}"
        )
    return lines
