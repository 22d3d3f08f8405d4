"""Settings of arithmetic: they hold in every job that computes, and not beyond it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.backends import cudnn

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import loader_options
from ssl_platform.job import running
from ssl_platform.ops.arithmetic import arithmetic, full_float32
from ssl_platform.tasks import clusters

OTHERS = [
    "matmul_precision=high", "cudnn.tf32=false", "cudnn.benchmark=true",
    "cudnn.deterministic=true",
]  # fmt: skip
IMAGES = ["data=shapes", "data.train.num_samples=20", "data.val.num_samples=20"]


def settings() -> tuple[str, bool, bool, bool]:
    matmul = torch.get_float32_matmul_precision()
    return matmul, cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


TORCHS_OWN = ("highest", True, False, False)


def job(name: str, pretrained: Path, tiny: list[str]) -> list[str]:
    if name == "training":
        return tiny
    images = [] if name == "analysis/clusters" else IMAGES
    return [f"config={name}", f"checkpoint={pretrained}", *images]


JOBS = ["training", "benchmark/knn/folder", "analysis/features", "analysis/clusters"]


@pytest.mark.parametrize("name", JOBS)
def test_every_job_computes_with_its_settings(name, pretrained, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = job(name, pretrained, tiny)
    configs = [compose([*own, f"output_dir={tmp_path / end}", *more])
               for end, more in (("a", []), ("b", OTHERS))]  # fmt: skip
    seen: list[Any] = []
    monkeypatch.setattr(running.TASKS, "build", lambda _: lambda _: seen.append(settings()))
    for cfg in configs:
        ssl_platform.run(cfg)
    assert seen == [TORCHS_OWN, ("high", False, True, True)]
    assert settings() == TORCHS_OWN


def test_settings_end_with_their_block():
    others = {"matmul_precision": "medium", "tf32": False, "benchmark": True}
    with pytest.raises(KeyError), arithmetic(**others, deterministic=False):
        assert settings() == ("medium", False, True, False)
        with full_float32():
            assert settings() == ("highest", False, True, False) and cudnn.enabled
        raise KeyError
    assert settings() == TORCHS_OWN


@pytest.mark.parametrize("name", JOBS[:3])
def test_evaluations_read_as_many_images_at_once_as_asked(name, pretrained, tiny):
    for more, size in (([], 256), (["data.eval_batch_size=7"], 7)):
        options: Any = options_of(compose([*job(name, pretrained, tiny), *more]))
        assert loader_options(options).batch_size == size


def test_clusters_too(pretrained, tmp_path, monkeypatch):
    def stop(trunk: Any, head: Any, loader: Any, num_images: int) -> None:
        raise KeyError(loader.batch_size)

    monkeypatch.setattr(clusters, "find_nearest", stop)
    options = ["config=analysis/clusters", f"checkpoint={pretrained}", "data.eval_batch_size=7"]
    with pytest.raises(KeyError, match="7"):
        ssl_platform.run(compose([*options, f"output_dir={tmp_path}"]))
