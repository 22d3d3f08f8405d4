"""The verdict on a pretraining, over made-up results."""

from typing import Any

import pytest

from ssl_platform.evaluation.verdict import judge

SIGN = {"sign": "uniform", "text": "the loss is ln K", "remedy": "try first loss.epsilon=0.03"}
NAMES = ("trained", "random init", "raw pixels")


def knn(num: int, *right: float, **more: Any) -> dict[str, Any]:
    """Of numbers of queries that are classified rightly: trained, random init, raw pixels."""
    rows = {n: {"top1": 100 * r / num} for n, r in zip(NAMES, right, strict=True)}
    return {"knn": {"labels": 1000, "queries": num, **rows, **more}}


def views(trained: float, random: float, pixels: float, num: int = 1000) -> dict[str, Any]:
    shares = zip(NAMES, (trained, random, pixels), strict=True)
    return {"views": {"images": num, **{name: {"found": share} for name, share in shares}}}


FOUND, NOT_FOUND, WORSE = views(90, 40, 50), views(41, 40, 50), views(20, 40, 50)
COLLAPSED = {"doctor": [SIGN]}


@pytest.mark.parametrize(
    ("results", "kind", "figure"),
    [
        # labels that tell
        (knn(1000, 869, 244, 499), "learned", "+62.5 ± 3.5 points over random init, +37.0 ± 3.8"),
        (knn(1000, 869, 244, 499) | WORSE, "learned", "+62.5"),
        (knn(1000, 450, 244, 499), "learned little", "+20.6"),
        (
            knn(100, 60, 30, 50),
            "learned little",
            "+10.0 ± 14.0 over raw pixels, of 100 labelled images; the gain over",
        ),
        (knn(1000, 250, 244, 499), "no proof", "+0.6"),
        (knn(1000, 250, 244, 499) | FOUND, "no proof", "+0.6"),  # crops matched by a colour cast
        (knn(1000, 100, 300, 90), "collapsed", "-20.0"),
        (knn(1000, 100, 300, 90) | WORSE, "collapsed", "-20.0"),
        (knn(1000, 100, 300, 90) | NOT_FOUND, "no proof", "worse than random init"),
        (knn(1000, 100, 300, 90) | FOUND, "no proof", "-20.0"),  # it has learned something else
        (knn(50, 0, 20, 20), "collapsed", "-40.0"),
        # labels that tell, and a sign of collapse
        (knn(1000, 869, 244, 499) | COLLAPSED, "learned", "although the loss is ln K"),
        (knn(1000, 340, 244, 290) | COLLAPSED, "learned little", "although the loss is ln K"),
        (knn(1000, 450, 244, 499) | COLLAPSED | FOUND, "collapsed", "try first loss.epsilon=0.03"),
        (knn(1000, 250, 244, 499) | COLLAPSED | FOUND, "collapsed", "the loss is ln K"),
        # labels that cannot tell: crops do
        (knn(45, 7, 6, 1), "no proof", "+2.2 ± 14.8"),
        (knn(45, 7, 6, 1) | FOUND, "learned", "90.0 % of the crops"),
        (knn(45, 5, 6, 1) | FOUND, "no proof", "-2.2"),
        (knn(45, 7, 6, 20) | FOUND, "no proof", "-28.9"),  # raw pixels are clearly better
        (knn(45, 7, 6, 1) | FOUND | COLLAPSED, "collapsed", "the loss is ln K"),
        (knn(1, 1, 0, 0), "no proof", "+100.0 ± 133.3"),
        # no labels
        (FOUND, "learned", "+50.0 ± 3.6 points over random init, +40.0"),
        (views(60, 30, 50), "learned little", "+10.0"),
        (views(74, 30, 50), "learned little", "+24.0"),
        (views(75, 30, 50), "learned", "+25.0"),  # half of what pixels do not find
        (views(45, 30, 50), "no proof", "+15.0"),  # pixels do better
        (views(50, 30, 50), "no proof", "+0.0"),
        (NOT_FOUND, "no proof", "+1.0"),
        (WORSE, "collapsed", "-20.0"),
        (FOUND | COLLAPSED, "collapsed", "the loss is ln K"),
        (views(90, 40, 50, num=5), "no proof", "+50.0"),
        # nothing that could be compared
        ({}, "no proof", "neither"),
        (COLLAPSED, "collapsed", "try first loss.epsilon=0.03"),
        ({"doctor": [], "knn": {"queries": 9, "k": 1, "trained": {"top1": 99.0}}}, "no proof", ""),
        ({"views": {"images": 9, "trained": {"found": 99.0}}}, "no proof", "neither"),
    ],
)
def test_a_verdict_and_its_figure(results, kind, figure):
    verdict = judge(results)
    assert verdict.kind == kind, verdict.text
    assert figure in verdict.text
    assert "\n" not in verdict.text


def test_where_classes_are_uneven_their_mean_accuracy_counts():
    rows = {
        "trained": {"top1": 95.0, "mean_class": 50.0},
        "random init": {"top1": 80.0, "mean_class": 50.0},
        "raw pixels": {"top1": 80.0, "mean_class": 50.0},
    }
    uneven = {"queries": 2000, "judged_by": "mean_class", "equal_queries": 1200.0, **rows}
    assert judge({"knn": {"queries": 2000, **rows}}).kind == "learned"
    verdict = judge({"knn": uneven})
    assert verdict.kind == "no proof"
    assert "mean_class 50.0 %, +0.0 ± 4.1" in verdict.text and "top1 95.0 %" in verdict.text
