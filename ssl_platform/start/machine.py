"""The machine that a run would use."""

import os

import torch

from ssl_platform.engine.build import resolve_device
from ssl_platform.launch import limits
from ssl_platform.start.facts import Machine


def this_machine(device: str) -> Machine:
    """What this process may use of the machine that it runs on.

    Args:
        device: auto, cpu or cuda.
    """
    memory, _ = limits.memory()
    cores = len(os.sched_getaffinity(0))
    if resolve_device(device).type == "cuda":
        properties = torch.cuda.get_device_properties(0)
        return Machine("cuda", properties.name, cores, memory, properties.total_memory)
    return Machine("cpu", "CPU", cores, memory, memory)
