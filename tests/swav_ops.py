"""The augmentation of the published models, and crops that are drawn by it."""

import numpy as np

from ssl_platform.data.crops.draw import NUM_BOX_UNIFORMS, CropDraw, CropRule
from ssl_platform.data.crops.ops import ColorJitter, GaussianBlur, Grayscale, HorizontalFlip

JITTER = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}


def swav_ops(**probabilities: float) -> dict[str, object]:
    """The augmentation of the published models, but for some probabilities."""
    p = {"flip": 0.5, "jitter": 0.8, "grayscale": 0.2, "blur": 0.5} | probabilities
    return {
        "flip": HorizontalFlip(probability=p["flip"]),
        "jitter": ColorJitter(probability=p["jitter"], **JITTER),
        "grayscale": Grayscale(probability=p["grayscale"]),
        "blur": GaussianBlur(probability=p["blur"], sigma=(0.1, 2.0), kind="gaussian23"),
    }


def drawn(height: int, width: int, rule: CropRule, rng: np.random.Generator) -> CropDraw:
    lengths = [NUM_BOX_UNIFORMS, *(op.num_uniforms for op in rule.ops)]
    return rule.draw(height, width, (rng.random(length).tolist() for length in lengths))
