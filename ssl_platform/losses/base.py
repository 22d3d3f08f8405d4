"""What losses have in common."""

from typing import Final

from ssl_platform.data.batch import DataInfo
from ssl_platform.engine.run import Loss
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.teacher import NO_OUTPUTS, Teacher

__all__ = ["UNASSIGNED", "Loss", "partial_batches", "teacher_of", "unusable_crops"]

UNASSIGNED: Final = -100  # label of a sample that has none; cross entropy leaves it out


def teacher_of(model: SSLModel) -> Teacher:
    """The teacher of a model, for a loss that reads its outputs.

    Raises:
        ValueError: there is none, or it sees no crops.
    """
    if model.teacher is None or not model.teacher.crops:
        raise ValueError(NO_OUTPUTS)
    return model.teacher


def partial_batches(data: DataInfo) -> list[str]:
    """What is wrong for a method that keeps the embeddings of whole batches."""
    if data.drop_last:
        return []
    return ["drop_last=false: the method needs full batches; set drop_last=true"]


def unusable_crops(assign_crops: list[int], num_crops: int) -> list[str]:
    """What is wrong with the positions of the crops that images are assigned by."""
    if num_crops < 2:
        return [
            f"assign_crops={assign_crops}: the method compares at least 2 crops, there is "
            f"{num_crops}"
        ]
    chosen = set(assign_crops)
    if chosen and chosen <= set(range(num_crops)) and len(chosen) == len(assign_crops):
        return []
    return [
        f"assign_crops={assign_crops}: different positions of crops, from 0 to {num_crops - 1} "
        f"(the data has {num_crops} crops)"
    ]
