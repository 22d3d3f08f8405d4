"""What the figures of clusters say against them, in sentences."""

from typing import Any

LARGEST_PART = 0.5  # of the images in one cluster, where there are more than FEW_CLUSTERS
FEW_CLUSTERS = 4
SMALLEST_USE = 0.1  # of the clusters, or of the images where they are fewer
SMALLEST_MARGIN = 1e-3  # of cosines; a median below it means prototypes that are hardly apart
ABOVE_CHANCE = {"nmi": 0.02, "ari": 0.01}


def signs_of(figures: dict[str, Any]) -> list[str]:
    """Sentences about one set of clusters, none where nothing is wrong.

    A collapsed model still puts each image into a cluster, and the sheets of such clusters look
    like any others.

    Args:
        figures: of one set, as `summarize` makes them.
    """
    images, clusters, used = (figures[key] for key in ("images", "clusters", "used"))
    largest, signs = figures["size_max"] / images, []
    if largest > LARGEST_PART and clusters > FEW_CLUSTERS:
        signs.append(f"One cluster holds {largest:.0%} of the images.")
    if used < SMALLEST_USE * min(clusters, images):
        signs.append(f"Only {used:,} of {clusters:,} clusters are in use.")
    if figures["median_margin"] < SMALLEST_MARGIN:
        signs.append(
            "Most images are about as near to a second cluster as to their own (median margin "
            f"{figures['median_margin']:.1g}): rounding decides which one they are in."
        )
    if "chance" in figures and all(
        figures[name] - figures["chance"][name] < more for name, more in ABOVE_CHANCE.items()
    ):
        signs.append("The clusters agree with the classes no better than permuted labels do.")
    return signs
