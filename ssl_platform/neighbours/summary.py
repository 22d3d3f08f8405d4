"""The findings in figures, for ``summary.json`` and the command line."""

from typing import Any

from ssl_platform.neighbours.findings import OUTLIER_DEVIATIONS, Findings

MEASURE = (
    "A vote of the nearest neighbours, of which copies are left out, gives the probabilities of "
    "the classes; an image counts where the confident joint of Northcutt et al. "
    "(arXiv:1911.00068) has it in another class than its label, and the order is by their "
    "normalised margin."
)
MANY_DUPLICATES = 0.5  # of the images; then the features hardly tell images apart
FEW = 50  # images, whose median deviation from the median says little


def summarize(findings: Findings, num_images: int) -> dict[str, Any]:
    """Numbers of what was found.

    Args:
        num_images: of the data set, also those that cannot be read.

    Returns:
        ``images``, ``unreadable``, ``k``; ``duplicates`` with ``pairs``, ``same_pixels``,
        ``groups``, ``images``, ``least_cosine`` and ``least_pixel_cosine``; ``outliers`` with
        ``unusual``, the images beyond ``deviations``; with labels ``label_errors`` with ``images``
        and the ``measure``; and ``signs``, sentences that say when not to trust all this.
    """
    pairs, _, _, groups = findings.duplicates
    in_groups = int((groups >= 0).sum())
    summary: dict[str, Any] = {
        "images": len(findings.images),
        "unreadable": num_images - len(findings.images),
        "k": findings.neighbours.rows.shape[1],
        "duplicates": {
            "pairs": len(pairs),
            "same_pixels": int(findings.same_pixels.sum()),
            "groups": int(groups.max()) + 1,
            "images": in_groups,
            "least_cosine": findings.least_cosine,
            "least_pixel_cosine": findings.least_pixel_cosine,
        },
        "outliers": {
            "unusual": int((findings.deviations > OUTLIER_DEVIATIONS).sum()),
            "deviations": OUTLIER_DEVIATIONS,
        },
        "signs": [],
    }
    if findings.votes is not None:
        errors = int(findings.votes.is_error.sum())
        summary["label_errors"] = {"images": errors, "measure": MEASURE}
    if in_groups > MANY_DUPLICATES * len(findings.images):
        summary["signs"].append(
            f"{in_groups / len(findings.images):.0%} of the images are near duplicates by these "
            "features: either they are, or the model hardly tells images apart. Look at the "
            "verdict on its training."
        )
    if len(findings.images) < FEW:
        summary["signs"].append(
            f"{len(findings.images)} images are few: what is usual among them is hard to tell, and "
            "so is which of them are unusually near or far."
        )
    return summary


def summary_lines(summary: dict[str, Any]) -> list[str]:
    """The main figures, a line for each kind of finding."""
    duplicates, outliers = summary["duplicates"], summary["outliers"]
    lines = [
        f"{summary['images']} images, {summary['unreadable']} unreadable",
        f"  near duplicates: {duplicates['pairs']} pairs ({duplicates['same_pixels']} equal in "
        f"every pixel), {duplicates['groups']} groups of {duplicates['images']} images; cosine "
        f"from {duplicates['least_cosine']:.4f} on, of thumbnails from "
        f"{duplicates['least_pixel_cosine']:.4f} on",
        f"  outliers: {outliers['unusual']} images beyond {outliers['deviations']:g} deviations",
    ]
    if "label_errors" in summary:
        lines.append(f"  probable label errors: {summary['label_errors']['images']} images")
    return [*lines, *(f"  {sign}" for sign in summary["signs"])]
