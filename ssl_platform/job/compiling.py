"""What has to be there for ``compile=true``."""

import os
import shutil
import subprocess

from ssl_platform.config.options import TrainOptions
from ssl_platform.engine.build import head_layers, resolve_device
from ssl_platform.models.layers import POOLED


def problems_of_compiling(options: TrainOptions) -> list[str]:
    """What ``compile`` cannot do."""
    problems = [
        f"compile=true: heads.{name}.layer={layer} lies within the trunk that is compiled as a "
        f"whole; compile=false, or layer={POOLED}"
        for name, layer in head_layers(options.heads).items()
        if layer != POOLED
    ]
    if resolve_device(options.device).type != "cpu":
        return problems
    chosen = os.environ.get("CXX")
    compilers = [chosen] if chosen else ["c++", "g++", "clang++"]
    if not any(map(_answers, compilers)):
        problems.append(
            "compile=true: on a CPU torch needs a C++ compiler, and there is none "
            f"({' or '.join(compilers)}): install g++"
        )
    return problems


def _answers(compiler: str) -> bool:
    command = shutil.which(compiler)
    if command is None:
        return False
    return subprocess.run([command, "--version"], capture_output=True).returncode == 0
