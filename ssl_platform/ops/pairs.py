"""Two crops of each image, from sums over many images: how alike their embeddings are, and how much
of what they share is the brightness or the colour of the crops.

The sums of several batches, or of several ranks, are added up; a figure is made of the totals.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

RIDGE = 1e-4  # part of a variance: the channels of grey images are equal
ROUNDING = 1e-6  # of a variance, from sums in float32
LEAST_TINT = 0.02  # of normalised pixels: below it a tint is noise
MOST_CHANNELS = 4  # that are looked at: the products grow with their square
FINE = 32  # pixels of a side that are looked at, of larger crops every second, third, ... one
NUM_GREY = 5  # columns of `crop_colours` that know no colour
ROWS_PER_COLOUR = 10  # crops that a regression needs for each of its variables


def crop_colours(crop: Tensor) -> Tensor:
    """What tells (N, C, H, W) images apart without their content: (N, P) float32.

    First `NUM_GREY` columns of the grey image: its mean and standard deviation, and their products.
    Then the same of each channel; how far the mean is from grey; the direction from grey and the
    products of its entries, so that a regression knows the first two harmonics of the hue. Of the
    first four channels, if there are more.
    """
    every = max(1, min(crop.shape[2:]) // FINE)
    pixels = crop[:, :MOST_CHANNELS, ::every, ::every].flatten(2).float()
    levels = _levels(pixels)
    means = levels[:, : pixels.shape[1]]
    chroma = means - means.mean(dim=1, keepdim=True)
    saturation = chroma.norm(dim=1, keepdim=True)
    tint = chroma / (saturation + LEAST_TINT)
    grey = _levels(pixels.mean(dim=1, keepdim=True))
    parts = [grey, _products(grey), levels, _products(levels), tint, _products(tint), saturation]
    return torch.cat(parts, dim=1)


def _levels(pixels: Tensor) -> Tensor:
    """(N, 2 C) mean and standard deviation of each channel of (N, C, pixels)."""
    means = pixels.mean(dim=2)
    variances = pixels.square().mean(dim=2) - means.square()  # torch's own is 25 times slower
    return torch.cat([means, variances.clamp_min(0).sqrt()], dim=1)


def _products(rows: Tensor) -> Tensor:
    """(N, P (P + 1) / 2) products of two entries of each (N, P) row."""
    first, second = torch.triu_indices(rows.shape[1], rows.shape[1], device=rows.device)
    return rows[:, first] * rows[:, second]


def sums_of_pairs(
    embeddings: tuple[Tensor, Tensor], colours: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """What `figures_of_pairs` is made of; every value is a sum over the images.

    Args:
        embeddings: (N, D) of the first crop and of the second one of the same images.
        colours: (N, P) of the same crops.
    """
    (first, second), (colour, other) = embeddings, colours
    return {
        "embeddings": first.sum(dim=0) + second.sum(dim=0),
        "squares": first.square().sum() + second.square().sum(),
        "products": (first * second).sum(),
        "colours": colour.sum(dim=0) + other.sum(dim=0),
        "colour_squares": colour.T @ colour + other.T @ other,
        "colour_products": colour.T @ other,
        "colour_embeddings": colour.T @ first + other.T @ second,
    }


def figures_of_pairs(sums: Mapping[str, Tensor], count: Tensor) -> dict[str, Tensor]:
    """How alike two crops are, as scalars of float64.

    - ``agreement``: covariance of the embeddings of an image's two crops, over their variance: 0
      when they are as alike as crops of two images, 1 when they are equal.
    - ``brightness``: part of that covariance which a linear regression of the embeddings on the
      brightness and contrast of the crops explains.
    - ``colour``: part of the rest which their colours explain; near 1 when crops are matched by a
      colour cast.
    - ``light_agreement``: correlation of the brightness and of the contrast of two crops, mean.

    A figure is NaN where it is 0 / 0; ``colour`` and ``brightness`` also for too few images.

    Args:
        sums: of `sums_of_pairs`, over all images.
        count: their number.
    """
    totals = {name: total.double() for name, total in sums.items()}
    rows = 2 * count.double()
    mean, colour = totals["embeddings"] / rows, totals["colours"] / rows
    variance = totals["squares"] / rows - mean.square().sum()
    shared = totals["products"] / rows * 2 - mean.square().sum()
    within = totals["colour_squares"] / rows - colour.outer(colour)
    between = totals["colour_products"] * 2 / rows - colour.outer(colour)
    with_embeddings = totals["colour_embeddings"] / rows - colour.outer(mean)

    def share(columns: int) -> Tensor:
        """Explained by the first columns of the colours."""
        chosen = within[:columns, :columns]
        ridge = RIDGE * chosen.diagonal() + ROUNDING
        weights = torch.linalg.solve(chosen + ridge.diag(), with_embeddings[:columns])
        part = (weights * (between[:columns, :columns] @ weights)).sum() / shared
        return torch.where(rows < ROWS_PER_COLOUR * len(colour), torch.nan, part)

    brightness = share(NUM_GREY)
    return {
        "agreement": shared / variance,
        "brightness": brightness,
        "colour": (share(len(colour)) - brightness) / (1 - brightness),
        "light_agreement": (between.diagonal() / within.diagonal())[:2].mean(),
    }
