"""The two Gaussian blurs of crops."""

import math

import cv2
import numpy as np
from PIL import Image, ImageFilter

RADIUS = 11  # of the published models' kernel: 23 taps


def gaussian23_kernel(sigma: float) -> np.ndarray:
    """The weights of at most 23 taps; (n,) float32 with odd n."""
    # Weights beyond 4 sigma are below 1/1000 of a grey level; leaving them out is twice as fast.
    radius = min(RADIUS, math.ceil(4 * sigma))
    return cv2.getGaussianKernel(2 * radius + 1, sigma, cv2.CV_32F).ravel()


def blur_pil(crop: np.ndarray, sigma: float) -> np.ndarray:
    """Pillow's GaussianBlur, three box blurs, of (H, W, 3) uint8."""
    return np.asarray(Image.fromarray(crop).filter(ImageFilter.GaussianBlur(sigma)))
