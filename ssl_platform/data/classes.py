"""Whether two sets of images are of the same classes."""

from ssl_platform.data.dataset import ImageDataset

NUM_NAMED = 3  # classes in an error message


def check_same_classes(train: ImageDataset, val: ImageDataset) -> None:
    """Compare names, where both sets have them, else numbers.

    Args:
        train, val: labelled images, called ``data.train`` and ``data.val`` in messages.

    Raises:
        ValueError: a class of one is not in the other; validation images may lack the last ones
            where there are no names.
    """
    if train.classes is not None and val.classes is not None:
        names, others = list(train.classes), list(val.classes)
        if names != others:
            raise ValueError(
                f"data.val: its {len(others)} classes are not the {len(names)} of data.train: "
                f"only in data.train {_only_in(names, others)}, "
                f"only in data.val {_only_in(others, names)}"
            )
    elif (val.num_classes or 0) > (train.num_classes or 0):
        raise ValueError(
            f"data.val: has {val.num_classes} classes, data.train has {train.num_classes}"
        )


def _only_in(names: list[str], others: list[str]) -> str:
    only = sorted(set(names) - set(others))
    rest = len(only) - NUM_NAMED
    return ", ".join(only[:NUM_NAMED]) + (f" and {rest} more" if rest > 0 else "") or "none"
