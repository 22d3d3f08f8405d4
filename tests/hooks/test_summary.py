import pytest

from ssl_platform.hooks.summary import _verdict

ADVICE = (
    "look at the loss beside ln K and at the health figures in metrics.jsonl, and see "
    "docs/monitoring.md"
)


def verdict(num_images: int, trained: float, random: float, pixels: float) -> str:
    """Of numbers of images that are classified rightly."""
    shares = {"trained": trained, "random init": random, "raw pixels": pixels}
    rows = {name: {"top1": 100 * right / num_images} for name, right in shares.items()}
    (line,) = _verdict(rows, num_images)
    return line.removeprefix("verdict: ")


@pytest.mark.parametrize(
    ("num_images", "trained", "random", "pixels", "expected"),
    [
        (
            1000, 869, 244, 499,
            "the training taught the trunk something (+62.5 points over random init, +37.0 over "
            "raw pixels)",
        ),
        (
            45, 7, 6, 1,  # the difference of one image
            "no proof: +2.2 points over random init is within the error of 45 images (2 standard "
            "errors are 14.8); see docs/monitoring.md",
        ),
        (
            45, 45, 44, 45,
            "no proof: +2.2 points over random init, +0.0 over raw pixels are within the error of "
            "45 images (2 standard errors are 6.2 and 6.1); see docs/monitoring.md",
        ),
        (
            45, 45, 45, 0,
            "no proof: +0.0 points over random init is within the error of 45 images (2 standard "
            "errors are 6.1); see docs/monitoring.md",
        ),
        (
            100, 60, 30, 50,  # beyond the one, not the other: 2 errors of 60 and 50 are 13.9
            "no proof: +10.0 points over raw pixels is within the error of 100 images (2 standard "
            "errors are 14.0); see docs/monitoring.md",
        ),
        (
            100, 65, 30, 50,
            "the training taught the trunk something (+35.0 points over random init, +15.0 over "
            "raw pixels)",
        ),
        (
            1000, 100, 300, 90,
            "the features are worse than random init (-20.0 points over random init, +1.0 over "
            f"raw pixels); {ADVICE}",
        ),
        (
            50, 0, 20, 20,
            "the features are worse than random init and raw pixels (-40.0 points over random "
            f"init, -40.0 over raw pixels); {ADVICE}",
        ),
        (
            1, 1, 0, 0,
            "no proof: +100.0 points over random init, +100.0 over raw pixels are within the error "
            "of 1 images (2 standard errors are 133.3 and 133.3); see docs/monitoring.md",
        ),
    ],
)  # fmt: skip
def test_a_verdict_needs_a_difference_beyond_two_standard_errors(
    num_images, trained, random, pixels, expected
):
    assert verdict(num_images, trained, random, pixels) == expected


def test_without_baselines_there_is_no_verdict():
    assert _verdict({"trained": {"top1": 100.0}}, 45) == []
