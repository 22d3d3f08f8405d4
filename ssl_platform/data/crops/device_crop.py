"""Colours and blur of many crops at once, on the device: the last part of what ``native_crop`` and
``opencv_crop`` do one crop after another in data workers. It sees the same draws.

What is to be done to which crop is known to the host, so it never waits for the device.
"""

import numpy as np
import torch
from torch import Tensor

from ssl_platform.data.crops.augment import CropDraw
from ssl_platform.data.crops.blur import RADIUS, gaussian23_kernel
from ssl_platform.data.crops.native_crop import OPERATIONS, as_pillow

# Where the numbers of a crop lie: its operations in their order (-1: none), their factors, whether
# it becomes grey, and the sigma of its blur (0: none).
_ORDER, _FACTORS, _GRAYSCALE, _SIGMA = slice(0, 4), slice(4, 8), 8, 9
NUM_PARAMETERS = 10


def pack(draw: CropDraw) -> list[float]:
    """What ``finish`` has to know of a crop: ``NUM_PARAMETERS`` numbers."""
    absent = len(OPERATIONS) - len(draw.jitter)
    return [
        *[OPERATIONS[name] for name, _ in draw.jitter],
        *[-1.0] * absent,
        *[as_pillow(name, factor) for name, factor in draw.jitter],
        *[0.0] * absent,
        draw.grayscale,
        draw.sigma or 0.0,
    ]


def finish(crops: Tensor, parameters: np.ndarray) -> Tensor:
    """Jitter the colours of crops, make some grey, and blur.

    Pillow's arithmetic as in the compiled kernel, whose result this is up to the rounding of hue
    and blur.

    Args:
        crops: (N, H, W, 3) uint8 RGB.
        parameters: (N, NUM_PARAMETERS), a row of ``pack`` for each crop.

    Returns:
        (N, H, W, 3) float32, whole numbers from 0 to 255.
    """
    planes = crops.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
    for order, factors in zip(parameters[:, _ORDER].T, parameters[:, _FACTORS].T, strict=True):
        for operation, number in OPERATIONS.items():
            rows = np.flatnonzero(order == number)
            if len(rows):
                at = _sent(rows, planes)
                factor = _sent(factors[rows], planes)[:, None, None, None]
                planes[at] = _APPLY[operation](planes[at], factor)
    rows = np.flatnonzero(parameters[:, _GRAYSCALE])
    if len(rows):
        at = _sent(rows, planes)
        planes[at] = _luma(planes[at]).expand(-1, 3, -1, -1)
    rows = np.flatnonzero(parameters[:, _SIGMA])
    if len(rows):
        at = _sent(rows, planes)
        planes[at] = _blur(planes[at], parameters[rows, _SIGMA])
    return planes.permute(0, 2, 3, 1)


def _sent(array: np.ndarray, to: Tensor) -> Tensor:
    return torch.from_numpy(array).to(to.device, non_blocking=True)


def _blend(start: Tensor | float, pixels: Tensor, factor: Tensor) -> Tensor:
    """Pillow's blend, for all three enhancements of ImageEnhance."""
    return (start + factor * (pixels - start)).clamp_(0, 255).trunc_()


def _rounded(values: Tensor) -> Tensor:
    return (values + 0.5).floor_()


def _luma(pixels: Tensor) -> Tensor:
    """(N, 1, H, W): ITU-R BT.601 in Pillow's fixed point, which float32 holds exactly."""
    red, green, blue = pixels.split(1, dim=1)
    return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) / 2**16).floor_()


def _brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(0.0, pixels, factor)


def _contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    mean = _luma(pixels).mean(dim=(2, 3), keepdim=True, dtype=torch.float64)
    return _blend(_rounded(mean).float(), pixels, factor)


def _saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    return _blend(_luma(pixels), pixels, factor)


def _hue(pixels: Tensor, shift: Tensor) -> Tensor:
    """Through HSV and back. Hue counts from 0 to 6, each sixth from one corner of the colour
    hexagon to the next."""
    red, green, blue = pixels.split(1, dim=1)
    low, high = pixels.amin(dim=1, keepdim=True), pixels.amax(dim=1, keepdim=True)
    chroma = high - low
    scale = chroma.clamp(min=1)  # grey has no hue and stays what it is
    hue = torch.where(
        high == red,
        (green - blue) / scale,
        torch.where(high == green, 2 + (blue - red) / scale, 4 + (red - green) / scale),
    )
    hue = (hue + 6 * shift) % 6
    strength = torch.cat([(hue - 3).abs() - 1, 2 - (hue - 2).abs(), 2 - (hue - 4).abs()], dim=1)
    return _rounded(low + chroma * strength.clamp_(0, 1))


_APPLY = {
    "brightness": _brightness,
    "contrast": _contrast,
    "saturation": _saturation,
    "hue": _hue,
}


def _blur(pixels: Tensor, sigmas: np.ndarray) -> Tensor:
    """The 23 taps of the published models, each crop with its own sigma.

    Sums of shifted images, as a convolution would be computed with TF32 on many GPUs.
    """
    taps = np.zeros((len(sigmas), RADIUS + 1), np.float32)  # the middle one and those on one side
    for row, sigma in zip(taps, sigmas, strict=True):
        kernel = gaussian23_kernel(sigma)
        radius = len(kernel) // 2
        row[: radius + 1] = kernel[radius:]
    weights = _sent(taps, pixels).T[:, :, None, None, None]
    for axis in (2, 3):
        size = pixels.shape[axis]
        padded = pixels.index_select(axis, _sent(_mirrored(size), pixels))
        blurred = weights[0] * pixels
        for k in range(1, RADIUS + 1):
            before = padded.narrow(axis, RADIUS - k, size)
            after = padded.narrow(axis, RADIUS + k, size)
            blurred += weights[k] * (before + after)
        pixels = blurred
    return _rounded(pixels)


def _mirrored(size: int) -> np.ndarray:
    """Positions from -RADIUS on; the edge's pixel is the mirror: -1 is 1."""
    positions = np.arange(-RADIUS, size + RADIUS)
    period = max(1, 2 * (size - 1))
    positions %= period
    return np.minimum(positions, period - positions) if size > 1 else np.zeros_like(positions)
