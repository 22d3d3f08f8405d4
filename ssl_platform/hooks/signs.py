"""The signs of a collapse: a table of rules, from figures of some steps to what is wrong.

What a figure is in healthy runs and in collapses was measured, see docs/monitoring.md.
"""

from collections.abc import Callable
from typing import NamedTuple

NAN = float("nan")


class Sign(NamedTuple):
    """A sign that was found: its short name, and a sentence with its figures."""

    name: str
    text: str


class Figures(NamedTuple):
    """What some steps were like; NaN where a method has no such figure."""

    loss: float = NAN
    uniform_loss: float = NAN  #: ln K
    sample_entropy: float = NAN  #: of the prediction for one image, over ln K
    prototypes: float = NAN  #: K
    prototypes_used: float = NAN  #: exp of the entropy of how often each is the nearest one
    images: float = NAN  #: whose nearest prototypes these are
    spread: float = NAN  #: root mean square distance of embeddings from their mean, 0 to 1
    dimensions: float = NAN  #: participation ratio of the embeddings' covariance, from 1 on
    agreement: float = NAN  #: of the embeddings of two crops, see `ssl_platform.ops.pairs`
    brightness: float = NAN  #: part of it that the brightness and contrast of the crops explain
    colour: float = NAN  #: part of the rest that their colours explain
    light_agreement: float = NAN  #: of the brightness and contrast of two crops
    rate_rises: float = 0.0  #: 1 during a warm-up of the learning rate


class LabelFigures(NamedTuple):
    """What the labels of an epoch are like."""

    empty: float  #: part of the clusters
    largest_share: float  #: part of the images in the largest cluster
    nmi: float = NAN  #: with the labels before
    nmi_chance: float = NAN  #: with those in a random order


class Rule(NamedTuple):
    """A sign: it holds where a comparison with NaN is false as well as where the figures say so."""

    name: str
    holds: Callable[[Figures], bool]
    text: str  # filled in from the figures


UNRELATED = 0.2  # agreement of two crops; a run that leaves ln K passes it before it does
POINT = 0.05  # spread; healthy runs have 0.27 and more
LINE = 1.25  # dimensions; healthy runs have 1.8 and more
ALIKE = 0.8  # agreement of two crops that are matched; before, brightness is all that is known
COLOUR = 0.25  # of what matched crops share; healthy runs have 0.05
BRIGHTNESS = 0.3  # with colour; Fashion-MNIST has 0.4, but its crops' brightness is changed
SAME_LIGHT = 0.9  # agreement of brightness; 0.5 to 0.7 with a jitter


def _is_uniform(f: Figures) -> bool:
    """Also a healthy run is so for some steps, but then two crops of an image agree already."""
    is_flat = f.sample_entropy > 0.99 and not f.agreement > UNRELATED
    is_start = f.rate_rises > 0 and not f.sample_entropy > 0.998  # random embeddings, wide ones
    return is_flat and not f.loss < 0.98 * f.uniform_loss and not is_start


def _is_at_ln_k(f: Figures) -> bool:
    is_at_it = f.loss > 0.99 * f.uniform_loss and not f.agreement > UNRELATED
    return is_at_it and not f.rate_rises > 0


def _by_brightness(f: Figures) -> bool:
    share = 1 - (1 - f.brightness) * (1 - f.colour)
    return share > BRIGHTNESS and f.light_agreement > SAME_LIGHT and f.agreement > ALIKE


# the first that holds is told: it explains those after it
RULES = (
    Rule(
        "uniform",
        _is_uniform,
        "every image gets the same prediction, {sample_entropy:.1%} of ln K in entropy, and the "
        "loss {loss:.3f} stays at ln K = {uniform_loss:.3f}: nothing is learned",
    ),
    Rule(
        "point",
        lambda f: f.spread < POINT,
        "the embeddings of all images are nearly one point (their spread is {spread:.3f}, 1 would "
        "fill the sphere)",
    ),
    Rule(
        "line",
        lambda f: f.dimensions < LINE,
        "the embeddings of all images lie on one line ({dimensions:.2f} dimensions)",
    ),
    Rule(
        "unused",
        lambda f: f.prototypes_used < max(1.5, 0.01 * min(f.prototypes, f.images)),
        "nearly all images go to {prototypes_used:.0f} of {prototypes:.0f} prototypes",
    ),
    Rule(
        "ln K",
        _is_at_ln_k,
        "the loss {loss:.3f} stays at ln K = {uniform_loss:.3f} or above it, and two crops of an "
        "image are hardly more alike than crops of two images ({agreement:.2f} of 1)",
    ),
    Rule(
        "colour",
        lambda f: f.colour > COLOUR and f.agreement > ALIKE,
        "crops are matched by their colour cast: it explains {colour:.0%} of what the embeddings "
        "of two crops of an image have in common",
    ),
    Rule(
        "brightness",
        _by_brightness,
        "crops are matched by their brightness and contrast, which two crops of an image share "
        "({light_agreement:.2f} of 1): they explain {brightness:.0%} of what their embeddings have "
        "in common",
    ),
)
STEP_SIGNS = tuple(rule.name for rule in RULES)
LABEL_SIGNS = ("random labels", "one cluster", "empty clusters")


def signs_of(figures: Figures) -> list[Sign]:
    """All signs that hold, that first which explains the others."""
    values = figures._asdict()
    return [Sign(r.name, r.text.format(**values)) for r in RULES if r.holds(figures)]


def signs_of_labels(figures: LabelFigures, *, max_share: float, max_empty: float) -> list[Sign]:
    """The signs of an epoch's labels.

    Args:
        max_share: of the images, in one cluster.
        max_empty: part of the clusters that may be empty.
    """
    signs = []
    above_chance = (figures.nmi - figures.nmi_chance) / (1 - figures.nmi_chance)
    if above_chance < 0.01:
        signs.append(
            Sign(
                "random labels",
                f"the labels of this epoch have no more in common with those before than by chance "
                f"(NMI {figures.nmi:.3f}, by chance {figures.nmi_chance:.3f})",
            )
        )
    if figures.largest_share > max_share:
        text = f"one cluster holds {figures.largest_share:.0%} of the images"
        signs.append(Sign("one cluster", text))
    if figures.empty > max_empty:
        signs.append(Sign("empty clusters", f"{figures.empty:.0%} of the clusters are empty"))
    return signs
