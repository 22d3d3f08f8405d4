"""What a pretraining has come to, in one sentence: a rule over the results of the run."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ssl_platform.evaluation.baselines import RANDOM_INIT, RAW_PIXELS
from ssl_platform.ops.proportions import two_standard_errors

Kind = Literal["learned", "learned little", "collapsed", "no proof"]
TRAINED = "trained"
CLEAR_GAIN = 10.0  # points over both baselines: a sign of collapse is then a remark, no more
HALF = 0.5  # of what the better baseline does not find: crops alone call it learned from there on
BLUNT_ERROR = 5.0  # points; labels that cannot tell smaller gains leave the verdict to the crops

LONGER = "train longer (num_epochs), on more images if you have them"
MORE_LABELS = (
    "use more labelled images as queries (data.val.path, hooks.knn.num_queries=null): four times "
    "as many halve the error"
)
LOOK = "see docs/loss_at_ln_k.md for what to change, the likeliest remedy first"


class Verdict(NamedTuple):
    """Of one run."""

    kind: Kind
    text: str  # why, with the figures, and what to do next


class Compared(NamedTuple):
    """A share of right answers in percent, less that of each baseline, and twice the errors."""

    trained: float
    gains: dict[str, float]  # by baseline
    errors: dict[str, float]

    def is_above(self, name: str) -> bool:
        """Whether the trained features are better, beyond the error."""
        return self.gains[name] > self.errors[name]

    def is_below(self, name: str) -> bool:
        """Whether they are worse, beyond the error."""
        return self.gains[name] < -self.errors[name]

    @property
    def shown(self) -> str:
        """The gains, each with its error."""
        return ", ".join(
            f"{gain:+.1f} ± {self.errors[name]:.1f} {'points ' * (not place)}over {name}"
            for place, (name, gain) in enumerate(self.gains.items())
        )


def judge(results: Mapping[str, Any]) -> Verdict:
    """The verdict on a pretraining.

    Labels count first: a kNN accuracy above those of the untrained trunk and of raw pixels, beyond
    two standard errors, is learning. Where there are none, or too few to tell, crops decide that
    find the other crop of their image. A sign of collapse that holds at the end outweighs
    the crops, and a kNN accuracy that is not clearly above both baselines.

    Args:
        results: ``run.results``, with what the hooks ``knn``, ``views`` and ``health`` have put
            there under ``knn``, ``views`` and ``doctor``.
    """
    signs = results.get("doctor") or []
    labels, crops = _of_labels(results.get("knn")), _of_crops(results.get("views"))
    by_labels = _judged_by_labels(labels, crops, results)
    if by_labels is not None:
        return by_labels
    told = "" if labels is None else f"; {_queries(results['knn'])} cannot tell: {labels.shown}"
    if signs:
        return _collapsed(signs, _found(crops, results) + told)
    if crops is None:
        measured = "neither kNN accuracy nor crops were compared with baselines"
        return Verdict("no proof", f"{measured}{told}; {MORE_LABELS if told else LONGER}")
    return _judged_by_crops(crops, _found(crops, results) + told, MORE_LABELS if told else LONGER)


def _judged_by_labels(
    labels: Compared | None, crops: Compared | None, results: Mapping[str, Any]
) -> Verdict | None:
    """The verdict of the kNN accuracy; None where it does not decide."""
    if labels is None:
        return None
    knn, signs = results["knn"], results.get("doctor") or []
    text = f"kNN {knn.get('judged_by', 'accuracy')} {labels.trained:.1f} %, {labels.shown}, of "
    text += _queries(knn) + _beside(knn)
    random, pixels = labels.is_above(RANDOM_INIT), labels.is_above(RAW_PIXELS)
    if random and pixels and (not signs or min(labels.gains.values()) >= CLEAR_GAIN):
        return Verdict("learned", text + _although(signs))
    is_below = labels.is_below(RANDOM_INIT)
    lost = is_below and (crops is None or crops.is_below(RANDOM_INIT))
    if lost or (signs and not (random and pixels)):
        return _collapsed(signs, text)
    if random:
        why = _although(signs) or "; raw pixels do as well" * (not pixels)
        if labels.gains[RAW_PIXELS] > 0 and not pixels:
            why = f"; the gain over {RAW_PIXELS} may be chance"
        return Verdict("learned little", f"{text}{why}; {LONGER}")
    is_blunt = labels.errors[RANDOM_INIT] > BLUNT_ERROR and labels.gains[RANDOM_INIT] > 0
    if is_blunt and not labels.is_below(RAW_PIXELS):
        return None
    how = "worse" if is_below else "not better"
    return Verdict("no proof", f"{text}: {how} than {RANDOM_INIT}; {LONGER}")


def _judged_by_crops(crops: Compared, text: str, advice: str) -> Verdict:
    if crops.is_above(RANDOM_INIT) and crops.is_above(RAW_PIXELS):
        gain = min(crops.gains.values())
        if gain >= HALF * (100 - crops.trained + gain):
            return Verdict("learned", text)
        return Verdict("learned little", f"{text}; {advice}")
    if crops.is_below(RANDOM_INIT):
        return _collapsed([], text)
    return Verdict("no proof", f"{text}: not better than both; {advice}")


def _collapsed(signs: Sequence[Mapping[str, Any]], figures: str) -> Verdict:
    if not signs:
        return Verdict("collapsed", f"worse than the untrained trunk: {figures}; {LOOK}")
    first = signs[0]
    beside = f"; {figures}" if figures else ""
    return Verdict("collapsed", f"{first['text']}{beside}; {first['remedy']}")


def _although(signs: Sequence[Mapping[str, Any]]) -> str:
    return f", although {signs[0]['text']}" if signs else ""


def _of_labels(knn: Mapping[str, Any] | None) -> Compared | None:
    if knn is None:
        return None
    metric = knn.get("judged_by") or next(iter(knn.get(TRAINED) or {"": 0}))
    return _compared(knn, metric, knn.get("equal_queries", knn["queries"]))


def _of_crops(views: Mapping[str, Any] | None) -> Compared | None:
    return None if views is None else _compared(views, "found", views["images"])


def _compared(rows: Mapping[str, Any], metric: str, num_images: float) -> Compared | None:
    """None where something was not measured."""
    names = (TRAINED, RANDOM_INIT, RAW_PIXELS)
    if not all(metric in (rows.get(name) or {}) for name in names):
        return None
    trained, *others = (rows[name][metric] for name in names)
    baselines = dict(zip(names[1:], others, strict=True))
    return Compared(
        trained,
        {name: trained - value for name, value in baselines.items()},
        {
            name: 100 * two_standard_errors(trained / 100, value / 100, num_images)
            for name, value in baselines.items()
        },
    )


def _beside(knn: Mapping[str, Any]) -> str:
    """The first figure, where the verdict is by another."""
    first, value = next(iter(knn[TRAINED].items()))
    return f" ({first} {value:.1f} %)" if first != knn.get("judged_by", first) else ""


def _queries(knn: Mapping[str, Any]) -> str:
    return f"{knn['queries']} labelled images"


def _found(crops: Compared | None, results: Mapping[str, Any]) -> str:
    if crops is None:
        return ""
    return (
        f"{crops.trained:.1f} % of the crops of {results['views']['images']} images find the other "
        f"crop of their image, {crops.shown}"
    )
