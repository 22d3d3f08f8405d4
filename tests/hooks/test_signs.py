"""From figures to a sign, and from a sign and a config to what to try first."""

import copy
import math

import pytest

from ssl_platform.hooks.remedies import REMEDIES, remedy_of
from ssl_platform.hooks.signs import (
    LABEL_SIGNS,
    STEP_SIGNS,
    Figures,
    LabelFigures,
    signs_of,
    signs_of_labels,
)

LN_K = math.log(50)
# of the quick start of SwAV, 15 steps each: after 60, 120 and 500 steps
LEAVING = {
    "loss": 1.008 * LN_K, "uniform_loss": LN_K, "sample_entropy": 0.977, "prototypes": 50,
    "prototypes_used": 25, "images": 480, "spread": 0.351, "dimensions": 6.15, "agreement": 0.287,
    "brightness": 0.6, "colour": 0.05, "light_agreement": 0.55, "rate_rises": 1.0,
}  # fmt: skip
EARLY = LEAVING | {
    "loss": 0.89 * LN_K, "sample_entropy": 0.9, "spread": 0.571, "dimensions": 1.96,
    "agreement": 0.785, "brightness": 0.16,
}  # fmt: skip
LATE = EARLY | {
    "loss": 0.69 * LN_K, "sample_entropy": 0.69, "spread": 0.975, "dimensions": 3.43,
    "agreement": 0.906, "brightness": 0.06, "colour": 0.01, "rate_rises": 0.0,
}  # fmt: skip
STUCK = LEAVING | {
    "loss": LN_K, "sample_entropy": 0.9997, "spread": 0.079, "dimensions": 33.9,
    "agreement": 0.045, "rate_rises": 0.0,
}  # fmt: skip


@pytest.mark.parametrize("figures", [LEAVING, EARLY, LATE, {}, {"loss": 0.1}])
def test_healthy_figures_have_no_sign(figures):
    assert signs_of(Figures(**figures)) == []


@pytest.mark.parametrize(
    ("figures", "signs"),
    [
        (STUCK, ["uniform", "ln K"]),
        (STUCK | {"spread": 0.04}, ["uniform", "point", "ln K"]),
        (STUCK | {"agreement": math.nan}, ["uniform", "ln K"]),  # of one crop an image
        (STUCK | {"loss": math.nan, "uniform_loss": math.nan}, ["uniform"]),  # of another method
        (STUCK | {"loss": 0.9 * LN_K}, []),
        (STUCK | {"agreement": 0.3}, []),  # it is about to leave ln K
        (STUCK | {"rate_rises": 1.0, "sample_entropy": 0.997}, []),  # of random weights
        (STUCK | {"rate_rises": 1.0}, ["uniform"]),
        (LEAVING | {"agreement": 0.1, "rate_rises": 0.0, "loss": 1.1 * LN_K}, ["ln K"]),
        (LEAVING | {"agreement": 0.1, "rate_rises": 1.0, "loss": 1.1 * LN_K}, []),
        (LATE | {"spread": 0.049}, ["point"]),
        (LATE | {"spread": 0.051}, []),
        (LATE | {"dimensions": 1.17}, ["line"]),
        (LATE | {"prototypes_used": 1.0}, ["unused"]),
        (LATE | {"prototypes": 3000, "images": 960, "prototypes_used": 9.0}, ["unused"]),
        (LATE | {"prototypes": 3000, "images": 960, "prototypes_used": 10.0}, []),
        (LATE | {"prototypes": 2, "prototypes_used": 1.9}, []),
        (LATE | {"colour": 0.65}, ["colour"]),
        (LATE | {"colour": 0.65, "agreement": 0.6}, []),  # at first colours are all that is known
        (LATE | {"brightness": 0.36}, []),  # Fashion-MNIST
        (LATE | {"brightness": 0.36, "light_agreement": 0.98}, ["brightness"]),
    ],
)
def test_figures_of_a_collapse_have_its_signs(figures, signs):
    assert [sign.name for sign in signs_of(Figures(**figures))] == signs


def test_each_sign_says_its_figures_in_a_sentence():
    texts = {
        sign.name: sign.text
        for sign in signs_of(
            Figures(
                **STUCK,
            )
        )
    }
    assert "100.0% of ln K in entropy" in texts["uniform"]
    assert "the loss 3.912 stays at ln K = 3.912" in texts["uniform"]
    for figures in (LATE | {"spread": 0.01}, LATE | {"dimensions": 1.0}, LATE | {"colour": 0.5}):
        (sign,) = signs_of(Figures(**figures))
        assert "nan" not in sign.text
        assert "{" not in sign.text


@pytest.mark.parametrize(
    ("figures", "signs"),
    [
        (LabelFigures(empty=0.0, largest_share=0.02), []),  # of the first epoch
        (LabelFigures(empty=0.0, largest_share=0.02, nmi=0.311, nmi_chance=0.284), []),
        (
            LabelFigures(empty=0.0, largest_share=0.02, nmi=0.247, nmi_chance=0.245),
            ["random labels"],
        ),
        (LabelFigures(empty=0.6, largest_share=0.7), ["one cluster", "empty clusters"]),
        (LabelFigures(empty=0.5, largest_share=0.5), []),
    ],
)
def test_labels_of_an_epoch_have_signs_too(figures, signs):
    found = signs_of_labels(figures, max_share=0.5, max_empty=0.5)
    assert [sign.name for sign in found] == signs


# the quick start's, as far as remedies look at it
QUICK = {
    "data": {
        "batch_size": 32,
        "transform": {
            "crops": {
                "large": {"count": 2, "scale": [0.5, 1.0]},
                "small": {"count": 2, "scale": [0.25, 0.6]},
            },
            "ops": {
                "grayscale": {"probability": 0.5},
                "jitter": {"brightness": 0.3, "saturation": 0.0, "hue": 0.0},
            },
        },
    },
    "heads": {"prototypes": {"num_prototypes": [50]}},
    "loss": {
        "name": "SwAVLoss", "head": "prototypes", "epsilon": 0.03, "queue_length": 384,
        "freeze_prototypes_steps": 0, "freeze_prototypes_epochs": 3,
    },
    "optimizer": {"lr": 0.12},
    "schedule": {"warmup_epochs": 0.64},
}  # fmt: skip


def changed(**values: object) -> dict:
    """The quick start's config with other values; two underscores stand for a dot of a key."""
    config: dict = copy.deepcopy(QUICK)
    for key, value in values.items():
        *path, last = key.split("__")
        node = config
        for part in path:
            node = node[part]
        node[last] = value
    return config


SMALL = {"small": {"count": 6, "scale": [0.05, 0.14]}}


@pytest.mark.parametrize(
    ("sign", "config", "typed"),
    [
        ("uniform", {}, "optimizer.lr=0.024"),
        ("uniform", changed(loss__freeze_prototypes_epochs=0), "loss.freeze_prototypes_epochs=1"),
        ("uniform", changed(loss__epsilon=0.05, loss__queue_length=0), "loss.epsilon=0.03"),
        (
            "uniform",
            changed(loss__queue_length=0),  # of 50 prototypes for 32 images
            "heads.prototypes.num_prototypes=[16]",
        ),
        (
            "uniform",
            changed(data__transform__crops=SMALL),
            "data.transform.crops.small.scale=[0.25,0.5]",
        ),
        ("uniform", changed(data__batch_size=4, loss__queue_length=0), "data.batch_size=32"),
        ("point", changed(schedule__warmup_epochs=0), "schedule.warmup_epochs=1"),
        ("point", {}, "optimizer.lr=0.024"),
        ("line", changed(heads__prototypes__num_prototypes=[2]), "num_prototypes=[30]"),
        ("colour", changed(data__transform__ops={}), "grayscale={name: Grayscale, probability: 0"),
        (
            "colour",
            changed(data__transform__ops__grayscale={"probability": 0.0}),
            "data.transform.ops.grayscale.probability=0.5",
        ),
        ("colour", {}, "data.transform.ops.jitter.saturation=0.4 data.transform.ops.jitter.hue"),
        ("brightness", {}, "data.transform.crops.large.scale=[0.14,1.0]"),
        ("brightness", changed(data__transform__ops={}), "jitter={name: ColorJitter"),
        ("random labels", {}, "optimizer.lr=0.024"),
        (
            "empty clusters",
            changed(heads__prototypes__num_prototypes=[100, 100], loss__name="SeLaV2Loss"),
            "heads.prototypes.num_prototypes=[50,50]",
        ),
    ],
)
def test_the_remedy_is_the_first_that_the_config_has_not_taken(sign, config, typed):
    remedy = remedy_of(sign, config or QUICK)
    assert typed in remedy
    assert remedy.count(" or ") == 0  # one, not seven


def test_every_sign_has_a_remedy_also_for_a_config_that_is_not_known():
    assert REMEDIES.keys() == {*STEP_SIGNS, *LABEL_SIGNS}
    for sign in REMEDIES:
        assert len(remedy_of(sign, {})) > 10
